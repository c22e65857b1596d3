//! Numbers for burn-train's dashboard, and the renderer that turns them into events.

use std::sync::Arc;

use burn::train::{
    metric::{
        Metric, MetricAttributes, MetricDefinition, MetricId, MetricMetadata, MetricName, Numeric,
        NumericAttributes, NumericEntry, SerializedEntry,
        state::{FormatOptions, NumericMetricState},
    },
    renderer::{
        EvaluationName, EvaluationProgress, MetricState, MetricsRenderer,
        MetricsRendererEvaluation, MetricsRendererTraining, ProgressType, TrainingProgress,
    },
};

use super::{TrainEvent, loader::Position};

/// Name of the training loss among the metrics.
pub(super) const LOSS: &str = "Loss";

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
    const NAME: &'static str = LOSS;
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

/// Sends an event for every step; prints nothing.
pub(super) struct EventRenderer {
    listener: Listener,
    position: Position,
    first: usize,
    done: usize,
    loss_id: Option<MetricId>,
    loss: f64,
    count: f64,
    /// Whether a round has just ended.
    fresh: bool,
}

impl EventRenderer {
    pub(super) fn new(listener: Listener, position: Position) -> Self {
        let first = position.step();
        Self {
            listener,
            position,
            first,
            done: 0,
            loss_id: None,
            loss: 0.0,
            count: 0.0,
            fresh: false,
        }
    }
}

impl MetricsRendererTraining for EventRenderer {
    fn update_train(&mut self, state: MetricState) {
        if let MetricState::Numeric(entry, value) = state
            && Some(&entry.metric_id) == self.loss_id.as_ref()
        {
            // Comes before the round's number is known: a new round starts with the next value.
            if std::mem::take(&mut self.fresh) {
                (self.loss, self.count) = (0.0, 0.0);
            }
            self.loss += value.current();
            self.count += 1.0;
        }
    }

    fn update_valid(&mut self, _state: MetricState) {}

    fn render_train(&mut self, item: TrainingProgress, _indicators: Vec<ProgressType>) {
        self.done += 1;
        let loss = self.loss / self.count.max(1.0);
        self.fresh = item.progress.is_some_and(|p| p.items_processed >= p.items_total);
        let step = self.first + self.done;
        (self.listener)(TrainEvent::Step { step, steps: self.position.steps(), loss });
    }

    fn render_valid(&mut self, _item: TrainingProgress, _indicators: Vec<ProgressType>) {}
}

impl MetricsRendererEvaluation for EventRenderer {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}

    fn render_test(&mut self, _item: EvaluationProgress, _indicators: Vec<ProgressType>) {}
}

impl MetricsRenderer for EventRenderer {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        if definition.name == LOSS && self.loss_id.is_none() {
            self.loss_id = Some(definition.metric_id);
        }
    }
}
