//! From features and texts to vectors in the space of the text encoder.

mod config;
mod map;
mod pairs;
#[cfg(test)]
mod tests;

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

pub use self::{config::TextSpaceConfig, map::TextSpaceMap};
use self::{map::between, pairs::Pairs};
use super::{LeaveOneOut, Ridge, TextVectors, centroids::Centroids};
use crate::{
    error::{Error, Result},
    features::Features,
};

/// A fitted map with the vectors of its candidates.
#[derive(Debug, Clone)]
pub struct FittedTextSpace {
    /// The map, for candidates that are added later.
    pub space: TextSpaceMap,
    /// Vectors of the candidates, with their ids.
    pub vectors: Features,
    /// For every text, its candidate's vector made without it.
    pub held_out: LeaveOneOut,
    /// The kernel that was chosen; 0 is a linear map.
    pub gamma: f64,
    /// The penalty that was chosen.
    pub penalty: f64,
    /// Mean reciprocal rank at which texts find their item among those of its fold, by the features
    /// of an item that the regression has not seen.
    pub held_out_mrr: f64,
}

impl TextSpaceConfig {
    /// Fits the map on the items that have texts, and applies it to all.
    ///
    /// # Shapes
    /// - `items`: `[N, D]`; the texts' items are rows of it
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range; [`Error::Captions`] when fewer than two items
    /// have texts, or a text names an item that is not there.
    pub fn fit(&self, items: &Features, texts: &TextVectors) -> Result<FittedTextSpace> {
        self.fit_with_tuned_map(None, items, texts)
    }

    /// The same, with the mean of the regression and of a map that was tuned together with the text
    /// encoder. Held-out vectors use the one tuned map, which has seen their texts.
    ///
    /// # Errors
    /// As [`TextSpaceConfig::fit`], and [`Error::Features`] for a map of other widths.
    pub fn fit_with_tuned_map(
        &self,
        tuned: Option<&Ridge>,
        items: &Features,
        texts: &TextVectors,
    ) -> Result<FittedTextSpace> {
        self.validate()?;
        if let Some(map) = tuned.filter(|map| map.widths() != (items.dim(), texts.dim())) {
            return Err(Error::features("tuned map")
                .expected(format!("one from {} to {} numbers", items.dim(), texts.dim()))
                .found(format!("{:?}", map.widths()))
                .fix("tune the encoder on these candidates"));
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
            // An item all of whose texts weigh nothing is in no fold: its features are all there
            // is.
            let row = match &out_of_fold[item as usize] {
                Some(row) => row,
                None => &space.map(items, item),
            };
            let others = centroids.without(item, texts, text);
            held_out.extend(space.blend(row, others.as_deref(), centroids.weight(item)));
        }
        Ok(FittedTextSpace {
            vectors: space.place(items, &centroids)?,
            space,
            held_out: LeaveOneOut::new(texts.dim(), held_out)?,
            gamma,
            penalty,
            held_out_mrr,
        })
    }

    /// The means of the texts, and the items that have some.
    fn described(&self, items: &Features, texts: &TextVectors) -> Result<(Centroids, Vec<u32>)> {
        if let Some(item) = texts.items.iter().find(|&&item| item as usize >= items.len()) {
            return Err(Error::captions("vectors of texts")
                .expected(format!("items below {}", items.len()))
                .found(item.to_string())
                .fix("resolve captions against these candidates"));
        }
        let centroids = Centroids::new(items.len(), texts);
        let known = self.known(&centroids);
        Error::captions("training texts")
            .expected("texts of at least two items")
            .found(known.len().to_string())
            .fix_if(known.len() < 2, "fit the space on captioned candidates")?;
        Ok((centroids, known))
    }

    /// The same with the kernel and the penalty that a fit would choose.
    pub(in crate::align) fn chosen(&self, items: &Features, texts: &TextVectors) -> Result<Self> {
        self.validate()?;
        let (centroids, known) = self.described(items, texts)?;
        let pairs = Pairs { config: self, items, centroids: &centroids };
        let (gamma, penalty, _) = pairs.choose(&known, texts)?;
        Ok(Self { gammas: vec![gamma], penalties: vec![penalty], ..self.clone() })
    }

    /// The regression under the first kernel and penalty, and nothing else.
    pub(in crate::align) fn regression(
        &self,
        items: &Features,
        texts: &TextVectors,
    ) -> Result<Ridge> {
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
    pub(in crate::align) fn vectors(
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
