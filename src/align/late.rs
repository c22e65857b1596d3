//! Token states of the candidates' texts, and how much late interaction should count.

use std::sync::Arc;

use burn::tensor::backend::Backend;
use rand::{SeedableRng, seq::index::sample};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{TextVectors, tune::is_better};
use crate::{
    cancel::StopFlag,
    data::{ItemCaption, QueryBatch, TextTokenizer},
    error::{Error, Result, ensure_in},
    features::Features,
    index::{ItemTokens, LeaveOneOut, TextTokens, TokenSpace, TokenStates},
    kernels::{Layout, dot, dots},
    nn::{EncoderOutput, TextEncoder},
};

/// Texts encoded at once.
const BATCH: usize = 32;
/// Texts that are encoded before their candidates' tokens are merged.
const PART: usize = 4096;
/// Texts that the principal components are fitted on.
const SAMPLE: usize = 2048;
/// Held-out captions that the weight is chosen by.
const HELD_OUT: usize = 2000;
/// Fewest held-out captions that a weight is chosen by.
const FEWEST: usize = 100;
/// Nearest candidates that are compared.
const NEAREST: usize = 20;
/// Weights to choose from, relative to the factor of the cosine.
const SHARES: [f32; 7] = [0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0];
/// The weight unless held-out captions speak for another one.
const USUAL: f32 = 0.35;

/// Settings of late interaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LateInteractionConfig {
    /// Maximum number of bytes a candidate; 0 turns late interaction off.
    pub bytes: usize,
    /// Numbers of a token state, of a byte each; at most the width of the text encoder.
    pub dim: usize,
    /// Weight relative to the factor of the cosine in a search; `None` chooses it on held-out
    /// captions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<f32>,
    /// Seed of what is drawn.
    #[serde(skip)]
    pub seed: u64,
}

impl Default for LateInteractionConfig {
    fn default() -> Self {
        Self { bytes: 4224, dim: 128, weight: None, seed: 0 }
    }
}

/// Token states of all candidates.
#[derive(Debug, Clone)]
pub struct FittedTokenStates {
    /// The states.
    pub states: TokenStates,
    /// The same without the last text of every candidate that has several.
    fewer: TokenStates,
    /// Captions with the tokens of their candidates without them.
    held_out: Vec<HeldOut>,
}

/// A caption and its candidate without it.
#[derive(Debug, Clone)]
struct HeldOut {
    text: usize,
    query: TextTokens,
    own: ItemTokens,
}

/// The weight of late interaction, and what it is worth on held-out captions.
#[derive(Debug, Clone, PartialEq)]
pub struct ChosenWeight {
    /// Weight relative to the factor of the cosine.
    pub share: f32,
    /// Held-out captions that it was chosen by.
    pub captions: usize,
    /// Mean reciprocal rank of these with every weight that was tried.
    pub mrr: Vec<(f32, f64)>,
    /// Mean similarity of the nearest candidates.
    pub usual: f32,
}

impl LateInteractionConfig {
    /// Checks ranges.
    ///
    /// # Errors
    /// [`Error::Config`] for a width of 0 and a weight below 0.
    pub fn validate(&self) -> Result<()> {
        ensure_in("late_interaction.dim", self.dim as f64, "[1, 65536]", "128 is usual")?;
        let weight = f64::from(self.weight.unwrap_or(0.0));
        ensure_in("late_interaction.weight", weight, "[0, inf)", "leave it out to choose it")
    }

    /// Maximum number of tokens of a candidate.
    fn most(&self, dim: usize) -> usize {
        self.bytes / ItemTokens::bytes_per_token(dim)
    }

    /// Makes the token states of candidates from their captions; `None` where no candidate has a
    /// token that tells texts apart, or where the bytes do not hold a single one.
    ///
    /// # Errors
    /// As [`LateInteractionConfig::validate`] and [`TextTokenizer::encode`]; [`Error::Interrupted`]
    /// when stopped.
    pub fn fit<B: Backend>(
        &self,
        encoder: &TextEncoder<B>,
        tokenizer: &TextTokenizer,
        (captions, items): (&[ItemCaption], usize),
        stop: &StopFlag,
        device: &B::Device,
    ) -> Result<Option<FittedTokenStates>> {
        self.validate()?;
        let dim = self.dim.min(encoder.d_model());
        let most = self.most(dim);
        let tokens: Vec<Vec<u32>> = captions
            .iter()
            .map(|caption| tokenizer.encode(&caption.text))
            .collect::<Result<_>>()?;
        let weights = idf(&tokens, encoder.vocabulary());
        let tells = |token: &u32| weights.get(*token as usize).is_some_and(|weight| *weight > 0.0);
        if most == 0 || !tokens.iter().flatten().any(tells) {
            return Ok(None);
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let some = sample(&mut rng, tokens.len(), SAMPLE.min(tokens.len())).into_vec();
        let mut states = Vec::new();
        let encode = Encode { encoder, padding: tokenizer.padding(), device };
        encode.each(&tokens, &some, stop, |text, rows| {
            let rows = tokens[text].iter().zip(rows.chunks_exact(encoder.d_model()));
            rows.filter(|(token, _)| tells(token))
                .for_each(|(_, row)| states.extend_from_slice(row));
        })?;
        if states.is_empty() {
            return Ok(None);
        }
        let space = Arc::new(TokenSpace::fit(&states, encoder.d_model(), dim, weights)?);
        drop(states);
        let chosen = sample(&mut rng, tokens.len(), HELD_OUT.min(tokens.len())).into_vec();
        let mut is_chosen = vec![false; tokens.len()];
        chosen.into_iter().for_each(|text| is_chosen[text] = true);
        let reducer = TokenReducer { encoder, tokenizer, space: &space };
        let mut held_out = Vec::new();
        let packed = reducer.each(&tokens, captions, items, stop, device, |texts| {
            let own = space.item(texts.iter().map(|(_, text)| text), most);
            let others = |text: usize| texts.iter().filter(move |other| other.0 != text);
            let chosen = texts
                .iter()
                .filter(|(text, tokens)| is_chosen[*text] && !tokens.weights.is_empty());
            let alone = chosen
                .filter(|(text, _)| others(*text).any(|(_, tokens)| !tokens.weights.is_empty()));
            let held_out: Vec<HeldOut> = alone
                .map(|(text, query)| {
                    let own = space.item(others(*text).map(|(_, tokens)| tokens), most);
                    HeldOut { text: *text, query: query.clone(), own }
                })
                .collect();
            let first = &texts[..texts.len() - usize::from(texts.len() > 1)];
            let fewer = space.item(first.iter().map(|(_, text)| text), most);
            (own, fewer, held_out)
        })?;
        let (mut own, mut fewer) = (Vec::with_capacity(items), Vec::with_capacity(items));
        for (tokens, some, more) in packed {
            own.push(tokens);
            fewer.push(some);
            held_out.extend(more);
        }
        let fewer = TokenStates::new(space.clone(), &fewer, most)?;
        Ok(Some(FittedTokenStates {
            states: TokenStates::new(space, &own, most)?,
            fewer,
            held_out,
        }))
    }
}

/// IDF of every token; 0 for one that all texts have, as the marks of beginning and end.
fn idf(tokens: &[Vec<u32>], vocabulary: usize) -> Vec<f32> {
    let mut having = vec![0usize; vocabulary];
    for text in tokens {
        let mut text = text.clone();
        text.sort_unstable();
        text.dedup();
        for token in text {
            if let Some(count) = having.get_mut(token as usize) {
                *count += 1;
            }
        }
    }
    let n = tokens.len();
    let weight = |&df: &usize| {
        let rarity = ((n as f64 + 1.0) / (df as f64 + 0.5)).ln() as f32;
        if df == n { 0.0 } else { rarity.max(0.0) }
    };
    having.iter().map(weight).collect()
}

/// Makes the tokens of candidates from their captions, in a space that exists.
pub(crate) struct TokenReducer<'a, B: Backend> {
    pub(crate) encoder: &'a TextEncoder<B>,
    pub(crate) tokenizer: &'a TextTokenizer,
    pub(crate) space: &'a TokenSpace,
}

impl<B: Backend> TokenReducer<'_, B> {
    /// Tokens of texts, in their order.
    pub(crate) fn texts(&self, texts: &[&str], device: &B::Device) -> Result<Vec<TextTokens>> {
        let tokens: Vec<Vec<u32>> =
            texts.iter().map(|text| self.tokenizer.encode(text)).collect::<Result<_>>()?;
        let all: Vec<usize> = (0..tokens.len()).collect();
        let mut made = vec![TextTokens::default(); tokens.len()];
        let encode = Encode { encoder: self.encoder, padding: self.tokenizer.padding(), device };
        encode.each(&tokens, &all, &StopFlag::new(), |text, states| {
            made[text] = self.space.text(&tokens[text], states);
        })?;
        Ok(made)
    }

    /// Tokens of `items` candidates, at most `most` each.
    pub(crate) fn items(
        &self,
        captions: &[ItemCaption],
        items: usize,
        most: usize,
        device: &B::Device,
    ) -> Result<Vec<ItemTokens>> {
        let tokens: Vec<Vec<u32>> = captions
            .iter()
            .map(|caption| self.tokenizer.encode(&caption.text))
            .collect::<Result<_>>()?;
        self.each(&tokens, captions, items, &StopFlag::new(), device, |texts| {
            self.space.item(texts.iter().map(|(_, text)| text), most)
        })
    }

    /// Gives `make` the texts of every candidate, with their numbers. Texts of weight 0 are left
    /// out.
    fn each<T: Send + Clone + Default>(
        &self,
        tokens: &[Vec<u32>],
        captions: &[ItemCaption],
        items: usize,
        stop: &StopFlag,
        device: &B::Device,
        make: impl Fn(&[(usize, TextTokens)]) -> T + Sync,
    ) -> Result<Vec<T>> {
        let mut order: Vec<usize> =
            (0..captions.len()).filter(|&at| captions[at].weight > 0.0).collect();
        order.sort_by_key(|&at| captions[at].item);
        let same = |a: &usize, b: &usize| captions[*a].item == captions[*b].item;
        let groups: Vec<&[usize]> = order.chunk_by(same).collect();
        let mut made = vec![T::default(); items];
        let encode = Encode { encoder: self.encoder, padding: self.tokenizer.padding(), device };
        let mut start = 0;
        while start < groups.len() {
            let (mut end, mut count) = (start, 0);
            while end < groups.len() && (count == 0 || count + groups[end].len() <= PART) {
                count += groups[end].len();
                end += 1;
            }
            let part = groups[start..end].concat();
            let mut reduced: Vec<Option<TextTokens>> = vec![None; part.len()];
            let places: std::collections::HashMap<usize, usize> =
                part.iter().copied().zip(0..).collect();
            encode.each(tokens, &part, stop, |text, states| {
                reduced[places[&text]] = Some(self.space.text(&tokens[text], states));
            })?;
            let reduced: Vec<(usize, TextTokens)> =
                part.into_iter().zip(reduced.into_iter().map(Option::unwrap_or_default)).collect();
            let mut own = Vec::with_capacity(end - start);
            let mut rest = reduced.as_slice();
            for group in &groups[start..end] {
                let (texts, others) = rest.split_at(group.len());
                own.push((captions[group[0]].item as usize, texts));
                rest = others;
            }
            let results: Vec<(usize, T)> =
                own.into_par_iter().map(|(item, texts)| (item, make(texts))).collect();
            results.into_iter().for_each(|(item, result)| made[item] = result);
            start = end;
        }
        Ok(made)
    }
}

/// Runs the text encoder.
struct Encode<'a, B: Backend> {
    encoder: &'a TextEncoder<B>,
    padding: u32,
    device: &'a B::Device,
}

impl<B: Backend> Encode<'_, B> {
    /// Calls `see` with the number and the token states of some texts, texts of like length
    /// together.
    fn each(
        &self,
        tokens: &[Vec<u32>],
        some: &[usize],
        stop: &StopFlag,
        mut see: impl FnMut(usize, &[f32]),
    ) -> Result<()> {
        let mut order = some.to_vec();
        order.sort_by_key(|&text| (tokens[text].len(), text));
        let d_model = self.encoder.d_model();
        for chunk in order.chunks(BATCH) {
            Error::interrupted("token states of the texts")
                .expected("to encode all texts")
                .found("a request to stop")
                .fix_if(stop.is_raised(), "start it again")?;
            let rows: Vec<&[u32]> = chunk.iter().map(|&text| tokens[text].as_slice()).collect();
            let batch = QueryBatch::<B>::new(&rows, self.padding, self.device)?;
            let width = batch.tokens.dims()[1];
            let output: EncoderOutput<B> = self.encoder.forward(batch.tokens, batch.padding);
            let states: Vec<f32> = output.last().into_data().iter::<f32>().collect();
            for (row, &text) in chunk.iter().enumerate() {
                let start = row * width * d_model;
                see(text, &states[start..start + tokens[text].len() * d_model]);
            }
        }
        Ok(())
    }
}

/// Vectors of candidates and of their captions, to choose the weight of late interaction with.
#[derive(Debug, Clone, Copy)]
pub struct LateInteractionData<'a> {
    /// The captions' vectors.
    pub texts: &'a TextVectors,
    /// The candidates' vectors, of length 1.
    pub vectors: &'a Features,
    /// For every caption its candidate's vector without it.
    pub held_out: &'a LeaveOneOut,
}

impl FittedTokenStates {
    /// Chooses the weight on held-out captions: each looks for its candidate, whose vector and
    /// tokens are made without it, among the candidates nearest to it, whose tokens are made
    /// without one of their texts either. The weight is 0.35 unless another one, 0 included, is
    /// better by two standard errors in MRR: captions of one candidate are often less alike than a
    /// caption and a query, so they understate what the tokens are worth.
    pub fn choose(&self, data: &LateInteractionData<'_>) -> ChosenWeight {
        let (texts, vectors) = (data.texts, data.vectors);
        let found: Vec<Vec<f32>> = self
            .held_out
            .par_chunks(64)
            .flat_map_iter(|part| {
                let queries: Vec<f32> =
                    part.iter().flat_map(|h| texts.row(h.text)).copied().collect();
                let mut cosines = vec![0.0; part.len() * vectors.len()];
                let shape = (part.len(), vectors.len(), vectors.dim());
                dots(shape, &queries, vectors.as_slice(), Layout::Rows, &mut cosines);
                let rows = cosines.chunks_exact_mut(vectors.len());
                rows.zip(part).map(|(row, held)| self.ranks(held, row, data)).collect::<Vec<_>>()
            })
            .collect();
        let usual = self.usual(data);
        let captions = found.len();
        let of =
            |at: usize| -> Vec<f64> { found.iter().map(|ranks| f64::from(ranks[at])).collect() };
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let mrr: Vec<(f32, f64)> =
            SHARES.iter().enumerate().map(|(at, &share)| (share, mean(&of(at)))).collect();
        let best =
            (0..SHARES.len()).reduce(|best, at| if mrr[at].1 > mrr[best].1 { at } else { best });
        let usual_at = SHARES.iter().position(|&share| share == USUAL).unwrap_or(0);
        let chosen = best.filter(|&best| captions >= FEWEST && is_better(&of(best), &of(usual_at)));
        let share = SHARES[chosen.unwrap_or(usual_at)];
        ChosenWeight { share, captions, mrr, usual }
    }

    /// Reciprocal rank of a caption's candidate with every weight; `cosines` are those of all
    /// candidates.
    fn ranks(
        &self,
        held: &HeldOut,
        cosines: &mut [f32],
        data: &LateInteractionData<'_>,
    ) -> Vec<f32> {
        let own = data.texts.items()[held.text] as usize;
        cosines[own] = dot(data.texts.row(held.text), data.held_out.row(held.text));
        let similarity = |item: usize| match item == own {
            true => self.fewer.max_sim_with(&held.query, &held.own),
            // As many texts as are left to its own: more tokens find more to match.
            false => self.fewer.max_sim(&held.query, item),
        };
        let nearest = nearest(cosines, NEAREST);
        if !nearest.contains(&own) {
            return vec![0.0; SHARES.len()];
        }
        let scored: Vec<(usize, f32, f32)> =
            nearest.into_iter().map(|item| (item, cosines[item], similarity(item))).collect();
        let rank = |share: &f32| {
            let score = |&(_, cosine, similarity): &(usize, f32, f32)| cosine + share * similarity;
            let mine = scored.iter().find(|entry| entry.0 == own).map_or(f32::NEG_INFINITY, score);
            let better =
                scored.iter().filter(|entry| entry.0 != own && score(entry) >= mine).count();
            1.0 / (better + 1) as f32
        };
        SHARES.iter().map(rank).collect()
    }

    /// Mean similarity of held-out captions with the candidates nearest to them, among those that
    /// have tokens.
    fn usual(&self, data: &LateInteractionData<'_>) -> f32 {
        let each = self.held_out.iter().take(FEWEST).map(|held| {
            let query = data.texts.row(held.text);
            let own = data.texts.items()[held.text] as usize;
            let rows = data.vectors.as_slice().chunks_exact(data.vectors.dim());
            let cosines: Vec<f32> = rows.map(|row| dot(query, row)).collect();
            let near = nearest(&cosines, NEAREST).into_iter().filter(|&item| item != own);
            let similar: Vec<f32> = near
                .filter(|&item| !self.states.item(item).is_empty())
                .map(|item| self.states.max_sim(&held.query, item))
                .collect();
            similar.iter().sum::<f32>() / similar.len().max(1) as f32
        });
        let each: Vec<f32> = each.collect();
        each.iter().sum::<f32>() / each.len().max(1) as f32
    }
}

/// The largest of some values, by their places.
fn nearest(values: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    let best_first = |a: &usize, b: &usize| values[*b].total_cmp(&values[*a]).then(a.cmp(b));
    if order.len() > count {
        order.select_nth_unstable_by(count, best_first);
        order.truncate(count);
    }
    order.sort_unstable_by(best_first);
    order
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;
    use crate::{
        data::TokenizerConfig,
        nn::{ScratchEncoderConfig, TextEncoderConfig, WeightInit},
    };

    fn encoder(vocabulary: usize) -> TextEncoder<Flex> {
        let config = TextEncoderConfig::from(ScratchEncoderConfig {
            vocabulary,
            max_tokens: 24,
            d_model: 16,
            d_ff: 16,
            n_heads: 2,
            n_layers: 1,
            dropout: 0.0,
        });
        config.init(&mut WeightInit::new(3), &Default::default())
    }

    fn captions(texts: &[(u32, &str)]) -> Vec<ItemCaption> {
        let caption =
            |&(item, text): &(u32, &str)| ItemCaption { item, text: text.into(), weight: 1.0 };
        texts.iter().map(caption).collect()
    }

    fn fitted(
        config: &LateInteractionConfig,
        texts: &[ItemCaption],
        items: usize,
    ) -> Result<Option<FittedTokenStates>> {
        let all: Vec<&str> = texts.iter().map(|caption| caption.text.as_str()).collect();
        let tokenizer = TextTokenizer::train(all, &TokenizerConfig::default(), 24).unwrap();
        let encoder = encoder(tokenizer.vocabulary());
        config.fit(&encoder, &tokenizer, (texts, items), &StopFlag::new(), &Default::default())
    }

    const TEXTS: [(u32, &str); 6] = [
        (0, "a red dog"),
        (3, "two cats and a boat"),
        (0, "the dog is red"),
        (1, "a blue sea"),
        (3, "a boat with cats"),
        (1, "blue water at night"),
    ];

    #[test]
    fn candidates_have_at_most_so_many_bytes_and_those_without_texts_none() {
        let texts = captions(&TEXTS);
        for (bytes, dim) in [(60, 8), (4000, 8), (100, 64)] {
            let config = LateInteractionConfig { bytes, dim, ..Default::default() };
            let found = fitted(&config, &texts, 5).unwrap().unwrap();
            let states = &found.states;
            // No wider than the text encoder.
            assert_eq!(states.space().dim(), dim.min(16));
            assert_eq!((states.len(), states.described()), (5, 3));
            for item in 0..5 {
                let tokens = states.item(item).len();
                assert!(tokens * ItemTokens::bytes_per_token(dim.min(16)) <= bytes, "{tokens}");
                assert_eq!(tokens == 0, [2, 4].contains(&item));
            }
            assert_eq!(found.held_out.len(), 6);
        }
    }

    /// Twin: what is held out is what a fit without that caption would keep.
    #[test]
    fn a_held_out_caption_leaves_the_tokens_of_its_candidate() {
        let texts = captions(&TEXTS);
        let config = LateInteractionConfig { bytes: 4000, dim: 16, ..Default::default() };
        let found = fitted(&config, &texts, 4).unwrap().unwrap();
        for held in &found.held_out {
            let item = texts[held.text].item as usize;
            let with = found.states.max_sim(&held.query, item);
            let without = found.states.max_sim_with(&held.query, &held.own);
            assert!(with > 0.98, "{with}");
            assert!(without < with - 0.01, "{without} {with}");
        }
    }

    #[test]
    fn nothing_to_compare_is_no_error() {
        let texts = captions(&TEXTS);
        for bytes in [0, 19] {
            let config = LateInteractionConfig { bytes, dim: 16, ..Default::default() };
            assert!(fitted(&config, &texts, 4).unwrap().is_none());
        }
        // All texts are alike: no token tells them apart.
        let same = captions(&[(0, "a red dog"), (1, "a red dog")]);
        assert!(fitted(&Default::default(), &same, 2).unwrap().is_none());
        // Texts of weight 0 are left out.
        let mut some = texts;
        some[3].weight = 0.0;
        some[5].weight = 0.0;
        let found = fitted(&Default::default(), &some, 4).unwrap().unwrap();
        assert_eq!(found.states.described(), 2);
        let stop = StopFlag::new();
        stop.raise();
        let all = some.iter().map(|caption| caption.text.as_str());
        let tokenizer = TextTokenizer::train(all, &TokenizerConfig::default(), 24).unwrap();
        let encoder = encoder(tokenizer.vocabulary());
        let config = LateInteractionConfig::default();
        let stopped = config.fit(&encoder, &tokenizer, (&some, 4), &stop, &Default::default());
        assert!(matches!(stopped, Err(Error::Interrupted(_))));
    }

    #[test]
    fn many_texts_of_one_candidate_are_merged() {
        let text = |n: usize| format!("thing {n} and {} with {}", n * 7 % 13, n * 5 % 11);
        let long: Vec<String> = (0..500).map(text).collect();
        let mut texts: Vec<(u32, &str)> = long.iter().map(|text| (1, text.as_str())).collect();
        texts.push((0, "something else"));
        let config = LateInteractionConfig { bytes: 160, dim: 16, ..Default::default() };
        let found = fitted(&config, &captions(&texts), 2).unwrap().unwrap();
        assert_eq!(found.states.item(1).len(), 8);
    }

    #[test]
    fn the_weight_moves_only_on_evidence() {
        let dim = 4;
        let texts = captions(&TEXTS);
        let config = LateInteractionConfig { bytes: 4000, dim: 16, ..Default::default() };
        let found = fitted(&config, &texts, 4).unwrap().unwrap();
        let unit = |seed: usize| -> Vec<f32> {
            let mut row: Vec<f32> = (0..dim).map(|i| ((seed * 13 + i * 7) as f32).sin()).collect();
            crate::kernels::normalise(&mut row);
            row
        };
        let rows: Vec<f32> = (0..6).flat_map(unit).collect();
        let items = texts.iter().map(|caption| caption.item).collect();
        let data = LateInteractionData {
            texts: &TextVectors::new(dim, rows.clone(), items).unwrap(),
            vectors: &Features::from_rows((10..14).flat_map(unit).collect(), dim).unwrap(),
            held_out: &LeaveOneOut::new(dim, rows).unwrap(),
        };
        let chosen = found.choose(&data);
        assert_eq!((chosen.share, chosen.captions), (USUAL, 6));
        assert_eq!(chosen.mrr.len(), SHARES.len());
        assert!(chosen.usual.abs() <= 1.0);
        // The held-out vector is the query itself: without tokens every candidate is first.
        assert_eq!(chosen.mrr[0], (0.0, 1.0));
    }
}
