//! Measures of retrieval and honest baselines.

pub mod baselines;
pub(crate) mod bootstrap;
pub(crate) mod metrics;
mod ranking;
pub(crate) mod report;

pub use baselines::{
    Bm25, Bm25Config, Bm25Grid, Bm25Tuning, DualTower, DualTowerConfig, TowerData,
};
pub(crate) use bootstrap::BootstrapConfig;
pub use bootstrap::{Interval, Intervals, PairedDifference, bootstrap, paired_bootstrap};
pub use metrics::{Metrics, QueryScores, TruncatedTies, evaluate};
pub use ranking::Ranking;
pub use report::{EvalRecord, markdown_table, write_json};
