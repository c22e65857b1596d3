//! Pictures of coloured shapes.

mod captions;
mod collection;
mod config;
mod draw;
#[cfg(test)]
mod features_tests;
mod layout;
mod phrases;
mod scene;
mod words;

pub use collection::Scenes;
pub use config::ScenesConfig;
pub use layout::Object;
pub use scene::Scene;
pub use words::{Backdrop, Colour, Extent, Place, Shape, Texture};

pub(super) use draw::{Canvas, Light, Point, Stamp};
