//! The towers of published models that pictures, sounds and videos are embedded by.

mod clip;
mod htsat;
mod imagebind;

pub use clip::{ClipVisionConfig, ClipVisionEncoder};
pub use htsat::{HtsatConfig, HtsatEncoder};
pub(super) use imagebind::FRAMES as IMAGE_BIND_FRAMES;
pub use imagebind::{
    ImageBind, ImageBindAudioConfig, ImageBindConfig, ImageBindTextConfig, ImageBindVisionConfig,
};
