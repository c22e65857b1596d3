//! Sounds of one to three events.

mod captions;
mod collection;
mod config;
mod score;
mod synthesis;
mod tune;
mod words;

pub use collection::Sounds;
pub use config::SoundsConfig;
pub use score::Event;
pub use tune::Tune;
pub use words::{Course, Gap, Ground, Pitch, Rhythm, Timbre};
