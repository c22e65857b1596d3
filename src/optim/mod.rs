//! How weights are updated: AdamW with global clipping, learning rates by depth, and the schedule.

mod adamw;
mod optimizer;
mod rates;
mod schedule;

pub(crate) use adamw::GroupedAdamW;
pub use optimizer::CartOptimizer;
pub(crate) use optimizer::Gate;
pub use rates::EncoderRates;
pub use schedule::WarmupCosine;
