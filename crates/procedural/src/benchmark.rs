//! What the benchmarks of all modalities have in common.

use std::{fs, ops::Range, path::Path};

use cart_media::{Modality, Picture, Sound, picture_features, sound_features, video_features};
use cart_retrieval::{Error, Result};
use rayon::prelude::*;

use super::texts::SplitCaptions;

/// A captioned collection that is drawn from a seed.
///
/// # Example
/// ```
/// use cart_procedural::{Benchmark, Clips, ClipsConfig, Scenes, ScenesConfig, Sounds, SoundsConfig};
///
/// let all: [Box<dyn Benchmark>; 3] = [
///     Box::new(Scenes::generate(&ScenesConfig::new(20))?),
///     Box::new(Sounds::generate(&SoundsConfig::new(20))?),
///     Box::new(Clips::generate(&ClipsConfig::new(20))?),
/// ];
/// for benchmark in all {
///     assert_eq!(benchmark.ids().len(), benchmark.captions()?.queries.len());
/// }
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub trait Benchmark: Sync {
    /// What kind of media its items are.
    fn modality(&self) -> Modality;

    /// Number of items.
    fn len(&self) -> usize;

    /// Whether there is no item, which the configurations rule out.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The seed that it is drawn from.
    fn seed(&self) -> u64;

    /// The id of an item: what it is, and its number with at least six digits.
    ///
    /// # Panics
    /// When `index` is not below `len`; so do the methods below.
    fn id(&self, index: usize) -> String;

    /// The ids of all items in order.
    fn ids(&self) -> Vec<String> {
        (0..self.len()).map(|index| self.id(index)).collect()
    }

    /// Everything there is to say about an item; no other one has the same description.
    fn description(&self, index: usize) -> String;

    /// Draws an item. `variant` 0 is the item itself, any other number one with other small
    /// deviations.
    fn draw(&self, index: usize, variant: u64) -> Drawn;

    /// Training captions of every item, and one query each that no training caption equals, half of
    /// them built from templates that no training caption uses.
    ///
    /// # Errors
    /// [`Error::Captions`] when a query cannot be worded so that it differs from all training captions.
    fn captions(&self) -> Result<SplitCaptions>;

    /// Built-in descriptors of the items in a range.
    ///
    /// # Shapes
    /// - returns: `[range.len(), D]`, row-major
    ///
    /// # Errors
    /// Those of [`Drawn::features`], which the items of the benchmarks here do not cause.
    fn rows(&self, range: Range<usize>) -> Result<Vec<f32>> {
        let rows: Vec<Vec<f32>> = range
            .into_par_iter()
            .map(|index| self.draw(index, 0).features())
            .collect::<Result<_>>()?;
        Ok(rows.concat())
    }
}

/// A drawn item.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Drawn {
    /// A picture.
    Picture(Picture),
    /// A sound.
    Sound(Sound),
    /// The frames of a video, in the order of time.
    Frames(Vec<Picture>),
}

impl Drawn {
    /// Its built-in descriptor, the one that [`Descriptors`](cart_media::Descriptors) gives for its
    /// file.
    ///
    /// # Errors
    /// [`Error::Media`] for a video without frames.
    ///
    /// # Example
    /// ```
    /// use cart_media::{PICTURE_FEATURES, Picture};
    /// use cart_procedural::Drawn;
    ///
    /// let drawn = Drawn::Picture(Picture::new(8, 8, vec![9; 192])?);
    /// assert_eq!(drawn.features()?.len(), PICTURE_FEATURES);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn features(&self) -> Result<Vec<f32>> {
        match self {
            Self::Picture(picture) => Ok(picture_features(picture)),
            Self::Sound(sound) => sound_features(sound),
            Self::Frames(frames) => video_features(frames),
        }
    }

    /// Writes it into a folder as ordinary files: `NAME.png`, `NAME.wav`, or a folder `NAME` with
    /// `frame-000.png` and so on. Returns the file's or folder's name.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be written.
    ///
    /// # Example
    /// ```
    /// use cart_media::{Picture, open_frames};
    /// use cart_procedural::Drawn;
    ///
    /// let folder = tempfile::tempdir().map_err(|e| cart_retrieval::Error::io("create", "folder", e))?;
    /// let frames = vec![Picture::new(8, 8, vec![9; 192])?, Picture::new(8, 8, vec![99; 192])?];
    /// let name = Drawn::Frames(frames.clone()).write(folder.path(), "clip")?;
    /// assert_eq!(open_frames(folder.path().join(name), 2)?, frames);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn write(&self, folder: impl AsRef<Path>, name: &str) -> Result<String> {
        let folder = folder.as_ref();
        let write = |file: &Path, bytes: Vec<u8>| {
            fs::write(file, bytes).map_err(|e| Error::io("write", file, e))
        };
        match self {
            Self::Picture(picture) => {
                let name = format!("{name}.png");
                write(&folder.join(&name), picture.to_png()?)?;
                Ok(name)
            }
            Self::Sound(sound) => {
                let name = format!("{name}.wav");
                write(&folder.join(&name), sound.to_wav()?)?;
                Ok(name)
            }
            Self::Frames(frames) => {
                let folder = folder.join(name);
                fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
                for (number, frame) in frames.iter().enumerate() {
                    write(&folder.join(format!("frame-{number:03}.png")), frame.to_png()?)?;
                }
                Ok(name.to_string())
            }
        }
    }
}
