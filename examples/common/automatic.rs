//! Sizes that follow the data: what an automatic recipe chooses, and why.
//!
//! Pure: from counts to settings, in words too.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
};

use anyhow::{Result, ensure};
use cart_retrieval::quantizer::{
    CoarseToFineConfig, Codebooks, FineConfig, HealthThresholds, HierarchicalConfig, RqVaeConfig,
};

/// Fewest distinct rows that an RQ-VAE is trained on: with fewer, many candidates share their
/// codes.
const LEARNABLE: usize = 500;
/// Most levels of a tree of K-Means.
const DEEPEST: usize = 8;
/// Share of the candidates that may share their codes, on top of those that nothing tells apart.
const SHARED: f64 = 0.2;

/// How far rows differ from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// Rows.
    pub items: usize,
    /// Numbers of a row.
    pub dim: usize,
    /// Different rows.
    pub distinct: usize,
    /// Rows that another row equals.
    pub repeated: usize,
    /// Most rows that are all equal.
    pub largest: usize,
}

/// A row by its bits.
struct Bits<'a>(&'a [f32]);

impl Hash for Bits<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.iter().for_each(|value| value.to_bits().hash(state));
    }
}

impl PartialEq for Bits<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).all(|(a, b)| a.to_bits() == b.to_bits())
    }
}

impl Eq for Bits<'_> {}

impl Rows {
    /// Counts rows of width `dim`. Rows with different `labels` differ whatever their numbers are.
    pub fn of(rows: &[f32], dim: usize, labels: Option<&[u64]>) -> Self {
        let mut counts: HashMap<(Bits<'_>, u64), usize> = HashMap::new();
        for (item, row) in rows.chunks_exact(dim).enumerate() {
            let label = labels.map_or(0, |labels| labels[item]);
            *counts.entry((Bits(row), label)).or_default() += 1;
        }
        Self {
            items: rows.len() / dim,
            dim,
            distinct: counts.len(),
            repeated: counts.values().filter(|&&count| count > 1).sum(),
            largest: counts.values().copied().max().unwrap_or(0),
        }
    }

    /// Share of the rows that another row equals.
    pub fn repeated_share(&self) -> f64 {
        self.repeated as f64 / self.items.max(1) as f64
    }
}

/// What a data folder holds, as far as sizes follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The feature rows.
    pub rows: Rows,
    /// Captions.
    pub captions: usize,
    /// Candidates that have a caption.
    pub described: usize,
    /// Candidates that have several.
    pub several: usize,
    /// Most words of a caption.
    pub words: usize,
    /// Whether a pretrained text encoder reads the captions.
    pub pretrained: bool,
}

impl Facts {
    /// Data as there might be, to read a recipe without any.
    pub fn of_some_data(pretrained: bool) -> Self {
        let rows = Rows { items: 1000, dim: 512, distinct: 1000, repeated: 0, largest: 1 };
        Self { rows, captions: 2000, described: 1000, several: 1000, words: 16, pretrained }
    }

    /// Captions that are trained on.
    fn pairs(&self) -> usize {
        self.captions - self.several
    }
}

/// What is chosen, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The settings, as the text of a recipe.
    pub settings: String,
    /// The same in words.
    pub reasons: Vec<String>,
}

impl Choice {
    /// Chooses the settings for some data.
    ///
    /// # Errors
    /// With fewer than two different rows, which no identifier tells apart.
    pub fn of(facts: &Facts) -> Result<Self> {
        let Facts { rows, captions, described, several, .. } = *facts;
        ensure!(
            rows.distinct >= 2,
            "features: expected at least two candidates whose rows differ, found {} with {} \
             different \
             rows; nothing tells equal rows apart: add candidates, or make their features again",
            rows.items,
            rows.distinct
        );
        let first = &attempts(&rows)[0];
        let mut reasons = vec![
            format!(
                "{} candidates, {} different rows of {} numbers: {}",
                rows.items, rows.distinct, rows.dim, first.why
            ),
            match several {
                0 => format!(
                    "{captions} captions, one a candidate: all are trained on, and none is left \
                     to evaluate with"
                ),
                _ => format!(
                    "{captions} captions: the last one of each of {several} candidates with \
                     several is held \
                     out for `evaluate`, the others are trained on"
                ),
            },
        ];
        if rows.repeated > 0 {
            reasons.push(format!(
                "{} candidates have the features of another one (at most {} alike): only unique \
                 tokens tell them apart",
                rows.repeated, rows.largest
            ));
        }
        if described < rows.items {
            reasons.push(format!(
                "{} candidates have no caption: texts find them by their features at best",
                rows.items - described
            ));
        }
        let (training, why) = training(facts);
        reasons.push(format!("{why}; no validation: the last model is kept"));
        let settings = [
            format!("seed = 1\nunique_capacity = {}\n", rows.largest.max(16)),
            "train = { except_held_out = true }\nqueries = { held_out = true }\n".to_string(),
            quantizer(&first.quantizer),
            format!(
                "[health]\nmin_used_share = {:?}\nmin_normalised_entropy = {:?}\nmax_shared_items \
                 = {:?}\n\
                 max_largest_collision = {}\nmax_residual_energy = {:?}\n",
                first.health.min_used_share,
                first.health.min_normalised_entropy,
                first.health.max_shared_items,
                first.health.max_largest_collision,
                first.health.max_residual_energy
            ),
            training,
        ];
        Ok(Self { settings: settings.concat(), reasons })
    }
}

/// The tables of network, training and search.
fn training(facts: &Facts) -> (String, String) {
    let pairs = facts.pairs().max(1);
    let width = if facts.rows.items < 10_000 { 20 } else { 50 };
    // Two tokens a word and the two special ones, in eights.
    let tokens = (2 * facts.words + 2).next_multiple_of(8);
    let passes = |batch: usize, steps: usize, least: usize, most: usize| {
        steps.div_ceil(pairs.div_ceil(batch)).clamp(least, most)
    };
    if facts.pretrained {
        let batch = pairs.min(64);
        let epochs = passes(64, 150, 3, 30);
        let settings = format!(
            "[model]\nmax_tokens = {}\nd_model = 384\nd_ff = 1536\nn_heads = 12\ndecoder_layers = \
             2\ndropout = 0.1\n\
             [space]\nfeatures = 1.0\ntexts = 1.0\n[space_tuning]\nepochs = 3\n\
             [alignment]\nguided = true\nwords = 0.4\n\
             [training]\nepochs = {epochs}\nbatch_size = {batch}\nlearning_rate = 3e-4\nfreeze = \
             \"encoder\"\n\
             frozen_cache = {{ mebibytes = 2048, half = true }}\nvalidations = 1\n\
             [training.loss]\nscope = \"legal\"\nr_drop = 0.0\nlabel_smoothing = \
             0.0\nguide_factor = 3.0\n\
             [beam]\nwidth = {width}\ndecoder_weight = 0.1\nrerank = 20.0\n",
            tokens.clamp(24, 64)
        );
        let why = format!(
            "pretrained text encoder: candidates in its space, {epochs} passes over {pairs} \
             captions in batches of {batch}"
        );
        return (settings, why);
    }
    let batch = pairs.min(32);
    let epochs = passes(32, 5000, 4, 200);
    let vocabulary = if facts.captions < 50_000 { 4000 } else { 8000 };
    // Few texts repeat few words.
    let frequency = if facts.captions < 1000 { 1 } else { 2 };
    let settings = format!(
        "[tokenizer]\nvocabulary = {vocabulary}\nmin_frequency = {frequency}\n\
         [model]\nmax_tokens = {}\nd_model = 128\nd_ff = 256\nn_heads = 4\nencoder_layers = 2\n\
         decoder_layers = 2\ndropout = 0.1\n\
         [training]\nepochs = {epochs}\nbatch_size = {batch}\nlearning_rate = 1e-3\nword_dropout \
         = 0.2\nvalidations = 6\n\
         [training.loss]\nscope = \"legal\"\nr_drop = 0.0\nlabel_smoothing = 0.1\n\
         [beam]\nwidth = {width}\n",
        tokens.clamp(24, 128)
    );
    let why = format!(
        "text encoder from scratch: {epochs} passes over {pairs} captions in batches of {batch}"
    );
    (settings, why)
}

/// A quantizer to try, what is healthy enough, and what it is in words.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    pub quantizer: CoarseToFineConfig,
    pub health: HealthThresholds,
    pub why: String,
}

/// Quantizers for some rows, in the order in which they are to be tried: each repairs what the
/// health check may refuse of
/// those before it, and the last one passes.
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
                quantizer: CoarseToFineConfig::new(k, vec![]).with_fine(FineConfig::RqVae(fine)),
                health: health.clone(),
            });
        }
    }
    // A tree gives every distinct row a path of its own, if it is deep enough: whether codes are
    // used evenly then says
    // nothing.
    let most = distinct - k + 1;
    let size = most.clamp(2, 16);
    // Clusters are uneven: a level more than even ones need.
    let needed = if size < most { size * most } else { most };
    let first = (1..DEEPEST).find(|&levels| size.pow(levels as u32) >= needed).unwrap_or(DEEPEST);
    for levels in first..=DEEPEST {
        let fine = HierarchicalConfig::new(vec![size; levels]);
        all.push(Attempt {
            why: format!("k = {k}, fine levels of {size} codes: {levels}, by hierarchical K-Means"),
            quantizer: CoarseToFineConfig::new(k, vec![]).with_fine(FineConfig::Hierarchical(fine)),
            health: HealthThresholds {
                min_used_share: 0.0,
                min_normalised_entropy: 0.0,
                max_shared_items: if levels == DEEPEST { 1.0 } else { shared },
                max_largest_collision: if levels == DEEPEST {
                    usize::MAX
                } else {
                    health.max_largest_collision
                },
                ..health.clone()
            },
        });
    }
    all
}

/// An RQ-VAE that is trained for about 800 steps, or for 20 passes where these are more.
fn vae(rows: &Rows, sizes: Vec<usize>) -> RqVaeConfig {
    let batch = power_of_two(rows.items / 8).clamp(32, 256);
    let epochs = 800_usize.div_ceil(rows.items.div_ceil(batch)).clamp(20, 200);
    let latent = rows.dim.clamp(2, 64);
    RqVaeConfig::new(sizes)
        .with_codebooks(Codebooks::Gradient)
        .with_latent(latent)
        .with_hidden(vec![(4 * latent).max(32)])
        .with_batch(batch)
        .with_epochs(epochs)
}

/// The table of a quantizer.
fn quantizer(config: &CoarseToFineConfig) -> String {
    let coarse =
        format!("[quantizer.coarse]\nk = {}\nrestarts = 5\n[quantizer.fine]\n", config.coarse.k);
    let fine = match &config.fine {
        FineConfig::RqVae(fine) => format!(
            "method = \"rq-vae\"\nsizes = {:?}\ncodebooks = \"gradient\"\nlatent = {}\nhidden = \
             {:?}\nbatch = {}\n\
             epochs = {}\n",
            fine.sizes, fine.latent, fine.hidden, fine.batch, fine.epochs
        ),
        FineConfig::RqKmeans(fine) => format!("method = \"rq-kmeans\"\nsizes = {:?}\n", fine.sizes),
        FineConfig::Hierarchical(fine) => {
            format!("method = \"hierarchical\"\nsizes = {:?}\n", fine.sizes)
        }
    };
    coarse + &fine
}

/// The largest power of two up to `number`, at least 1.
fn power_of_two(number: usize) -> usize {
    1 << number.max(1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(items: usize, each: usize) -> Facts {
        let rows = Rows { items, dim: 512, distinct: items, repeated: 0, largest: 1 };
        let several = if each > 1 { items } else { 0 };
        Facts {
            rows,
            captions: items * each,
            described: items,
            several,
            words: 9,
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
                for pretrained in [false, true] {
                    let choice = Choice::of(&Facts { pretrained, ..facts(items, each) }).unwrap();
                    let table: toml::Table = toml::from_str(&choice.settings).unwrap();
                    assert!(table.contains_key("quantizer"));
                    assert_eq!(table.contains_key("space"), pretrained);
                }
            }
        }
    }

    #[test]
    fn training_is_as_long_for_few_captions_as_for_many() {
        let of = |items, each| {
            let table: toml::Table =
                toml::from_str(&Choice::of(&facts(items, each)).unwrap().settings).unwrap();
            let number = |key: &str| table["training"][key].as_integer().unwrap();
            (number("batch_size"), number("epochs"))
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
        assert!(single.contains("none is left to evaluate with"), "{single}");
        let mut some = facts(30, 3);
        some.described = 28;
        some.rows = Rows { distinct: 2, repeated: 30, largest: 16, ..some.rows };
        let several = said(&some);
        assert!(several.contains("30 candidates with several is held out"), "{several}");
        assert!(several.contains("30 candidates have the features of another one"), "{several}");
        assert!(several.contains("2 candidates have no caption"), "{several}");
        let one = Choice::of(&facts(1, 1)).unwrap_err().to_string();
        assert!(one.contains("at least two candidates whose rows differ"), "{one}");
    }

    #[test]
    fn rows_are_counted_by_their_bits_and_labels() {
        let rows = [1.0, 2.0, 1.0, 2.0, 3.0, 2.0, 1.0, 2.0];
        let counted = Rows::of(&rows, 2, None);
        assert_eq!(counted, Rows { items: 4, dim: 2, distinct: 2, repeated: 3, largest: 3 });
        let labelled = Rows::of(&rows, 2, Some(&[7, 8, 7, 7]));
        assert_eq!(labelled, Rows { items: 4, dim: 2, distinct: 3, repeated: 2, largest: 2 });
    }
}
