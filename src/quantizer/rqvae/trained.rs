//! A fitted RQ-VAE.

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Int, Tensor, TensorData, backend::Backend},
};
use serde::{Deserialize, Serialize};

use super::{RqVaeConfig, RqVaeNetwork, Standardise, assign_nearest};
use crate::{
    error::{Error, Result},
    identifier::Codes,
    quantizer::{
        Quantizer,
        code_beam::CodeBeam,
        rows::{check_codes, check_rows},
    },
};

/// Embeddings encoded or decoded at once.
const CHUNK: usize = 4096;

/// Mean and scale that inputs are standardised with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scaling {
    /// Mean of each dimension.
    pub mean: Vec<f32>,
    /// What each centred dimension is divided by.
    pub deviation: Vec<f32>,
}

impl Scaling {
    /// Measures rows of width `dim`.
    pub fn fit(rows: &[f32], dim: usize, kind: Standardise) -> Self {
        let n = (rows.len() / dim) as f64;
        let mut mean = vec![0.0f64; dim];
        for row in rows.chunks_exact(dim) {
            for (sum, &value) in mean.iter_mut().zip(row) {
                *sum += f64::from(value) / n;
            }
        }
        let mut variance = vec![0.0f64; dim];
        for row in rows.chunks_exact(dim) {
            for ((sum, &value), mean) in variance.iter_mut().zip(row).zip(&mean) {
                *sum += (f64::from(value) - mean).powi(2) / n;
            }
        }
        let overall = (variance.iter().sum::<f64>() / dim as f64).sqrt();
        let overall = if overall > 0.0 { overall } else { 1.0 };
        let deviation = match kind {
            Standardise::Global => vec![overall as f32; dim],
            // A dimension that hardly varies must not be blown up.
            Standardise::PerDimension => {
                variance.iter().map(|v| v.sqrt().max(0.05 * overall) as f32).collect()
            }
        };
        Self { mean: mean.into_iter().map(|m| m as f32).collect(), deviation }
    }

    /// Scales one row onto `out`.
    pub fn apply(&self, row: &[f32], out: &mut Vec<f32>) {
        out.extend(
            row.iter()
                .zip(&self.mean)
                .zip(&self.deviation)
                .map(|((value, mean), deviation)| (value - mean) / deviation),
        );
    }

    /// Undoes the scaling of rows in place.
    pub fn undo(&self, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.mean.len()) {
            for ((value, mean), deviation) in row.iter_mut().zip(&self.mean).zip(&self.deviation) {
                *value = *value * deviation + mean;
            }
        }
    }
}

/// A fitted RQ-VAE: scaling, network and device.
#[derive(Debug, Clone)]
pub struct RqVae<B: Backend> {
    config: RqVaeConfig,
    scaling: Scaling,
    network: RqVaeNetwork<B>,
    device: B::Device,
}

impl<B: Backend> RqVae<B> {
    /// Puts a fitted RQ-VAE together again.
    ///
    /// # Errors
    /// [`Error::Quantizer`] when the parts do not fit each other, or a weight is not finite.
    pub fn from_parts(
        config: RqVaeConfig,
        scaling: Scaling,
        network: RqVaeNetwork<B>,
        device: B::Device,
    ) -> Result<Self> {
        config.validate()?;
        let books: Vec<[usize; 2]> = network.codebooks.iter().map(|b| b.dims()).collect();
        let expected: Vec<[usize; 2]> =
            config.sizes.iter().map(|&size| [size, config.latent]).collect();
        let remedy = "load the configuration that was saved with these weights";
        Error::quantizer("RQ-VAE")
            .expected(format!("codebooks of shape {expected:?} and one scale per mean"))
            .found(format!("{books:?}"))
            .fix_if(books != expected || scaling.mean.len() != scaling.deviation.len(), remedy)?;
        let scales = scaling.mean.iter().chain(&scaling.deviation);
        Error::quantizer("RQ-VAE")
            .expected("finite weights")
            .found("NaN or infinity among them")
            .fix_if(
            !(scales.copied().all(f32::is_finite) && has_finite_weights(&network)),
            "fit it again with a lower learning rate, or restore the file they are from",
        )?;
        Ok(Self { config, scaling, network, device })
    }

    /// Settings it was fitted with.
    pub fn config(&self) -> &RqVaeConfig {
        &self.config
    }

    /// Scaling of its inputs.
    pub fn scaling(&self) -> &Scaling {
        &self.scaling
    }

    /// Its weights.
    pub fn network(&self) -> &RqVaeNetwork<B> {
        &self.network
    }

    /// Codebook of a level, `[size, latent]` row-major.
    ///
    /// # Panics
    /// When there is no such level.
    pub fn codebook(&self, level: usize) -> Vec<f32> {
        self.network.codebooks[level].val().into_data().iter::<f32>().collect()
    }

    fn latents(&self, rows: &[f32]) -> Tensor<B, 2> {
        let dim = self.scaling.mean.len();
        let mut scaled = Vec::with_capacity(rows.len());
        for row in rows.chunks_exact(dim) {
            self.scaling.apply(row, &mut scaled);
        }
        let shape = [rows.len() / dim, dim];
        let inputs = Tensor::from_data(TensorData::new(scaled, shape), &self.device);
        self.network.encoder.forward(inputs)
    }

    /// The nearest code of latents at each level.
    fn greedy(&self, latents: Tensor<B, 2>) -> Result<Codes> {
        let [n, _] = latents.dims();
        let codebooks: Vec<_> = self.network.codebooks.iter().map(|book| book.val()).collect();
        // With NaN, backends differ in what is smallest, and some find an index out of range.
        let product = latents.clone().mul_scalar(0.0).sum().into_data();
        let remedy = "check the embeddings for values far from those that it was fitted on";
        Error::quantizer("RQ-VAE")
            .expected("embeddings whose latents are finite")
            .found("NaN or infinity in one of them")
            .fix_if(product.iter::<f32>().any(|value| value != 0.0), remedy)?;
        let (codes, _) = assign_nearest(latents, &codebooks);
        let columns: Vec<Vec<u16>> = codes
            .into_iter()
            .map(|codes| codes.into_data().iter::<i64>().map(|code| code as u16).collect())
            .collect();
        let rows = (0..n).flat_map(|row| columns.iter().map(move |column| column[row]));
        Codes::from_flat(columns.len(), rows.collect())
    }
}

/// Whether no weight is NaN or infinite.
fn has_finite_weights<B: Backend>(network: &RqVaeNetwork<B>) -> bool {
    struct Finite(bool);
    impl<B: Backend> ModuleVisitor<B> for Finite {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            self.0 &= param.val().into_data().iter::<f32>().all(f32::is_finite);
        }
    }
    let mut finite = Finite(true);
    network.visit(&mut finite);
    finite.0
}

impl<B: Backend> Quantizer for RqVae<B> {
    fn dim(&self) -> usize {
        self.scaling.mean.len()
    }

    fn level_sizes(&self) -> Vec<usize> {
        self.config.sizes.clone()
    }

    fn encode(&self, rows: &[f32]) -> Result<Codes> {
        self.encode_best(rows, 1)
    }

    fn encode_best(&self, rows: &[f32], count: usize) -> Result<Codes> {
        let dim = self.dim();
        check_rows(rows, dim, 0)?;
        let mut out = Codes::new(self.config.sizes.len());
        let beam = self.config.encode_beam;
        let books: Vec<Vec<f32>> = match (beam, count) {
            (1, 1) => Vec::new(),
            _ => (0..self.config.sizes.len()).map(|level| self.codebook(level)).collect(),
        };
        let search = CodeBeam { codebooks: &books, dim: self.config.latent, width: beam };
        for chunk in rows.chunks(CHUNK * dim) {
            let latents = self.latents(chunk);
            let mut codes = self.greedy(latents.clone())?;
            if !books.is_empty() {
                let latents: Vec<f32> = latents.into_data().iter::<f32>().collect();
                if beam > 1 {
                    codes = search.best(&latents, &codes, 1, false)?;
                }
                if count != 1 {
                    codes = search.best(&latents, &codes, count, true)?;
                }
            }
            codes.rows().for_each(|row| out.push(row));
        }
        Ok(out)
    }

    fn decode_prefix(&self, codes: &Codes, levels: usize) -> Result<Vec<f32>> {
        check_codes(codes, levels, &self.config.sizes)?;
        let mut out = Vec::with_capacity(codes.len() * self.dim());
        for start in (0..codes.len()).step_by(CHUNK) {
            let rows = start..(start + CHUNK).min(codes.len());
            let mut sum = Tensor::<B, 2>::zeros([rows.len(), self.config.latent], &self.device);
            for level in 0..levels {
                let tokens: Vec<i64> =
                    rows.clone().map(|row| i64::from(codes.row(row)[level])).collect();
                let tokens = Tensor::<B, 1, Int>::from_data(
                    TensorData::new(tokens, [rows.len()]),
                    &self.device,
                );
                sum = sum + self.network.codebooks[level].val().select(0, tokens);
            }
            out.extend(self.network.decoder.forward(sum).into_data().iter::<f32>());
        }
        self.scaling.undo(&mut out);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;

    fn fitted(value: f32, at: usize) -> Result<RqVae<Flex>> {
        let device = Default::default();
        let config =
            RqVaeConfig { latent: 3, hidden: vec![6], seed: 5, ..RqVaeConfig::new(vec![4, 3]) };
        let mut network = config.init_network::<Flex>(5, &device);
        let book = &mut network.codebooks[1];
        let mut data = book.val().into_data();
        data.as_mut_slice::<f32>().unwrap()[at] = value;
        *book = Param::from_data(data, &device);
        let scaling = Scaling { mean: vec![0.0; 5], deviation: vec![1.0; 5] };
        RqVae::from_parts(config, scaling, network, device)
    }

    /// The search for the nearest code alone would not show them on every backend.
    #[test]
    fn numbers_that_are_none_are_found_in_weights_and_latents() {
        let good = fitted(0.5, 4).unwrap();
        assert_eq!(good.encode(&[0.1; 10]).unwrap().len(), 2);
        for value in [f32::NAN, f32::INFINITY] {
            let error = fitted(value, 4).unwrap_err().to_string();
            assert!(error.contains("finite weights"), "{error}");
        }
        // Numbers that are finite, and whose latents are not.
        let mut far = good.clone();
        far.scaling.deviation = vec![1e-38; 5];
        let error = far.encode(&[100.0; 10]).unwrap_err().to_string();
        assert!(error.contains("latents are finite"), "{error}");
    }
}
