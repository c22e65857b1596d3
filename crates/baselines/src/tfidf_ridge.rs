//! From words to features: a ridge regression on tf-idf vectors.

use std::collections::HashMap;

use cart_retrieval::{
    Error, Result,
    data::ItemCaption,
    eval::Ranking,
    expert::{Ridge, words},
    features::Features,
    members::{dot, normalise},
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::ranks::best;

/// Settings of the regression.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TfIdfRidgeConfig {
    /// Weight of the squared weights. Choose it on validation queries.
    pub penalty: f64,
    /// Fewest training captions that a word must occur in.
    pub min_captions: usize,
    /// Most words; the most frequent ones are kept. The cost grows with its third power.
    pub max_words: usize,
}

impl Default for TfIdfRidgeConfig {
    fn default() -> Self {
        Self { penalty: 1.0, min_captions: 2, max_words: 2500 }
    }
}

/// Predicts a candidate's features from a query's words, and ranks candidates by their cosine to
/// that (features centred on their mean).
#[derive(Debug, Clone)]
pub struct TfIdfRidge {
    words: HashMap<String, (usize, f32)>,
    ridge: Ridge,
    /// `[N, D]`, of length 1.
    candidates: Vec<f32>,
    mean: Vec<f32>,
}

impl TfIdfRidgeConfig {
    /// Fits the regression to captions of `items`.
    ///
    /// # Errors
    /// [`Error::Captions`] without captions, with one of an item that is not there, or when no word
    /// is frequent enough; [`Error::Config`] for a penalty that is not above 0.
    pub fn fit(&self, train: &[ItemCaption], items: &Features) -> Result<TfIdfRidge> {
        let known = train.iter().all(|caption| (caption.item as usize) < items.len());
        let mut counts: HashMap<String, usize> = HashMap::new();
        for caption in train {
            let mut seen: Vec<String> = words(&caption.text).collect();
            seen.sort_unstable();
            seen.dedup();
            seen.into_iter().for_each(|word| *counts.entry(word).or_default() += 1);
        }
        let mut frequent: Vec<(String, usize)> =
            counts.into_iter().filter(|(_, count)| *count >= self.min_captions).collect();
        frequent.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        frequent.truncate(self.max_words);
        if frequent.is_empty() || !known {
            return Err(Error::captions("training captions")
                .expected(format!(
                    "captions of the {} items, with words in at least {} of them",
                    items.len(),
                    self.min_captions
                ))
                .found(if known { "no such word" } else { "a caption of another item" })
                .fix("check the captions, or lower min_captions"));
        }
        let n = train.len() as f32;
        let words: HashMap<String, (usize, f32)> = frequent
            .into_iter()
            .enumerate()
            .map(|(at, (word, count))| (word, (at, ((1.0 + n) / (1.0 + count as f32)).ln() + 1.0)))
            .collect();
        let mean = items.mean();
        let (d_input, d_output) = (words.len(), items.dim());
        let mut inputs = Vec::with_capacity(train.len() * d_input);
        let mut outputs = Vec::with_capacity(train.len() * d_output);
        for caption in train {
            inputs.extend(vector(&words, &caption.text));
            outputs.extend(centred(items.row(caption.item as usize), &mean));
        }
        let ridge = Ridge::fit((d_input, d_output), &inputs, &outputs, self.penalty)?;
        Ok(TfIdfRidge { words, ridge, candidates: vec![], mean }.over(items))
    }
}

impl TfIdfRidge {
    /// Ranks other candidates from now on, by features of the same encoder.
    ///
    /// # Panics
    /// When their width is another.
    pub fn over(self, items: &Features) -> Self {
        let rows = items.as_slice().chunks_exact(self.mean.len());
        let candidates = rows.flat_map(|row| centred(row, &self.mean)).collect();
        Self { candidates, ..self }
    }

    /// The `k` nearest candidates of each query.
    ///
    /// # Errors
    /// As [`Ranking::new`].
    pub fn search_all<S: AsRef<str> + Sync>(
        &self,
        queries: &[S],
        k: usize,
    ) -> Result<Vec<Ranking>> {
        queries
            .par_iter()
            .map(|query| {
                let mut predicted = self.ridge.map(&vector(&self.words, query.as_ref()));
                normalise(&mut predicted);
                let rows = self.candidates.chunks_exact(self.mean.len());
                best(&rows.map(|row| dot(&predicted, row)).collect::<Vec<_>>(), k)
            })
            .collect()
    }
}

/// tf-idf of a text, of length 1.
fn vector(known: &HashMap<String, (usize, f32)>, text: &str) -> Vec<f32> {
    let mut row = vec![0f32; known.len()];
    for word in words(text) {
        if let Some(&(at, idf)) = known.get(&word) {
            row[at] += idf;
        }
    }
    normalise(&mut row);
    row
}

fn centred(row: &[f32], mean: &[f32]) -> Vec<f32> {
    let mut row: Vec<f32> = row.iter().zip(mean).map(|(v, m)| v - m).collect();
    normalise(&mut row);
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caption(item: u32, text: &str) -> ItemCaption {
        ItemCaption { item, text: text.into(), weight: 1.0 }
    }

    #[test]
    fn words_find_the_features_they_go_with() {
        let rows = vec![1.0, 0.0, 0.1, 0.0, 1.0, 0.0, 0.1, 0.0, 1.0];
        let items = Features::from_rows(rows, 3).unwrap();
        let train: Vec<_> = ["red ball", "a red thing", "blue cube", "a blue box", "green leaf"]
            .iter()
            .zip([0, 0, 1, 1, 2])
            .map(|(text, item)| caption(item, text))
            .collect();
        let config = TfIdfRidgeConfig { min_captions: 1, penalty: 0.1, ..Default::default() };
        let ridge = config.fit(&train, &items).unwrap();
        let found = ridge.search_all(&["red", "blue box", "a leaf"], 3).unwrap();
        let first: Vec<u32> = found.iter().map(|ranking| ranking.items[0]).collect();
        assert_eq!(first, [0, 1, 2]);
        // The same features under other numbers.
        let turned = ridge.over(&items.select(&[2, 0, 1]));
        assert_eq!(turned.search_all(&["red"], 1).unwrap()[0].items, [1]);
    }

    #[test]
    fn captions_of_other_items_and_rare_words_are_refused() {
        let items = Features::from_rows(vec![1.0, 0.0], 1).unwrap();
        let config = TfIdfRidgeConfig::default();
        assert!(config.fit(&[caption(2, "a a"), caption(0, "a")], &items).is_err());
        assert!(config.fit(&[caption(0, "once")], &items).is_err());
        assert!(config.fit(&[], &items).is_err());
    }
}
