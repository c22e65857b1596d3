//! Copies of a module with a graph of their own.

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Tensor, backend::AutodiffBackend},
};

/// A copy of a module on a device whose parameters start a graph of their own.
///
/// What burn's own `fork` is for; but that one moves parameters as an operation that gradients
/// could flow through, even to the device where they are. It leaves that operation in the graph of
/// the original parameter, for as long as this one lives: one that never gets a gradient gathers
/// one a step, and every backward pass looks at all of them (docs/design.md).
pub(crate) fn fork<B: AutodiffBackend, M: Module<B>>(module: M, device: &B::Device) -> M {
    module.map(&mut Fork::<B> { device: device.clone() })
}

/// Runs work on forks of a module, each in a thread of its own. The results are in the order of
/// `works`.
///
/// # Panics
/// When one of them does.
pub(crate) fn on_forks<B: AutodiffBackend, M: Module<B>, W: Send, T: Send>(
    module: &M,
    device: &B::Device,
    works: Vec<W>,
    run: impl Fn(M, W) -> T + Sync,
) -> Vec<T> {
    let run = &run;
    std::thread::scope(|scope| {
        let spawn = |work| {
            let fork = fork(module.clone(), device);
            scope.spawn(move || run(fork, work))
        };
        let threads: Vec<_> = works.into_iter().map(spawn).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, T>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    })
}

struct Fork<B: AutodiffBackend> {
    device: B::Device,
}

impl<B: AutodiffBackend> ModuleMapper<B> for Fork<B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, tensor, mapper) = param.consume();
        let trained = tensor.is_require_grad();
        let tensor = Tensor::from_inner(tensor.inner().to_device(&self.device));
        let tensor = if trained { tensor.require_grad() } else { tensor };
        Param::from_mapped_value(id, tensor, mapper)
    }
}

#[cfg(test)]
mod tests {
    use burn::{
        backend::{Autodiff, Flex},
        nn::Linear,
        optim::GradientsParams,
    };

    use super::*;
    use crate::nn::WeightInit;

    type B = Autodiff<Flex>;

    #[test]
    fn a_fork_has_the_values_and_the_gradients_of_the_original() {
        let device = Default::default();
        let original: Linear<B> = WeightInit::new(1).linear(3, 2, &device);
        let frozen = original.clone().no_grad();
        let x = || Tensor::<B, 2>::from_floats([[1.0, -2.0, 0.5]], &device);
        let grads = |linear: &Linear<B>| {
            let loss = linear.forward(x()).powi_scalar(2).sum();
            let mut grads = GradientsParams::from_grads(loss.backward(), linear);
            grads.remove::<Flex, 2>(original.weight.id).map(|grad| grad.into_data())
        };
        let copy = fork(original.clone(), &device);
        assert_eq!(copy.weight.id, original.weight.id);
        assert_eq!(copy.weight.val().into_data(), original.weight.val().into_data());
        let found = grads(&copy);
        assert!(found.is_some());
        assert_eq!(found, grads(&original));
        assert!(!fork(frozen, &device).weight.is_require_grad());
    }
}
