//! What turns media into embeddings, and the built-in descriptors behind it.

use std::path::Path;

use cart_retrieval::Result;
use rayon::prelude::*;

use super::{
    MediaItem, Modality, PICTURE_FEATURES, Picture, PictureLimits, SOUND_FEATURES, Sound,
    Transparency, VIDEO_FEATURES, open_frames, picture_features, sound_features,
    sound_features::SOUND_RATE, video_features,
};

/// What turns media into embeddings.
pub trait Extractor: Sync {
    /// What it is, with all settings that change what it gives. A run that was interrupted goes on
    /// only with an extractor of the same name.
    fn name(&self) -> String;

    /// Width of an embedding of a modality.
    fn dim(&self, modality: Modality) -> usize;

    /// The embedding of each item, whose files lie below `root`, or why it has none.
    fn extract(&self, root: &Path, items: &[MediaItem]) -> Vec<Result<Vec<f32>>>;
}

/// The built-in descriptors: [`picture_features`], [`sound_features`], [`video_features`]. Nothing
/// learned, no download; a frozen encoder says far more about what is to be seen or heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// Frames of a video.
    pub frames: usize,
    /// What becomes of transparent pixels.
    pub transparency: Transparency,
    /// What is too large a picture.
    pub limits: PictureLimits,
}

impl Default for Descriptors {
    /// 16 frames; transparent pixels over white.
    fn default() -> Self {
        let (transparency, limits) = (Transparency::Over([255; 3]), PictureLimits::default());
        Self { frames: 16, transparency, limits }
    }
}

impl Extractor for Descriptors {
    fn name(&self) -> String {
        format!("descriptors 3, {} frames, transparency {:?}", self.frames, self.transparency)
    }

    fn dim(&self, modality: Modality) -> usize {
        match modality {
            Modality::Image => PICTURE_FEATURES,
            Modality::Audio => SOUND_FEATURES,
            Modality::Video => VIDEO_FEATURES,
        }
    }

    fn extract(&self, root: &Path, items: &[MediaItem]) -> Vec<Result<Vec<f32>>> {
        let one = |item: &MediaItem| -> Result<Vec<f32>> {
            let path = root.join(&item.path);
            match item.modality {
                Modality::Image => {
                    let picture = Picture::open_with(path, self.transparency, self.limits)?;
                    Ok(picture_features(&picture))
                }
                Modality::Audio => sound_features(&Sound::of_item(root, item, SOUND_RATE)?),
                Modality::Video => video_features(&open_frames(path, self.frames)?),
            }
        };
        items.par_iter().map(one).collect()
    }
}
