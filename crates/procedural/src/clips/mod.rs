//! Videos of one or two moving shapes.

mod captions;
mod clip;
mod collection;
mod config;
mod motion;
mod script;
mod words;

pub use clip::Clip;
pub use collection::Clips;
pub use config::ClipsConfig;
pub use script::{Actor, Plot};
pub use words::{Interaction, Motion, Side, Speed};
