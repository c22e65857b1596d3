//! K-Means: the coarse token of an identifier, and the building block of the other tokenizers.

mod assign;
mod config;
mod fit;
mod init;
mod minibatch;

pub use assign::{HostSearch, NearestCentre};
pub use config::{Init, KMeansConfig};
pub use fit::KMeansEvent;

pub(crate) use assign::{Scratch, Search, check_buffers};
pub(crate) use config::{MOST_CODES, check_lloyd, check_size, check_sizes};
pub(crate) use fit::group;

use rayon::prelude::*;

use crate::{
    error::{Error, Result},
    identifier::Codes,
    kernels::squared_distance,
    quantizer::{
        Quantizer,
        rows::{check_codes, check_rows},
    },
};

/// Fitted centres; a token is the index of the nearest one.
///
/// The paper's first ("coarse") token: K-Means over all embeddings (Fang et al. 2024,
/// arXiv 2406.17507, coarse-to-fine identifiers).
///
/// # Example
/// ```
/// use cart_retrieval::quantizer::{KMeansConfig, Quantizer};
/// let rows = [0.0, 0.0, 0.0, 1.0, 9.0, 9.0, 9.0, 8.0];
/// let kmeans = KMeansConfig::new(2).fit(&rows, 2)?;
/// let codes = kmeans.encode(&rows)?;
/// assert_eq!(codes.row(0), codes.row(1));
/// assert_ne!(codes.row(0), codes.row(2));
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct KMeans {
    centres: Vec<f32>,
    dim: usize,
    inertia: f64,
    iterations: usize,
}

impl KMeans {
    /// Puts a saved quantizer together again.
    ///
    /// # Shapes
    /// - `centres`: `[k, dim]`, k from 2 to 65536
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Quantizer`] when the centres have another shape or a value
    /// that is not finite.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::expert::KMeans;
    /// let kmeans = KMeans::from_parts(vec![0.0, 0.0, 1.0, 1.0], 2, 0.5, 10)?;
    /// assert_eq!(kmeans.k(), 2);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn from_parts(
        centres: Vec<f32>,
        dim: usize,
        inertia: f64,
        iterations: usize,
    ) -> Result<Self> {
        let k = check_rows(&centres, dim, 0)?;
        check_size("centres", k)?;
        Error::quantizer("inertia")
            .expected("a finite number of at least 0")
            .found(inertia.to_string())
            .fix_if(!(inertia.is_finite() && inertia >= 0.0), "save the quantizer again")?;
        Ok(Self { centres, dim, inertia, iterations })
    }

    /// The centres, `[k, dim]`, row-major.
    pub fn centres(&self) -> &[f32] {
        &self.centres
    }

    /// Number of centres.
    pub fn k(&self) -> usize {
        self.centres.len() / self.dim
    }

    /// Sum of squared distances of the fitted rows to their nearest centres.
    pub fn inertia(&self) -> f64 {
        self.inertia
    }

    /// Updates of the centres (or passes, with mini-batches) that the kept fit took.
    pub fn iterations(&self) -> usize {
        self.iterations
    }

    /// Index of the nearest centre of each row, ties to the smaller one.
    ///
    /// # Shapes
    /// - `rows`: `[n, dim]`
    /// - returns: `[n]`
    ///
    /// # Errors
    /// [`Error::Quantizer`] for a wrong shape or a value that is not finite.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::expert::KMeans;
    /// let kmeans = KMeans::from_parts(vec![0.0, 4.0], 1, 0.0, 0)?;
    /// assert_eq!(kmeans.predict(&[3.0, 1.0, 2.0])?, [1, 0, 0]);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn predict(&self, rows: &[f32]) -> Result<Vec<u32>> {
        check_rows(rows, self.dim, 0)?;
        Ok(Search::new(&self.centres, self.dim).indices(rows))
    }

    /// Index of the nearest centre of each row, and the squared distance to it.
    ///
    /// # Shapes
    /// - `rows`: `[n, dim]`
    /// - returns: `[n]` twice
    ///
    /// # Errors
    /// As [`KMeans::predict`].
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::expert::KMeans;
    /// let kmeans = KMeans::from_parts(vec![0.0, 4.0], 1, 0.0, 0)?;
    /// assert_eq!(kmeans.predict_with_distances(&[6.0])?, (vec![1], vec![4.0]));
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn predict_with_distances(&self, rows: &[f32]) -> Result<(Vec<u32>, Vec<f32>)> {
        let n = check_rows(rows, self.dim, 0)?;
        let (mut index, mut distance) = (vec![0; n], vec![0.0; n]);
        HostSearch.nearest(rows, self.dim, &self.centres, &mut index, &mut distance)?;
        Ok((index, distance))
    }
}

impl Quantizer for KMeans {
    fn dim(&self) -> usize {
        self.dim
    }

    fn level_sizes(&self) -> Vec<usize> {
        vec![self.k()]
    }

    fn encode(&self, rows: &[f32]) -> Result<Codes> {
        let tokens = self.predict(rows)?;
        // At most 65536 centres, so every index fits 16 bits.
        Codes::from_flat(1, tokens.into_iter().map(|token| token as u16).collect())
    }

    fn encode_best(&self, rows: &[f32], count: usize) -> Result<Codes> {
        if count == 1 {
            return self.encode(rows);
        }
        let n = check_rows(rows, self.dim, 0)?;
        Error::quantizer("nearest centres of a row")
            .expected(format!("1 to {}, the number of clusters", self.k()))
            .found(count.to_string())
            .fix_if(count == 0 || count > self.k(), "ask for fewer, or use more clusters")?;
        let mut tokens = vec![0u16; n * count];
        let pieces = rows.par_chunks(self.dim).zip(tokens.par_chunks_mut(count));
        pieces.for_each_init(Vec::new, |distances, (row, tokens)| {
            distances.clear();
            let centres = self.centres.chunks_exact(self.dim).enumerate();
            distances.extend(centres.map(|(index, c)| (squared_distance(row, c), index as u16)));
            distances.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            tokens.iter_mut().zip(&*distances).for_each(|(token, (_, index))| *token = *index);
        });
        Codes::from_flat(1, tokens)
    }

    fn decode_prefix(&self, codes: &Codes, levels: usize) -> Result<Vec<f32>> {
        check_codes(codes, levels, &self.level_sizes())?;
        let mut rows = vec![0.0; codes.len() * self.dim];
        if levels == 1 {
            for (row, code) in rows.chunks_exact_mut(self.dim).zip(codes.rows()) {
                row.copy_from_slice(&self.centres[usize::from(code[0]) * self.dim..][..self.dim]);
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_decode_to_their_centres() {
        let kmeans = KMeans::from_parts(vec![0.0, 1.0, 5.0, 6.0], 2, 0.0, 0).unwrap();
        let codes = kmeans.encode(&[5.0, 5.0, 0.0, 0.0]).unwrap();
        assert_eq!(codes.as_flat(), [1, 0]);
        assert_eq!(kmeans.decode(&codes).unwrap(), [5.0, 6.0, 0.0, 1.0]);
        assert_eq!(kmeans.decode_prefix(&codes, 0).unwrap(), [0.0; 4]);
        assert!(kmeans.encode(&[]).unwrap().is_empty());
    }

    #[test]
    fn further_centres_come_by_distance_and_the_first_is_the_nearest() {
        let centres: Vec<f32> = (0..20 * 3).map(|i| ((i * 37 % 101) as f32).sin()).collect();
        let rows: Vec<f32> = (0..50 * 3).map(|i| ((i * 53 % 97) as f32).cos()).collect();
        let kmeans = KMeans::from_parts(centres.clone(), 3, 0.0, 0).unwrap();
        let best = kmeans.encode_best(&rows, 4).unwrap();
        let first: Vec<u16> = best.as_flat().iter().copied().step_by(4).collect();
        assert_eq!(first, kmeans.encode(&rows).unwrap().as_flat());
        for (row, tokens) in rows.chunks(3).zip(best.as_flat().chunks(4)) {
            let distance =
                |&token: &u16| squared_distance(row, &centres[usize::from(token) * 3..][..3]);
            let found: Vec<f32> = tokens.iter().map(distance).collect();
            assert!(found.is_sorted());
            let nearer = (0..20u16).filter(|token| distance(token) <= found[3]).count();
            assert_eq!(nearer, 4);
        }
        assert_eq!(kmeans.encode_best(&rows, 1).unwrap(), kmeans.encode(&rows).unwrap());
        assert!(kmeans.encode_best(&rows, 21).unwrap_err().to_string().contains("1 to 20"));
    }

    #[test]
    fn wrong_parts_rows_and_tokens_are_refused() {
        assert!(KMeans::from_parts(vec![1.0], 1, 0.0, 0).is_err());
        assert!(KMeans::from_parts(vec![1.0; 3], 2, 0.0, 0).is_err());
        assert!(KMeans::from_parts(vec![1.0, f32::NAN], 1, 0.0, 0).is_err());
        assert!(KMeans::from_parts(vec![1.0, 2.0], 1, f64::NAN, 0).is_err());
        let kmeans = KMeans::from_parts(vec![0.0, 1.0, 5.0, 6.0], 2, 0.0, 0).unwrap();
        assert!(kmeans.predict(&[1.0]).is_err());
        assert!(kmeans.predict_with_distances(&[1.0, f32::NAN]).is_err());
        let codes = Codes::from_flat(1, vec![0, 2]).unwrap();
        let message = kmeans.decode(&codes).unwrap_err().to_string();
        assert!(message.contains("item 1 at level 0"), "{message}");
        assert!(kmeans.decode_prefix(&codes, 2).is_err());
    }
}
