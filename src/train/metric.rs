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

/// The loss of a batch and its size.
#[derive(Debug, Clone, Copy)]
pub struct LossValue(pub f64, pub usize);

/// The share of queries in a batch that found their candidate first, and the batch's size.
#[derive(Debug, Clone, Copy)]
pub struct RecallValue(pub f64, pub usize);

/// A value with the number of pairs it is the mean of.
pub trait MeanValue: 'static {
    /// Name of the metric.
    const NAME: &'static str;
    /// Whether more is better.
    const HIGHER_IS_BETTER: bool;
    /// The mean and the number of pairs.
    fn mean(&self) -> (f64, usize);
}

impl MeanValue for LossValue {
    const NAME: &'static str = "Loss";
    const HIGHER_IS_BETTER: bool = false;

    fn mean(&self) -> (f64, usize) {
        (self.0, self.1)
    }
}

impl MeanValue for RecallValue {
    const NAME: &'static str = "Recall@1";
    const HIGHER_IS_BETTER: bool = true;

    fn mean(&self) -> (f64, usize) {
        (self.0, self.1)
    }
}

/// The mean of a value over a round.
pub struct MeanMetric<V> {
    state: NumericMetricState,
    value: std::marker::PhantomData<fn() -> V>,
}

impl<V> Default for MeanMetric<V> {
    fn default() -> Self {
        Self { state: NumericMetricState::default(), value: std::marker::PhantomData }
    }
}

impl<V> Clone for MeanMetric<V> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), value: std::marker::PhantomData }
    }
}

impl<V: MeanValue> Metric for MeanMetric<V> {
    type Input = V;

    fn name(&self) -> MetricName {
        Arc::new(V::NAME.to_string())
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes { unit: None, higher_is_better: V::HIGHER_IS_BETTER }.into()
    }

    fn update(&mut self, item: &V, _metadata: &MetricMetadata) -> SerializedEntry {
        let (mean, count) = item.mean();
        self.state.update(mean, count, FormatOptions::new(self.name()).precision(3))
    }

    fn clear(&mut self) {
        self.state.reset();
    }
}

impl<V: MeanValue> Numeric for MeanMetric<V> {
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
        let round = step / self.position.per_round();
        if sums.round != round {
            (sums.round, sums.loss, sums.count) = (round, 0.0, 0.0);
        }
        if loss.is_finite() {
            sums.loss += loss;
            sums.count += 1.0;
        }
        let loss = sums.loss / sums.count;
        listener(TrainEvent::Step { step: step + 1, steps: self.position.steps(), loss });
    }
}
