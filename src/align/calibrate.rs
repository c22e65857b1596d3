//! Factors of the cosine that fit the texts, before any training.

use rayon::prelude::*;

use super::{Geometry, HeldOut, TextVectors, dot};
use crate::{
    error::{Error, Result},
    trie::Trie,
};

/// Factors to choose from: from 1 to 100 in steps of a twentieth of a decade.
const STEPS: usize = 41;
/// Texts that are looked at, at most.
const MOST: usize = 10_000;

/// The factor of the cosine for every level, and for a softmax over all candidates, under which the
/// texts find their candidates with the highest likelihood.
///
/// The level's factors are chosen each for itself: given the prefix of the right candidate, the
/// probability of its next token depends on that level's factor only.
///
/// # Shapes
/// - `texts`: training texts in the space of the candidates
/// - `held_out`: for each text, its candidate's vector made without it
/// - returns: `[levels + 1]`
///
/// # Errors
/// [`Error::Training`] when texts, held-out vectors, trie and geometry do not fit each other.
pub fn calibrate(
    texts: &TextVectors,
    held_out: &HeldOut,
    trie: &Trie,
    geometry: &Geometry,
) -> Result<Vec<f32>> {
    let dim = geometry.dim();
    let stray = texts.items().iter().any(|&item| item as usize >= trie.len());
    if texts.is_empty() || texts.dim() != dim || held_out.len() != texts.len() || stray {
        return Err(Error::training(
            "texts to calibrate by",
            format!("texts of the candidates, of width {dim}, each with its held-out vector"),
            format!(
                "{} texts of width {}, {} held-out vectors",
                texts.len(),
                texts.dim(),
                held_out.len()
            ),
            "use the texts that the space was fitted on",
        ));
    }
    let stride = texts.len().div_ceil(MOST);
    let chosen: Vec<usize> = (0..texts.len()).step_by(stride).collect();
    let identifiers = trie.identifiers();
    let levels = trie.levels();
    let sums: Vec<Vec<f64>> = chosen
        .par_iter()
        .map(|&text| {
            let (query, item) = (texts.row(text), texts.items()[text]);
            let own = held_out.row(text);
            let change = dot(query, own) - dot(query, geometry.vectors().row(item as usize));
            let mut node = trie.root();
            let mut log_p = vec![0f64; (levels + 1) * STEPS];
            for (level, &token) in identifiers.row(item as usize).iter().enumerate() {
                let along = geometry.along(level, query);
                let mut target = 0;
                let mut next = node;
                let children: Vec<[f32; 3]> = trie
                    .children(node)
                    .zip(geometry.children(node))
                    .enumerate()
                    .map(|(at, ((child, below), number))| {
                        let mut cosine = dot(query, geometry.mean(level, number));
                        if child == token {
                            (target, next) = (at, below);
                            cosine += change / below.count() as f32;
                        }
                        let spread = along * geometry.spread(level, number);
                        [geometry.log_count(level, number), cosine, spread]
                    })
                    .collect();
                if children.len() > 1 {
                    let sums = &mut log_p[level * STEPS..(level + 1) * STEPS];
                    sums.iter_mut().enumerate().for_each(|(step, sum)| {
                        *sum = log_probability(&children, target, factor(step));
                    });
                }
                node = next;
            }
            let all: Vec<[f32; 3]> = geometry
                .vectors()
                .as_slice()
                .chunks_exact(dim)
                .enumerate()
                .map(|(at, row)| {
                    let row = if at == item as usize { own } else { row };
                    [0.0, dot(query, row), 0.0]
                })
                .collect();
            let sums = &mut log_p[levels * STEPS..];
            sums.iter_mut().enumerate().for_each(|(step, sum)| {
                *sum = log_probability(&all, item as usize, factor(step));
            });
            log_p
        })
        .collect();
    let total = |at: usize| sums.iter().map(|row| row[at]).sum::<f64>();
    Ok((0..=levels)
        .map(|level| {
            let found: Vec<f64> = (0..STEPS).map(|step| total(level * STEPS + step)).collect();
            // Where nothing is to choose, all factors are as good: the middle one.
            let flat = found.iter().all(|value| *value == found[0]);
            let best = (0..STEPS).max_by(|&a, &b| found[a].total_cmp(&found[b]).then(b.cmp(&a)));
            factor(if flat { STEPS / 2 } else { best.unwrap_or(STEPS / 2) })
        })
        .collect())
}

fn factor(step: usize) -> f32 {
    10f32.powf(step as f32 / 20.0)
}

/// Log-probability of a child, from log-counts, cosines and spreads along the query.
fn log_probability(children: &[[f32; 3]], target: usize, s: f32) -> f64 {
    let score =
        |[count, cosine, spread]: [f32; 3]| f64::from(count + s * cosine + 0.5 * s * s * spread);
    let top = children.iter().map(|&c| score(c)).fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = children.iter().map(|&c| (score(c) - top).exp()).sum();
    score(children[target]) - top - sum.ln()
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::{
        align::normalise,
        features::Features,
        identifier::{Codes, Vocabulary},
    };

    /// Texts drawn from the softmax itself give back its factor.
    #[test]
    fn finds_the_factor_that_the_texts_were_drawn_with() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let (n, dim) = (64, 8);
        let mut units = |count: usize| -> Vec<f32> {
            let mut rows: Vec<f32> = (0..count * dim).map(|_| rng.random::<f32>() - 0.5).collect();
            rows.chunks_exact_mut(dim).for_each(normalise);
            rows
        };
        let vectors = units(n);
        let queries = units(4000);
        let truth = 12.0;
        let items: Vec<u32> = queries
            .chunks_exact(dim)
            .map(|query| {
                let mass: Vec<f32> =
                    vectors.chunks_exact(dim).map(|z| (truth * dot(query, z)).exp()).collect();
                let mut at = rng.random::<f32>() * mass.iter().sum::<f32>();
                let found = mass.iter().position(|m| {
                    at -= m;
                    at <= 0.0
                });
                found.unwrap_or(n - 1) as u32
            })
            .collect();
        let held_out: Vec<f32> = items
            .iter()
            .flat_map(|&item| vectors[item as usize * dim..(item as usize + 1) * dim].to_vec())
            .collect();
        let rows: Vec<[u16; 1]> = (0..n as u16).map(|item| [item]).collect();
        let codes = Codes::from_rows(1, &rows).unwrap();
        let trie = Trie::build(&codes, &Vocabulary::new(vec![n]).unwrap()).unwrap();
        let geometry = Geometry::new(Features::from_rows(vectors, dim).unwrap(), &trie).unwrap();
        let texts = TextVectors::new(dim, queries, items).unwrap();
        let held_out = HeldOut::new(dim, held_out).unwrap();
        let scales = calibrate(&texts, &held_out, &trie, &geometry).unwrap();
        assert_eq!(scales.len(), 2);
        assert!(scales.iter().all(|scale| (scale / truth - 1.0).abs() < 0.13), "{scales:?}");
        let short = HeldOut::new(dim, vec![0.0; dim]).unwrap();
        assert!(calibrate(&texts, &short, &trie, &geometry).is_err());
    }
}
