//! Moving averages of a module's parameters.

use std::{any::Any, collections::VecDeque};

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    tensor::{Tensor, backend::AutodiffBackend},
};

/// A copy of a module whose parameters are its own, and get no gradients: where an average begins.
pub(crate) fn beginning<B: AutodiffBackend, M: Module<B>>(module: M) -> M {
    struct Apart;
    impl<B: AutodiffBackend> ModuleMapper<B> for Apart {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            let tensor = Tensor::from_inner(param.val().inner());
            Param::initialized(ParamId::new(), tensor)
        }
    }
    module.map(&mut Apart)
}

/// The average with each parameter moved towards the module's: `decay` of it, and `1 - decay` of
/// the module.
///
/// # Panics
/// When the two have other parameters.
pub(crate) fn averaged<B: AutodiffBackend, M: Module<B>>(average: M, module: &M, decay: f64) -> M {
    let mut mix = Mix { values: VecDeque::new(), decay };
    module.visit(&mut mix);
    average.map(&mut mix)
}

/// Takes the values of all parameters of a module, then mixes them into an average in the same
/// order.
struct Mix {
    values: VecDeque<Box<dyn Any>>,
    decay: f64,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Mix {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.values.push_back(Box::new(param.val().inner()));
    }
}

impl<B: AutodiffBackend> ModuleMapper<B> for Mix {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, average, mapper) = param.consume();
        let value = self.values.pop_front().expect("as many parameters as the average has");
        let value = value.downcast::<Tensor<B::InnerBackend, D>>().expect("of the same rank");
        let mixed = average.inner().mul_scalar(self.decay) + value.mul_scalar(1.0 - self.decay);
        Param::from_mapped_value(id, Tensor::from_inner(mixed), mapper)
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
    fn an_average_follows_its_module_and_learns_nothing_itself() {
        let device = Default::default();
        let mut init = WeightInit::new(1);
        let (old, new): (Linear<B>, Linear<B>) =
            (init.linear(3, 2, &device), init.linear(3, 2, &device));
        let begun = beginning::<B, _>(old.clone());
        assert_ne!(begun.weight.id, old.weight.id);
        assert_eq!(begun.weight.val().into_data(), old.weight.val().into_data());
        let average = averaged::<B, _>(begun, &new, 0.75);
        let expected = old.weight.val().mul_scalar(0.75) + new.weight.val().mul_scalar(0.25);
        average
            .weight
            .val()
            .into_data()
            .assert_approx_eq::<f32>(&expected.into_data(), Default::default());
        let x = Tensor::<B, 2>::ones([1, 3], &device);
        let loss = (new.forward(x.clone()) + average.forward(x)).sum();
        let grads = GradientsParams::from_grads(loss.backward(), &average);
        assert_eq!(grads.len(), 0);
    }
}
