//! The benchmark of videos.

use cart_media::Modality;
use cart_retrieval::Result;

use super::{
    Clip, ClipsConfig,
    config::MAX_OF_ONE,
    script::{Kind, Script},
};
use crate::{
    MAX_ITEMS,
    benchmark::{Benchmark, Drawn},
    compose::{Purpose, Writer},
    permutation::{Permutation, Shares},
    split::{Captioned, split},
    texts::SplitCaptions,
};

/// Turns of each kind of plot, and the most of each, so that captions still tell them apart.
const KINDS: [&[(Kind, usize, usize)]; 2] = [
    &[(Kind::One, 1, 3_000), (Kind::Then, 1, usize::MAX)],
    &[
        (Kind::One, 2, 3_000),
        (Kind::Then, 2, 30_000),
        (Kind::Between, 3, 250_000),
        (Kind::While, 3, usize::MAX),
    ],
];

/// A benchmark of captioned videos, drawn from a seed.
///
/// In a video a shape moves, or moves in two ways one after the other; or two shapes move side by
/// side, or one does something to the other; before a backdrop.
///
/// Invariants:
/// 1. A video is a function of the seed, its number and `max_shapes`: nothing is kept, and a larger benchmark begins with the
///    videos of a smaller one.
/// 2. No two videos have the same description.
/// 3. No query of [`Clips::captions`] has the text of a training caption, whichever video it is of.
///
/// # Example
/// ```
/// use cart_procedural::{Clips, ClipsConfig};
///
/// let clips = Clips::generate(&ClipsConfig::new(1_000_000).with_seed(1))?;
/// assert_eq!(clips.clip(999_999).id(), "clip-999999");
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Clips {
    config: ClipsConfig,
    /// Of the scripts of each kind.
    orders: Vec<Permutation>,
    /// Turns and most of each kind.
    shares: Vec<(usize, usize)>,
}

impl Clips {
    /// Draws all videos, which takes no time: each is made when it is asked for.
    ///
    /// # Errors
    /// When the configuration is invalid.
    ///
    /// # Example
    /// See [`Clips`].
    pub fn generate(config: &ClipsConfig) -> Result<Self> {
        config.validate()?;
        let kinds = KINDS[config.max_shapes - 1];
        let order = |&(kind, ..): &(Kind, usize, usize)| {
            Permutation::new(Script::count(kind), config.seed ^ kind as u64)
        };
        Ok(Self {
            config: config.clone(),
            orders: kinds.iter().map(order).collect(),
            shares: kinds.iter().map(|&(_, turns, most)| (turns, most)).collect(),
        })
    }

    /// What the videos are drawn from.
    ///
    /// # Example
    /// ```
    /// # use cart_procedural::{Clips, ClipsConfig};
    /// let clips = Clips::generate(&ClipsConfig::new(3).with_seed(9))?;
    /// assert_eq!(clips.config().seed, 9);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn config(&self) -> &ClipsConfig {
        &self.config
    }

    /// Number of videos.
    ///
    /// # Example
    /// ```
    /// # use cart_procedural::{Clips, ClipsConfig};
    /// assert_eq!(Clips::generate(&ClipsConfig::new(3))?.len(), 3);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn len(&self) -> usize {
        self.config.count
    }

    /// Whether there is no video, which [`ClipsConfig::validate`] rules out.
    ///
    /// # Example
    /// ```
    /// # use cart_procedural::{Clips, ClipsConfig};
    /// assert!(!Clips::generate(&ClipsConfig::new(3))?.is_empty());
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Video number `index`.
    ///
    /// # Panics
    /// When `index` is not below [`Clips::len`].
    ///
    /// # Example
    /// ```
    /// # use cart_procedural::{Clips, ClipsConfig};
    /// let clips = Clips::generate(&ClipsConfig::new(3))?;
    /// assert_eq!(clips.clip(2).index(), 2);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn clip(&self, index: usize) -> Clip {
        assert!(index < self.len(), "video {index} of {}", self.len());
        let kinds = KINDS[self.config.max_shapes - 1];
        let items = if self.config.max_shapes == 1 { MAX_OF_ONE } else { MAX_ITEMS };
        let (kind, number) = Shares { kinds: &self.shares, items }.of(index);
        let script = Script::numbered(kinds[kind].0, self.orders[kind].at(number));
        let ClipsConfig { seed, size, frames, .. } = self.config;
        Clip { script, index, seed, size, frames }
    }

    /// All videos in order.
    ///
    /// # Example
    /// ```
    /// # use cart_procedural::{Clips, ClipsConfig};
    /// let clips = Clips::generate(&ClipsConfig::new(3))?;
    /// assert_eq!(clips.iter().count(), 3);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Clip> + '_ {
        (0..self.len()).map(|index| self.clip(index))
    }

    /// Training captions of every video, and one query each that no training caption equals, half
    /// of them built from templates that no training caption uses.
    ///
    /// # Errors
    /// When a video's query cannot be worded so that it differs from all training captions.
    ///
    /// # Example
    /// ```
    /// # use cart_procedural::{Clips, ClipsConfig};
    /// let captions = Clips::generate(&ClipsConfig::new(40))?.captions()?;
    /// assert_eq!(captions.audit.shared_texts, 0);
    /// assert!(captions.audit.identifying_queries > 30);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn captions(&self) -> Result<SplitCaptions> {
        split(self)
    }
}

impl Benchmark for Clips {
    fn modality(&self) -> Modality {
        Modality::Video
    }

    fn len(&self) -> usize {
        self.config.count
    }

    fn seed(&self) -> u64 {
        self.config.seed
    }

    fn id(&self, index: usize) -> String {
        self.clip(index).id()
    }

    fn description(&self, index: usize) -> String {
        self.clip(index).description()
    }

    fn draw(&self, index: usize, variant: u64) -> Drawn {
        Drawn::Frames(self.clip(index).render_variant(variant))
    }

    fn captions(&self) -> Result<SplitCaptions> {
        self.captions()
    }
}

impl Captioned for Clips {
    type Composition = Script;

    fn captions_per_item(&self) -> usize {
        self.config.captions_per_clip
    }

    fn composition(&self, index: usize) -> Script {
        self.clip(index).script
    }

    fn writer(&self, index: usize, purpose: Purpose) -> Writer<Script> {
        self.clip(index).writer(purpose)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{Plot, clips::script::Facts};

    #[test]
    fn a_video_depends_on_the_seed_and_its_number_alone() {
        let small = Clips::generate(&ClipsConfig::new(60).with_seed(5)).unwrap();
        let large = Clips::generate(&ClipsConfig::new(MAX_ITEMS).with_seed(5)).unwrap();
        assert!(small.iter().eq((0..60).map(|index| large.clip(index))));
        assert_eq!(small.clip(7).render(), large.clip(7).render());
        assert_eq!(small.captions().unwrap(), small.captions().unwrap());
        let other = Clips::generate(&ClipsConfig::new(60).with_seed(6)).unwrap();
        assert!(small.clip(0).render() != other.clip(0).render());
        // The last of a million, at once.
        assert_eq!(large.clip(MAX_ITEMS - 1).render().len(), 16);
    }

    #[test]
    fn descriptions_and_ids_are_distinct_and_all_kinds_are_there() {
        for (count, most) in [(50_000, 2), (33_000, 1)] {
            let clips = Clips::generate(&ClipsConfig::new(count).with_max_shapes(most)).unwrap();
            let descriptions: HashSet<_> = clips.iter().map(|clip| clip.description()).collect();
            let ids: HashSet<_> = clips.ids().into_iter().collect();
            assert_eq!((descriptions.len(), ids.len()), (count, count));
            let some = |is: fn(&Plot) -> bool| clips.iter().any(|clip| is(&clip.plot()));
            assert!(some(|plot| matches!(plot, Plot::One { .. })));
            assert!(some(|plot| matches!(plot, Plot::Then { .. })));
            assert_eq!(some(|plot| matches!(plot, Plot::While { .. })), most == 2);
            assert_eq!(some(|plot| matches!(plot, Plot::Between { .. })), most == 2);
        }
    }

    #[test]
    fn a_million_videos_are_distinct() {
        let clips = Clips::generate(&ClipsConfig::new(MAX_ITEMS)).unwrap();
        let keys: HashSet<u64> = clips.iter().map(|clip| clip.script.key(Facts::ALL)).collect();
        assert_eq!(keys.len(), MAX_ITEMS);
    }
}
