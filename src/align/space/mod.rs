//! From features and texts to vectors in the space of the text encoder.

mod pairs;
#[cfg(test)]
mod tests;

use pairs::Pairs;
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    HeldOut, Ridge, TextVectors,
    centroids::Centroids,
    ridge::{Kernel, Lift},
};
use crate::{
    error::{Error, Result},
    features::Features,
    kernels::normalise,
    storage::NamedTensors,
};

/// Version of the file of a space.
const FORMAT: u32 = 3;
/// Items placed at once.
const ROWS: usize = 4096;

/// How candidates become vectors.
///
/// The vector of a candidate is `features * R(f) + texts * c`, scaled to length 1: `R` a ridge
/// regression from its feature row to the mean vector of its training texts, `c` that mean itself
/// where the candidate has texts, both of length 1. Texts count by their weights: in that mean; and a candidate whose texts
/// all weigh less than others' has its `c` and its part in the regression multiplied by the largest of them, relative to the
/// largest of all. Where a map was tuned together with the text
/// encoder ([`SpaceTuning`](super::SpaceTuning)), `R` lies half way between the regression's and that map's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CandidateSpaceConfig {
    /// Weight of what the features say.
    pub features: f32,
    /// Weight of what the training texts say. At 0, candidates that have texts are treated like
    /// those that have none: right where the candidates to find are none of the training.
    pub texts: f32,
    /// Kernels of the regression to choose from, by how well texts find their held-out item:
    /// `exp(gamma (cosine - 1))` between rows; 0 is a linear map. Features of an encoder trained on
    /// texts are best mapped linearly or nearly so, others are not.
    pub gammas: Vec<f64>,
    /// Most rows that a kernel compares with.
    pub landmarks: usize,
    /// Penalties of the regression to choose from likewise.
    pub penalties: Vec<f64>,
    /// Parts that the items are divided into for that choice and for the held-out vectors.
    pub folds: usize,
    /// Seed of the division.
    pub seed: u64,
}

impl Default for CandidateSpaceConfig {
    fn default() -> Self {
        Self {
            features: 1.0,
            texts: 1.0,
            gammas: vec![0.0, 1.0, 2.0],
            landmarks: 2048,
            penalties: vec![0.1, 0.3, 1.0, 3.0],
            folds: 5,
            seed: 0,
        }
    }
}

/// A fitted map from candidates to the space of the text encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct CandidateSpace {
    ridge: Ridge,
    tuned: Option<Ridge>,
    features: f32,
    texts: f32,
}

/// What a fit gives.
#[derive(Debug, Clone)]
pub struct FittedSpace {
    /// The map, for candidates to come.
    pub space: CandidateSpace,
    /// Vectors of the candidates, with their ids.
    pub vectors: Features,
    /// For every text, its candidate's vector made without it.
    pub held_out: HeldOut,
    /// The kernel that was chosen; 0 is a linear map.
    pub gamma: f64,
    /// The penalty that was chosen.
    pub penalty: f64,
    /// Mean reciprocal rank at which texts find their item among those of its fold, by the features
    /// of an item that the regression has not seen.
    pub held_out_mrr: f64,
}

impl CandidateSpaceConfig {
    /// Checks ranges.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting that does not fit.
    pub fn validate(&self) -> Result<()> {
        let weight = |w: f32| w >= 0.0 && w.is_finite();
        if !weight(self.features) || !weight(self.texts) || self.features + self.texts == 0.0 {
            return Err(Error::config(
                "space weights",
                "features and texts of at least 0, not both 0",
                format!("{} and {}", self.features, self.texts),
                "1 and 1 are usual",
            ));
        }
        if self.penalties.is_empty() || !self.penalties.iter().all(|p| *p > 0.0 && p.is_finite()) {
            return Err(Error::config(
                "space penalties",
                "at least one number above 0",
                format!("{:?}", self.penalties),
                "0.3, 1, 3 and 10 are usual",
            ));
        }
        if self.gammas.is_empty() || !self.gammas.iter().all(|g| *g >= 0.0 && g.is_finite()) {
            return Err(Error::config(
                "space gammas",
                "at least one number of at least 0",
                format!("{:?}", self.gammas),
                "0, 1 and 2 are usual",
            ));
        }
        if self.landmarks == 0 {
            return Err(Error::config("space landmarks", "at least 1", "0", "2048 is usual"));
        }
        if self.folds < 2 {
            return Err(Error::config(
                "space folds",
                "at least 2",
                self.folds.to_string(),
                "5 is usual",
            ));
        }
        Ok(())
    }

    /// Fits the map on the items that have texts, and applies it to all.
    ///
    /// # Shapes
    /// - `items`: `[N, D]`; the texts' items are rows of it
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range; [`Error::Captions`] when fewer than two items
    /// have texts, or a text names an item that is not there.
    pub fn fit(&self, items: &Features, texts: &TextVectors) -> Result<FittedSpace> {
        self.fit_beside(None, items, texts)
    }

    /// The same, with the mean of the regression and of a map that was tuned together with the encoder of
    /// the texts. For the vectors that have not seen a text, the tuned map is the one there is.
    ///
    /// # Errors
    /// As [`CandidateSpaceConfig::fit`], and [`Error::Features`] for a map of other widths.
    pub fn fit_beside(
        &self,
        tuned: Option<&Ridge>,
        items: &Features,
        texts: &TextVectors,
    ) -> Result<FittedSpace> {
        self.validate()?;
        if let Some(map) = tuned.filter(|map| map.widths() != (items.dim(), texts.dim())) {
            return Err(Error::features(
                "tuned map",
                format!("one from {} to {} numbers", items.dim(), texts.dim()),
                format!("{:?}", map.widths()),
                "tune the encoder on these candidates",
            ));
        }
        let (centroids, known) = self.described(items, texts)?;
        let pairs = Pairs { config: self, items, centroids: &centroids };
        let (gamma, penalty, held_out_mrr) = pairs.choose(&known, texts)?;
        let mut out_of_fold: Vec<Option<Vec<f32>>> = vec![None; items.len()];
        for (out, rows) in pairs.held_out(&known, gamma, &[penalty])? {
            let mut rows = rows.into_iter().next().expect("a penalty");
            if let Some(map) = tuned {
                let inputs: Vec<&[f32]> = out.iter().map(|&i| items.row(i as usize)).collect();
                between(&mut rows, map.map_all(&inputs), texts.dim());
            }
            for (&item, row) in out.iter().zip(rows.chunks_exact(texts.dim())) {
                out_of_fold[item as usize] = Some(row.to_vec());
            }
        }
        let space = pairs.space(tuned, &known, gamma, penalty)?;
        let mut held_out = Vec::with_capacity(texts.values.len());
        for (text, &item) in texts.items.iter().enumerate() {
            // An item all of whose texts weigh nothing is in no fold: its features are all there is.
            let row = match &out_of_fold[item as usize] {
                Some(row) => row,
                None => &space.map(items, item),
            };
            let others = centroids.without(item, texts, text);
            held_out.extend(space.blend(row, others.as_deref(), centroids.weight(item)));
        }
        Ok(FittedSpace {
            vectors: space.place(items, &centroids)?,
            space,
            held_out: HeldOut::new(texts.dim(), held_out)?,
            gamma,
            penalty,
            held_out_mrr,
        })
    }

    /// The means of the texts, and the items that have some.
    fn described(&self, items: &Features, texts: &TextVectors) -> Result<(Centroids, Vec<u32>)> {
        if let Some(item) = texts.items.iter().find(|&&item| item as usize >= items.len()) {
            return Err(Error::captions(
                "vectors of texts",
                format!("items below {}", items.len()),
                item.to_string(),
                "resolve captions against these candidates",
            ));
        }
        let centroids = Centroids::new(items.len(), texts);
        let known = self.known(&centroids);
        if known.len() < 2 {
            return Err(Error::captions(
                "training texts",
                "texts of at least two items",
                known.len().to_string(),
                "fit the space on captioned candidates",
            ));
        }
        Ok((centroids, known))
    }

    /// The same with the kernel and the penalty that a fit would choose.
    pub(super) fn chosen(&self, items: &Features, texts: &TextVectors) -> Result<Self> {
        self.validate()?;
        let (centroids, known) = self.described(items, texts)?;
        let pairs = Pairs { config: self, items, centroids: &centroids };
        let (gamma, penalty, _) = pairs.choose(&known, texts)?;
        Ok(Self { gammas: vec![gamma], penalties: vec![penalty], ..self.clone() })
    }

    /// The regression under the first kernel and penalty, and nothing else.
    pub(super) fn regression(&self, items: &Features, texts: &TextVectors) -> Result<Ridge> {
        let (centroids, known) = self.described(items, texts)?;
        let pairs = Pairs { config: self, items, centroids: &centroids };
        pairs.problem(&known, self.gammas[0])?.solve(self.penalties[0])
    }

    /// Items that have texts, in the order of the seed.
    fn known(&self, centroids: &Centroids) -> Vec<u32> {
        let mut known: Vec<u32> = centroids.known().collect();
        known.shuffle(&mut ChaCha8Rng::seed_from_u64(self.seed));
        known
    }

    /// The vectors of the candidates under the first kernel and penalty, and nothing else.
    pub(super) fn vectors(
        &self,
        tuned: Option<&Ridge>,
        items: &Features,
        texts: &TextVectors,
    ) -> Result<Features> {
        let centroids = Centroids::new(items.len(), texts);
        let known = self.known(&centroids);
        let pairs = Pairs { config: self, items, centroids: &centroids };
        pairs.space(tuned, &known, self.gammas[0], self.penalties[0])?.place(items, &centroids)
    }
}

impl CandidateSpace {
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
        if items.dim() != d_input {
            return Err(Error::features(
                "candidates",
                format!("{d_input} numbers an item"),
                items.dim().to_string(),
                "use features of the encoder that the space was fitted on",
            ));
        }
        let none = TextVectors { dim, values: vec![], items: vec![], weights: vec![] };
        let texts = texts.unwrap_or(&none);
        let misplaced = texts.items.iter().find(|&&item| item as usize >= items.len());
        if texts.dim() != dim || misplaced.is_some() {
            return Err(Error::captions(
                "vectors of texts",
                format!("width {dim}, items below {}", items.len()),
                format!("width {}, item {:?}", texts.dim(), misplaced),
                "encode the texts of these candidates with the encoder of the space",
            ));
        }
        self.place(items, &Centroids::new(items.len(), texts))
    }

    fn place(&self, items: &Features, centroids: &Centroids) -> Result<Features> {
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
    fn map(&self, items: &Features, item: u32) -> Vec<f32> {
        let rows = [items.row(item as usize)];
        let mut row = self.ridge.map_all(&rows);
        if let Some(map) = &self.tuned {
            between(&mut row, map.map_all(&rows), self.dim());
        }
        row
    }

    /// What the features say and what the texts of a weight say, as one vector of length 1.
    fn blend(&self, features: &[f32], texts: Option<&[f32]>, weight: f32) -> Vec<f32> {
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

    /// Reads what [`CandidateSpace::to_safetensors`] wrote.
    ///
    /// # Errors
    /// [`Error::Index`] or [`Error::Model`] when it is not that.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self> {
        let (mut tensors, metadata) = NamedTensors::from_bytes(bytes)?;
        let version = metadata.get("candidate-space").cloned().unwrap_or_default();
        if version != FORMAT.to_string() {
            return Err(Error::index(
                "candidate space",
                format!("format {FORMAT}"),
                format!("format {version:?}"),
                "load it with the version of the library that wrote it",
            ));
        }
        let (_, blend) = tensors.take_f32("blend")?;
        let ridge = take(&mut tensors, "")?;
        let has_tuned = tensors.contains(&format!("{TUNED}weight"));
        let tuned = if has_tuned { Some(take(&mut tensors, TUNED)?) } else { None };
        tensors.ensure_empty("candidate space")?;
        let alike = tuned.as_ref().is_none_or(|map| map.widths() == ridge.widths());
        if blend.len() != 2 || !alike {
            return Err(Error::index(
                "candidate space",
                "two weights, and maps of the same widths",
                format!("{} weights, or other widths", blend.len()),
                "the file is damaged: write the index again",
            ));
        }
        Ok(Self { ridge, tuned, features: blend[0], texts: blend[1] })
    }
}

/// What the names of a tuned map's tensors start with.
const TUNED: &str = "tuned.";

/// Half way between the directions of two lists of rows, in place of the first.
fn between(rows: &mut [f32], mut others: Vec<f32>, dim: usize) {
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
    if !whole {
        return Err(Error::index(
            "candidate space",
            "a weight for every input and output of its map",
            format!("a weight of shape {shape:?}"),
            "the file is damaged: write the index again",
        ));
    }
    let kernel = (gamma[0] > 0.0).then_some(Kernel { gamma: gamma[0], landmarks });
    Ok(Ridge { lift: Lift { mean, kernel }, weight, bias })
}
