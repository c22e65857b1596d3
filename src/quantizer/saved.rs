//! The coarse-to-fine quantizer as one safetensors file.
//!
//! Tensors: `coarse.centres`; `fine.codebook.M` of residual K-Means; `fine.centres.L` and
//! `fine.first_children.L` of hierarchical K-Means; `fine.mean`, `fine.deviation` and
//! `fine.network.*` of the RQ-VAE. The settings are in the metadata, as JSON under `quantizer`.

use std::io::Write;

use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use super::{
    CoarseToFine, FineQuantizer, Hierarchical, KMeans, Quantizer, RqKMeans, RqVae, RqVaeConfig,
    Scaling,
};
use crate::{
    error::{Error, Result},
    storage::{NamedTensors, Sha256Writer, count, ensure_held, hex, load_module},
};

/// Settings stored with the tensors.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Meta {
    dim: usize,
    inertia: f64,
    iterations: usize,
    fine: FineMeta,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FineMeta {
    RqVae(RqVaeConfig),
    RqKmeans {
        levels: usize,
        /// Absent in files of older versions.
        #[serde(default = "greedy")]
        encode_beam: usize,
    },
    Hierarchical {
        sizes: Vec<usize>,
    },
}

fn greedy() -> usize {
    1
}

impl<B: Backend> CoarseToFine<B> {
    /// The quantizer as the bytes of a safetensors file.
    ///
    /// # Errors
    /// [`Error::Model`] when a tensor cannot be read back from its device.
    pub fn to_safetensors(&self) -> Result<Vec<u8>> {
        let (tensors, fine) = self.tensors()?;
        let coarse = self.coarse();
        let (inertia, iterations) = (coarse.inertia(), coarse.iterations());
        let meta = Meta { dim: coarse.dim(), inertia, iterations, fine };
        let json = serde_json::to_string(&meta).map_err(|e| unreadable(&e))?;
        tensors.to_bytes(&[("quantizer", &json)])
    }

    /// SHA-256 of everything that decides the codes, in hexadecimal.
    ///
    /// A quantizer that was saved and loaded has the digest of the one that was fitted.
    ///
    /// # Errors
    /// As [`CoarseToFine::to_safetensors`].
    pub fn digest(&self) -> Result<String> {
        let (tensors, fine) = self.tensors()?;
        let (kind, beam) = match fine {
            FineMeta::RqVae(config) => ("rq-vae", config.encode_beam),
            FineMeta::RqKmeans { encode_beam, .. } => ("rq-kmeans", encode_beam),
            FineMeta::Hierarchical { .. } => ("hierarchical", 1),
        };
        // Greedy codes keep the digests that older versions gave them.
        let beam = if beam > 1 { format!(", beam {beam}") } else { String::new() };
        let sizes = format!("{kind} {:?}{beam}", self.level_sizes());
        let mut writer = Sha256Writer::new(std::io::sink());
        writer.write_all(&tensors.to_bytes(&[("sizes", &sizes)])?).map_err(|e| unreadable(&e))?;
        Ok(hex(&writer.finish().1))
    }

    /// The tensors, and the settings of the fine part.
    fn tensors(&self) -> Result<(NamedTensors, FineMeta)> {
        let mut tensors = NamedTensors::new();
        let coarse = self.coarse();
        let dim = coarse.dim();
        tensors.insert_f32("coarse.centres", &[coarse.k(), dim], coarse.centres());
        let fine = match self.fine() {
            FineQuantizer::RqVae(rq) => {
                tensors.insert_f32("fine.mean", &[dim], &rq.scaling().mean);
                tensors.insert_f32("fine.deviation", &[dim], &rq.scaling().deviation);
                tensors.insert_module::<B, _>("fine.network.", rq.network())?;
                FineMeta::RqVae(rq.config().clone())
            }
            FineQuantizer::RqKMeans(rq) => {
                for (level, book) in rq.codebooks().iter().enumerate() {
                    let shape = [book.len() / dim, dim];
                    tensors.insert_f32(&format!("fine.codebook.{level}"), &shape, book);
                }
                FineMeta::RqKmeans { levels: rq.codebooks().len(), encode_beam: rq.encode_beam() }
            }
            FineQuantizer::Hierarchical(tree) => {
                for (level, centres) in tree.centres().iter().enumerate() {
                    let shape = [centres.len() / dim, dim];
                    tensors.insert_f32(&format!("fine.centres.{level}"), &shape, centres);
                }
                for (level, first) in tree.first_children().iter().enumerate() {
                    tensors.insert_u32(&format!("fine.first_children.{level}"), first);
                }
                FineMeta::Hierarchical { sizes: tree.level_sizes() }
            }
        };
        Ok((tensors, fine))
    }

    /// Reads what [`CoarseToFine::to_safetensors`] wrote.
    ///
    /// # Errors
    /// [`Error::Index`] for bytes that are no such file, [`Error::Quantizer`] or [`Error::Model`]
    /// for tensors that do not fit.
    pub fn from_safetensors(bytes: &[u8], device: &B::Device) -> Result<Self> {
        let (mut tensors, metadata) = NamedTensors::from_bytes(bytes)?;
        let json = metadata.get("quantizer").map(String::as_str).unwrap_or_default();
        let meta: Meta = serde_json::from_str(json).map_err(|e| {
            Error::index("quantizer")
                .expected("its settings in the metadata")
                .found(e.to_string())
                .fix("save the index again with this version of the library")
        })?;
        let dim = meta.dim;
        let centres = tensors.take_f32("coarse.centres")?.1;
        let coarse = KMeans::from_parts(centres, dim, meta.inertia, meta.iterations)?;
        let fine = match meta.fine {
            FineMeta::RqVae(config) => {
                config.validate()?;
                let held = || {
                    let widths = [&[dim][..], &config.hidden, &[config.latent]].concat();
                    let layers = widths.windows(2).map(|pair| count(&[&[2, pair[0], pair[1]]]));
                    let codes = config.sizes.iter().map(|&size| count(&[&[size, config.latent]]));
                    layers.chain(codes).fold(0, usize::saturating_add)
                };
                let sizes = (dim, config.latent, &config.hidden, &config.sizes);
                ensure_held("quantizer", &sizes, held, tensors.bytes())?;
                let scaling = Scaling {
                    mean: tensors.take_f32("fine.mean")?.1,
                    deviation: tensors.take_f32("fine.deviation")?.1,
                };
                let mut network = config.init_network::<B>(dim, device);
                load_module::<B, _>(&mut network, &mut tensors, "fine.network.")?;
                Error::quantizer("fine.mean")
                    .expected(format!("{dim} values"))
                    .found(scaling.mean.len().to_string())
                    .fix_if(scaling.mean.len() != dim, "save the index again")?;
                FineQuantizer::RqVae(RqVae::from_parts(config, scaling, network, device.clone())?)
            }
            FineMeta::RqKmeans { levels, encode_beam } => {
                let book = |level| Ok(tensors.take_f32(&format!("fine.codebook.{level}"))?.1);
                let rq = RqKMeans::from_parts((0..levels).map(book).collect::<Result<_>>()?, dim)?;
                FineQuantizer::RqKMeans(rq.with_encode_beam(encode_beam)?)
            }
            FineMeta::Hierarchical { sizes } => {
                let (mut centres, mut first) = (Vec::new(), Vec::new());
                for level in 0..sizes.len() {
                    centres.push(tensors.take_f32(&format!("fine.centres.{level}"))?.1);
                    first.push(tensors.take_u32(&format!("fine.first_children.{level}"))?);
                }
                FineQuantizer::Hierarchical(Hierarchical::from_parts(sizes, centres, first, dim)?)
            }
        };
        tensors.ensure_empty("quantizer")?;
        Self::from_parts(coarse, fine)
    }
}

fn unreadable(error: &dyn std::fmt::Display) -> Error {
    Error::quantizer("quantizer")
        .expected("readable tensors")
        .found(error.to_string())
        .fix("fit it again")
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;
    use crate::{
        features::Features,
        quantizer::{CoarseToFineConfig, FineConfig, HierarchicalConfig, RqKMeansConfig},
    };

    fn fitted(fine: FineConfig) -> (CoarseToFine<Flex>, Features) {
        let rows: Vec<f32> = (0..600).map(|i| ((i * i % 977) as f32 * 0.71).sin()).collect();
        let items = Features::from_rows(rows, 6).unwrap();
        let config = CoarseToFineConfig::new(4, fine);
        (config.fit(&items, &Default::default()).unwrap(), items)
    }

    #[test]
    fn every_kind_loads_as_it_was_saved() {
        for fine in [
            FineConfig::RqVae(RqVaeConfig { latent: 4, epochs: 2, ..RqVaeConfig::new(vec![8, 4]) }),
            FineConfig::RqKmeans(RqKMeansConfig::new(vec![8, 4])),
            FineConfig::RqKmeans(RqKMeansConfig {
                encode_beam: 6,
                ..RqKMeansConfig::new(vec![8, 4])
            }),
            FineConfig::Hierarchical(HierarchicalConfig::new(vec![4, 3])),
        ] {
            let (quantizer, items) = fitted(fine);
            let bytes = quantizer.to_safetensors().unwrap();
            let loaded =
                CoarseToFine::<Flex>::from_safetensors(&bytes, &Default::default()).unwrap();
            let codes = quantizer.encode(items.as_slice()).unwrap();
            assert_eq!(loaded.encode(items.as_slice()).unwrap(), codes);
            assert_eq!(loaded.digest().unwrap(), quantizer.digest().unwrap());
            assert_eq!(loaded.decode(&codes).unwrap(), quantizer.decode(&codes).unwrap());
        }
    }

    #[test]
    fn the_beam_is_part_of_the_digest_and_files_without_one_are_greedy() {
        let digest = |beam| {
            let config = RqKMeansConfig { encode_beam: beam, ..RqKMeansConfig::new(vec![8, 4]) };
            let (quantizer, items) = fitted(FineConfig::RqKmeans(config));
            let codes = quantizer.encode(items.as_slice()).unwrap();
            (quantizer.digest().unwrap(), codes, quantizer)
        };
        let (greedy, beam) = (digest(1), digest(6));
        assert!(greedy.0 != beam.0 && greedy.1 != beam.1);
        let bytes = greedy.2.to_safetensors().unwrap();
        let (mut tensors, metadata) = NamedTensors::from_bytes(&bytes).unwrap();
        let older = metadata["quantizer"].replace(",\"encode_beam\":1", "");
        assert_ne!(older, metadata["quantizer"]);
        let mut copy = NamedTensors::new();
        for name in ["coarse.centres", "fine.codebook.0", "fine.codebook.1"] {
            let (shape, values) = tensors.take_f32(name).unwrap();
            copy.insert_f32(name, &shape, &values);
        }
        let older = copy.to_bytes(&[("quantizer", &older)]).unwrap();
        let loaded = CoarseToFine::<Flex>::from_safetensors(&older, &Default::default()).unwrap();
        assert_eq!(loaded.digest().unwrap(), greedy.0);
    }

    #[test]
    fn broken_files_are_refused() {
        let (quantizer, _) = fitted(FineConfig::RqVae(RqVaeConfig {
            latent: 4,
            epochs: 1,
            ..RqVaeConfig::new(vec![8])
        }));
        let bytes = quantizer.to_safetensors().unwrap();
        let device = Default::default();
        for cut in [0, 7, 100, bytes.len() - 1] {
            assert!(CoarseToFine::<Flex>::from_safetensors(&bytes[..cut], &device).is_err());
        }
        // Sizes that would fill the memory, were they believed.
        let (mut tensors, meta) = NamedTensors::from_bytes(&bytes).unwrap();
        for (from, to) in [
            ("\"latent\":4", "\"latent\":9007199254740993"),
            ("\"hidden\":[", "\"hidden\":[60000,60000,"),
            ("\"dim\":6", "\"dim\":18446744073709551615"),
        ] {
            let json = &meta["quantizer"];
            assert!(json.contains(from), "{json}");
            let json = json.replacen(from, to, 1);
            let large = tensors.to_bytes(&[("quantizer", &json)]).unwrap();
            assert!(CoarseToFine::<Flex>::from_safetensors(&large, &device).is_err(), "{from}");
        }
        tensors = NamedTensors::new();
        tensors.insert_f32("coarse.centres", &[2, 1], &[0.0, 1.0]);
        let other = tensors.to_bytes(&[]).unwrap();
        assert!(CoarseToFine::<Flex>::from_safetensors(&other, &device).is_err());
    }
}
