//! AdamW as papers mean it, in one pass over each tensor where that is in the host's memory.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use burn::{
    optim::{AdamW, AdamWConfig, AdamWState, LearningRate, SimpleOptimizer},
    tensor::{DType, Tensor, backend::Backend},
};
use rayon::prelude::*;

use crate::kernels::on_cpu;

/// Decay of the first moment.
const BETA_1: f32 = 0.9;
/// What keeps the division from zero.
const EPSILON: f32 = 1e-8;

/// Numbers that a thread takes at once.
const CHUNK: usize = 1 << 16;

/// AdamW that decays tensors of two and more dimensions only.
#[derive(Clone)]
pub struct GroupedAdamW {
    matrices: AdamW,
    vectors: AdamW,
    weight_decay: f32,
    beta_2: f32,
    /// What the gradients of the step at hand are multiplied by: the bits of an `f32`.
    factor: Arc<AtomicU32>,
}

impl GroupedAdamW {
    /// `beta_2` is the decay of the second moment; that of the first is 0.9.
    pub(crate) fn new(weight_decay: f32, beta_2: f32) -> Self {
        let base = AdamWConfig::new().with_beta_1(BETA_1).with_beta_2(beta_2).with_epsilon(EPSILON);
        Self {
            matrices: base.clone().with_weight_decay(weight_decay).build(),
            vectors: base.with_weight_decay(0.0).build(),
            weight_decay,
            beta_2,
            factor: Arc::new(AtomicU32::new(1f32.to_bits())),
        }
    }

    /// Sets what the gradients of the steps to come are multiplied by.
    pub(crate) fn set_factor(&self, factor: f32) {
        self.factor.store(factor.to_bits(), Ordering::Relaxed);
    }

    fn factor(&self) -> f32 {
        f32::from_bits(self.factor.load(Ordering::Relaxed))
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
        let beta_2 = self.beta_2;
        let (unbias_1, unbias_2) = (1.0 - BETA_1.powi(time), 1.0 - beta_2.powi(time));
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
        let factor = self.factor();
        values
            .par_chunks_mut(CHUNK)
            .zip(firsts.par_chunks_mut(CHUNK))
            .zip(seconds.par_chunks_mut(CHUNK))
            .zip(grads.par_chunks(CHUNK))
            .for_each(|(((values, firsts), seconds), grads)| {
                for (((value, m), v), &g) in values.iter_mut().zip(firsts).zip(seconds).zip(grads) {
                    let g = g * factor;
                    *m = BETA_1 * *m + (1.0 - BETA_1) * g;
                    *v = beta_2 * *v + (1.0 - beta_2) * g * g;
                    let delta = (*m / unbias_1) / ((*v / unbias_2).sqrt() + EPSILON);
                    *value = *value * decay - lr * delta;
                }
            });
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
            Some(state) if tensor.dtype() == DType::F32 && on_cpu::<B>(&tensor.device()) => {
                let (tensor, state) = self.fused(lr as f32, tensor, grad, state);
                (tensor, Some(state))
            }
            state => {
                let group = if D > 1 { &self.matrices } else { &self.vectors };
                let factor = self.factor();
                let grad = if factor == 1.0 { grad } else { grad.mul_scalar(factor) };
                group.step(lr, tensor, grad, state)
            }
        }
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &B::Device) -> Self::State<D> {
        <AdamW as SimpleOptimizer<B>>::to_device(state, device)
    }
}

#[cfg(test)]
mod tests {
    use burn::{backend::Flex, tensor::Tolerance};

    use super::*;
    use crate::nn::WeightInit;

    /// Twin: burn's own AdamW, step by step.
    #[test]
    fn the_fused_update_is_burns() {
        let device = Default::default();
        let optimizer = GroupedAdamW::new(0.1, 0.98);
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
}
