//! Numbers for burn-train's dashboard, and the events of the steps.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use burn::train::{
    metric::{
        Metric, MetricAttributes, MetricDefinition, MetricMetadata, MetricName, Numeric,
        NumericAttributes, NumericEntry, SerializedEntry,
        state::{FormatOptions, NumericMetricState},
    },
    renderer::{
        EvaluationName, EvaluationProgress, MetricState, MetricsRenderer,
        MetricsRendererEvaluation, MetricsRendererTraining, ProgressType, TrainingProgress,
    },
};

use super::{TrainEvent, position::StepCounter};

/// Where events go.
pub(super) type Listener = Arc<dyn Fn(TrainEvent) + Send + Sync>;

/// The mean of a number over the pairs of a batch, and how many they are: the loss, or the share of
/// queries that found their candidate first.
#[derive(Debug, Clone, Copy)]
pub struct MeanValue<const IS_LOSS: bool>(pub f64, pub usize);

/// The loss of a batch.
pub type LossValue = MeanValue<true>;

/// The Recall@1 of a batch.
pub type RecallValue = MeanValue<false>;

/// The mean of a value over a round.
#[derive(Clone, Default)]
pub struct MeanMetric<const IS_LOSS: bool> {
    state: NumericMetricState,
}

impl<const IS_LOSS: bool> Metric for MeanMetric<IS_LOSS> {
    type Input = MeanValue<IS_LOSS>;

    fn name(&self) -> MetricName {
        Arc::new(if IS_LOSS { "Loss" } else { "Recall@1" }.to_string())
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes { unit: None, higher_is_better: !IS_LOSS }.into()
    }

    fn update(&mut self, item: &Self::Input, _metadata: &MetricMetadata) -> SerializedEntry {
        self.state.update(item.0, item.1, FormatOptions::new(self.name()).precision(3))
    }

    fn clear(&mut self) {
        self.state.reset();
    }
}

impl<const IS_LOSS: bool> Numeric for MeanMetric<IS_LOSS> {
    fn value(&self) -> NumericEntry {
        self.state.current_value()
    }

    fn running_value(&self) -> NumericEntry {
        self.state.running_value()
    }
}

/// Prints nothing: steps are reported by [`Reporter`].
pub(super) struct SilentRenderer;

impl MetricsRendererTraining for SilentRenderer {
    fn update_train(&mut self, _state: MetricState) {}

    fn update_valid(&mut self, _state: MetricState) {}

    fn render_train(&mut self, _item: TrainingProgress, _indicators: Vec<ProgressType>) {}

    fn render_valid(&mut self, _item: TrainingProgress, _indicators: Vec<ProgressType>) {}
}

impl MetricsRendererEvaluation for SilentRenderer {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}

    fn render_test(&mut self, _item: EvaluationProgress, _indicators: Vec<ProgressType>) {}
}

impl MetricsRenderer for SilentRenderer {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, _definition: MetricDefinition) {}
}

/// Sends an event for every step, once the losses of all devices are known.
pub(super) struct Reporter {
    /// Absent where a dashboard shows the steps.
    listener: Option<Listener>,
    position: StepCounter,
    sums: Mutex<Sums>,
}

#[derive(Default)]
struct Sums {
    /// Steps that wait for the shares of other devices: rows and loss so far.
    open: BTreeMap<usize, (usize, f64)>,
    round: usize,
    loss: f64,
    count: f64,
}

impl Reporter {
    pub(super) fn new(listener: Option<Listener>, position: StepCounter) -> Self {
        Self { listener, position, sums: Mutex::default() }
    }

    /// Takes in `rows` of the `of` rows of a step (from 0), and their part of its loss.
    pub(super) fn share(&self, step: usize, rows: usize, of: usize, loss: f64) {
        let Some(listener) = &self.listener else {
            return;
        };
        let mut sums = self.sums.lock().unwrap_or_else(|e| e.into_inner());
        let (rows_before, loss_before) = sums.open.remove(&step).unwrap_or_default();
        let (rows, loss) = (rows_before + rows, loss_before + loss);
        if rows < of {
            sums.open.insert(step, (rows, loss));
            return;
        }
        let round = step / self.position.per_round;
        if sums.round != round {
            (sums.round, sums.loss, sums.count) = (round, 0.0, 0.0);
        }
        if loss.is_finite() {
            sums.loss += loss;
            sums.count += 1.0;
        }
        let loss = sums.loss / sums.count;
        listener(TrainEvent::Step { step: step + 1, steps: self.position.steps, loss });
    }
}
