//! Fine-tuning of the text encoder in the space of the candidates.

mod choice;
mod config;
mod data;
#[cfg(test)]
mod tests;
mod training;

use std::collections::HashSet;

use burn::{
    module::AutodiffModule,
    tensor::backend::{AutodiffBackend, Backend},
};
pub(super) use choice::is_better;
use choice::{Choice, between, mean};
pub use config::EncoderTuning;
pub use data::TuningData;
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use training::{Training, Tuned};

use super::Ridge;
use crate::{cancel::StopFlag, data::ItemCaption, error::Result, nn::TextEncoder};

/// Fewest candidates to find among themselves, or to train on, where whole ones are kept out.
const LEAST: usize = 4;

/// A tuned encoder.
#[derive(Debug)]
pub struct TunedEncoder<B: Backend> {
    /// The encoder.
    pub encoder: TextEncoder<B>,
    /// The map of the features that was tuned with it, for
    /// [`TextSpaceConfig::fit_with_tuned_map`](super::TextSpaceConfig::fit_with_tuned_map); `None` if the
    /// original encoder was kept.
    pub map: Option<Ridge>,
    /// Share of the way from the original encoder (0) to the last pass of tuning (1).
    pub share: f64,
    /// Mean reciprocal rank of the held-out captions for each of [`EncoderTuning::shares`]; empty
    /// if none were held out.
    pub validation_mrr: Vec<f64>,
}

impl EncoderTuning {
    /// Trains the encoder, except the token embeddings of a pretrained one, so that every caption
    /// lies nearest to its own candidate: InfoNCE against the vectors of all candidates (a random
    /// 4096 and the batch's own where there are more), which are made as
    /// [`TextSpaceConfig`](super::TextSpaceConfig) says, with a trained map of the features and
    /// with the other training texts as the encoder last saw them. A caption's own candidate is
    /// made without that caption.
    ///
    /// To choose one of `shares`, captions are kept out: of candidates that keep others, which are
    /// then found among all candidates; or all captions of some candidates, which are then found
    /// among themselves: where `space.texts` is 0 and later candidates have no texts, and
    /// where captions to spare are fewer than half of those wanted. Those candidates then compete
    /// for no caption while training. With fewer than four candidates to keep out or to keep, none
    /// is. With `on_all`, the encoder is then retrained on all captions, and the chosen share is
    /// used.
    ///
    /// # Errors
    /// As [`TextSpaceConfig::fit`](super::TextSpaceConfig::fit);
    /// [`Error::Config`](crate::Error::Config) for settings out of
    /// range; [`Error::Interrupted`](crate::Error::Interrupted) when `stop` is raised;
    /// [`Error::Training`](crate::Error::Training) when the loss is not finite.
    pub fn fit<B: AutodiffBackend>(
        &self,
        encoder: TextEncoder<B>,
        data: &TuningData<'_>,
        stop: &StopFlag,
        device: &B::Device,
    ) -> Result<TunedEncoder<B::InnerBackend>> {
        self.validate()?;
        if self.epochs == 0 {
            let encoder = encoder.valid();
            return Ok(TunedEncoder { encoder, map: None, share: 0.0, validation_mrr: Vec::new() });
        }
        let TuningData { captions: train, items, space, .. } = *data;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let (rest, kept_out, whole) = self.split(train, items.len(), space.texts > 0.0, &mut rng);
        let mut out = HashSet::new();
        if whole {
            out.extend(kept_out.iter().map(|caption| caption.item));
        }
        let training = Training { settings: self, data: *data, stop, device };
        let start = encoder.valid();
        let embed = |texts: &[ItemCaption]| data.embedder(&start, device).embed(texts, device);
        let memory = embed(&rest)?;
        // Kernel and penalty stay those of the original encoder.
        let chosen = space.chosen(items, &memory)?;
        let tuned = training.run(encoder.clone(), &rest, memory, &out, &mut rng)?;
        let (train_on, kept_out) = (rest.as_slice(), kept_out.as_slice());
        let (data, space) = (*data, &chosen);
        let choice = Choice { train: train_on, kept_out, whole, data, space, device };
        let chosen = self.choose(&start, tuned, &choice)?;
        if !self.on_all || kept_out.is_empty() || chosen.share == 0.0 {
            return Ok(chosen);
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed.wrapping_add(1));
        let tuned = training.run(encoder, train, embed(train)?, &HashSet::new(), &mut rng)?;
        let (encoder, map) = between(&start, &tuned, chosen.share);
        Ok(TunedEncoder { encoder, map, ..chosen })
    }

    /// The share that captions kept out find their candidates best with. It takes evidence to leave
    /// the first of the shares: another has to be better by two standard errors.
    fn choose<B: Backend>(
        &self,
        start: &TextEncoder<B>,
        tuned: Tuned<B>,
        choice: &Choice<'_, B>,
    ) -> Result<TunedEncoder<B>> {
        let last = *self.shares.last().expect("there are shares");
        if choice.kept_out.is_empty() {
            let (encoder, map) = between(start, &tuned, last);
            return Ok(TunedEncoder { encoder, map, share: last, validation_mrr: Vec::new() });
        }
        let ranks: Vec<Vec<f64>> = self
            .shares
            .iter()
            .map(|&share| {
                let (encoder, map) = between(start, &tuned, share);
                choice.reciprocal_ranks(&encoder, map.as_ref())
            })
            .collect::<Result<_>>()?;
        let validation_mrr: Vec<f64> = ranks.iter().map(|ranks| mean(ranks)).collect();
        let mut best = 0;
        for (at, mrr) in validation_mrr.iter().enumerate() {
            if *mrr > validation_mrr[best] {
                best = at;
            }
        }
        let chosen = if is_better(&ranks[best], &ranks[0]) { best } else { 0 };
        let share = self.shares[chosen];
        let (encoder, map) = between(start, &tuned, share);
        Ok(TunedEncoder { encoder, map, share, validation_mrr })
    }

    /// Captions to train on, captions to choose by, and whether those are all that their items
    /// have.
    ///
    /// Where items are seen, each keeps a caption, unless less than half of what is wanted can be
    /// had so.
    fn split(
        &self,
        train: &[ItemCaption],
        items: usize,
        seen: bool,
        rng: &mut ChaCha8Rng,
    ) -> (Vec<ItemCaption>, Vec<ItemCaption>, bool) {
        let mut left = vec![0usize; items];
        train.iter().for_each(|caption| left[caption.item as usize] += 1);
        let wanted = (train.len() as f64 * self.validation_share) as usize;
        let spare: usize = left.iter().map(|count| count.saturating_sub(1)).sum();
        let whole = !seen || 2 * spare < wanted;
        let mut order: Vec<usize> = (0..train.len()).collect();
        order.shuffle(rng);
        let mut out = vec![false; train.len()];
        let mut count = 0;
        if !whole {
            for at in order {
                let left = &mut left[train[at].item as usize];
                if count < wanted && *left > 1 {
                    (out[at], *left, count) = (true, *left - 1, count + 1);
                }
            }
        } else {
            let mut items = vec![false; items];
            for at in order {
                let item = train[at].item as usize;
                if count < wanted && !items[item] {
                    (items[item], count) = (true, count + left[item]);
                }
            }
            let kept_out = items.iter().filter(|out| **out).count();
            let described = left.iter().filter(|count| **count > 0).count();
            if kept_out >= LEAST && described >= kept_out + LEAST {
                out = train.iter().map(|caption| items[caption.item as usize]).collect();
            }
        }
        let (out, rest): (Vec<_>, Vec<_>) =
            train.iter().cloned().zip(out).partition(|(_, out)| *out);
        let captions = |part: Vec<(ItemCaption, bool)>| part.into_iter().map(|(c, _)| c).collect();
        (captions(rest), captions(out), whole)
    }
}
