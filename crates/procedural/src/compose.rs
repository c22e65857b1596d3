//! What captions of all benchmarks are made of: templates with slots, and the writer that fills
//! them.

use std::hash::Hash;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How often the usual word is chosen among the words for something.
const USUAL: f64 = 0.6;

/// What a caption is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Only from the shared templates.
    Training,
    /// From both, as often from one as from the other.
    Query,
}

/// A caption and what is known about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Draft<F> {
    pub(super) text: String,
    /// What the caption states at least.
    pub(super) facts: F,
    /// Whether its template is one of the held-out ones.
    pub(super) held_out: bool,
}

/// Templates of captions: texts with slots in braces.
#[derive(Debug, Clone, Copy)]
pub(super) struct Templates {
    /// Ways to say it that training captions and queries share.
    pub(super) shared: &'static [&'static str],
    /// Ways to say it that only queries have.
    pub(super) held_out: &'static [&'static str],
}

/// What an item is, without how it is drawn.
pub(super) trait Composition: Copy + Send + Sync {
    /// Which of its facts a caption states.
    type Facts: Copy + Eq + Hash + Send + Sync;

    const TEMPLATES: Templates;

    /// A key that two compositions share exactly when they agree in all of `facts`.
    fn key(&self, facts: Self::Facts) -> u64;

    /// Whether a template can say enough of it.
    fn suits(&self, template: &str) -> bool;

    /// Fills a template.
    fn fill(&self, template: &str, rng: &mut ChaCha8Rng) -> (String, Self::Facts);
}

/// Writes captions of one item, as many as are asked for.
pub(super) struct Writer<C> {
    composition: C,
    purpose: Purpose,
    rng: ChaCha8Rng,
}

impl<C: Composition> Writer<C> {
    /// Of item `index` of a benchmark with a seed.
    pub(super) fn new(composition: C, purpose: Purpose, seed: u64, index: usize) -> Self {
        let salt = match purpose {
            Purpose::Training => 0x7a11,
            Purpose::Query => 0x9e27,
        };
        Self { composition, purpose, rng: item_rng(seed, index, salt) }
    }

    /// The next caption; captions can repeat.
    pub(super) fn write(&mut self) -> Draft<C::Facts> {
        let held_out = self.purpose == Purpose::Query && self.rng.random_bool(0.5);
        let templates = if held_out { C::TEMPLATES.held_out } else { C::TEMPLATES.shared };
        let template = loop {
            let template = pick(templates, &mut self.rng);
            if self.composition.suits(template) {
                break template;
            }
        };
        let (text, facts) = self.composition.fill(template, &mut self.rng);
        Draft { text, facts, held_out }
    }

    /// The next captions, no two alike; fewer where there are no more ways to say it.
    pub(super) fn distinct(mut self, count: usize) -> Vec<Draft<C::Facts>> {
        let mut captions: Vec<Draft<_>> = Vec::with_capacity(count.min(64));
        for _ in 0..count.saturating_mul(4).saturating_add(64) {
            if captions.len() == count {
                break;
            }
            let caption = self.write();
            if captions.iter().all(|other| other.text != caption.text) {
                captions.push(caption);
            }
        }
        captions
    }
}

/// A generator of an item's own: items can be drawn in any order and in parallel.
pub(super) fn item_rng(seed: u64, index: usize, salt: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ salt.rotate_left(32));
    rng.set_stream(index as u64 + 1);
    rng
}

/// A template with every `{slot}` replaced by what `say` gives for it.
pub(super) fn fill_slots(template: &str, mut say: impl FnMut(&str) -> String) -> String {
    let mut text = String::with_capacity(120);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (slot, after) = after.split_once('}').expect("templates close their slots");
        text.push_str(before);
        text.push_str(&say(slot));
        rest = after;
    }
    text.push_str(rest);
    text
}

pub(super) fn pick<T: Copy>(from: &[T], rng: &mut ChaCha8Rng) -> T {
    from[rng.random_range(0..from.len())]
}

/// The usual word, or sometimes another.
pub(super) fn word(words: &[&'static str], rng: &mut ChaCha8Rng) -> &'static str {
    if words.len() == 1 || rng.random_bool(USUAL) { words[0] } else { pick(&words[1..], rng) }
}

/// With "a" or "an".
pub(super) fn indefinite(words: &str) -> String {
    let article = if words.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {words}")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What every composition's templates have to do, tried on some compositions.
    pub(crate) fn check_templates<C: Composition>(compositions: &[C]) {
        let Templates { shared, held_out } = C::TEMPLATES;
        assert!(shared.len() >= 20 && held_out.len() >= 5);
        assert!(shared.iter().all(|template| !held_out.contains(template)));
        for composition in compositions {
            for (number, template) in shared.iter().chain(held_out).enumerate() {
                if !composition.suits(template) {
                    continue;
                }
                for turn in 0..4 {
                    let (text, _) = composition.fill(template, &mut item_rng(turn, number, 1));
                    assert!(!text.contains(['{', '}']) && !text.contains("  "), "{text}");
                    for vowel in ["a a", "a e", "a i", "a o", "a u"] {
                        assert!(!format!(" {text}").contains(&format!(" {vowel}")), "{text}");
                    }
                    assert_eq!(text, text.trim());
                }
            }
        }
    }
}
