//! A step of training as burn-train's learner asks for it.

use std::sync::Arc;

use burn::{
    module::{AutodiffModule, Module},
    optim::{GradientsAccumulator, GradientsParams, Optimizer},
    tensor::{
        Tensor,
        backend::{AutodiffBackend, Backend},
    },
    train::{ItemLazy, TrainOutput, TrainStep, metric::Adaptor},
};

use super::{
    batch::TrainBatch,
    learner::CartLearner,
    memory::or_fault,
    metric::{LossValue, MeanValue, Reporter},
    placement::{DeviceGroup, Placement},
    shared::locked,
};
use crate::kernels::on_cpu;

impl<B: AutodiffBackend> TrainStep for CartLearner<B> {
    type Input = TrainBatch<B>;
    type Output = StepOutput<B::InnerBackend>;

    fn step(&self, batch: TrainBatch<B>) -> TrainOutput<Self::Output> {
        let device = batch.queries.tokens.device();
        let [rows, _] = batch.queries.tokens.dims();
        let DeviceGroup { devices, placement, distributed } = self.context.together;
        let work = || self.gradients(&batch, &device);
        let (loss, grads) = if devices > 1 && !distributed {
            or_fault(&self.context.shared.guard, work, || {
                (Tensor::zeros([1], &device), GradientsParams::new())
            })
        } else {
            work()
        };
        if on_cpu::<B>(&device) {
            // Where reading costs no wait, no step is built on a loss that is no number.
            loss.to_data().iter::<f64>().for_each(|loss| self.context.shared.guard.see_loss(loss));
        }
        let reporter = self.context.reporter.clone();
        let item = StepOutput { loss, rows, of: batch.of, step: batch.step, reporter };
        let grads = if devices > 1 && placement == Placement::Main && !distributed {
            let mut shares = locked(&self.context.shares);
            shares.push((batch.rank, grads));
            GradientsParams::new()
        } else {
            grads
        };
        TrainOutput { grads, item }
    }

    /// Updates the weights; the gradients of several devices are added in the order of the devices,
    /// where burn-train would add them as they come.
    fn optimize<A, O>(self, optim: &mut O, lr: f64, grads: GradientsParams) -> Self
    where
        A: AutodiffBackend,
        O: Optimizer<Self, A>,
        Self: AutodiffModule<A>,
    {
        let mut shares = std::mem::take(&mut *locked(&self.context.shares));
        if shares.is_empty() {
            return optim.step(lr, self, grads).with_average();
        }
        shares.sort_by_key(|(rank, _)| *rank);
        let devices = <Self as Module<A>>::devices(&self);
        let mut sum = GradientsAccumulator::<Self>::new();
        for (_, grads) in shares {
            let grads = grads.to_device::<A, Self>(&devices[0], &self);
            sum.accumulate::<A>(&self, grads);
        }
        optim.step(lr, self, sum.grads()).with_average()
    }
}

/// The loss of a device's rows of a step, weighted by them and still on the device.
#[derive(Clone)]
pub struct StepOutput<B: Backend> {
    loss: Tensor<B, 1>,
    rows: usize,
    of: usize,
    step: usize,
    reporter: Arc<Reporter>,
}

/// The mean loss of a device's rows of a step, on the host.
#[derive(Debug, Clone, Copy)]
pub struct StepLoss {
    loss: f64,
    rows: usize,
}

impl<B: Backend> StepOutput<B> {
    /// The loss, `[1]`.
    pub fn loss(&self) -> Tensor<B, 1> {
        self.loss.clone()
    }
}

impl<B: Backend> ItemLazy for StepOutput<B> {
    type ItemSync = StepLoss;

    fn sync(self) -> StepLoss {
        let loss = self.loss.into_data().iter::<f64>().next().unwrap_or(f64::NAN);
        self.reporter.share(self.step, self.rows, self.of, loss);
        StepLoss { loss: loss * self.of as f64 / self.rows as f64, rows: self.rows }
    }
}

impl Adaptor<LossValue> for StepLoss {
    fn adapt(&self) -> LossValue {
        MeanValue(self.loss, self.rows)
    }
}
