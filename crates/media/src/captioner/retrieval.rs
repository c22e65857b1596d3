//! Captions of the nearest candidates that have some.

use std::collections::HashSet;

use cart_retrieval::{Error, Result, cancel::Monitor, data::ItemCaption, features::Features};
use serde::{Deserialize, Serialize};

use super::{
    CaptionJob, CaptionProgress, Captioned, Captioner, check_weight,
    neighbours::{Metric, Neighbours},
};

/// Items between two looks at the stop flag.
const PART: usize = 4096;

/// Settings of a [`RetrievalCaptioner`].
///
/// A caption of a neighbour of similarity `s` gets the weight
/// `weight * exp((s - s_1) / temperature)` times its own, `s_1` being the similarity of the nearest
/// neighbour.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrievalConfig {
    /// Neighbours whose captions are taken.
    pub k: usize,
    /// How candidates are compared.
    pub metric: Metric,
    /// Weight of a caption of the nearest neighbour.
    pub weight: f32,
    /// Similarity that a neighbour may lack for its captions to weigh 0.37 (1/e) of the nearest
    /// one's.
    pub temperature: f64,
    /// Captions of a neighbour that are taken, the first ones; without it, all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_neighbour: Option<usize>,
}

impl Default for RetrievalConfig {
    /// 5 neighbours by their cosine, weight 1/2, temperature 0.1, all captions.
    fn default() -> Self {
        Self { k: 5, metric: Metric::Cosine, weight: 0.5, temperature: 0.1, per_neighbour: None }
    }
}

impl RetrievalConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] for no neighbour, no caption a neighbour, or a weight or temperature that is not above 0.
    pub fn validate(&self) -> Result<()> {
        for (name, count) in
            [("k", self.k), ("per_neighbour", self.per_neighbour.unwrap_or(usize::MAX))]
        {
            if count == 0 {
                let remedy = "use one or more, for example 5";
                return Err(Error::config(format!("{name} of the retrieval captioner"))
                    .expected("at least 1")
                    .found("0")
                    .fix(remedy));
            }
        }
        check_weight(self.weight)?;
        if self.temperature.is_nan() || self.temperature <= 0.0 {
            return Err(Error::config("temperature of the retrieval captioner")
                .expected("a number above 0")
                .found(self.temperature.to_string())
                .fix("0.1 suits cosines; a very large value weights all neighbours equally"));
        }
        Ok(())
    }

    /// Keeps the items that have captions, with these.
    ///
    /// Nothing else is ever given: leave test queries out of `training`, as for any training.
    ///
    /// # Shapes
    /// `features`: `[items, D]`; items without captions are left aside.
    ///
    /// # Errors
    /// As [`RetrievalConfig::validate`]; [`Error::Captions`] without captions, or for one of an
    /// item that is not there;
    /// [`Error::Features`] for a row that is not finite, or all zero with [`Metric::Cosine`].
    pub fn fit(self, features: &Features, training: &[ItemCaption]) -> Result<RetrievalCaptioner> {
        self.validate()?;
        let mut texts: Vec<Vec<(String, f32)>> = vec![Vec::new(); features.len()];
        for caption in training {
            let Some(texts) = texts.get_mut(caption.item as usize) else {
                return Err(Error::captions("captions of the retrieval captioner")
                    .expected(format!("captions of items below {}", features.len()))
                    .found(format!("item {} ({:?})", caption.item, caption.text))
                    .fix("resolve the captions against these features"));
            };
            if texts.len() < self.per_neighbour.unwrap_or(usize::MAX) {
                texts.push((caption.text.clone(), caption.weight));
            }
        }
        let rows: Vec<usize> = (0..texts.len()).filter(|&row| !texts[row].is_empty()).collect();
        if rows.is_empty() {
            return Err(Error::captions("captions of the retrieval captioner")
                .expected("at least one caption")
                .found("none")
                .fix("give the captions of the training split"));
        }
        let texts = texts.into_iter().filter(|texts| !texts.is_empty()).collect();
        let known = features.select(&rows);
        let neighbours = Neighbours::new(known.clone(), self.metric)?;
        Ok(RetrievalCaptioner {
            source: format!("retrieval-{}", self.k),
            config: self,
            known,
            neighbours,
            texts,
        })
    }
}

/// Describes a candidate by the captions of the candidates nearest to it in the feature space.
///
/// An item that has captions itself is not its own neighbour. A text that several neighbours have
/// is given once, with the weight of the nearest. The answer is that of the plain double loop,
/// equals in the order of the items, on any number of threads.
///
/// # Example
/// ```
/// use cart_media::captioner::*;
/// use cart_retrieval::{data::ItemCaption, features::Features, cancel::Monitor};
/// let ids = ["dog", "wolf", "bus", "unknown"].map(String::from).to_vec();
/// let features = Features::from_rows(vec![1.0, 0.1, 1.0, 0.2, 0.0, 1.0, 0.9, 0.1], 2)?.with_id_list(ids)?;
/// let caption = |item, text: &str| ItemCaption { item, text: text.into(), weight: 1.0 };
/// let training = [caption(0, "a dog"), caption(1, "a wolf"), caption(2, "a bus")];
/// let captioner = RetrievalConfig { k: 2, ..Default::default() }.fit(&features, &training)?;
/// let job = CaptionJob::new(&["unknown"])?.with_features(&features)?;
/// let made = captioner.caption(&job, &Monitor::new())?;
/// let texts: Vec<&str> = made.captions.iter().map(|caption| caption.text.as_str()).collect();
/// assert_eq!(texts, ["a dog", "a wolf"]);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct RetrievalCaptioner {
    config: RetrievalConfig,
    source: String,
    known: Features,
    neighbours: Neighbours,
    /// Captions of each known item, with their weights.
    texts: Vec<Vec<(String, f32)>>,
}

impl Captioner for RetrievalCaptioner {
    fn source(&self) -> &str {
        &self.source
    }

    fn caption(
        &self,
        job: &CaptionJob,
        monitor: &Monitor<'_, CaptionProgress>,
    ) -> Result<Captioned> {
        let wrong = |found: String, remedy: &str| {
            let expected = format!("features of width {} for the items", self.neighbours.dim());
            Err(Error::features("items to describe by their neighbours")
                .expected(expected)
                .found(found)
                .fix(remedy))
        };
        let Some(features) = job.features() else {
            return wrong("none".into(), "pass them with `CaptionJob::with_features`");
        };
        if features.dim() != self.neighbours.dim() {
            let remedy = "use features of the captioner's encoder";
            return wrong(format!("width {}", features.dim()), remedy);
        }
        let mut made = Captioned::default();
        let rows: Vec<usize> = (0..features.len()).collect();
        for (part, rows) in rows.chunks(PART).enumerate() {
            if monitor.is_stopped() {
                return Err(Error::interrupted("retrieval captioner")
                    .expected(format!("captions of {} items", job.len()))
                    .found(format!("a stop after {}", part * PART))
                    .fix("start it again"));
            }
            let part = features.select(rows);
            let own = |at: usize| self.known.index_of(part.id(at));
            let found = self.neighbours.of(&part, self.config.k, own)?;
            for (at, neighbours) in found.iter().enumerate() {
                let before = made.captions.len();
                self.describe(part.id(at), neighbours, &mut made)?;
                if made.captions.len() == before {
                    made.without.push(part.id(at).to_string());
                }
            }
            let done = rows.last().map_or(0, |last| last + 1);
            monitor.report(CaptionProgress { done, without: made.without.len(), total: job.len() });
        }
        Ok(made)
    }
}

impl RetrievalCaptioner {
    fn describe(&self, id: &str, neighbours: &[(f64, usize)], made: &mut Captioned) -> Result<()> {
        let mut given: HashSet<&str> = HashSet::new();
        let nearest = neighbours.first().map_or(0.0, |(similarity, _)| *similarity);
        for &(similarity, row) in neighbours {
            let share = ((similarity - nearest) / self.config.temperature).exp();
            for (text, weight) in &self.texts[row] {
                let weight = (f64::from(self.config.weight) * share * f64::from(*weight)) as f32;
                // A neighbour so far away that its weight is nothing gives nothing.
                if weight > 0.0 && given.insert(text) {
                    made.push(&self.source, id, text, weight)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "retrieval_tests.rs"]
mod tests;
