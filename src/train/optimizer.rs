//! AdamW as papers mean it: the gradient clipped by its global norm, matrices decayed only.
//!
//! burn's own clips each tensor by itself, decays norms and biases, and has larger epsilons.

use std::marker::PhantomData;

use burn::{
    module::{AutodiffModule, ModuleVisitor, Param, ParamId},
    optim::{
        AdamW, AdamWConfig, GradientsParams, LearningRate, MultiGradientsParams, Optimizer,
        SimpleOptimizer, adaptor::OptimizerAdaptor,
    },
    tensor::{
        Tensor,
        backend::{AutodiffBackend, Backend},
    },
};

/// AdamW that decays tensors of two and more dimensions only.
#[derive(Clone)]
pub struct GroupedAdamW {
    matrices: AdamW,
    vectors: AdamW,
}

impl<B: Backend> SimpleOptimizer<B> for GroupedAdamW {
    type State<const D: usize> = <AdamW as SimpleOptimizer<B>>::State<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<B, D>,
        grad: Tensor<B, D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<B, D>, Option<Self::State<D>>) {
        let group = if D > 1 { &self.matrices } else { &self.vectors };
        group.step(lr, tensor, grad, state)
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &B::Device) -> Self::State<D> {
        <AdamW as SimpleOptimizer<B>>::to_device(state, device)
    }
}

/// The optimizer of the trainer.
#[derive(Clone)]
pub struct CartOptimizer<M: AutodiffModule<B>, B: AutodiffBackend> {
    inner: OptimizerAdaptor<GroupedAdamW, M, B>,
    clip_norm: f64,
}

impl<M: AutodiffModule<B>, B: AutodiffBackend> CartOptimizer<M, B> {
    /// An optimizer; a `clip_norm` of 0 does not clip.
    pub fn new(weight_decay: f64, clip_norm: f64) -> Self {
        let base = AdamWConfig::new().with_epsilon(1e-8).with_beta_2(0.98);
        let adam = GroupedAdamW {
            matrices: base.clone().with_weight_decay(weight_decay as f32).build(),
            vectors: base.with_weight_decay(0.0).build(),
        };
        Self { inner: OptimizerAdaptor::from(adam), clip_norm }
    }

    fn clip(&self, module: &M, grads: GradientsParams) -> GradientsParams {
        if self.clip_norm == 0.0 {
            return grads;
        }
        let mut norm = SquaredNorm::<B> { grads: &grads, sum: None };
        module.visit(&mut norm);
        let Some(sum) = norm.sum else {
            return grads;
        };
        // On the device: no read-back, so no wait.
        let scale = sum.sqrt().clamp_min(self.clip_norm).recip().mul_scalar(self.clip_norm);
        let mut scaled = Scaled::<B> { grads, scale, out: GradientsParams::new() };
        module.visit(&mut scaled);
        scaled.out
    }
}

impl<M: AutodiffModule<B>, B: AutodiffBackend> Optimizer<M, B> for CartOptimizer<M, B> {
    type Record = <OptimizerAdaptor<GroupedAdamW, M, B> as Optimizer<M, B>>::Record;

    fn step(&mut self, lr: LearningRate, module: M, grads: GradientsParams) -> M {
        let grads = self.clip(&module, grads);
        self.inner.step(lr, module, grads)
    }

    fn step_multi(&mut self, lr: LearningRate, module: M, grads: MultiGradientsParams) -> M {
        let mut sum = Sum::<B> { grads, out: GradientsParams::new(), backend: PhantomData };
        module.visit(&mut sum);
        let grads = sum.out;
        self.step(lr, module, grads)
    }

    fn to_record(&self) -> Self::Record {
        self.inner.to_record()
    }

    fn load_record(mut self, record: Self::Record) -> Self {
        self.inner = self.inner.load_record(record);
        self
    }
}

/// Sums the squares of all gradients.
struct SquaredNorm<'a, B: AutodiffBackend> {
    grads: &'a GradientsParams,
    sum: Option<Tensor<B::InnerBackend, 1>>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for SquaredNorm<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(grad) = self.grads.get::<B::InnerBackend, D>(param.id) {
            let squares = grad.square().sum();
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum.clone() + squares.to_device(&sum.device()),
                None => squares,
            });
        }
    }
}

/// Multiplies all gradients by one number.
struct Scaled<B: AutodiffBackend> {
    grads: GradientsParams,
    scale: Tensor<B::InnerBackend, 1>,
    out: GradientsParams,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Scaled<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let id: ParamId = param.id;
        if let Some(grad) = self.grads.remove::<B::InnerBackend, D>(id) {
            let scale = self.scale.clone().to_device(&grad.device()).reshape([1; D]);
            self.out.register::<B::InnerBackend, D>(id, grad * scale);
        }
    }
}

/// Sums the gradients of several devices.
struct Sum<B: AutodiffBackend> {
    grads: MultiGradientsParams,
    out: GradientsParams,
    backend: PhantomData<B>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Sum<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some((grad, _)) = self.grads.remove::<B::InnerBackend, D>(param.id) {
            self.out.register::<B::InnerBackend, D>(param.id, grad);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::{
        backend::{Autodiff, Flex},
        nn::Linear,
    };

    use super::*;
    use crate::nn::WeightInit;

    type A = Autodiff<Flex>;

    fn grads(linear: &Linear<A>, scale: f32) -> GradientsParams {
        let input = Tensor::<A, 2>::ones([1, 3], &Default::default()).mul_scalar(scale);
        GradientsParams::from_grads(linear.forward(input).sum().backward(), linear)
    }

    #[test]
    fn the_norm_over_all_tensors_is_clipped_and_small_gradients_stay() {
        let linear = WeightInit::new(1).linear::<A>(3, 2, &Default::default());
        let optimizer = CartOptimizer::<Linear<A>, A>::new(0.0, 1.0);
        for (scale, expected) in [(10.0, 1.0), (1e-3, f64::NAN)] {
            let before = grads(&linear, scale);
            let weight = before.get::<Flex, 2>(linear.weight.id).unwrap();
            let bias = before.get::<Flex, 1>(linear.bias.as_ref().unwrap().id).unwrap();
            let norm = |w: Tensor<Flex, 2>, b: Tensor<Flex, 1>| {
                f64::from((w.square().sum() + b.square().sum()).sqrt().into_scalar())
            };
            let full = norm(weight.clone(), bias);
            let clipped = optimizer.clip(&linear, before);
            let after = norm(
                clipped.get(linear.weight.id).unwrap(),
                clipped.get(linear.bias.as_ref().unwrap().id).unwrap(),
            );
            let expected = if full > 1.0 { expected } else { full };
            approx::assert_relative_eq!(after, expected, max_relative = 1e-5);
        }
    }

    #[test]
    fn matrices_decay_and_vectors_do_not() {
        let device = Default::default();
        let linear = Linear {
            weight: Param::from_tensor(Tensor::<A, 2>::ones([3, 2], &device)),
            bias: Some(Param::from_tensor(Tensor::ones([2], &device))),
        };
        // No gradient but a zero one: only decay can move a parameter.
        let zero = grads(&linear, 0.0);
        let mut only_zero = GradientsParams::new();
        only_zero.register(linear.weight.id, zero.get::<Flex, 2>(linear.weight.id).unwrap());
        let bias_id = linear.bias.as_ref().unwrap().id;
        only_zero.register(bias_id, Tensor::<Flex, 1>::zeros([2], &device));
        let moved = CartOptimizer::new(0.5, 0.0).step(0.1, linear, only_zero);
        let weight: Vec<f32> = moved.weight.val().into_data().to_vec().unwrap();
        let bias: Vec<f32> = moved.bias.unwrap().val().into_data().to_vec().unwrap();
        assert!(weight.iter().all(|w| (w - 0.95).abs() < 1e-6), "{weight:?}");
        assert_eq!(bias, [1.0, 1.0]);
    }
}
