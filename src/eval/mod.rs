//! Measures of retrieval.

pub(crate) mod bootstrap;
pub(crate) mod metrics;
mod ranking;
pub(crate) mod report;

pub(crate) use bootstrap::BootstrapConfig;
pub use bootstrap::{Interval, Intervals, PairedDifference, bootstrap, paired_bootstrap};
pub use metrics::{Metrics, QueryScores, TruncatedTies, evaluate};
pub use ranking::Ranking;
pub use report::{EvalRecord, markdown_table, write_json};
