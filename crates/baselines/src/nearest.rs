//! Search by the training texts of the candidates, as vectors of an untouched sentence encoder.

use cart_retrieval::{
    Error, Result,
    eval::Ranking,
    expert::TextVectors,
    members::{dot, normalise},
};
use rayon::prelude::*;

use crate::ranks::best;

/// What stands for a candidate that several texts describe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextPool {
    /// The text nearest to the query.
    Nearest,
    /// The mean of its texts, scaled to length 1.
    Mean,
}

/// Ranks candidates by the cosine between the query and their training texts.
///
/// A candidate without a text scores -1, the lowest cosine.
///
/// # Example
/// ```
/// use cart_baselines::{NearestText, TextPool};
/// use cart_retrieval::expert::TextVectors;
/// let texts = TextVectors::new(2, vec![1.0, 0.0, 0.0, 1.0, 0.6, 0.8], vec![0, 1, 0])?;
/// let queries = TextVectors::new(2, vec![0.0, 1.0], vec![1])?;
/// let found = NearestText::new(&texts, 2, TextPool::Nearest)?.search_all(&queries, 2)?;
/// assert_eq!(found[0].items, [1, 0]);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct NearestText {
    dim: usize,
    candidates: usize,
    rows: Vec<f32>,
    items: Vec<u32>,
}

impl NearestText {
    /// Keeps the texts of `candidates` candidates.
    ///
    /// # Errors
    /// [`Error::Captions`] without texts, or for one of a candidate that is not there.
    pub fn new(texts: &TextVectors, candidates: usize, pool: TextPool) -> Result<Self> {
        let stray = texts.items().iter().find(|&&item| item as usize >= candidates);
        if texts.is_empty() || stray.is_some() {
            return Err(Error::captions("texts of the candidates")
                .expected(format!("at least one, of items below {candidates}"))
                .found(stray.map_or("none".into(), |item| format!("item {item}")))
                .fix("resolve captions against these candidates"));
        }
        let dim = texts.dim();
        let (rows, items) = match pool {
            TextPool::Nearest => (texts.as_slice().to_vec(), texts.items().to_vec()),
            TextPool::Mean => {
                let mut sums = vec![0f32; candidates * dim];
                let mut some = vec![false; candidates];
                for (text, &item) in texts.items().iter().enumerate() {
                    let item = item as usize;
                    some[item] = true;
                    let sum = &mut sums[item * dim..(item + 1) * dim];
                    sum.iter_mut().zip(texts.row(text)).for_each(|(sum, v)| *sum += v);
                }
                sums.chunks_exact_mut(dim).for_each(normalise);
                let items: Vec<u32> =
                    (0..candidates as u32).filter(|&item| some[item as usize]).collect();
                let row = |&item: &u32| &sums[item as usize * dim..(item as usize + 1) * dim];
                (items.iter().flat_map(row).copied().collect(), items)
            }
        };
        Ok(Self { dim, candidates, rows, items })
    }

    /// The `k` nearest candidates of each query.
    ///
    /// # Errors
    /// [`Error::Query`] for queries of another width.
    pub fn search_all(&self, queries: &TextVectors, k: usize) -> Result<Vec<Ranking>> {
        if queries.dim() != self.dim {
            return Err(Error::query("vectors of queries")
                .expected(format!("width {}", self.dim))
                .found(queries.dim().to_string())
                .fix("encode queries and texts with one encoder"));
        }
        (0..queries.len())
            .into_par_iter()
            .map(|query| {
                let query = queries.row(query);
                let mut scores = vec![-1f32; self.candidates];
                for (row, &item) in self.rows.chunks_exact(self.dim).zip(&self.items) {
                    let score = &mut scores[item as usize];
                    *score = score.max(dot(query, row));
                }
                best(&scores, k)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_and_the_nearest_text_differ_as_they_should() {
        let rows = vec![1.0, 0.0, 0.0, 1.0, 0.8, 0.6];
        let texts = TextVectors::new(2, rows, vec![0, 0, 2]).unwrap();
        let query = TextVectors::new(2, vec![1.0, 0.0], vec![0]).unwrap();
        let found = |pool| {
            let search = NearestText::new(&texts, 3, pool).unwrap();
            search.search_all(&query, 3).unwrap().remove(0)
        };
        assert_eq!(found(TextPool::Nearest).items, [0, 2, 1]);
        assert_eq!(found(TextPool::Mean).items, [2, 0, 1]);
        assert_eq!(found(TextPool::Mean).scores[2], -1.0);
        assert!(NearestText::new(&texts, 2, TextPool::Mean).is_err());
        let wide = TextVectors::new(3, vec![1.0, 0.0, 0.0], vec![0]).unwrap();
        let search = NearestText::new(&texts, 3, TextPool::Mean).unwrap();
        assert!(search.search_all(&wide, 1).is_err());
    }
}
