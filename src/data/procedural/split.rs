//! Training captions and held-out queries, and the check that they do not overlap.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    captions::{Draft, Purpose},
    scene::{Facts, Layout},
    scenes::{Scenes, out_of_words},
};
use crate::Result;

/// Wordings of one query to try.
const ATTEMPTS: usize = 1_000;

/// One text about one scene.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caption {
    /// The scene's number.
    pub item: usize,
    /// What it says.
    pub text: String,
}

/// Captions of a benchmark, split; made by [`Scenes::captions`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SceneCaptions {
    /// Captions to train on, scene by scene.
    pub training: Vec<Caption>,
    /// One held-out caption of each scene, in the order of the scenes.
    pub queries: Vec<Caption>,
    /// What was counted while splitting.
    pub audit: CaptionAudit,
}

/// Counts about a split.
///
/// A caption identifies its scene when no other scene agrees with the facts that it states. Stated
/// relations ("above", "to the left of") are not counted as facts, so the true numbers are higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CaptionAudit {
    /// Number of training captions.
    pub training: usize,
    /// Number of queries.
    pub queries: usize,
    /// Queries whose text is also a training caption: always 0, counted after the split.
    pub shared_texts: usize,
    /// Queries that were worded again because a training caption had their text.
    pub reworded: usize,
    /// Queries from templates that no training caption uses.
    pub held_out_templates: usize,
    /// Training captions that identify their scene.
    pub identifying_training: usize,
    /// Queries that identify their scene.
    pub identifying_queries: usize,
}

/// Splits, then audits.
pub(super) fn split(scenes: &Scenes, layouts: &[Layout]) -> Result<SceneCaptions> {
    let per_scene = scenes.config().captions_per_scene;
    let training: Vec<Vec<Draft>> = (0..scenes.len())
        .into_par_iter()
        .map(|i| scenes.scene(i).training_captions(per_scene))
        .collect();
    // By hash: a chance collision costs one rewording and lets no shared text through.
    let hash = BuildHasherDefault::<DefaultHasher>::default();
    let taken: HashSet<u64> =
        training.iter().flatten().map(|draft| hash.hash_one(&draft.text)).collect();
    let queries: Vec<(Draft, bool)> = (0..scenes.len())
        .into_par_iter()
        .map(|i| {
            let scene = scenes.scene(i);
            let mut writer = scene.writer(Purpose::Query);
            let found = (0..ATTEMPTS)
                .map(|attempt| (writer.write(), attempt > 0))
                .find(|(draft, _)| !taken.contains(&hash.hash_one(&draft.text)));
            found.ok_or_else(|| out_of_words(&scene))
        })
        .collect::<Result<_>>()?;

    let texts: HashSet<&str> = training.iter().flatten().map(|draft| &*draft.text).collect();
    let per_item = |drafts: &Vec<Draft>| drafts.iter().map(|draft| draft.facts).collect();
    let audit = CaptionAudit {
        training: training.iter().map(Vec::len).sum(),
        queries: queries.len(),
        shared_texts: queries.iter().filter(|(draft, _)| texts.contains(&*draft.text)).count(),
        reworded: queries.iter().filter(|(_, reworded)| *reworded).count(),
        held_out_templates: queries.iter().filter(|(draft, _)| draft.held_out).count(),
        identifying_training: identifying(layouts, training.iter().map(per_item).collect()),
        identifying_queries: identifying(
            layouts,
            queries.iter().map(|(draft, _)| vec![draft.facts]).collect(),
        ),
    };
    let caption = |item: usize, draft: Draft| Caption { item, text: draft.text };
    let training = training
        .into_iter()
        .enumerate()
        .flat_map(|(item, drafts)| drafts.into_iter().map(move |draft| caption(item, draft)));
    let queries =
        queries.into_iter().enumerate().map(|(item, (draft, _))| caption(item, draft)).collect();
    Ok(SceneCaptions { training: training.collect(), queries, audit })
}

/// How many of the captions, given by the facts that they state about each scene, no other scene
/// agrees with.
fn identifying(layouts: &[Layout], stated: Vec<Vec<Facts>>) -> usize {
    let kinds: HashSet<Facts> = stated.iter().flatten().copied().collect();
    kinds
        .into_par_iter()
        .map(|facts| {
            let mut scenes_with: HashMap<u64, u32> = HashMap::with_capacity(layouts.len());
            for layout in layouts {
                *scenes_with.entry(layout.key(facts)).or_default() += 1;
            }
            let unique = |layout: &Layout| scenes_with[&layout.key(facts)] == 1;
            let captions = |kinds: &Vec<Facts>| kinds.iter().filter(|&&kind| kind == facts).count();
            layouts
                .iter()
                .zip(&stated)
                .filter(|(layout, _)| unique(layout))
                .map(|(_, kinds)| captions(kinds))
                .sum::<usize>()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::procedural::ScenesConfig;

    #[test]
    fn no_query_is_a_training_caption_and_most_identify_their_scene() {
        for count in [1_000, 30_000] {
            let scenes = Scenes::generate(&ScenesConfig::new(count)).unwrap();
            let SceneCaptions { training, queries, audit } = scenes.captions().unwrap();
            let texts: HashSet<_> = training.iter().map(|caption| &caption.text).collect();
            assert!(queries.iter().all(|query| !texts.contains(&query.text)));
            assert_eq!((audit.shared_texts, audit.training), (0, count * 5));
            assert_eq!((audit.queries, training.len()), (count, count * 5));
            assert!((count / 3..count * 2 / 3).contains(&audit.held_out_templates));
            assert!(audit.identifying_queries > count * 9 / 10, "{audit:?}");
            assert!(audit.identifying_training > count * 9 / 2, "{audit:?}");
        }
    }

    #[test]
    fn counting_identifying_captions_agrees_with_comparing_all_pairs() {
        let scenes = Scenes::generate(&ScenesConfig::new(3_000)).unwrap();
        let layouts: Vec<_> = scenes.iter().map(|scene| scene.layout).collect();
        // No extents and no places: some scenes look alike then.
        let facts = Facts { backdrop: true, ..Facts::default() };
        let alike = |a: &Layout, b: &Layout| a.key(facts) == b.key(facts);
        let slow =
            layouts.iter().filter(|a| layouts.iter().filter(|b| alike(a, b)).count() == 1).count();
        assert!(slow < layouts.len());
        assert_eq!(identifying(&layouts, vec![vec![facts]; layouts.len()]), slow);
    }
}
