//! Figures for Prometheus.

use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder,
};

/// Counters and gauges of a service.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    pub batches: Histogram,
    pub waiting: IntGauge,
    pub candidates: IntGauge,
    pub pending: IntGauge,
    pub changes: IntCounter,
}

impl Metrics {
    pub fn new() -> Self {
        let registry = Registry::new();
        // None of these can fail: names are valid and each is registered once.
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help).expect("a valid name");
            registry.register(Box::new(gauge.clone())).expect("a new name");
            gauge
        };
        let waiting = gauge("cart_queries_waiting", "Queries waiting for a search");
        let candidates = gauge("cart_candidates", "Candidates in the index");
        let pending = gauge("cart_pending_bytes", "Bytes of changes since the index was saved");
        let requests = Opts::new("cart_requests_total", "Requests by route and status");
        let requests = IntCounterVec::new(requests, &["route", "status"]).expect("a valid name");
        let seconds = HistogramOpts::new("cart_request_seconds", "Response time in seconds")
            .buckets(prometheus::exponential_buckets(0.001, 2.0, 16).expect("valid buckets"));
        let seconds = HistogramVec::new(seconds, &["route"]).expect("a valid name");
        let batches = HistogramOpts::new("cart_batch_queries", "Queries per search batch")
            .buckets(vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]);
        let batches = Histogram::with_opts(batches).expect("a valid name");
        let changes =
            IntCounter::new("cart_changes_total", "Changes of the index").expect("a valid name");
        registry.register(Box::new(requests.clone())).expect("a new name");
        registry.register(Box::new(seconds.clone())).expect("a new name");
        registry.register(Box::new(batches.clone())).expect("a new name");
        registry.register(Box::new(changes.clone())).expect("a new name");
        Self { registry, requests, seconds, batches, waiting, candidates, pending, changes }
    }

    /// Counts an answer.
    pub fn answered(&self, route: &str, status: u16, after: Duration) {
        self.requests.with_label_values(&[route, &status.to_string()]).inc();
        self.seconds.with_label_values(&[route]).observe(after.as_secs_f64());
    }

    /// All of them as text.
    pub fn text(&self) -> String {
        let mut bytes = Vec::new();
        // Writing to memory cannot fail.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut bytes);
        String::from_utf8(bytes).unwrap_or_default()
    }
}
