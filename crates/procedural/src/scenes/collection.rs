//! The benchmark: all scenes, their pictures' features, their captions.

use std::{collections::HashSet, ops::Range};

use cart_media::{Modality, PICTURE_FEATURES, picture_features};
use cart_retrieval::Result;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{
    ScenesConfig,
    layout::{Facts, Layout},
    scene::Scene,
};
use crate::{
    benchmark::{Benchmark, Drawn},
    compose::{Purpose, Writer},
    split::{Captioned, split},
    texts::SplitCaptions,
};

/// How many scenes may have one and two objects: a share of all, and at most so many that captions
/// still tell them apart. All others have three.
const FEW_OBJECTS: [(f64, usize); 2] = [(0.2, 3_000), (0.4, 30_000)];

/// A benchmark of captioned pictures, drawn from a seed.
///
/// Each scene has one to three objects that differ in shape, colour, size, texture and place,
/// before a backdrop. Pictures and captions are made on demand, so that a million scenes take some
/// tens of megabytes.
///
/// Invariants:
/// 1. The same configuration gives the same scenes, pictures, features and captions.
/// 2. No two scenes have the same description.
/// 3. No query of [`Scenes::captions`] has the text of a training caption, whichever scene it is of.
///
/// # Example
/// ```
/// use cart_media::PICTURE_FEATURES;
/// use cart_procedural::{Scenes, ScenesConfig};
///
/// let scenes = Scenes::generate(&ScenesConfig::new(50).with_seed(1))?;
/// let (features, dim) = scenes.features();
/// assert_eq!((features.len(), dim), (50 * PICTURE_FEATURES, PICTURE_FEATURES));
/// let captions = scenes.captions()?;
/// assert_eq!((captions.training.len(), captions.queries.len()), (250, 50));
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Scenes {
    config: ScenesConfig,
    layouts: Vec<Layout>,
}

impl Scenes {
    /// Draws all scenes.
    ///
    /// # Errors
    /// When the configuration is invalid.
    ///
    /// # Example
    /// See [`Scenes`].
    pub fn generate(config: &ScenesConfig) -> Result<Self> {
        config.validate()?;
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        let mut seen = HashSet::with_capacity(config.count);
        let mut layouts = Vec::with_capacity(config.count);
        let mut drawn = [0; FEW_OBJECTS.len()];
        while layouts.len() < config.count {
            let mut lot = rng.random::<f64>();
            let mut len = FEW_OBJECTS.len() + 1;
            for (i, &(share, most)) in FEW_OBJECTS.iter().enumerate() {
                if lot < share && drawn[i] < most {
                    len = i + 1;
                    break;
                }
                lot -= share;
            }
            let len = len.min(config.max_objects);
            let layout = Layout::draw(len, &mut rng);
            if seen.insert(layout.key(Facts::ALL)) {
                layouts.push(layout);
                if let Some(drawn) = drawn.get_mut(len - 1) {
                    *drawn += 1;
                }
            }
        }
        Ok(Self { config: config.clone(), layouts })
    }

    /// What the scenes were drawn from.
    ///
    /// # Example
    /// ```
    /// # use cart_procedural::{Scenes, ScenesConfig};
    /// let scenes = Scenes::generate(&ScenesConfig::new(3).with_seed(9))?;
    /// assert_eq!(scenes.config().seed, 9);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn config(&self) -> &ScenesConfig {
        &self.config
    }

    /// Number of scenes.
    ///
    /// # Example
    /// ```
    /// # use cart_procedural::{Scenes, ScenesConfig};
    /// assert_eq!(Scenes::generate(&ScenesConfig::new(3))?.len(), 3);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn len(&self) -> usize {
        self.layouts.len()
    }

    /// Whether there is no scene, which [`ScenesConfig::validate`] rules out.
    ///
    /// # Example
    /// ```
    /// # use cart_procedural::{Scenes, ScenesConfig};
    /// assert!(!Scenes::generate(&ScenesConfig::new(3))?.is_empty());
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.layouts.is_empty()
    }

    /// Scene number `index`.
    ///
    /// # Panics
    /// When `index` is not below [`Scenes::len`].
    ///
    /// # Example
    /// ```
    /// # use cart_procedural::{Scenes, ScenesConfig};
    /// let scenes = Scenes::generate(&ScenesConfig::new(3))?;
    /// assert_eq!(scenes.scene(2).index(), 2);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn scene(&self, index: usize) -> Scene {
        Scene { layout: self.layouts[index], index, seed: self.config.seed, size: self.config.size }
    }

    /// All scenes in order.
    ///
    /// # Example
    /// ```
    /// # use cart_procedural::{Scenes, ScenesConfig};
    /// let scenes = Scenes::generate(&ScenesConfig::new(3))?;
    /// assert_eq!(scenes.iter().count(), 3);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Scene> + '_ {
        (0..self.len()).map(|index| self.scene(index))
    }

    /// The ids of all scenes in order.
    ///
    /// # Example
    /// ```
    /// # use cart_procedural::{Scenes, ScenesConfig};
    /// let scenes = Scenes::generate(&ScenesConfig::new(3))?;
    /// assert_eq!(scenes.ids()[2], "scene-000002");
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn ids(&self) -> Vec<String> {
        self.iter().map(|scene| scene.id()).collect()
    }

    /// Features of all pictures and their width; see [`picture_features`].
    ///
    /// # Shapes
    /// - returns: `[len, PICTURE_FEATURES]`, row-major, and `PICTURE_FEATURES`
    ///
    /// # Example
    /// See [`Scenes`].
    pub fn features(&self) -> (Vec<f32>, usize) {
        (self.features_in(0..self.len()), PICTURE_FEATURES)
    }

    /// Features of the pictures in a range: with a large benchmark, range by range lets the caller
    /// show progress and stop.
    ///
    /// # Shapes
    /// - returns: `[range.len(), PICTURE_FEATURES]`, row-major
    ///
    /// # Panics
    /// When the range ends after [`Scenes::len`].
    ///
    /// # Example
    /// ```
    /// # use cart_media::picture_features;
    /// # use cart_procedural::{Scenes, ScenesConfig};
    /// let scenes = Scenes::generate(&ScenesConfig::new(8))?;
    /// let row = scenes.features_in(5..6);
    /// assert_eq!(row, picture_features(&scenes.scene(5).render()));
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn features_in(&self, range: Range<usize>) -> Vec<f32> {
        let mut rows = vec![0.0; range.len() * PICTURE_FEATURES];
        rows.par_chunks_mut(PICTURE_FEATURES).zip(range).for_each(|(row, index)| {
            row.copy_from_slice(&picture_features(&self.scene(index).render()));
        });
        rows
    }

    /// Training captions of every scene, and one query each that no training caption equals.
    ///
    /// Half of the queries are built from templates that no training caption uses.
    ///
    /// # Errors
    /// When a scene's query cannot be worded so that it differs from all training captions.
    ///
    /// # Example
    /// ```
    /// # use cart_procedural::{Scenes, ScenesConfig};
    /// let captions = Scenes::generate(&ScenesConfig::new(40))?.captions()?;
    /// assert_eq!(captions.audit.shared_texts, 0);
    /// assert!(captions.audit.identifying_queries > 30);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn captions(&self) -> Result<SplitCaptions> {
        split(self)
    }
}

impl Benchmark for Scenes {
    fn modality(&self) -> Modality {
        Modality::Image
    }

    fn len(&self) -> usize {
        self.layouts.len()
    }

    fn seed(&self) -> u64 {
        self.config.seed
    }

    fn id(&self, index: usize) -> String {
        self.scene(index).id()
    }

    fn description(&self, index: usize) -> String {
        self.scene(index).description()
    }

    fn draw(&self, index: usize, variant: u64) -> Drawn {
        Drawn::Picture(self.scene(index).render_variant(variant))
    }

    fn captions(&self) -> Result<SplitCaptions> {
        self.captions()
    }
}

impl Captioned for Scenes {
    type Composition = Layout;

    fn captions_per_item(&self) -> usize {
        self.config.captions_per_scene
    }

    fn composition(&self, index: usize) -> Layout {
        self.layouts[index]
    }

    fn writer(&self, index: usize, purpose: Purpose) -> Writer<Layout> {
        self.scene(index).writer(purpose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::identifying;

    #[test]
    fn the_same_seed_gives_the_same_and_another_seed_other_scenes() {
        let config = ScenesConfig::new(60).with_seed(5);
        let (a, b) = (Scenes::generate(&config).unwrap(), Scenes::generate(&config).unwrap());
        assert!(a.iter().eq(b.iter()));
        assert_eq!(a.features(), b.features());
        assert_eq!(a.captions().unwrap(), b.captions().unwrap());
        let other = Scenes::generate(&config.with_seed(6)).unwrap();
        assert!(a.scene(0).render() != other.scene(0).render());
    }

    #[test]
    fn descriptions_and_ids_are_distinct() {
        let scenes = Scenes::generate(&ScenesConfig::new(50_000)).unwrap();
        let descriptions: HashSet<_> = scenes.iter().map(|scene| scene.description()).collect();
        let ids: HashSet<_> = scenes.ids().into_iter().collect();
        assert_eq!((descriptions.len(), ids.len()), (50_000, 50_000));
        for len in 1..=3 {
            assert!(scenes.iter().any(|scene| scene.objects().len() == len));
        }
    }

    /// Squared distances to every row, the slow and obvious way.
    fn nearest(rows: &[f32], query: &[f32]) -> usize {
        let distance =
            |row: &[f32]| -> f32 { row.iter().zip(query).map(|(a, b)| (a - b) * (a - b)).sum() };
        let distances = rows.chunks(query.len()).map(distance);
        distances.enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).expect("some rows").0
    }

    #[test]
    fn another_picture_of_a_scene_is_nearest_to_the_scene() {
        let scenes = Scenes::generate(&ScenesConfig::new(500)).unwrap();
        let (rows, _) = scenes.features();
        let right = scenes
            .iter()
            .filter(|scene| {
                let again = picture_features(&scene.render_variant(1));
                nearest(&rows, &again) == scene.index()
            })
            .count();
        assert!(right >= 450, "{right} of 500");
    }

    #[test]
    fn counting_identifying_captions_agrees_with_comparing_all_pairs() {
        let scenes = Scenes::generate(&ScenesConfig::new(3_000)).unwrap();
        let layouts: Vec<Layout> = (0..scenes.len()).map(|i| scenes.composition(i)).collect();
        // No extents and no places: some scenes look alike then.
        let facts = Facts { backdrop: true, ..Facts::default() };
        let alike = |a: &Layout, b: &Layout| a.key(facts) == b.key(facts);
        let slow =
            layouts.iter().filter(|a| layouts.iter().filter(|b| alike(a, b)).count() == 1).count();
        assert!(slow < layouts.len());
        assert_eq!(identifying(&scenes, &vec![vec![facts]; layouts.len()]), slow);
    }
}
