//! Residual quantization by K-Means: each level clusters what the levels before left over.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    Quantizer,
    code_beam::CodeBeam,
    kmeans::{
        HostSearch, Init, KMeansConfig, KMeansEvent, NearestCentre, Scratch, Search, check_lloyd,
        check_sizes,
    },
    rows::{check_codes, check_level, check_rows},
};
use crate::{
    cancel::Monitor,
    error::{Error, Result, ensure_in},
    identifier::Codes,
};

/// Settings of residual K-Means.
///
/// # Example
/// ```
/// use cart_retrieval::quantizer::RqKMeansConfig;
/// RqKMeansConfig { seed: 1, restarts: 1, ..RqKMeansConfig::new(vec![256, 256, 256]) }.validate()?;
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default = "RqKMeansConfig::without_sizes", deny_unknown_fields)]
pub struct RqKMeansConfig {
    /// Number of codes of each level, each 2 to 65536.
    pub sizes: Vec<usize>,
    /// Random seed.
    pub seed: u64,
    /// Number of fits of each level; the best is kept.
    pub restarts: usize,
    /// Maximum number of updates of a level's centres.
    pub max_iterations: usize,
    /// Relative gain of inertia below which the fit of a level ends.
    pub tolerance: f64,
    /// How the first centres are chosen.
    pub init: Init,
    /// Code sequences kept at each level when rows are encoded, of which the one of least error is
    /// taken; 1 takes the nearest code at each level. The fit is the same with any.
    pub encode_beam: usize,
}

/// Events of a fit.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct RqKMeansEvent {
    /// The level being fitted, from 0.
    pub level: usize,
    /// How many levels there are.
    pub levels: usize,
    /// The event of the level's K-Means.
    pub event: KMeansEvent,
}

impl RqKMeansConfig {
    /// What a file that leaves settings out starts from; [`validate`](Self::validate) misses the
    /// sizes.
    fn without_sizes() -> Self {
        Self::new(Vec::new())
    }

    /// Defaults for levels of these sizes.
    pub fn new(sizes: Vec<usize>) -> Self {
        let KMeansConfig { seed, restarts, max_iterations, tolerance, init, .. } =
            KMeansConfig::new(2);
        Self { sizes, seed, restarts, max_iterations, tolerance, init, encode_beam: 1 }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting that is out of range.
    pub fn validate(&self) -> Result<()> {
        check_sizes(&self.sizes)?;
        check_encode_beam(self.encode_beam)?;
        check_lloyd(self.restarts, self.max_iterations, self.tolerance)
    }

    /// Fits one codebook after the other on the residuals of rows in memory.
    ///
    /// # Shapes
    /// - `rows`: `[n, dim]`, row-major
    ///
    /// # Errors
    /// As [`KMeansConfig::fit`], naming the level.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::quantizer::{Quantizer, RqKMeansConfig};
    /// let rows = [0.0, 1.0, 10.0, 11.0];
    /// let quantizer = RqKMeansConfig::new(vec![2, 2]).fit(&rows, 1)?;
    /// let codes = quantizer.encode(&rows)?;
    /// assert_eq!(quantizer.decode(&codes)?, rows);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn fit(&self, rows: &[f32], dim: usize) -> Result<RqKMeans> {
        self.fit_with_engine(rows, dim, &HostSearch, &Monitor::new())
    }

    /// Fits with another search engine, reporting every step.
    ///
    /// # Errors
    /// As [`RqKMeansConfig::fit`], whatever the engine returns, and [`Error::Interrupted`] after a
    /// stop.
    pub fn fit_with_engine(
        &self,
        rows: &[f32],
        dim: usize,
        engine: &dyn NearestCentre,
        monitor: &Monitor<'_, RqKMeansEvent>,
    ) -> Result<RqKMeans> {
        self.validate()?;
        let n = check_rows(rows, dim, 0)?;
        let levels = self.sizes.len();
        let mut residual = rows.to_vec();
        let (mut index, mut distance) = (vec![0; n], vec![0.0; n]);
        let mut codebooks = Vec::with_capacity(levels);
        for (level, &size) in self.sizes.iter().enumerate() {
            check_level(&residual, dim, level, size)?;
            let kmeans = KMeansConfig {
                seed: self.seed.wrapping_add(level as u64),
                restarts: self.restarts,
                max_iterations: self.max_iterations,
                tolerance: self.tolerance,
                init: self.init,
                ..KMeansConfig::new(size)
            }
            .fit_with_engine(
                &(residual.as_slice(), dim),
                engine,
                &monitor.part(|event| RqKMeansEvent { level, levels, event }),
            )
            .map_err(|error| at_level(error, level))?;
            let centres = kmeans.centres().to_vec();
            if level + 1 < levels {
                engine.nearest(&residual, dim, &centres, &mut index, &mut distance)?;
                subtract(&mut residual, dim, &centres, &index);
            }
            codebooks.push(centres);
        }
        Ok(RqKMeans { codebooks, dim, encode_beam: self.encode_beam })
    }
}

/// Checks a number of code sequences to keep.
pub(super) fn check_encode_beam(encode_beam: usize) -> Result<()> {
    let remedy = "1 takes the nearest code at each level, 8 or 16 search further";
    ensure_in("encode_beam", encode_beam as f64, "[1, inf)", remedy)
}

/// Names the level in an error about its rows.
fn at_level(error: Error, level: usize) -> Error {
    match error {
        Error::Quantizer(_) => error.within(format!("level {} of residual K-Means", level + 1)),
        other => other,
    }
}

/// Takes its centre from each row.
fn subtract(rows: &mut [f32], dim: usize, centres: &[f32], index: &[u32]) {
    for (row, &i) in rows.chunks_exact_mut(dim).zip(index) {
        for (value, centre) in row.iter_mut().zip(&centres[i as usize * dim..][..dim]) {
            *value -= centre;
        }
    }
}

/// Fitted codebooks; the tokens of a row are the nearest codes of its successive residuals.
///
/// RQ-KMeans: the residual quantization of the paper's fine tokens without the autoencoder around
/// it (Fang et al. 2024, arXiv 2406.17507; residual quantization after Chen et al. 2010).
///
/// Invariants: at least one codebook; each `[size, dim]`, size from 2 to 65536; finite values.
///
/// # Example
/// ```
/// use cart_retrieval::{quantizer::Quantizer, expert::RqKMeans};
/// let quantizer = RqKMeans::from_parts(vec![vec![0.0, 10.0], vec![-1.0, 1.0]], 1)?;
/// assert_eq!(quantizer.encode(&[9.2])?.row(0), [1, 0]);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct RqKMeans {
    codebooks: Vec<Vec<f32>>,
    dim: usize,
    encode_beam: usize,
}

impl RqKMeans {
    /// Puts a saved quantizer together again.
    ///
    /// # Shapes
    /// - `codebooks`: for each level `[size, dim]`
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Quantizer`] when a codebook has another shape or a value that
    /// is not finite.
    pub fn from_parts(codebooks: Vec<Vec<f32>>, dim: usize) -> Result<Self> {
        let mut sizes = Vec::with_capacity(codebooks.len());
        for (level, codebook) in codebooks.iter().enumerate() {
            sizes.push(check_rows(codebook, dim, 0).map_err(|error| at_level(error, level))?);
        }
        check_sizes(&sizes)?;
        Ok(Self { codebooks, dim, encode_beam: 1 })
    }

    /// Encodes with another beam ([`RqKMeansConfig::encode_beam`]).
    ///
    /// # Errors
    /// [`Error::Config`] for 0.
    pub fn with_encode_beam(self, encode_beam: usize) -> Result<Self> {
        check_encode_beam(encode_beam)?;
        Ok(Self { encode_beam, ..self })
    }

    /// Code sequences kept when rows are encoded.
    pub fn encode_beam(&self) -> usize {
        self.encode_beam
    }

    fn beam(&self) -> CodeBeam<'_> {
        CodeBeam { codebooks: &self.codebooks, dim: self.dim, width: self.encode_beam }
    }

    /// The nearest code at each level.
    fn greedy(&self, rows: &[f32]) -> Result<Codes> {
        let (n, dim) = (check_rows(rows, self.dim, 0)?, self.dim);
        let levels = self.codebooks.len();
        let searches: Vec<Search<'_>> =
            self.codebooks.iter().map(|codebook| Search::new(codebook, dim)).collect();
        let piece = searches.iter().map(Search::piece).min().unwrap_or(1);
        let mut tokens = vec![0_u16; n * levels];
        // A piece goes through all levels while its residual is in the cache.
        rows.par_chunks(piece * dim).zip(tokens.par_chunks_mut(piece * levels)).for_each_init(
            || (Vec::new(), Scratch::default(), Vec::new()),
            |(residual, scratch, index), (rows, tokens)| {
                residual.clear();
                residual.extend_from_slice(rows);
                index.resize(rows.len() / dim, 0);
                for (level, (search, codebook)) in searches.iter().zip(&self.codebooks).enumerate()
                {
                    search.piece_nearest(residual, scratch, index);
                    // At most 65536 codes, so every index fits 16 bits.
                    for (token, &i) in tokens[level..].iter_mut().step_by(levels).zip(&*index) {
                        *token = i as u16;
                    }
                    if level + 1 < levels {
                        subtract(residual, dim, codebook, index);
                    }
                }
            },
        );
        Codes::from_flat(levels, tokens)
    }

    /// The codebooks, one for each level: `[size, dim]`, row-major.
    pub fn codebooks(&self) -> &[Vec<f32>] {
        &self.codebooks
    }
}

impl Quantizer for RqKMeans {
    fn dim(&self) -> usize {
        self.dim
    }

    fn level_sizes(&self) -> Vec<usize> {
        self.codebooks.iter().map(|codebook| codebook.len() / self.dim).collect()
    }

    fn encode(&self, rows: &[f32]) -> Result<Codes> {
        let greedy = self.greedy(rows)?;
        match self.encode_beam {
            1 => Ok(greedy),
            _ => self.beam().best(rows, &greedy, 1, false),
        }
    }

    fn encode_best(&self, rows: &[f32], count: usize) -> Result<Codes> {
        let first = self.encode(rows)?;
        match count {
            1 => Ok(first),
            _ => self.beam().best(rows, &first, count, true),
        }
    }

    fn decode_prefix(&self, codes: &Codes, levels: usize) -> Result<Vec<f32>> {
        check_codes(codes, levels, &self.level_sizes())?;
        let dim = self.dim;
        let mut rows = vec![0.0; codes.len() * dim];
        for (row, code) in rows.chunks_exact_mut(dim).zip(codes.rows()) {
            for (codebook, &token) in self.codebooks[..levels].iter().zip(code) {
                let centre = &codebook[usize::from(token) * dim..][..dim];
                row.iter_mut().zip(centre).for_each(|(value, centre)| *value += centre);
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cancel::StopFlag;
    use crate::kernels::squared_distance;

    fn some_rows(n: usize, dim: usize) -> Vec<f32> {
        (0..n * dim).map(|i| ((i * 7919 + i / dim * 31) % 1013) as f32 * 0.01).collect()
    }

    /// The slow twin: one row, one level, one code at a time.
    fn plain_encode(codebooks: &[Vec<f32>], rows: &[f32], dim: usize) -> Vec<u16> {
        let mut tokens = Vec::new();
        for row in rows.chunks_exact(dim) {
            let mut residual = row.to_vec();
            for codebook in codebooks {
                let mut best = (0, f32::INFINITY);
                for (code, centre) in codebook.chunks_exact(dim).enumerate() {
                    let distance = squared_distance(&residual, centre);
                    if distance < best.1 {
                        best = (code, distance);
                    }
                }
                tokens.push(best.0 as u16);
                for (j, value) in residual.iter_mut().enumerate() {
                    *value -= codebook[best.0 * dim + j];
                }
            }
        }
        tokens
    }

    #[test]
    fn each_level_lowers_the_error() {
        let rows = some_rows(800, 6);
        let quantizer = RqKMeansConfig::new(vec![8, 16, 8]).fit(&rows, 6).unwrap();
        assert_eq!(quantizer.level_sizes(), [8, 16, 8]);
        let codes = quantizer.encode(&rows).unwrap();
        assert_eq!(codes.as_flat(), plain_encode(quantizer.codebooks(), &rows, 6));
        let errors: Vec<f32> = (0..=3)
            .map(|l| squared_distance(&rows, &quantizer.decode_prefix(&codes, l).unwrap()))
            .collect();
        assert!(errors.windows(2).all(|pair| pair[1] < 0.9 * pair[0]), "{errors:?}");
        assert!(quantizer.decode_prefix(&codes, 4).is_err());
    }

    #[test]
    fn one_level_is_k_means() {
        let rows = some_rows(300, 4);
        let quantizer =
            RqKMeansConfig { seed: 4, ..RqKMeansConfig::new(vec![9]) }.fit(&rows, 4).unwrap();
        let kmeans = KMeansConfig { seed: 4, ..KMeansConfig::new(9) }.fit(&rows, 4).unwrap();
        assert_eq!(quantizer.codebooks(), [kmeans.centres()]);
    }

    #[test]
    fn does_not_depend_on_the_number_of_threads() {
        let rows = some_rows(3000, 5);
        let fit = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let config =
                    RqKMeansConfig { max_iterations: 5, ..RqKMeansConfig::new(vec![16, 16]) };
                let quantizer = config.fit(&rows, 5).unwrap();
                let codes = quantizer.encode(&rows).unwrap();
                (quantizer, codes)
            })
        };
        assert_eq!(fit(1), fit(2));
    }

    #[test]
    fn errors_name_the_level() {
        let message = |sizes: &[usize], rows: &[f32]| {
            RqKMeansConfig::new(sizes.to_vec()).fit(rows, 1).unwrap_err().to_string()
        };
        assert!(message(&[], &[1.0]).contains("at least one level"));
        assert!(message(&[2, 1], &[1.0, 2.0]).contains("sizes[1]"));
        // Two rows, two centres: nothing is left for the second level.
        let text = message(&[2, 2], &[1.0, 2.0]);
        assert!(
            text.contains("level 2, sizes[1] = 2: expected at least 2 distinct resid"),
            "{text}"
        );
        assert!(text.contains("leave out sizes[1] and the levels after it"), "{text}");
        let text = message(&[2, 4], &[1.0, 2.0, 8.0, 9.0]);
        assert!(text.contains("found 2 distinct residuals; set sizes[1] to 2 or less"), "{text}");
        assert!(message(&[2, 2], &[1.0, f32::NAN]).contains("row 1"));

        assert!(RqKMeans::from_parts(vec![], 1).is_err());
        assert!(RqKMeans::from_parts(vec![vec![1.0, 2.0], vec![1.0]], 1).is_err());
        assert!(RqKMeans::from_parts(vec![vec![1.0, f32::NAN]], 1).is_err());
        let quantizer = RqKMeans::from_parts(vec![vec![1.0, 2.0]], 1).unwrap();
        assert!(quantizer.decode(&Codes::from_flat(1, vec![2]).unwrap()).is_err());
        assert!(serde_json::from_str::<RqKMeansConfig>(r#"{"sizes": [2], "size": 1}"#).is_err());
    }

    #[test]
    fn a_stop_interrupts() {
        let stop = StopFlag::new();
        let monitor = Monitor::new().with_stop(&stop).with_progress(|event: RqKMeansEvent| {
            if event.level == 1 {
                stop.raise();
            }
        });
        let rows = some_rows(100, 2);
        let result =
            RqKMeansConfig::new(vec![3, 3]).fit_with_engine(&rows, 2, &HostSearch, &monitor);
        assert!(matches!(result, Err(Error::Interrupted(_))));
    }

    proptest! {
        #[test]
        fn encoding_agrees_with_the_plain_loop(
            dim in 1_usize..5,
            rows in prop::collection::vec(-9_i8..=9, 0..300),
            first in prop::collection::vec(-9_i8..=9, 10..60),
            second in prop::collection::vec(-3_i8..=3, 10..60),
        ) {
            let make = |v: &[i8]| -> Vec<f32> {
                v[..v.len() / dim * dim].iter().map(|&v| f32::from(v) * 0.7).collect()
            };
            let quantizer =
                RqKMeans::from_parts(vec![make(&first), make(&second)], dim).unwrap();
            let rows = make(&rows);
            let codes = quantizer.encode(&rows).unwrap();
            let plain = plain_encode(quantizer.codebooks(), &rows, dim);
            prop_assert_eq!(codes.as_flat(), plain);
        }
    }
}
