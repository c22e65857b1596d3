//! K-Means, then a fine quantizer on the residual: the tokens of the method.

use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use super::{
    Hierarchical, HierarchicalConfig, HostSearch, KMeans, KMeansConfig, KMeansEvent, Quantizer,
    RowSource, RqKMeans, RqKMeansConfig, RqKMeansEvent, RqVae, RqVaeConfig, RqVaeEvent,
    rows::check_codes, sample_rows,
};
use crate::{
    cancel::Monitor,
    error::{Error, Result},
    features::Features,
    identifier::Codes,
};

/// The quantizer of the fine tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case")]
pub enum FineConfig {
    /// RQ-VAE: the method.
    RqVae(RqVaeConfig),
    /// Residual K-Means without an autoencoder.
    RqKmeans(RqKMeansConfig),
    /// Hierarchical K-Means: the paper's ablation.
    Hierarchical(HierarchicalConfig),
}

macro_rules! methods {
    ($($method:ident($config:ident)),*) => {
        $(impl From<$config> for FineConfig {
            fn from(config: $config) -> Self {
                Self::$method(config)
            }
        })*
    };
}

methods!(RqVae(RqVaeConfig), RqKmeans(RqKMeansConfig), Hierarchical(HierarchicalConfig));

impl FineConfig {
    /// Number of codes of each fine level.
    pub fn sizes(&self) -> &[usize] {
        match self {
            Self::RqVae(config) => &config.sizes,
            Self::RqKmeans(config) => &config.sizes,
            Self::Hierarchical(config) => &config.sizes,
        }
    }
}

/// Settings of the coarse-to-fine quantizer.
///
/// # Example
/// ```
/// use burn::backend::Flex;
/// use cart_retrieval::{features::Features, quantizer::{CoarseToFineConfig, RqKMeansConfig}};
/// let rows: Vec<f32> = (0..400).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
/// let items = Features::from_rows(rows, 4)?;
/// let config = CoarseToFineConfig::new(4, RqKMeansConfig::new(vec![8, 8]));
/// let quantizer = config.fit::<Flex>(&items, &Default::default())?;
/// let index = quantizer.assign(&items).run()?;
/// println!("{}", index.health());
/// assert_eq!(index.trie().len(), 100);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoarseToFineConfig {
    /// The coarse token.
    pub coarse: KMeansConfig,
    /// The fine tokens.
    pub fine: FineConfig,
}

/// Events of a fit or of an assignment.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum QuantizerEvent {
    /// The coarse K-Means.
    Coarse(KMeansEvent),
    /// The RQ-VAE.
    RqVae(RqVaeEvent),
    /// The residual K-Means.
    RqKMeans(RqKMeansEvent),
    /// The assignment of codes.
    Encoded {
        /// Rows encoded so far.
        rows: usize,
        /// Rows in all.
        of: usize,
    },
}

impl CoarseToFineConfig {
    /// K coarse clusters, and the quantizer of the fine tokens.
    pub fn new(k: usize, fine: impl Into<FineConfig>) -> Self {
        Self { coarse: KMeansConfig::new(k), fine: fine.into() }
    }

    /// Sets the seed of all parts.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.coarse.seed = seed;
        match &mut self.fine {
            FineConfig::RqVae(config) => config.seed = seed,
            FineConfig::RqKmeans(config) => config.seed = seed,
            FineConfig::Hierarchical(config) => config.seed = seed,
        }
        self
    }

    /// Checks all parts.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting that is out of range.
    pub fn validate(&self) -> Result<()> {
        self.coarse.validate()?;
        match &self.fine {
            FineConfig::RqVae(config) => config.validate(),
            FineConfig::RqKmeans(config) => config.validate(),
            FineConfig::Hierarchical(config) => config.validate(),
        }
    }

    /// Fits both parts to candidates.
    ///
    /// If the coarse part leaves no residual (each centre is a candidate), RQ-VAE and RQ-KMeans
    /// have nothing to fit. The fine part is then one level with the same code for all candidates.
    ///
    /// # Errors
    /// Errors of the parts, naming the level and the setting: NaN, more codes than distinct
    /// candidates or residuals, settings out of range.
    pub fn fit<B: Backend>(&self, items: &Features, device: &B::Device) -> Result<CoarseToFine<B>> {
        self.fit_with_progress(items, device, &Monitor::new())
    }

    /// Fits both parts to an even sample of at most `sample` rows of a collection larger than
    /// memory. The seed of the coarse part determines the sample.
    ///
    /// With no more rows than that, the result is that of [`CoarseToFineConfig::fit`]. For centres
    /// from all rows see [`KMeansConfig::fit_source`] and [`KMeansConfig::fit_minibatch`], and
    /// [`CoarseToFine::from_parts`].
    ///
    /// # Errors
    /// As [`CoarseToFineConfig::fit`], and whatever the source returns.
    ///
    /// # Example
    /// ```no_run
    /// use burn::backend::Flex;
    /// use cart_retrieval::{features::ShardedFeatures, quantizer::{CoarseToFineConfig, RqVaeConfig}};
    /// let items = ShardedFeatures::open_folder("my-data")?.with_ids("my-data/ids.txt")?;
    /// let config = CoarseToFineConfig::new(1024, RqVaeConfig::new(vec![256, 256, 256]));
    /// let quantizer = config.fit_source::<Flex>(&items, 500_000, &Default::default())?;
    /// let index = quantizer.assign(&items).run()?;
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn fit_source<B: Backend>(
        &self,
        source: &dyn RowSource,
        sample: usize,
        device: &B::Device,
    ) -> Result<CoarseToFine<B>> {
        self.validate()?;
        let rows = sample_rows(source, sample, self.coarse.seed)?;
        self.fit(&Features::from_rows(rows, source.dim())?, device)
    }

    /// Fits both parts and reports progress.
    ///
    /// # Errors
    /// As [`CoarseToFineConfig::fit`], and [`Error::Interrupted`] after a stop.
    pub fn fit_with_progress<B: Backend>(
        &self,
        items: &Features,
        device: &B::Device,
        monitor: &Monitor<'_, QuantizerEvent>,
    ) -> Result<CoarseToFine<B>> {
        self.validate()?;
        let (rows, dim) = (items.as_slice(), items.dim());
        let coarse = self
            .coarse
            .fit_with_progress(rows, dim, &monitor.part(QuantizerEvent::Coarse))
            .map_err(|error| of_part("coarse", error))?;
        let residuals = residuals(&coarse, rows)?.1;
        let fine = self
            .fit_fine(&residuals, dim, device, monitor)
            .map_err(|error| of_part("fine", error))?;
        Ok(CoarseToFine { coarse, fine })
    }

    fn fit_fine<B: Backend>(
        &self,
        residuals: &[f32],
        dim: usize,
        device: &B::Device,
        monitor: &Monitor<'_, QuantizerEvent>,
    ) -> Result<FineQuantizer<B>> {
        let nothing_left = residuals.iter().all(|&value| value == 0.0);
        Ok(match &self.fine {
            FineConfig::Hierarchical(config) => {
                FineQuantizer::Hierarchical(config.fit(residuals, dim)?)
            }
            _ if nothing_left => {
                // Two codes, the fewest of a level, both at the residual that there is.
                FineQuantizer::RqKMeans(RqKMeans::from_parts(vec![vec![0.0; 2 * dim]], dim)?)
            }
            FineConfig::RqVae(config) => {
                let monitor = monitor.part(QuantizerEvent::RqVae);
                FineQuantizer::RqVae(config.fit_with_progress(residuals, dim, device, &monitor)?)
            }
            FineConfig::RqKmeans(config) => {
                let monitor = monitor.part(QuantizerEvent::RqKMeans);
                let fitted = config.fit_with_engine(residuals, dim, &HostSearch, &monitor)?;
                FineQuantizer::RqKMeans(fitted)
            }
        })
    }
}

/// Names the part in an error about its rows.
fn of_part(part: &str, error: Error) -> Error {
    match error {
        Error::Quantizer(_) => error.about(|subject| format!("{part} {subject}")),
        other => other,
    }
}

/// A fitted fine quantizer.
#[derive(Debug, Clone)]
pub enum FineQuantizer<B: Backend> {
    /// RQ-VAE.
    RqVae(RqVae<B>),
    /// Residual K-Means.
    RqKMeans(RqKMeans),
    /// Hierarchical K-Means.
    Hierarchical(Hierarchical),
}

impl<B: Backend> FineQuantizer<B> {
    /// The quantizer behind the trait.
    pub fn as_quantizer(&self) -> &dyn Quantizer {
        match self {
            Self::RqVae(quantizer) => quantizer,
            Self::RqKMeans(quantizer) => quantizer,
            Self::Hierarchical(quantizer) => quantizer,
        }
    }
}

/// A fitted coarse-to-fine quantizer: tokens `(c, v_1, .., v_M)`.
#[derive(Debug, Clone)]
pub struct CoarseToFine<B: Backend> {
    coarse: KMeans,
    fine: FineQuantizer<B>,
}

impl<B: Backend> CoarseToFine<B> {
    /// Combines fitted parts.
    ///
    /// # Errors
    /// [`Error::Quantizer`] when their widths differ.
    pub fn from_parts(coarse: KMeans, fine: FineQuantizer<B>) -> Result<Self> {
        let (a, b) = (coarse.dim(), fine.as_quantizer().dim());
        Error::quantizer("coarse-to-fine quantizer")
            .expected(format!("a fine quantizer of width {a}"))
            .found(b.to_string())
            .fix_if(a != b, "combine parts of one fit")?;
        Ok(Self { coarse, fine })
    }

    /// The coarse part.
    pub fn coarse(&self) -> &KMeans {
        &self.coarse
    }

    /// The fine part.
    pub fn fine(&self) -> &FineQuantizer<B> {
        &self.fine
    }
}

/// Coarse tokens and the residual of each row.
fn residuals(coarse: &KMeans, rows: &[f32]) -> Result<(Vec<u32>, Vec<f32>)> {
    let dim = coarse.dim();
    let tokens = coarse.predict(rows)?;
    let mut residuals = rows.to_vec();
    for (row, &token) in residuals.chunks_exact_mut(dim).zip(&tokens) {
        let centre = &coarse.centres()[token as usize * dim..(token as usize + 1) * dim];
        for (value, centre) in row.iter_mut().zip(centre) {
            *value -= centre;
        }
    }
    Ok((tokens, residuals))
}

impl<B: Backend> Quantizer for CoarseToFine<B> {
    fn dim(&self) -> usize {
        self.coarse.dim()
    }

    fn level_sizes(&self) -> Vec<usize> {
        let mut sizes = self.coarse.level_sizes();
        sizes.extend(self.fine.as_quantizer().level_sizes());
        sizes
    }

    fn encode(&self, rows: &[f32]) -> Result<Codes> {
        let (tokens, residuals) = residuals(&self.coarse, rows)?;
        let coarse = Codes::from_flat(1, tokens.into_iter().map(|t| t as u16).collect())?;
        Ok(coarse.join(&self.fine.as_quantizer().encode(&residuals)?))
    }

    fn followers(&self, prefix: &[u16]) -> usize {
        match prefix.split_first() {
            None => self.coarse.followers(&[]),
            Some((_, fine)) => self.fine.as_quantizer().followers(fine),
        }
    }

    fn decode_prefix(&self, codes: &Codes, levels: usize) -> Result<Vec<f32>> {
        check_codes(codes, levels, &self.level_sizes())?;
        let mut out = self.coarse.decode_prefix(&codes.prefix(1), levels.min(1))?;
        if levels > 1 {
            let fine: Vec<u16> = codes.rows().flat_map(|row| row[1..].iter().copied()).collect();
            let fine = Codes::from_flat(codes.levels() - 1, fine)?;
            let decoded = self.fine.as_quantizer().decode_prefix(&fine, levels - 1)?;
            for (value, part) in out.iter_mut().zip(decoded) {
                *value += part;
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
#[path = "coarse_to_fine_tests.rs"]
mod tests;
