//! AdamW as papers mean it: the gradient clipped by its global norm; tensors of one dimension (norms
//! and biases) are not decayed.
//!
//! burn's own clips each tensor by itself, decays norms and biases, and has larger epsilons.

use std::marker::PhantomData;

use burn::{
    module::{AutodiffModule, ModuleVisitor, Param, ParamId},
    optim::{
        AdamW, AdamWConfig, AdamWState, GradientsParams, LearningRate, MultiGradientsParams,
        Optimizer, SimpleOptimizer, adaptor::OptimizerAdaptor,
    },
    tensor::{
        DType, Tensor,
        backend::{AutodiffBackend, Backend},
    },
};

use crate::nn::on_host;

/// Decay of the first moment.
const BETA_1: f32 = 0.9;
/// Decay of the second moment.
const BETA_2: f32 = 0.98;
/// What keeps the division from zero.
const EPSILON: f32 = 1e-8;

/// AdamW that decays tensors of two and more dimensions only.
#[derive(Clone)]
pub struct GroupedAdamW {
    matrices: AdamW,
    vectors: AdamW,
    weight_decay: f32,
}

impl GroupedAdamW {
    fn new(weight_decay: f32) -> Self {
        let base = AdamWConfig::new().with_beta_1(BETA_1).with_beta_2(BETA_2).with_epsilon(EPSILON);
        Self {
            matrices: base.clone().with_weight_decay(weight_decay).build(),
            vectors: base.with_weight_decay(0.0).build(),
            weight_decay,
        }
    }

    /// The update in one pass over tensors in the host's memory, where burn's own makes a dozen.
    fn fused<B: Backend, const D: usize>(
        &self,
        lr: f32,
        tensor: Tensor<B, D>,
        grad: Tensor<B, D>,
        mut state: AdamWState<B, D>,
    ) -> (Tensor<B, D>, AdamWState<B, D>) {
        let device = tensor.device();
        let decay = if D > 1 { 1.0 - lr * self.weight_decay } else { 1.0 };
        let momentum = &mut state.momentum;
        momentum.time += 1;
        let time = momentum.time as i32;
        let (unbias_1, unbias_2) = (1.0 - BETA_1.powi(time), 1.0 - BETA_2.powi(time));
        let grad = grad.into_data();
        // Taken out of the state, so that nothing else holds them and they change in place.
        let nothing = Tensor::<B, D>::empty([0; D], &device);
        let mut value = tensor.into_data();
        let mut first = std::mem::replace(&mut momentum.moment_1, nothing.clone()).into_data();
        let mut second = std::mem::replace(&mut momentum.moment_2, nothing).into_data();
        let slices = (
            value.as_mut_slice::<f32>(),
            first.as_mut_slice::<f32>(),
            second.as_mut_slice::<f32>(),
            grad.as_slice::<f32>(),
        );
        let (Ok(values), Ok(firsts), Ok(seconds), Ok(grads)) = slices else {
            unreachable!("the caller checked that all of them are f32");
        };
        for (((value, m), v), &g) in values.iter_mut().zip(firsts).zip(seconds).zip(grads) {
            *m = BETA_1 * *m + (1.0 - BETA_1) * g;
            *v = BETA_2 * *v + (1.0 - BETA_2) * g * g;
            let delta = (*m / unbias_1) / ((*v / unbias_2).sqrt() + EPSILON);
            *value = *value * decay - lr * delta;
        }
        momentum.moment_1 = Tensor::from_data(first, &device);
        momentum.moment_2 = Tensor::from_data(second, &device);
        (Tensor::from_data(value, &device), state)
    }
}

impl<B: Backend> SimpleOptimizer<B> for GroupedAdamW {
    type State<const D: usize> = AdamWState<B, D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<B, D>,
        grad: Tensor<B, D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<B, D>, Option<Self::State<D>>) {
        match state {
            Some(state) if tensor.dtype() == DType::F32 && on_host::<B>(&tensor.device()) => {
                let (tensor, state) = self.fused(lr as f32, tensor, grad, state);
                (tensor, Some(state))
            }
            state => {
                let group = if D > 1 { &self.matrices } else { &self.vectors };
                group.step(lr, tensor, grad, state)
            }
        }
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
        let adam = GroupedAdamW::new(weight_decay as f32);
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
        tensor::Tolerance,
    };

    use super::*;
    use crate::nn::WeightInit;

    type A = Autodiff<Flex>;

    fn grads(linear: &Linear<A>, scale: f32) -> GradientsParams {
        let input = Tensor::<A, 2>::ones([1, 3], &Default::default());
        let loss = linear.forward(input).sum().mul_scalar(scale);
        GradientsParams::from_grads(loss.backward(), linear)
    }

    #[test]
    fn the_norm_over_all_tensors_is_clipped_and_small_gradients_stay() {
        let linear = WeightInit::new(1).linear::<A>(3, 2, &Default::default());
        let optimizer = CartOptimizer::<Linear<A>, A>::new(0.0, 1.0);
        for scale in [10.0, 1e-3] {
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
            assert_eq!(full > 1.0, scale > 1.0);
            approx::assert_relative_eq!(after, full.min(1.0), max_relative = 1e-5);
        }
    }

    /// Twin: burn's own AdamW, step by step.
    #[test]
    fn the_fused_update_is_burns() {
        let device = Default::default();
        let optimizer = GroupedAdamW::new(0.1);
        let mut init = WeightInit::new(3);
        let start = init.normal::<Flex, 2>([7, 5], 1.0, &device).val();
        let (mut fused, mut burns) = ((start.clone(), None), (start, None));
        for _ in 0..5 {
            let grad = init.normal::<Flex, 2>([7, 5], 0.3, &device).val();
            fused = optimizer.step(0.05, fused.0, grad.clone(), fused.1);
            burns = optimizer.matrices.step(0.05, burns.0, grad, burns.1);
        }
        fused
            .0
            .into_data()
            .assert_approx_eq::<f32>(&burns.0.into_data(), Tolerance::absolute(1e-6));
        let bias = init.normal::<Flex, 1>([9], 1.0, &device).val();
        let (mut fused, mut burns) = ((bias.clone(), None), (bias, None));
        for _ in 0..5 {
            let grad = init.normal::<Flex, 1>([9], 0.3, &device).val();
            fused = optimizer.step(0.05, fused.0, grad.clone(), fused.1);
            burns = optimizer.vectors.step(0.05, burns.0, grad, burns.1);
        }
        fused
            .0
            .into_data()
            .assert_approx_eq::<f32>(&burns.0.into_data(), Tolerance::absolute(1e-6));
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
