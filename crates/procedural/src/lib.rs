//! Benchmarks of captioned pictures, sounds and videos that are drawn from a seed: nothing to
//! download, any size.
//!
//! | modality | benchmark | an item | a composition of |
//! |---|---|---|---|
//! | image | [`Scenes`] | [`Scene`] | shapes, colours, sizes, textures, places, a background |
//! | audio | [`Sounds`] | [`Tune`] | timbres, pitches, rhythms, courses of loudness, order in time, a background |
//! | video | [`Clips`] | [`Clip`] | shapes, colours, motions, speeds, order in time, interactions, a background |
//!
//! A configuration says how many items; an item is drawn and described on demand; `captions` splits
//! training captions from held-out queries and audits the split. What the three have in common is
//! the trait [`Benchmark`]; [`write_benchmark`] writes one to a folder as ordinary files.
//!
//! # Example
//! ```
//! use cart_procedural::{Scenes, ScenesConfig};
//!
//! let scenes = Scenes::generate(&ScenesConfig::new(100).with_seed(42))?;
//! let captions = scenes.captions()?;
//! let query = &captions.queries[0];
//! let picture = scenes.scene(query.item).render();
//! assert_eq!((picture.width(), picture.height()), (64, 64));
//! # Ok::<(), cart_retrieval::Error>(())
//! ```

#![warn(missing_docs)]
#![deny(unsafe_code)]

mod benchmark;
mod clips;
mod compose;
mod permutation;
mod scenes;
mod sounds;
mod split;
mod texts;
mod vocabulary;
mod write;

pub use benchmark::{Benchmark, Drawn};
pub use clips::{Actor, Clip, Clips, ClipsConfig, Interaction, Motion, Plot, Side, Speed};
pub use scenes::{
    Backdrop, Colour, Extent, Object, Place, Scene, Scenes, ScenesConfig, Shape, Texture,
};
pub use sounds::{Course, Event, Gap, Ground, Pitch, Rhythm, Sounds, SoundsConfig, Timbre, Tune};
pub use texts::{Caption, CaptionAudit, SplitCaptions};
pub use write::{QUERY, TRAINING, Written, write_benchmark};

use cart_retrieval::{Error, Result};

/// The most items that one benchmark can hold.
pub const MAX_ITEMS: usize = 1_000_000;

/// Checks a setting.
fn within(name: &str, found: usize, low: usize, high: usize) -> Result<()> {
    if (low..=high).contains(&found) {
        return Ok(());
    }
    Err(Error::config(name)
        .expected(format!("{low} to {high}"))
        .found(found.to_string())
        .fix("choose a number in that range"))
}
