//! From features and texts to vectors in the space of the text encoder.

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    HeldOut, Ridge, TextVectors, dot, normalise,
    ridge::{Kernel, Lift, RidgeProblem},
};
use crate::{
    error::{Error, Result},
    features::Features,
    storage::NamedTensors,
};

/// Version of the file of a space.
const FORMAT: u32 = 2;
/// Most items that kernel and penalty are chosen by.
const MOST_TO_CHOOSE_BY: usize = 1000;
/// Items placed at once.
const ROWS: usize = 4096;

/// How candidates become vectors.
///
/// The vector of a candidate is `features * R(f) + texts * c`, scaled to length 1: `R` a ridge
/// regression from its feature row to the mean vector of its training texts, `c` that mean (of
/// length 1) itself where the candidate has texts.
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
        self.validate()?;
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
        let pairs = Pairs { config: self, items, centroids: &centroids };
        let (gamma, penalty, held_out_mrr) = pairs.choose(&known, texts)?;
        let mut out_of_fold: Vec<Option<Vec<f32>>> = vec![None; items.len()];
        for (out, rows) in pairs.held_out(&known, gamma, &[penalty])? {
            for (&item, row) in out.iter().zip(rows[0].chunks_exact(texts.dim())) {
                out_of_fold[item as usize] = Some(row.to_vec());
            }
        }
        let space = pairs.space(&known, gamma, penalty)?;
        let mut held_out = Vec::with_capacity(texts.values.len());
        for (text, &item) in texts.items.iter().enumerate() {
            let row = out_of_fold[item as usize].as_ref().expect("an item with texts is in a fold");
            let others = centroids.without(item, texts.row(text));
            held_out.extend(space.blend(row, others.as_deref()));
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

    /// Items that have texts, in the order of the seed.
    fn known(&self, centroids: &Centroids) -> Vec<u32> {
        let mut known: Vec<u32> = centroids.known().collect();
        known.shuffle(&mut ChaCha8Rng::seed_from_u64(self.seed));
        known
    }

    /// The vectors of the candidates under the first kernel and penalty, and nothing else.
    pub(super) fn vectors(&self, items: &Features, texts: &TextVectors) -> Result<Features> {
        let centroids = Centroids::new(items.len(), texts);
        let known = self.known(&centroids);
        let pairs = Pairs { config: self, items, centroids: &centroids };
        pairs.space(&known, self.gammas[0], self.penalties[0])?.place(items, &centroids)
    }
}

/// Items with features and texts, to fit a regression to.
struct Pairs<'a> {
    config: &'a CandidateSpaceConfig,
    items: &'a Features,
    centroids: &'a Centroids,
}

impl Pairs<'_> {
    fn problem(&self, known: &[u32], gamma: f64) -> Result<RidgeProblem> {
        let inputs = known.iter().map(|&item| self.items.row(item as usize));
        let lift = Lift::new(self.items.dim(), gamma, self.config.landmarks, inputs.clone());
        let outputs = known.iter().map(|&item| self.centroids.row(item));
        RidgeProblem::new(lift, self.centroids.dim, inputs.zip(outputs))
    }

    fn space(&self, known: &[u32], gamma: f64, penalty: f64) -> Result<CandidateSpace> {
        let ridge = self.problem(known, gamma)?.solve(penalty)?;
        Ok(CandidateSpace { ridge, features: self.config.features, texts: self.config.texts })
    }

    /// Per fold, its items, and what a regression on the other folds makes of each, per penalty.
    #[allow(clippy::type_complexity)]
    fn held_out(
        &self,
        known: &[u32],
        gamma: f64,
        penalties: &[f64],
    ) -> Result<Vec<(Vec<u32>, Vec<Vec<f32>>)>> {
        let folds = self.config.folds.min(known.len());
        (0..folds)
            .into_par_iter()
            .map(|fold| {
                let inside = |rank: usize| rank % folds == fold;
                let part = |wanted: bool| -> Vec<u32> {
                    let ranked = known.iter().enumerate();
                    ranked.filter(|(rank, _)| inside(*rank) == wanted).map(|(_, &i)| i).collect()
                };
                let (out, problem) = (part(true), self.problem(&part(false), gamma)?);
                let rows: Vec<&[f32]> = out.iter().map(|&i| self.items.row(i as usize)).collect();
                let mapped = |&penalty| Ok(problem.solve(penalty)?.map_all(&rows));
                let mapped = penalties.iter().map(mapped).collect::<Result<_>>()?;
                Ok((out, mapped))
            })
            .collect()
    }

    /// Kernel and penalty under which texts find their items best, and the mean reciprocal rank.
    fn choose(&self, known: &[u32], texts: &TextVectors) -> Result<(f64, f64, f64)> {
        let known = &known[..known.len().min(MOST_TO_CHOOSE_BY)];
        let mut best: Option<(f64, f64, f64)> = None;
        for &gamma in &self.config.gammas {
            let folds = self.held_out(known, gamma, &self.config.penalties)?;
            for (at, &penalty) in self.config.penalties.iter().enumerate() {
                let ranks = folds.iter().map(|(out, rows)| ranks(out, &rows[at], texts));
                let (sum, count) =
                    ranks.fold((0.0, 0), |(s, c), (sum, count)| (s + sum, c + count));
                let mrr = sum / count as f64;
                if best.is_none_or(|(.., most)| mrr > most) {
                    best = Some((gamma, penalty, mrr));
                }
            }
        }
        Ok(best.expect("there are kernels and penalties"))
    }
}

/// Sum and count of the reciprocal ranks at which the texts of some items find them among those.
fn ranks(items: &[u32], rows: &[f32], texts: &TextVectors) -> (f64, usize) {
    let mut units = rows.to_vec();
    units.chunks_exact_mut(texts.dim()).for_each(normalise);
    let mut place = std::collections::HashMap::new();
    place.extend(items.iter().enumerate().map(|(at, &item)| (item, at)));
    let owned = texts.items.iter().enumerate().filter_map(|(t, item)| Some((t, *place.get(item)?)));
    let owned: Vec<(usize, usize)> = owned.collect();
    let unit = |at: usize| &units[at * texts.dim()..(at + 1) * texts.dim()];
    let rank = |&(text, own): &(usize, usize)| {
        let text = texts.row(text);
        let target = dot(text, unit(own));
        let above = (0..items.len()).filter(|&at| dot(text, unit(at)) > target).count();
        1.0 / (above + 1) as f64
    };
    (owned.iter().map(rank).sum(), owned.len())
}

/// Sums of the texts of every item.
struct Centroids {
    dim: usize,
    sums: Vec<f32>,
    counts: Vec<u32>,
    means: Vec<f32>,
}

impl Centroids {
    fn new(items: usize, texts: &TextVectors) -> Self {
        let dim = texts.dim();
        let mut sums = vec![0f32; items * dim];
        let mut counts = vec![0u32; items];
        for (text, &item) in texts.items.iter().enumerate() {
            let item = item as usize;
            counts[item] += 1;
            let sum = &mut sums[item * dim..(item + 1) * dim];
            sum.iter_mut().zip(texts.row(text)).for_each(|(sum, v)| *sum += v);
        }
        let mut means = sums.clone();
        means.chunks_exact_mut(dim).for_each(normalise);
        Self { dim, sums, counts, means }
    }

    /// Items that have texts, in order.
    fn known(&self) -> impl Iterator<Item = u32> {
        (0..self.counts.len() as u32).filter(|&item| self.counts[item as usize] > 0)
    }

    /// The mean, of length 1.
    fn row(&self, item: u32) -> &[f32] {
        &self.means[item as usize * self.dim..(item as usize + 1) * self.dim]
    }

    fn get(&self, item: u32) -> Option<&[f32]> {
        (self.counts.get(item as usize).is_some_and(|&count| count > 0)).then(|| self.row(item))
    }

    /// The mean without one text, of length 1; absent where that was the only one.
    fn without(&self, item: u32, text: &[f32]) -> Option<Vec<f32>> {
        if self.counts[item as usize] < 2 {
            return None;
        }
        let at = item as usize * self.dim;
        let sum = &self.sums[at..at + self.dim];
        let mut rest: Vec<f32> = sum.iter().zip(text).map(|(sum, v)| sum - v).collect();
        normalise(&mut rest);
        Some(rest)
    }
}

impl CandidateSpace {
    /// The regression.
    pub(super) fn into_ridge(self) -> Ridge {
        self.ridge
    }

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
        let none = TextVectors { dim, values: vec![], items: vec![] };
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
                let mapped = self.ridge.map_all(&rows);
                let mapped = chunk.iter().zip(mapped.chunks_exact(self.dim()));
                mapped.flat_map(|(&i, row)| self.blend(row, centroids.get(i))).collect::<Vec<f32>>()
            })
            .collect();
        Features::from_rows(rows, self.dim())?.with_item_ids(items.ids().clone())
    }

    /// What the features say and what the texts say, as one vector of length 1.
    fn blend(&self, features: &[f32], texts: Option<&[f32]>) -> Vec<f32> {
        let mut row: Vec<f32> = features.iter().map(|v| v * self.features).collect();
        if let Some(texts) = texts {
            row.iter_mut().zip(texts).for_each(|(row, v)| *row += v * self.texts);
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
        let (d_input, dim) = self.ridge.widths();
        let mut tensors = NamedTensors::new();
        let Lift { mean, kernel } = &self.ridge.lift;
        tensors.insert_f32("input_mean", &[d_input], mean);
        let (gamma, landmarks) = match kernel {
            Some(kernel) => (kernel.gamma, kernel.landmarks.as_slice()),
            None => (0.0, &[][..]),
        };
        tensors.insert_f32("gamma", &[1], &[gamma]);
        tensors.insert_f32("landmarks", &[landmarks.len() / d_input, d_input], landmarks);
        let width = self.ridge.weight.len() / dim;
        tensors.insert_f32("weight", &[width, dim], &self.ridge.weight);
        tensors.insert_f32("bias", &[dim], &self.ridge.bias);
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
        let (_, mean) = tensors.take_f32("input_mean")?;
        let (_, gamma) = tensors.take_f32("gamma")?;
        let (close, landmarks) = tensors.take_f32("landmarks")?;
        let (shape, weight) = tensors.take_f32("weight")?;
        let (_, bias) = tensors.take_f32("bias")?;
        let (_, blend) = tensors.take_f32("blend")?;
        tensors.ensure_empty("candidate space")?;
        let width = if landmarks.is_empty() { mean.len() } else { close[0] };
        let whole = shape == [width, bias.len()]
            && close[1..] == [mean.len()]
            && gamma.len() == 1
            && (gamma[0] > 0.0) != landmarks.is_empty()
            && blend.len() == 2;
        if version != FORMAT.to_string() || !whole {
            return Err(Error::index(
                "candidate space",
                format!("format {FORMAT} with a weight for every input and output"),
                format!("format {version:?}, a weight of shape {shape:?}"),
                "load it with the version of the library that wrote it",
            ));
        }
        let kernel = (gamma[0] > 0.0).then_some(Kernel { gamma: gamma[0], landmarks });
        let ridge = Ridge { lift: Lift { mean, kernel }, weight, bias };
        Ok(Self { ridge, features: blend[0], texts: blend[1] })
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_abs_diff_eq;
    use rand::RngExt;

    use super::*;

    /// Features are a noisy linear image of what the texts say.
    fn fixture(items: usize, texts_each: usize) -> (Features, TextVectors) {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let mut noise = |scale: f32| (rng.random::<f32>() - 0.5) * scale;
        let (mut features, mut values, mut owners) = (vec![], vec![], vec![]);
        for item in 0..items {
            let truth: Vec<f32> = (0..4).map(|_| noise(2.0)).collect();
            features.extend((0..6).map(|d| truth[d % 4] * (d + 1) as f32 + noise(0.3)));
            for _ in 0..texts_each {
                values.extend(truth.iter().map(|v| v + noise(0.4)));
                owners.push(item as u32);
            }
        }
        let features = Features::from_rows(features, 6).unwrap();
        (features, TextVectors::new(4, values, owners).unwrap())
    }

    #[test]
    fn candidates_lie_near_their_texts_seen_or_not() {
        let (features, texts) = fixture(60, 3);
        let fitted = CandidateSpaceConfig::default().fit(&features, &texts).unwrap();
        assert!(fitted.held_out_mrr > 0.5, "{}", fitted.held_out_mrr);
        let near = |vectors: &Features| {
            let cosine = |(text, &item): (usize, &u32)| {
                f64::from(dot(texts.row(text), vectors.row(item as usize)))
            };
            texts.items().iter().enumerate().map(cosine).sum::<f64>() / texts.len() as f64
        };
        let with = near(&fitted.vectors);
        let without = near(&fitted.space.embed(&features, None).unwrap());
        assert!(with > without && without > 0.8, "{with} {without}");
        let again = fitted.space.embed(&features, Some(&texts)).unwrap();
        assert_eq!(again.as_slice(), fitted.vectors.as_slice());
    }

    /// Twin: the vector fitted anew without the text, and without the item in the regression.
    #[test]
    fn held_out_vectors_do_not_know_their_text() {
        let (features, texts) = fixture(10, 2);
        let config = CandidateSpaceConfig { folds: 10, penalties: vec![1.0], ..Default::default() };
        let fitted = config.fit(&features, &texts).unwrap();
        for text in 0..texts.len() {
            let item = texts.items()[text] as usize;
            let keep = |t: &usize| texts.items()[*t] as usize != item;
            let rest: Vec<usize> = (0..texts.len()).filter(keep).collect();
            let others = TextVectors::new(
                4,
                rest.iter().flat_map(|&t| texts.row(t).to_vec()).collect(),
                rest.iter().map(|&t| texts.items()[t]).collect(),
            )
            .unwrap();
            let refit = config.fit(&features, &others).unwrap().space;
            let sibling = text ^ 1;
            let only = TextVectors::new(4, texts.row(sibling).to_vec(), vec![item as u32]).unwrap();
            let expected = refit.embed(&features, Some(&only)).unwrap();
            for (a, b) in fitted.held_out.row(text).iter().zip(expected.row(item)) {
                assert_abs_diff_eq!(a, b, epsilon = 1e-5);
            }
        }
    }

    #[test]
    fn comes_back_from_its_file() {
        let (features, texts) = fixture(12, 2);
        for gamma in [0.0, 1.0] {
            let config = CandidateSpaceConfig { gammas: vec![gamma], ..Default::default() };
            let space = config.fit(&features, &texts).unwrap().space;
            let bytes = space.to_safetensors().unwrap();
            assert_eq!(CandidateSpace::from_safetensors(&bytes).unwrap(), space);
            assert!(CandidateSpace::from_safetensors(&bytes[..bytes.len() - 1]).is_err());
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let (features, texts) = fixture(12, 2);
        let bad = |config: CandidateSpaceConfig| config.fit(&features, &texts).is_err();
        assert!(bad(CandidateSpaceConfig { folds: 1, ..Default::default() }));
        assert!(bad(CandidateSpaceConfig { penalties: vec![], ..Default::default() }));
        assert!(bad(CandidateSpaceConfig { gammas: vec![], ..Default::default() }));
        assert!(bad(CandidateSpaceConfig { gammas: vec![-1.0], ..Default::default() }));
        assert!(bad(CandidateSpaceConfig { landmarks: 0, ..Default::default() }));
        assert!(bad(CandidateSpaceConfig { penalties: vec![0.0], ..Default::default() }));
        assert!(bad(CandidateSpaceConfig { texts: 0.0, features: 0.0, ..Default::default() }));
        assert!(bad(CandidateSpaceConfig { texts: f32::NAN, ..Default::default() }));
        let (few, _) = fixture(3, 1);
        assert!(CandidateSpaceConfig::default().fit(&few, &texts).is_err());
        let one = TextVectors::new(4, vec![1.0, 0.0, 0.0, 0.0], vec![0]).unwrap();
        assert!(CandidateSpaceConfig::default().fit(&features, &one).is_err());
        assert!(TextVectors::new(2, vec![1.0], vec![0]).is_err());
        assert!(TextVectors::new(1, vec![f32::NAN], vec![0]).is_err());
    }
}
