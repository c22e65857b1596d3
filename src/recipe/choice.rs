//! Settings chosen from the data, with reasons.
//!
//! Counts go in; settings and their reasons come out. Nothing is read or computed here.

use super::{
    counts::{Facts, Rows},
    settings::{AlignmentSettings, ModelSettings, Recipe},
};
use crate::{
    align::{EncoderTuning, LateInteractionConfig, TextSpaceConfig},
    data::{CaptionFilter, LeakAuditConfig, TokenizerConfig},
    decode::BeamConfig,
    error::{Error, Result},
    model::{LossConfig, Scope},
    quantizer::{
        CoarseToFineConfig, Codebooks, FineConfig, HealthThresholds, HierarchicalConfig,
        RqVaeConfig,
    },
    train::{Freeze, FrozenCache, TrainConfig},
};

/// Fewest distinct rows that an RQ-VAE is trained on: with fewer, many candidates share their
/// codes.
const LEARNABLE: usize = 500;
/// Most levels of a tree of K-Means.
const DEEPEST: usize = 8;
/// Share of the candidates that may share their codes, on top of those that nothing tells apart.
const SHARED: f64 = 0.2;

/// The choice and its reasons.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Choice {
    /// The settings.
    pub(super) recipe: Recipe,
    /// The reasons in words.
    pub(super) reasons: Vec<String>,
}

impl Choice {
    /// Chooses for typical data, to check a recipe without data.
    pub(super) fn of_some_data(pretrained: bool) -> Self {
        let rows = Rows { items: 1000, dim: 512, distinct: 1000, repeated: 0, largest: 1 };
        Self::of_rows(&Facts {
            rows,
            pairs: 1000,
            described: 1000,
            held_out: 1000,
            words: 16,
            asks: true,
            unseen: false,
            pretrained,
        })
    }

    /// Chooses the settings for some data.
    ///
    /// # Errors
    /// [`Error::Features`] with fewer than two different rows; [`Error::Captions`] without a
    /// training caption.
    pub(super) fn of(facts: &Facts) -> Result<Self> {
        let rows = facts.rows;
        Error::features("candidates to train on")
            .expected("at least two whose rows differ")
            .found(format!("{} with {} different rows", rows.items, rows.distinct))
            .fix_if(
                rows.distinct < 2,
                "add candidates, or recompute their features: equal rows cannot be told apart",
            )?;
        if facts.pairs == 0 {
            return Err(Error::captions("captions to train on").expected("at least one").found("none").fix("add captions of the candidates to captions.jsonl, or let the example `caption` \
                 write some"));
        }
        Ok(Self::of_rows(facts))
    }

    fn of_rows(facts: &Facts) -> Self {
        let Facts { rows, pairs, described, held_out, .. } = *facts;
        let first = attempts(&rows).swap_remove(0);
        let mut reasons = vec![format!(
            "{} candidates, {} different rows of {} numbers: {}",
            rows.items, rows.distinct, rows.dim, first.why
        )];
        reasons.push(match (held_out, facts.asks) {
            (0, false) => format!(
                "{pairs} captions, one for each candidate: all are used for training, and none is \
                 left for evaluation"
            ),
            (0, true) => format!("{pairs} captions to train on"),
            _ => format!(
                "{pairs} captions to train on; the last caption of each of {held_out} candidates \
                 with several is held out for `evaluate`"
            ),
        });
        if rows.repeated > 0 {
            reasons.push(format!(
                "{} candidates have the same features as another one (at most {} are equal): only \
                 unique tokens tell them apart",
                rows.repeated, rows.largest
            ));
        }
        if described < rows.items {
            reasons.push(format!(
                "{} candidates have no caption: queries can only find them by their features",
                rows.items - described
            ));
        }
        let (settings, why) = if facts.pretrained { pretrained(facts) } else { scratch(facts) };
        reasons.push(why);
        let recipe = Recipe {
            seed: 1,
            unique_capacity: rows.largest.max(16),
            quantizer: first.quantizer,
            health: first.health,
            ..settings
        };
        Self { recipe, reasons }
    }
}

impl Default for Recipe {
    /// The choice for a thousand candidates with two captions each, without a pretrained encoder.
    fn default() -> Self {
        Choice::of_some_data(false).recipe
    }
}

/// What all choices have in common.
fn common(facts: &Facts, max_tokens: usize) -> Recipe {
    let width = if facts.rows.items < 10_000 { 20 } else { 50 };
    Recipe {
        dataset: "own data".into(),
        protocol: "query the last caption of candidates with several".into(),
        seed: 1,
        generated: Vec::new(),
        generated_weight: 1.0,
        unique_capacity: 16,
        without_coarse: false,
        train: CaptionFilter { except_held_out: true, ..CaptionFilter::default() },
        queries: CaptionFilter { held_out: true, ..CaptionFilter::default() },
        validation: None,
        splits: None,
        audit: LeakAuditConfig::default(),
        tuning: None,
        tokenizer: TokenizerConfig::default(),
        text: None,
        model: ModelSettings { max_tokens, ..ModelSettings::default() },
        space: None,
        space_tuning: None,
        alignment: None,
        late_interaction: None,
        identifiers: Default::default(),
        quantizer: CoarseToFineConfig::new(2, RqVaeConfig::new(vec![2])),
        health: HealthThresholds::default(),
        training: TrainConfig::default(),
        beam: BeamConfig { width, ..BeamConfig::default() },
        origin: None,
    }
}

/// Tokens of the longest caption: two a word and the two special ones, in eights.
fn tokens(facts: &Facts) -> usize {
    (2 * facts.words + 2).next_multiple_of(8)
}

/// Passes that make about `steps` steps.
fn passes(pairs: usize, batch: usize, steps: usize, least: usize, most: usize) -> usize {
    steps.div_ceil(pairs.max(1).div_ceil(batch)).clamp(least, most)
}

/// With a pretrained text encoder: candidates in its space, guided by their vectors.
fn pretrained(facts: &Facts) -> (Recipe, String) {
    let pairs = facts.pairs;
    let batch = pairs.clamp(1, 64);
    // On unseen candidates the geometry alone ranks better than with a trained decoder, and they
    // have no texts (docs/results.md).
    let epochs = if facts.unseen { 0 } else { passes(pairs, 64, 150, 3, 30) };
    let common = common(facts, tokens(facts).clamp(24, 64));
    let recipe = Recipe {
        model: ModelSettings { d_model: 384, d_ff: 1536, n_heads: 12, ..common.model.clone() },
        space: Some(TextSpaceConfig {
            features: 1.0,
            texts: if facts.unseen { 0.0 } else { 1.0 },
            ..TextSpaceConfig::default()
        }),
        space_tuning: Some(EncoderTuning { epochs: 3, ..EncoderTuning::default() }),
        alignment: Some(AlignmentSettings {
            guided: true,
            words: Some(0.4),
            ..AlignmentSettings::default()
        }),
        // Unseen candidates have no texts.
        late_interaction: (!facts.unseen).then(LateInteractionConfig::default),
        training: TrainConfig {
            epochs,
            batch_size: batch,
            learning_rate: 3e-4,
            freeze: Freeze::Encoder,
            frozen_cache: FrozenCache { mebibytes: 2048, half: true },
            validations: 1,
            loss: LossConfig {
                scope: Scope::Legal,
                r_drop: 0.0,
                label_smoothing: 0.0,
                guide_factor: if facts.unseen { 1.0 } else { 3.0 },
                ..LossConfig::default()
            },
            ..TrainConfig::default()
        },
        beam: BeamConfig {
            decoder_weight: if facts.unseen { 1.0 } else { 0.1 },
            rerank: 20.0,
            ..common.beam.clone()
        },
        ..common
    };
    let why = match epochs {
        0 => "pretrained text encoder, unseen candidates: their features are mapped to its space, \
             and the decoder is not trained"
            .to_string(),
        _ => format!(
            "pretrained text encoder: candidates are mapped to its space; {epochs} passes over \
             {pairs} captions in batches of {batch}"
        ),
    };
    (recipe, why)
}

/// Without a pretrained text encoder: one from scratch.
fn scratch(facts: &Facts) -> (Recipe, String) {
    let pairs = facts.pairs;
    let batch = pairs.clamp(1, 32);
    let epochs = passes(pairs, 32, 5000, 4, 200);
    let common = common(facts, tokens(facts).clamp(24, 128));
    let recipe = Recipe {
        tokenizer: TokenizerConfig {
            vocabulary: if pairs < 50_000 { 4000 } else { 8000 },
            // Few texts repeat few words.
            min_frequency: if pairs < 1000 { 1 } else { 2 },
            ..TokenizerConfig::default()
        },
        training: TrainConfig {
            epochs,
            batch_size: batch,
            learning_rate: 1e-3,
            word_dropout: 0.2,
            validations: 6,
            loss: LossConfig {
                scope: Scope::Legal,
                r_drop: 0.0,
                label_smoothing: 0.1,
                ..LossConfig::default()
            },
            ..TrainConfig::default()
        },
        ..common
    };
    let why = format!(
        "text encoder from scratch: {epochs} passes over {pairs} captions in batches of {batch}"
    );
    (recipe, why)
}

/// A quantizer to try, what is healthy enough, and what it is in words.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    pub quantizer: CoarseToFineConfig,
    pub health: HealthThresholds,
    pub why: String,
}

/// Quantizers for some rows, in the order in which they are to be tried: each repairs what the
/// health check may refuse of those before it, and the last one passes.
pub fn attempts(rows: &Rows) -> Vec<Attempt> {
    let distinct = rows.distinct.max(2);
    let k = power_of_two((distinct as f64).sqrt() as usize).clamp(2, 256);
    let shared = (rows.repeated_share() + SHARED).min(1.0);
    let health = HealthThresholds {
        max_shared_items: shared,
        max_largest_collision: rows.largest.max(256),
        max_residual_energy: 1.0,
        ..HealthThresholds::default()
    };
    let mut all = Vec::new();
    if distinct >= LEARNABLE {
        let size = power_of_two(distinct / 16).clamp(8, 256);
        for levels in [4, 5] {
            let fine = vae(rows, vec![size; levels]);
            all.push(Attempt {
                why: format!("k = {k}, fine levels of {size} codes: {levels}, by RQ-VAE"),
                quantizer: coarse_to_fine(k, FineConfig::RqVae(fine)),
                health: health.clone(),
            });
        }
    }
    // A tree gives every distinct row a path of its own, if it is deep enough: whether codes are
    // used evenly then says nothing.
    let most = distinct - k + 1;
    let size = most.clamp(2, 16);
    // Clusters are uneven: a level more than even ones need.
    let needed = if size < most { size * most } else { most };
    let first = (1..DEEPEST).find(|&levels| size.pow(levels as u32) >= needed).unwrap_or(DEEPEST);
    for levels in first..=DEEPEST {
        let fine = HierarchicalConfig::new(vec![size; levels]);
        all.push(Attempt {
            why: format!("k = {k}, fine levels of {size} codes: {levels}, by hierarchical K-Means"),
            quantizer: coarse_to_fine(k, FineConfig::Hierarchical(fine)),
            health: HealthThresholds {
                min_used_share: 0.0,
                min_normalised_entropy: 0.0,
                max_shared_items: if levels == DEEPEST { 1.0 } else { shared },
                max_largest_collision: if levels == DEEPEST {
                    rows.items.max(health.max_largest_collision)
                } else {
                    health.max_largest_collision
                },
                ..health.clone()
            },
        });
    }
    all
}

/// A quantizer whose K-Means is the best of five.
fn coarse_to_fine(k: usize, fine: FineConfig) -> CoarseToFineConfig {
    let mut config = CoarseToFineConfig::new(k, fine);
    config.coarse.restarts = 5;
    config
}

/// An RQ-VAE that is trained for about 800 steps, or for 20 passes where these are more.
fn vae(rows: &Rows, sizes: Vec<usize>) -> RqVaeConfig {
    let batch = power_of_two(rows.items / 8).clamp(32, 256);
    let epochs = 800_usize.div_ceil(rows.items.div_ceil(batch)).clamp(20, 200);
    let latent = rows.dim.clamp(2, 64);
    RqVaeConfig {
        codebooks: Codebooks::Gradient,
        latent,
        hidden: vec![(4 * latent).max(32)],
        batch,
        epochs,
        ..RqVaeConfig::new(sizes)
    }
}

/// The largest power of two up to `number`, at least 1.
fn power_of_two(number: usize) -> usize {
    1 << number.max(1).ilog2()
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;
    use crate::{features::Features, recipe::TextSettings};

    /// Facts of `items` candidates with `each` captions, of which the last is held out.
    fn facts(items: usize, each: usize) -> Facts {
        let rows = Rows { items, dim: 512, distinct: items, repeated: 0, largest: 1 };
        let held_out = if each > 1 { items } else { 0 };
        Facts {
            rows,
            pairs: items * each - held_out,
            described: items,
            held_out,
            words: 9,
            asks: held_out > 0,
            unseen: false,
            pretrained: false,
        }
    }

    fn sizes(distinct: usize) -> (usize, Vec<usize>) {
        let rows = Rows { items: distinct, dim: 8, distinct, repeated: 0, largest: 1 };
        let quantizer = attempts(&rows)[0].quantizer.clone();
        (quantizer.coarse.k, quantizer.fine.sizes().to_vec())
    }

    #[test]
    fn sizes_follow_the_number_of_different_rows() {
        for (distinct, k, fine) in [
            (2, 2, vec![2]),
            (3, 2, vec![2]),
            (5, 2, vec![4]),
            (30, 4, vec![16, 16, 16]),
            (213, 8, vec![16; 3]),
            (500, 16, vec![16; 4]),
            (1650, 32, vec![64; 4]),
            (2000, 32, vec![64; 4]),
            (40_000, 128, vec![256; 4]),
            (4_000_000, 256, vec![256; 4]),
        ] {
            assert_eq!(sizes(distinct), (k, fine), "{distinct}");
        }
    }

    #[test]
    fn no_size_exceeds_the_rows_and_every_choice_is_a_valid_recipe() {
        for distinct in (2..300).chain([1000, 5000, 100_000]) {
            let rows = Rows { items: distinct, dim: 3, distinct, repeated: 0, largest: 1 };
            let all = attempts(&rows);
            for attempt in &all {
                attempt.quantizer.validate().unwrap();
                assert!(attempt.quantizer.coarse.k <= distinct, "{distinct} {}", attempt.why);
                let sizes = attempt.quantizer.fine.sizes();
                assert!(sizes.iter().all(|&size| size <= distinct), "{distinct} {}", attempt.why);
            }
            assert_eq!(all.last().unwrap().health.max_shared_items, 1.0);
        }
        for each in [1, 2, 5] {
            for items in [2, 3, 5, 30, 213, 2000, 40_000] {
                for (pretrained, unseen) in
                    [(false, false), (true, false), (false, true), (true, true)]
                {
                    let facts = Facts { pretrained, unseen, ..facts(items, each) };
                    let mut recipe = Choice::of(&facts).unwrap().recipe;
                    let text = TextSettings { pretrained: "minilm".into(), dropout: None };
                    recipe.text = pretrained.then_some(text);
                    recipe.validate().unwrap();
                    assert_eq!(recipe.space.is_some(), pretrained);
                    assert_eq!(recipe.training.epochs == 0, pretrained && unseen);
                }
            }
        }
    }

    #[test]
    fn training_is_as_long_for_few_captions_as_for_many() {
        let of = |items, each| {
            let training = Choice::of(&facts(items, each)).unwrap().recipe.training;
            (training.batch_size, training.epochs)
        };
        assert_eq!(of(5, 1), (5, 200));
        assert_eq!(of(30, 1), (30, 200));
        assert_eq!(of(213, 3), (32, 200));
        assert_eq!(of(2000, 1), (32, 80));
        // 8,000 of 10,000 captions are trained on, 250 steps a pass.
        assert_eq!(of(2000, 5), (32, 20));
        assert_eq!(of(40_000, 5), (32, 4));
    }

    #[test]
    fn what_was_chosen_is_said() {
        let said = |facts: &Facts| Choice::of(facts).unwrap().reasons.join("\n");
        let single = said(&facts(213, 1));
        assert!(single.contains("213 different rows of 512 numbers: k = 8"), "{single}");
        assert!(single.contains("none is left for evaluation"), "{single}");
        let mut some = facts(30, 3);
        some.described = 28;
        some.rows = Rows { distinct: 2, repeated: 30, largest: 16, ..some.rows };
        let several = said(&some);
        assert!(
            several.contains("the last caption of each of 30 candidates with several is held out"),
            "{several}"
        );
        assert!(
            several.contains("30 candidates have the same features as another one"),
            "{several}"
        );
        assert!(several.contains("2 candidates have no caption"), "{several}");
        let one = Choice::of(&facts(1, 1)).unwrap_err().to_string();
        assert!(one.contains("at least two whose rows differ"), "{one}");
        let none = Choice::of(&Facts { pairs: 0, ..facts(5, 1) }).unwrap_err().to_string();
        assert!(none.contains("captions to train on"), "{none}");
    }

    #[test]
    fn rows_are_counted_by_their_bits_and_labels() {
        let rows = [1.0, 2.0, 1.0, 2.0, 3.0, 2.0, 1.0, 2.0];
        let counted = Rows::of(&rows, 2, None);
        assert_eq!(counted, Rows { items: 4, dim: 2, distinct: 2, repeated: 3, largest: 3 });
        let labelled = Rows::of(&rows, 2, Some(&[7, 8, 7, 7]));
        assert_eq!(labelled, Rows { items: 4, dim: 2, distinct: 3, repeated: 2, largest: 2 });
    }

    /// Rows of which most are nearly alike: what is tried first collapses, and what is tried last
    /// separates them.
    #[test]
    fn attempts_end_with_one_that_suits() {
        for (items, near) in [(12, 1e-3_f32), (40, 1e-4), (150, 1e-4)] {
            let row = |item: usize| {
                [if item.is_multiple_of(5) { 3.0 } else { 1.0 }, near * (item * item) as f32]
            };
            let rows: Vec<f32> = (0..items).flat_map(row).collect();
            let features = Features::from_rows(rows.clone(), 2).unwrap();
            let healthy = attempts(&Rows::of(&rows, 2, None)).into_iter().rev().any(|attempt| {
                let fitted = attempt.quantizer.fit::<Flex>(&features, &Default::default());
                let index = fitted.and_then(|fitted| fitted.assign(&features).run());
                let index = index.unwrap_or_else(|e| panic!("{items}: {}: {e}", attempt.why));
                index.health().shared_share < 0.1 && index.ensure_healthy(&attempt.health).is_ok()
            });
            assert!(healthy, "{items}");
        }
    }
}
