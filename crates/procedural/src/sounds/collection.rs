//! The benchmark of sounds.

use cart_media::Modality;
use cart_retrieval::Result;

use super::{SoundsConfig, Tune, score::Score};
use crate::{
    MAX_ITEMS,
    benchmark::{Benchmark, Drawn},
    compose::{Purpose, Writer},
    permutation::{Permutation, Shares},
    split::{Captioned, split},
    texts::SplitCaptions,
};

/// Turns of sounds with one, two and three events, and the most of each, so that captions still
/// tell them apart.
const KINDS: [(usize, usize); 3] = [(1, 3_000), (2, 30_000), (2, usize::MAX)];

/// A benchmark of captioned sounds, drawn from a seed.
///
/// Each sound has one to three events, one after the other, that differ in timbre, pitch, rhythm
/// and course of loudness, with pauses of one length between them, before a ground.
///
/// Invariants:
/// 1. A sound is a function of the seed, its number and `max_events`: nothing is kept, and a larger benchmark begins with the
///    sounds of a smaller one.
/// 2. No two sounds have the same description.
/// 3. No query of [`Sounds::captions`] has the text of a training caption, whichever sound it is of.
///
/// # Example
/// ```
/// use cart_procedural::{Sounds, SoundsConfig};
///
/// let sounds = Sounds::generate(&SoundsConfig::new(1_000_000).with_seed(1))?;
/// assert_eq!(sounds.tune(999_999).id(), "sound-999999");
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Sounds {
    config: SoundsConfig,
    /// Of the scores of each number of events.
    orders: Vec<Permutation>,
}

impl Sounds {
    /// Draws all sounds, which takes no time: each is made when it is asked for.
    ///
    /// # Errors
    /// When the configuration is invalid.
    ///
    /// # Example
    /// See [`Sounds`].
    pub fn generate(config: &SoundsConfig) -> Result<Self> {
        config.validate()?;
        let order = |len: usize| Permutation::new(Score::count(len), config.seed ^ len as u64);
        Ok(Self { config: config.clone(), orders: (1..=config.max_events).map(order).collect() })
    }

    /// What the sounds are drawn from.
    ///
    /// # Example
    /// ```
    /// # use cart_procedural::{Sounds, SoundsConfig};
    /// let sounds = Sounds::generate(&SoundsConfig::new(3).with_seed(9))?;
    /// assert_eq!(sounds.config().seed, 9);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn config(&self) -> &SoundsConfig {
        &self.config
    }

    /// Number of sounds.
    ///
    /// # Example
    /// ```
    /// # use cart_procedural::{Sounds, SoundsConfig};
    /// assert_eq!(Sounds::generate(&SoundsConfig::new(3))?.len(), 3);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn len(&self) -> usize {
        self.config.count
    }

    /// Whether there is no sound, which [`SoundsConfig::validate`] rules out.
    ///
    /// # Example
    /// ```
    /// # use cart_procedural::{Sounds, SoundsConfig};
    /// assert!(!Sounds::generate(&SoundsConfig::new(3))?.is_empty());
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sound number `index`.
    ///
    /// # Panics
    /// When `index` is not below [`Sounds::len`].
    ///
    /// # Example
    /// ```
    /// # use cart_procedural::{Sounds, SoundsConfig};
    /// let sounds = Sounds::generate(&SoundsConfig::new(3))?;
    /// assert_eq!(sounds.tune(2).index(), 2);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn tune(&self, index: usize) -> Tune {
        assert!(index < self.len(), "sound {index} of {}", self.len());
        let shares = Shares { kinds: &KINDS[..self.config.max_events], items: MAX_ITEMS };
        let (kind, number) = shares.of(index);
        let score = Score::numbered(kind + 1, self.orders[kind].at(number));
        Tune { score, index, seed: self.config.seed }
    }

    /// All sounds in order.
    ///
    /// # Example
    /// ```
    /// # use cart_procedural::{Sounds, SoundsConfig};
    /// let sounds = Sounds::generate(&SoundsConfig::new(3))?;
    /// assert_eq!(sounds.iter().count(), 3);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Tune> + '_ {
        (0..self.len()).map(|index| self.tune(index))
    }

    /// Training captions of every sound, and one query each that no training caption equals, half
    /// of them built from templates that no training caption uses.
    ///
    /// # Errors
    /// When a sound's query cannot be worded so that it differs from all training captions.
    ///
    /// # Example
    /// ```
    /// # use cart_procedural::{Sounds, SoundsConfig};
    /// let captions = Sounds::generate(&SoundsConfig::new(40))?.captions()?;
    /// assert_eq!(captions.audit.shared_texts, 0);
    /// assert!(captions.audit.identifying_queries > 30);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn captions(&self) -> Result<SplitCaptions> {
        split(self)
    }
}

impl Benchmark for Sounds {
    fn modality(&self) -> Modality {
        Modality::Audio
    }

    fn len(&self) -> usize {
        self.config.count
    }

    fn seed(&self) -> u64 {
        self.config.seed
    }

    fn id(&self, index: usize) -> String {
        self.tune(index).id()
    }

    fn description(&self, index: usize) -> String {
        self.tune(index).description()
    }

    fn draw(&self, index: usize, variant: u64) -> Drawn {
        Drawn::Sound(self.tune(index).render_variant(variant))
    }

    fn captions(&self) -> Result<SplitCaptions> {
        self.captions()
    }
}

impl Captioned for Sounds {
    type Composition = Score;

    fn captions_per_item(&self) -> usize {
        self.config.captions_per_sound
    }

    fn composition(&self, index: usize) -> Score {
        self.tune(index).score
    }

    fn writer(&self, index: usize, purpose: Purpose) -> Writer<Score> {
        self.tune(index).writer(purpose)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_sound_depends_on_the_seed_and_its_number_alone() {
        let small = Sounds::generate(&SoundsConfig::new(60).with_seed(5)).unwrap();
        let large = Sounds::generate(&SoundsConfig::new(MAX_ITEMS).with_seed(5)).unwrap();
        assert!(small.iter().eq((0..60).map(|index| large.tune(index))));
        assert_eq!(small.tune(7).render(), large.tune(7).render());
        assert_eq!(small.captions().unwrap(), small.captions().unwrap());
        let other = Sounds::generate(&SoundsConfig::new(60).with_seed(6)).unwrap();
        assert!(small.tune(0).render() != other.tune(0).render());
        // The last of a million, at once.
        assert!(large.tune(MAX_ITEMS - 1).render().seconds() > 1.0);
    }

    #[test]
    fn descriptions_and_ids_are_distinct() {
        for (count, most) in [(50_000, 3), (50_000, 2), (3_000, 1)] {
            let config = SoundsConfig::new(count).with_max_events(most);
            let sounds = Sounds::generate(&config).unwrap();
            let descriptions: HashSet<_> = sounds.iter().map(|tune| tune.description()).collect();
            let ids: HashSet<_> = sounds.ids().into_iter().collect();
            assert_eq!((descriptions.len(), ids.len()), (count, count));
            for len in 1..=most {
                assert!(sounds.iter().any(|tune| tune.events().len() == len));
            }
        }
    }

    #[test]
    fn a_million_sounds_are_distinct() {
        let sounds = Sounds::generate(&SoundsConfig::new(MAX_ITEMS)).unwrap();
        let keys: HashSet<u64> =
            sounds.iter().map(|tune| tune.score.key(super::super::score::Facts::ALL)).collect();
        assert_eq!(keys.len(), MAX_ITEMS);
    }
}
