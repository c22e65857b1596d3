//! Measures of retrieval.

mod bootstrap;
pub(crate) mod metrics;
mod ranking;
mod report;

pub use bootstrap::{
    BootstrapConfig, Interval, Intervals, PairedDifference, bootstrap, bootstrap_mean,
    paired_bootstrap,
};
pub use metrics::{
    Metric, Metrics, QueryScores, QueryTruth, TruncatedTies, evaluate, mrr_at_k, recall_at_k,
    recall_fraction_at_k,
};
pub use ranking::Ranking;
pub use report::{EvalRecord, markdown_table, read_json, write_json};
