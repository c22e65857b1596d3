//! One sound: what is in it, its id, its description.

use cart_media::Sound;

use super::{
    score::{Event, Score},
    synthesis,
    words::{Gap, Ground},
};
use crate::compose::{Purpose, Writer, item_rng};

/// One sound of [`Sounds`](super::Sounds): a handle that plays and describes on demand.
///
/// # Example
/// ```
/// use cart_procedural::{Sounds, SoundsConfig};
///
/// let sounds = Sounds::generate(&SoundsConfig::new(20))?;
/// let tune = sounds.tune(3);
/// assert_eq!(tune.id(), "sound-000003");
/// assert!((1..=3).contains(&tune.events().len()));
/// let sound = tune.render();
/// assert_eq!(sound.rate(), 16_000);
/// assert!((1.0..3.2).contains(&sound.seconds()));
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tune {
    pub(super) score: Score,
    pub(super) index: usize,
    pub(super) seed: u64,
}

impl Tune {
    /// Its number, counted from 0.
    ///
    /// # Example
    /// See [`Tune`].
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its id: "sound-" and its number with at least six digits.
    ///
    /// # Example
    /// See [`Tune`].
    pub fn id(&self) -> String {
        format!("sound-{:06}", self.index)
    }

    /// What is heard, one after the other.
    ///
    /// # Example
    /// See [`Tune`].
    pub fn events(&self) -> &[Event] {
        self.score.events()
    }

    /// How long it is quiet between two events; [`Gap::AtOnce`] where there is one event.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::{Gap, Sounds, SoundsConfig};
    ///
    /// let sounds = Sounds::generate(&SoundsConfig::new(9).with_max_events(1))?;
    /// assert!(sounds.iter().all(|tune| tune.gap() == Gap::AtOnce));
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn gap(&self) -> Gap {
        self.score.gap
    }

    /// What is heard behind the events.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::{Ground, Sounds, SoundsConfig};
    ///
    /// let sounds = Sounds::generate(&SoundsConfig::new(50))?;
    /// assert!(sounds.iter().any(|tune| tune.ground() == Ground::Rain));
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn ground(&self) -> Ground {
        self.score.ground
    }

    /// Everything there is to say about it; no other sound has the same description.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::{Sounds, SoundsConfig};
    ///
    /// let sounds = Sounds::generate(&SoundsConfig::new(2))?;
    /// assert_ne!(sounds.tune(0).description(), sounds.tune(1).description());
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn description(&self) -> String {
        let events: Vec<_> = self.events().iter().map(Event::description).collect();
        let then = format!(", then {} ", self.score.gap.word());
        format!("{}; over {}", events.join(&then), self.score.ground.word())
    }

    /// Its sound, 16,000 samples a second. Frequencies, lengths and levels differ a little from
    /// sound to sound.
    ///
    /// # Example
    /// See [`Tune`].
    pub fn render(&self) -> Sound {
        self.render_variant(0)
    }

    /// The same played again: `variant` 0 is [`Tune::render`], any other number has other small
    /// deviations.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::{Sounds, SoundsConfig};
    ///
    /// let tune = Sounds::generate(&SoundsConfig::new(1))?.tune(0);
    /// assert_ne!(tune.render(), tune.render_variant(1));
    /// assert_eq!(tune.render_variant(1), tune.render_variant(1));
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn render_variant(&self, variant: u64) -> Sound {
        synthesis::play(&self.score, &mut item_rng(self.seed, self.index, 0x50d5 ^ (variant << 16)))
    }

    /// The first `count` training captions: the same ones each time, no two alike. Fewer come back
    /// where there are no more ways to say it (which starts at some hundreds).
    ///
    /// # Example
    /// ```
    /// use cart_procedural::{Sounds, SoundsConfig};
    ///
    /// let captions = Sounds::generate(&SoundsConfig::new(5))?.tune(4).captions(3);
    /// assert_eq!(captions.len(), 3);
    /// assert_ne!(captions[0], captions[1]);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn captions(&self, count: usize) -> Vec<String> {
        let drafts = self.writer(Purpose::Training).distinct(count);
        drafts.into_iter().map(|draft| draft.text).collect()
    }

    /// An endless source of captions.
    pub(super) fn writer(&self, purpose: Purpose) -> Writer<Score> {
        Writer::new(self.score, purpose, self.seed, self.index)
    }
}
