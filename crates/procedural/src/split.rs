//! Training captions and held-out queries, and the check that they do not overlap.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
};

use cart_retrieval::{Error, Result, expert::words};
use rayon::prelude::*;

use super::{
    benchmark::Benchmark,
    compose::{Composition, Draft, Purpose, Writer},
    texts::{Caption, CaptionAudit, SplitCaptions},
};

/// Wordings of one query to try.
const ATTEMPTS: usize = 1_000;

/// What a benchmark tells the split about its items.
pub(super) trait Captioned: Benchmark {
    type Composition: Composition;

    /// Training captions of an item.
    fn captions_per_item(&self) -> usize;

    fn composition(&self, index: usize) -> Self::Composition;

    fn writer(&self, index: usize, purpose: Purpose) -> Writer<Self::Composition>;
}

type FactsOf<T> = <<T as Captioned>::Composition as Composition>::Facts;

/// Splits, then audits.
pub(super) fn split<T: Captioned>(items: &T) -> Result<SplitCaptions> {
    let per_item = items.captions_per_item();
    let training: Vec<Vec<Draft<FactsOf<T>>>> = (0..items.len())
        .into_par_iter()
        .map(|i| items.writer(i, Purpose::Training).distinct(per_item))
        .collect();
    // By hash: a chance collision costs one rewording and lets no shared text through.
    let hash = BuildHasherDefault::<DefaultHasher>::default();
    let taken: HashSet<u64> =
        training.iter().flatten().map(|draft| hash.hash_one(normal(&draft.text))).collect();
    let queries: Vec<(Draft<FactsOf<T>>, bool)> = (0..items.len())
        .into_par_iter()
        .map(|i| {
            let mut writer = items.writer(i, Purpose::Query);
            let found = (0..ATTEMPTS)
                .map(|attempt| (writer.write(), attempt > 0))
                .find(|(draft, _)| !taken.contains(&hash.hash_one(normal(&draft.text))));
            found.ok_or_else(|| out_of_words(&items.id(i)))
        })
        .collect::<Result<_>>()?;

    let texts: HashSet<String> =
        training.iter().flatten().map(|draft| normal(&draft.text)).collect();
    let audit = CaptionAudit {
        training: training.iter().map(Vec::len).sum(),
        queries: queries.len(),
        shared_texts: queries
            .iter()
            .filter(|(draft, _)| texts.contains(&normal(&draft.text)))
            .count(),
        reworded: queries.iter().filter(|(_, reworded)| *reworded).count(),
        held_out_templates: queries.iter().filter(|(draft, _)| draft.held_out).count(),
        identifying_training: identifying(
            items,
            &training
                .iter()
                .map(|drafts| drafts.iter().map(|d| d.facts).collect())
                .collect::<Vec<_>>(),
        ),
        identifying_queries: identifying(
            items,
            &queries.iter().map(|(draft, _)| vec![draft.facts]).collect::<Vec<_>>(),
        ),
    };
    let caption = |item: usize, draft: Draft<FactsOf<T>>| Caption {
        item,
        text: draft.text,
        held_out: draft.held_out,
    };
    let training = training
        .into_iter()
        .enumerate()
        .flat_map(|(item, drafts)| drafts.into_iter().map(move |draft| caption(item, draft)));
    let queries =
        queries.into_iter().enumerate().map(|(item, (draft, _))| caption(item, draft)).collect();
    Ok(SplitCaptions { training: training.collect(), queries, audit })
}

/// A text as [`audit`](cart_retrieval::expert::audit) compares it: its words alone.
fn normal(text: &str) -> String {
    words(text).collect::<Vec<_>>().join(" ")
}

/// The error for an item that has run out of words.
fn out_of_words(id: &str) -> Error {
    Error::captions(id)
        .expected("a query that differs from every training caption")
        .found("only wordings that training captions have")
        .fix("ask for fewer training captions of an item")
}

/// How many of the captions, given by the facts that they state about each item, no other item
/// agrees with.
pub(super) fn identifying<T: Captioned>(items: &T, stated: &[Vec<FactsOf<T>>]) -> usize {
    let kinds: HashSet<FactsOf<T>> = stated.iter().flatten().copied().collect();
    kinds
        .into_par_iter()
        .map(|facts| {
            let mut items_with: HashMap<u64, u32> = HashMap::with_capacity(items.len());
            for index in 0..items.len() {
                *items_with.entry(items.composition(index).key(facts)).or_default() += 1;
            }
            let unique = |index: &usize| items_with[&items.composition(*index).key(facts)] == 1;
            let captions =
                |index: usize| stated[index].iter().filter(|&&kind| kind == facts).count();
            (0..items.len()).filter(unique).map(captions).sum::<usize>()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Clips, ClipsConfig, Scenes, ScenesConfig, Sounds, SoundsConfig};

    #[test]
    fn no_query_is_a_training_caption_and_most_identify_their_scene() {
        for count in [1_000, 30_000] {
            let scenes = Scenes::generate(&ScenesConfig::new(count)).unwrap();
            let sounds = Sounds::generate(&SoundsConfig::new(count)).unwrap();
            let clips = Clips::generate(&ClipsConfig::new(count)).unwrap();
            check(&scenes, 9);
            check(&sounds, 8);
            check(&clips, 8);
        }
    }

    fn check(items: &dyn Benchmark, tenths: usize) {
        let count = items.len();
        let SplitCaptions { training, queries, audit } = items.captions().unwrap();
        let texts: HashSet<_> = training.iter().map(|caption| &caption.text).collect();
        assert!(queries.iter().all(|query| !texts.contains(&query.text)));
        assert_eq!((audit.shared_texts, audit.training), (0, count * 5));
        assert_eq!((audit.queries, training.len()), (count, count * 5));
        assert!((count / 3..count * 2 / 3).contains(&audit.held_out_templates));
        assert!(audit.identifying_queries > count * tenths / 10, "{audit:?}");
        assert!(audit.identifying_training > count * tenths / 2, "{audit:?}");
        let held_out = queries.iter().filter(|query| query.held_out).count();
        assert_eq!(held_out, audit.held_out_templates);
        assert!(!training.iter().any(|caption| caption.held_out));
    }
}
