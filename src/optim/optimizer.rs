//! AdamW as papers mean it: the gradient clipped by its global norm; tensors of one dimension
//! (norms and biases) are not decayed; gradients that are not finite change nothing.
//!
//! burn's own clips each tensor by itself, decays norms and biases, and has larger epsilons.

use std::{marker::PhantomData, sync::Arc};

use burn::{
    module::{AutodiffModule, ModuleVisitor, Param},
    optim::{
        GradientsParams, LearningRate, MultiGradientsParams, Optimizer, adaptor::OptimizerAdaptor,
    },
    tensor::{DType, Tensor, backend::AutodiffBackend},
};
use rayon::prelude::*;

use super::{EncoderRates, GroupedAdamW};
use crate::kernels::on_cpu;

/// Decay of the second moment.
const BETA_2: f32 = 0.98;

/// Numbers that a thread takes at once.
const CHUNK: usize = 1 << 16;

/// Decides whether a step may change the weights.
pub(crate) trait Gate: Send + Sync {
    /// What the loss was multiplied by before the backward pass.
    fn scale(&self) -> f64;

    /// Whether the step at hand may change anything; `finite` says whether its gradients are.
    fn allows(&self, finite: bool) -> bool;
}

/// The optimizer of the trainer.
///
/// Before anything changes, the norm of all gradients is read: one number, the only wait for the
/// device in a step. Where it is not finite, the step changes neither weights nor moments.
#[derive(Clone)]
pub struct CartOptimizer<M: AutodiffModule<B>, B: AutodiffBackend> {
    inner: OptimizerAdaptor<GroupedAdamW, M, B>,
    clip_norm: f64,
    gate: Option<Arc<dyn Gate>>,
    rates: Option<EncoderRates>,
}

impl<M: AutodiffModule<B>, B: AutodiffBackend> CartOptimizer<M, B> {
    /// An optimizer; a `clip_norm` of 0 does not clip.
    pub fn new(weight_decay: f64, clip_norm: f64) -> Self {
        let adam = GroupedAdamW::new(weight_decay as f32, BETA_2);
        Self { inner: OptimizerAdaptor::from(adam), clip_norm, gate: None, rates: None }
    }

    /// Gives the layers of the text encoder, the part of the module called `encoder`, learning
    /// rates of their own.
    pub fn with_encoder_rates(self, rates: EncoderRates) -> Self {
        let rates = (rates.factors().len() > 1).then_some(rates);
        Self { rates, ..self }
    }

    /// Asks a gate before every step, and divides gradients by its scale of the loss.
    pub(crate) fn with_gate(self, gate: Arc<dyn Gate>) -> Self {
        Self { gate: Some(gate), ..self }
    }

    /// What gradients of this norm, which is finite, are multiplied by.
    fn factor(&self, norm: f64, loss_scale: f64) -> f32 {
        let norm = norm / loss_scale;
        let clip = self.clip_norm > 0.0 && norm > self.clip_norm;
        let clip = if clip { self.clip_norm / norm } else { 1.0 };
        (clip / loss_scale) as f32
    }
}

impl<M: AutodiffModule<B>, B: AutodiffBackend> Optimizer<M, B> for CartOptimizer<M, B> {
    type Record = <OptimizerAdaptor<GroupedAdamW, M, B> as Optimizer<M, B>>::Record;

    fn step(&mut self, lr: LearningRate, module: M, grads: GradientsParams) -> M {
        let loss_scale = self.gate.as_ref().map_or(1.0, |gate| gate.scale());
        let (norm, groups) = norm::<B, M>(&module, grads, self.rates);
        let finite = norm.is_finite();
        if !self.gate.as_ref().map_or(finite, |gate| gate.allows(finite)) {
            return module;
        }
        self.inner.optim().set_factor(self.factor(norm, loss_scale));
        // Each tensor is in one group: none is touched twice.
        let factors = self.rates.map_or_else(|| vec![1.0], |rates| rates.factors());
        let groups = factors.into_iter().zip(groups);
        groups.fold(module, |module, (factor, grads)| self.inner.step(lr * factor, module, grads))
    }

    fn step_multi(&mut self, lr: LearningRate, module: M, mut grads: MultiGradientsParams) -> M {
        // They come in the order of a hash map, which differs from run to run.
        grads.grads.sort_by_key(|(_, device)| (device.type_id, device.index_id));
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

/// The norm of all gradients together, and the gradients, by group where there are groups.
fn norm<B: AutodiffBackend, M: AutodiffModule<B>>(
    module: &M,
    grads: GradientsParams,
    rates: Option<EncoderRates>,
) -> (f64, Vec<GradientsParams>) {
    let count = rates.map_or(1, |rates| rates.factors().len());
    let groups = (0..count).map(|_| GradientsParams::new()).collect();
    let mut squares =
        SquaredNorm::<B> { grads, rates, groups, path: Vec::new(), host: 0.0, device: None };
    module.visit(&mut squares);
    let device = squares.device.map_or(0.0, |sum| sum.into_data().iter::<f64>().sum());
    ((squares.host + device).sqrt(), squares.groups)
}

/// Sums the squares of all gradients, and sorts them into groups.
struct SquaredNorm<B: AutodiffBackend> {
    grads: GradientsParams,
    rates: Option<EncoderRates>,
    groups: Vec<GradientsParams>,
    /// Of the parameter at hand.
    path: Vec<String>,
    /// Of tensors in the host's memory.
    host: f64,
    /// Of the others.
    device: Option<Tensor<B::InnerBackend, 1>>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for SquaredNorm<B> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        if self.rates.is_some() {
            self.path.push(name.to_string());
        }
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let Some(grad) = self.grads.remove::<B::InnerBackend, D>(param.id) else {
            return;
        };
        let group = &mut self.groups[self.rates.map_or(0, |rates| rates.group(&self.path))];
        let device = grad.device();
        if grad.dtype() == DType::F32 && on_cpu::<B::InnerBackend>(&device) {
            let data = grad.into_data();
            self.host += data.as_slice::<f32>().map_or(f64::NAN, sum_of_squares);
            let grad = Tensor::<B::InnerBackend, D>::from_data(data, &device);
            group.register::<B::InnerBackend, D>(param.id, grad);
            return;
        }
        let squares = grad.clone().square().sum();
        group.register::<B::InnerBackend, D>(param.id, grad);
        self.device = Some(match self.device.take() {
            Some(sum) => sum.clone() + squares.to_device(&sum.device()),
            None => squares,
        });
    }
}

/// The sum of squares, the same for any number of threads.
fn sum_of_squares(values: &[f32]) -> f64 {
    let chunk = |values: &[f32]| {
        let mut lanes = [0f32; 16];
        let whole = values.chunks_exact(lanes.len());
        let rest: f32 = whole.remainder().iter().map(|v| v * v).sum();
        for run in whole {
            lanes.iter_mut().zip(run).for_each(|(lane, v)| *lane += v * v);
        }
        lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>() + f64::from(rest)
    };
    values.par_chunks(CHUNK).map(chunk).collect::<Vec<f64>>().into_iter().sum()
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
        let input = Tensor::<A, 2>::ones([1, 3], &Default::default());
        let loss = linear.forward(input).sum().mul_scalar(scale);
        GradientsParams::from_grads(loss.backward(), linear)
    }

    fn parts(linear: &Linear<A>, grads: &GradientsParams) -> (Tensor<Flex, 2>, Tensor<Flex, 1>) {
        let bias = linear.bias.as_ref().unwrap().id;
        (grads.get(linear.weight.id).unwrap(), grads.get(bias).unwrap())
    }

    #[test]
    fn the_norm_over_all_tensors_is_clipped_and_small_gradients_stay() {
        let linear = WeightInit::new(1).linear::<A>(3, 2, &Default::default());
        let optimizer = CartOptimizer::<Linear<A>, A>::new(0.0, 1.0);
        for scale in [10.0, 1e-3] {
            let before = grads(&linear, scale);
            let (weight, bias) = parts(&linear, &before);
            let expected =
                f64::from((weight.square().sum() + bias.square().sum()).sqrt().into_scalar());
            let (norm, _) = norm::<A, _>(&linear, before, None);
            approx::assert_relative_eq!(norm, expected, max_relative = 1e-6);
            for loss_scale in [1.0, 1024.0] {
                let factor = f64::from(optimizer.factor(norm * loss_scale, loss_scale));
                let clipped = norm * loss_scale * factor;
                assert_eq!(norm > 1.0, scale > 1.0);
                approx::assert_relative_eq!(clipped, norm.min(1.0), max_relative = 1e-6);
            }
        }
        let many: Vec<f32> = (0..200_003).map(|i| (i as f32 * 0.37).sin()).collect();
        let naive: f64 = many.iter().map(|&v| f64::from(v).powi(2)).sum();
        approx::assert_relative_eq!(sum_of_squares(&many), naive, max_relative = 1e-5);
    }

    #[test]
    fn gradients_that_are_not_finite_change_neither_weights_nor_moments() {
        let start = WeightInit::new(1).linear::<A>(3, 2, &Default::default());
        let run = |scales: &[f32]| {
            let mut optimizer = CartOptimizer::<Linear<A>, A>::new(0.1, 1.0);
            scales.iter().fold(start.clone(), |linear, &scale| {
                let grads = grads(&linear, scale);
                optimizer.step(0.1, linear, grads)
            })
        };
        let whole = run(&[1.0, 0.5, 2.0]);
        let skipping = run(&[f32::NAN, 1.0, f32::INFINITY, 0.5, f32::NAN, 2.0]);
        assert_eq!(whole.weight.val().to_data(), skipping.weight.val().to_data());
        assert!(whole.weight.val().to_data().iter::<f32>().all(f32::is_finite));
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
