//! One video: what is in it, its id, its description.

use cart_media::Picture;

use super::{
    motion,
    script::{Actor, Plot, Script},
};
use crate::{
    Backdrop,
    compose::{Purpose, Writer, item_rng},
};

/// One video of [`Clips`](super::Clips): a handle that draws and describes on demand.
///
/// # Example
/// ```
/// use cart_procedural::{Clips, ClipsConfig};
///
/// let clips = Clips::generate(&ClipsConfig::new(20))?;
/// let clip = clips.clip(3);
/// assert_eq!(clip.id(), "clip-000003");
/// assert!((1..=2).contains(&clip.actors().len()));
/// let frames = clip.render();
/// assert_eq!((frames.len(), frames[0].width()), (16, 64));
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clip {
    pub(super) script: Script,
    pub(super) index: usize,
    pub(super) seed: u64,
    pub(super) size: usize,
    pub(super) frames: usize,
}

impl Clip {
    /// Frames a second that it is meant to be shown at.
    pub const RATE: f32 = 8.0;

    /// Its number, counted from 0.
    ///
    /// # Example
    /// See [`Clip`].
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its id: "clip-" and its number with at least six digits.
    ///
    /// # Example
    /// See [`Clip`].
    pub fn id(&self) -> String {
        format!("clip-{:06}", self.index)
    }

    /// What happens in it.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::{Clips, ClipsConfig, Plot};
    ///
    /// let clips = Clips::generate(&ClipsConfig::new(50))?;
    /// assert!(clips.iter().any(|clip| matches!(clip.plot(), Plot::Between { .. })));
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn plot(&self) -> Plot {
        self.script.plot
    }

    /// The shapes in it.
    ///
    /// # Example
    /// See [`Clip`].
    pub fn actors(&self) -> Vec<Actor> {
        match self.script.plot {
            Plot::One { actor, .. } | Plot::Then { actor, .. } => vec![actor],
            Plot::While { left, right, .. } => vec![left, right],
            Plot::Between { actor, other, .. } => vec![actor, other],
        }
    }

    /// The colour behind the shapes.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::{Backdrop, Clips, ClipsConfig};
    ///
    /// let clips = Clips::generate(&ClipsConfig::new(50))?;
    /// assert!(clips.iter().any(|clip| clip.backdrop() == Backdrop::Sky));
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn backdrop(&self) -> Backdrop {
        self.script.backdrop
    }

    /// Everything there is to say about it; no other video has the same description.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::{Clips, ClipsConfig};
    ///
    /// let clips = Clips::generate(&ClipsConfig::new(2))?;
    /// assert_ne!(clips.clip(0).description(), clips.clip(1).description());
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn description(&self) -> String {
        let Script { plot, backdrop } = self.script;
        format!("{}; {} background", plot.description(), backdrop.word())
    }

    /// Its frames, in the order of time. Positions, sizes, angles and shades differ a little from
    /// video to video.
    ///
    /// # Example
    /// See [`Clip`].
    pub fn render(&self) -> Vec<Picture> {
        self.render_variant(0)
    }

    /// The same drawn again: `variant` 0 is [`Clip::render`], any other number has other small
    /// deviations.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::{Clips, ClipsConfig};
    ///
    /// let clip = Clips::generate(&ClipsConfig::new(1))?.clip(0);
    /// assert_ne!(clip.render(), clip.render_variant(1));
    /// assert_eq!(clip.render_variant(1), clip.render_variant(1));
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn render_variant(&self, variant: u64) -> Vec<Picture> {
        let mut rng = item_rng(self.seed, self.index, 0xc119 ^ (variant << 16));
        motion::frames(&self.script, self.size, self.frames, &mut rng)
    }

    /// The first `count` training captions: the same ones each time, no two alike. Fewer come back
    /// where there are no more ways to say it (which starts at some hundreds).
    ///
    /// # Example
    /// ```
    /// use cart_procedural::{Clips, ClipsConfig};
    ///
    /// let captions = Clips::generate(&ClipsConfig::new(5))?.clip(4).captions(3);
    /// assert_eq!(captions.len(), 3);
    /// assert_ne!(captions[0], captions[1]);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn captions(&self, count: usize) -> Vec<String> {
        let drafts = self.writer(Purpose::Training).distinct(count);
        drafts.into_iter().map(|draft| draft.text).collect()
    }

    /// An endless source of captions.
    pub(super) fn writer(&self, purpose: Purpose) -> Writer<Script> {
        Writer::new(self.script, purpose, self.seed, self.index)
    }
}
