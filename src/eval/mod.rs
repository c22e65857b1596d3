//! Measures of retrieval and honest baselines.

pub mod baselines;
mod bootstrap;
mod metrics;
mod ranking;
mod report;

pub use baselines::{
    Bm25, Bm25Config, Bm25Grid, Bm25Tuning, DualTower, DualTowerConfig, TowerData,
};
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
