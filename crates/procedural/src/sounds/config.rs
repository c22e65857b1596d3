//! The settings of the benchmark of sounds.

use cart_retrieval::Result;
use serde::{Deserialize, Serialize};

use crate::{MAX_ITEMS, within};

/// What the benchmark of sounds is drawn from: the same settings give the same sounds and captions.
///
/// # Example
/// ```
/// use cart_procedural::SoundsConfig;
///
/// let config = SoundsConfig::new(1_000).with_seed(7).with_max_events(2).with_captions_per_sound(3);
/// assert!(config.validate().is_ok());
/// assert!(SoundsConfig::new(0).validate().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SoundsConfig {
    /// Number of sounds, 1 to [`MAX_ITEMS`].
    pub count: usize,
    /// Everything random follows from this number.
    #[serde(default)]
    pub seed: u64,
    /// Training captions of each sound, 1 to 20.
    #[serde(default = "default_captions")]
    pub captions_per_sound: usize,
    /// Most events in a sound, 1 to 3. With one there are at most 3,000 sounds.
    #[serde(default = "default_events")]
    pub max_events: usize,
}

fn default_captions() -> usize {
    5
}

fn default_events() -> usize {
    3
}

impl SoundsConfig {
    /// `count` sounds of up to three events with seed 0 and five training captions each.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::SoundsConfig;
    ///
    /// assert_eq!(SoundsConfig::new(10).max_events, 3);
    /// ```
    pub fn new(count: usize) -> Self {
        Self {
            count,
            seed: 0,
            captions_per_sound: default_captions(),
            max_events: default_events(),
        }
    }

    /// Draws from another seed.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::SoundsConfig;
    ///
    /// assert_eq!(SoundsConfig::new(10).with_seed(3).seed, 3);
    /// ```
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Number of training captions of each sound.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::SoundsConfig;
    ///
    /// assert_eq!(SoundsConfig::new(10).with_captions_per_sound(2).captions_per_sound, 2);
    /// ```
    pub fn with_captions_per_sound(mut self, captions: usize) -> Self {
        self.captions_per_sound = captions;
        self
    }

    /// Most events in a sound.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::{Sounds, SoundsConfig};
    ///
    /// let sounds = Sounds::generate(&SoundsConfig::new(50).with_max_events(1))?;
    /// assert!(sounds.iter().all(|tune| tune.events().len() == 1));
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn with_max_events(mut self, events: usize) -> Self {
        self.max_events = events;
        self
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// When a setting is outside the range that its field names.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::SoundsConfig;
    ///
    /// let error = SoundsConfig::new(10).with_max_events(4).validate().unwrap_err();
    /// assert!(error.to_string().contains("max_events"));
    /// ```
    pub fn validate(&self) -> Result<()> {
        within("max_events", self.max_events, 1, 3)?;
        within("count", self.count, 1, if self.max_events == 1 { 3_000 } else { MAX_ITEMS })?;
        within("captions_per_sound", self.captions_per_sound, 1, 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_each_setting_that_is_out_of_range() {
        let good = SoundsConfig::new(5);
        good.validate().unwrap();
        for (bad, name) in [
            (SoundsConfig::new(0), "count"),
            (SoundsConfig::new(MAX_ITEMS + 1), "count"),
            (SoundsConfig::new(3_001).with_max_events(1), "count"),
            (good.clone().with_max_events(0), "max_events"),
            (good.clone().with_max_events(4), "max_events"),
            (good.clone().with_captions_per_sound(0), "captions_per_sound"),
            (good.clone().with_captions_per_sound(21), "captions_per_sound"),
        ] {
            assert!(bad.validate().unwrap_err().to_string().contains(name));
        }
    }
}
