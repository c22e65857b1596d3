//! How weights are updated: AdamW with global clipping, learning rates by depth, and the schedule.

mod adamw;
pub(crate) mod optimizer;
pub(crate) mod rates;
pub(crate) mod schedule;

pub(crate) use adamw::GroupedAdamW;
pub(crate) use optimizer::CartOptimizer;
pub(crate) use optimizer::Gate;
pub(crate) use rates::EncoderRates;
pub(crate) use schedule::WarmupCosine;
