//! The map from features and texts to vectors, in memory and on disk.

use rayon::prelude::*;

use crate::{
    align::{
        TextVectors,
        centroids::Centroids,
        ridge::{Kernel, Lift, Ridge},
    },
    error::{Error, Result},
    features::Features,
    kernels::normalise,
    storage::NamedTensors,
};

/// Version of the file of a space.
const FORMAT: u32 = 3;
/// Items placed at once.
const ROWS: usize = 4096;

/// A fitted map from candidates to the space of the text encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct TextSpaceMap {
    pub(super) ridge: Ridge,
    pub(super) tuned: Option<Ridge>,
    pub(super) features: f32,
    pub(super) texts: f32,
}

impl TextSpaceMap {
    /// Width of the vectors.
    pub fn dim(&self) -> usize {
        self.ridge.widths().1
    }

    /// Vectors of candidates, with their ids: also of candidates the fit has not seen.
    ///
    /// # Shapes
    /// - `items`: `[N, D]`, `texts`: what describes them, if anything does
    /// - returns: `[N, d]`
    ///
    /// # Errors
    /// [`Error::Features`] for features of another width; [`Error::Captions`] for texts of another
    /// width, or of items that are not there.
    pub fn embed(&self, items: &Features, texts: Option<&TextVectors>) -> Result<Features> {
        let (d_input, dim) = self.ridge.widths();
        let remedy = "use features of the encoder that the space was fitted on";
        Error::features("candidates")
            .expected(format!("{d_input} numbers an item"))
            .found(items.dim().to_string())
            .fix_if(items.dim() != d_input, remedy)?;
        let none = TextVectors { dim, values: vec![], items: vec![], weights: vec![] };
        let texts = texts.unwrap_or(&none);
        let misplaced = texts.items.iter().find(|&&item| item as usize >= items.len());
        let remedy = "encode the texts of these candidates with the encoder of the space";
        Error::captions("vectors of texts")
            .expected(format!("width {dim}, items below {}", items.len()))
            .found(format!("width {}, item {:?}", texts.dim(), misplaced))
            .fix_if(texts.dim() != dim || misplaced.is_some(), remedy)?;
        self.place(items, &Centroids::new(items.len(), texts))
    }

    pub(super) fn place(&self, items: &Features, centroids: &Centroids) -> Result<Features> {
        let all: Vec<u32> = (0..items.len() as u32).collect();
        let rows: Vec<f32> = all
            .par_chunks(ROWS)
            .flat_map_iter(|chunk| {
                let rows: Vec<&[f32]> = chunk.iter().map(|&i| items.row(i as usize)).collect();
                let mut mapped = self.ridge.map_all(&rows);
                if let Some(map) = &self.tuned {
                    between(&mut mapped, map.map_all(&rows), self.dim());
                }
                let mapped = chunk.iter().zip(mapped.chunks_exact(self.dim()));
                let blend = |(&i, row)| self.blend(row, centroids.get(i), centroids.weight(i));
                mapped.flat_map(blend).collect::<Vec<f32>>()
            })
            .collect();
        Features::from_rows(rows, self.dim())?.with_item_ids(items.ids().clone())
    }

    /// What the features of an item say.
    pub(super) fn map(&self, items: &Features, item: u32) -> Vec<f32> {
        let rows = [items.row(item as usize)];
        let mut row = self.ridge.map_all(&rows);
        if let Some(map) = &self.tuned {
            between(&mut row, map.map_all(&rows), self.dim());
        }
        row
    }

    /// What the features say and what the texts of a weight say, as one vector of length 1.
    pub(super) fn blend(&self, features: &[f32], texts: Option<&[f32]>, weight: f32) -> Vec<f32> {
        let mut row = features.to_vec();
        normalise(&mut row);
        row.iter_mut().for_each(|v| *v *= self.features);
        if let Some(texts) = texts {
            row.iter_mut().zip(texts).for_each(|(row, v)| *row += v * (self.texts * weight));
        }
        // Without texts, features of weight 0 still say more than nothing.
        if row.iter().all(|v| *v == 0.0) {
            row.copy_from_slice(features);
        }
        normalise(&mut row);
        row
    }

    /// The space as a safetensors file.
    ///
    /// # Errors
    /// As [`NamedTensors::to_bytes`].
    pub fn to_safetensors(&self) -> Result<Vec<u8>> {
        let mut tensors = NamedTensors::new();
        insert(&mut tensors, "", &self.ridge);
        if let Some(map) = &self.tuned {
            insert(&mut tensors, TUNED, map);
        }
        tensors.insert_f32("blend", &[2], &[self.features, self.texts]);
        tensors.to_bytes(&[("candidate-space", &FORMAT.to_string())])
    }

    /// Reads what [`TextSpaceMap::to_safetensors`] wrote.
    ///
    /// # Errors
    /// [`Error::Index`] or [`Error::Model`] when it is not that.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self> {
        let (mut tensors, metadata) = NamedTensors::from_bytes(bytes)?;
        let version = metadata.get("candidate-space").cloned().unwrap_or_default();
        let remedy = "load it with the version of the library that wrote it";
        Error::index("candidate space")
            .expected(format!("format {FORMAT}"))
            .found(format!("format {version:?}"))
            .fix_if(version != FORMAT.to_string(), remedy)?;
        let (_, blend) = tensors.take_f32("blend")?;
        let ridge = take(&mut tensors, "")?;
        let has_tuned = tensors.contains(&format!("{TUNED}weight"));
        let tuned = if has_tuned { Some(take(&mut tensors, TUNED)?) } else { None };
        tensors.ensure_empty("candidate space")?;
        let alike = tuned.as_ref().is_none_or(|map| map.widths() == ridge.widths());
        Error::index("candidate space")
            .expected("two weights, and maps of the same widths")
            .found(format!("{} weights, or other widths", blend.len()))
            .fix_if(blend.len() != 2 || !alike, "the file is damaged: write the index again")?;
        Ok(Self { ridge, tuned, features: blend[0], texts: blend[1] })
    }
}

/// What the names of a tuned map's tensors start with.
const TUNED: &str = "tuned.";

/// Half way between the directions of two lists of rows, in place of the first.
pub(super) fn between(rows: &mut [f32], mut others: Vec<f32>, dim: usize) {
    for (row, other) in rows.chunks_exact_mut(dim).zip(others.chunks_exact_mut(dim)) {
        normalise(row);
        normalise(other);
        row.iter_mut().zip(other).for_each(|(value, other)| *value += *other);
    }
}

fn insert(tensors: &mut NamedTensors, prefix: &str, map: &Ridge) {
    let (d_input, dim) = map.widths();
    let Lift { mean, kernel } = &map.lift;
    let (gamma, landmarks) = match kernel {
        Some(kernel) => (kernel.gamma, kernel.landmarks.as_slice()),
        None => (0.0, &[][..]),
    };
    let mut put = |name: &str, shape: &[usize], values: &[f32]| {
        tensors.insert_f32(&format!("{prefix}{name}"), shape, values);
    };
    put("input_mean", &[d_input], mean);
    put("gamma", &[1], &[gamma]);
    put("landmarks", &[landmarks.len() / d_input, d_input], landmarks);
    put("weight", &[map.weight.len() / dim, dim], &map.weight);
    put("bias", &[dim], &map.bias);
}

fn take(tensors: &mut NamedTensors, prefix: &str) -> Result<Ridge> {
    let mut get = |name: &str| tensors.take_f32(&format!("{prefix}{name}"));
    let (_, mean) = get("input_mean")?;
    let (_, gamma) = get("gamma")?;
    let (close, landmarks) = get("landmarks")?;
    let (shape, weight) = get("weight")?;
    let (_, bias) = get("bias")?;
    let count = close.first().copied().unwrap_or(0);
    let width = if landmarks.is_empty() { mean.len() } else { count };
    let whole = shape == [width, bias.len()]
        && close == [count, mean.len()]
        && gamma.len() == 1
        && (gamma[0] > 0.0) != landmarks.is_empty();
    Error::index("candidate space")
        .expected("weights of the shape of its map")
        .found(format!("a weight of shape {shape:?}"))
        .fix_if(!whole, "the file is damaged: write the index again")?;
    let kernel = (gamma[0] > 0.0).then_some(Kernel { gamma: gamma[0], landmarks });
    Ok(Ridge { lift: Lift { mean, kernel }, weight, bias })
}
