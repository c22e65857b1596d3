//! How candidates without texts compare with those that have some.

use rayon::prelude::*;

use super::map::TextSpaceMap;
use crate::{
    align::{TextVectors, centroids::Centroids},
    kernels::dot,
};

/// Items that are looked at.
const MOST: usize = 2000;
/// Fewest queries of either kind that lengths are chosen by.
const FEWEST: usize = 30;
/// Lengths to choose from.
const LENGTHS: [f32; 11] = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0];

/// The length of the vectors of candidates without texts.
///
/// The described items of the fit play both parts: every other one, in the order of the seed, has its
/// texts taken away, and is what a regression makes of its features that has not seen it. Texts look
/// for their items among all of these; a text of an item that keeps its texts is taken out of the
/// item's vector. The length is that with the best mean of the two reciprocal ranks. It is 1 where items have
/// one text each, so that none can be taken out.
pub(super) fn undescribed(
    space: &TextSpaceMap,
    (known, out_of_fold): (&[u32], &[Option<Vec<f32>>]),
    centroids: &Centroids,
    texts: &TextVectors,
) -> f32 {
    if space.texts == 0.0 {
        return 1.0;
    }
    let known = &known[..known.len().min(MOST)];
    let row = |item: u32| out_of_fold[item as usize].as_deref();
    let place = |at: usize, item: u32| -> Vec<f32> {
        let texts = if at.is_multiple_of(2) { None } else { centroids.get(item) };
        space.blend(row(item).unwrap_or(&[]), texts, centroids.weight(item))
    };
    let usable = known.iter().enumerate().filter(|(_, item)| row(**item).is_some());
    let items: Vec<(u32, bool, Vec<f32>)> =
        usable.map(|(at, &item)| (item, at.is_multiple_of(2), place(at, item))).collect();
    // The first text of each item.
    let mut first = vec![None; out_of_fold.len()];
    for (text, &item) in texts.items().iter().enumerate() {
        if texts.weight(text) > 0.0 && first[item as usize].is_none() {
            first[item as usize] = Some(text);
        }
    }
    let ranks = |at: usize| -> Option<(bool, [f32; LENGTHS.len()])> {
        let (item, bare, vector) = &items[at];
        let text = first[*item as usize]?;
        let query = texts.row(text);
        let own = if *bare {
            dot(query, vector)
        } else {
            let others = centroids.without(*item, texts, text)?;
            let held_out = space.blend(row(*item)?, Some(&others), centroids.weight(*item));
            dot(query, &held_out)
        };
        let others = items.iter().enumerate().filter(|(other, _)| *other != at);
        let cosines: Vec<(bool, f32)> =
            others.map(|(_, (_, bare, vector))| (*bare, dot(query, vector))).collect();
        Some((
            *bare,
            LENGTHS.map(|length| {
                let scaled = |bare: bool, cosine: f32| if bare { length * cosine } else { cosine };
                let mine = scaled(*bare, own);
                let better = cosines.iter().filter(|(bare, cosine)| scaled(*bare, *cosine) >= mine);
                1.0 / (1 + better.count()) as f32
            }),
        ))
    };
    let found: Vec<(bool, [f32; LENGTHS.len()])> =
        (0..items.len()).into_par_iter().filter_map(ranks).collect();
    let mean = |wanted: bool, at: usize| -> Option<f64> {
        let of = found.iter().filter(|(bare, _)| *bare == wanted);
        let values: Vec<f64> = of.map(|(_, ranks)| f64::from(ranks[at])).collect();
        (values.len() >= FEWEST).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let mut best = (1.0, f64::NEG_INFINITY);
    for (at, &length) in LENGTHS.iter().enumerate() {
        if let (Some(bare), Some(described)) = (mean(true, at), mean(false, at))
            && bare + described > best.1
        {
            best = (length, bare + described);
        }
    }
    best.0
}
