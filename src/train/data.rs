//! What a training reads: tokenised pairs, identifiers and the trie.

use std::sync::Arc;

use burn::tensor::backend::Backend;
use sha2::{Digest, Sha256};

use super::TrainConfig;
use crate::{
    data::{Example, ItemCaption, TextTokenizer},
    error::{Error, Result},
    identifier::Codes,
    index::CandidateIndex,
    index::{IdentifierMap, LeaveOneOut, PrefixStats},
    model::{Cart, LossConfig, Scope},
    nn::{AlignmentHead, GuideBatch, GuideSource},
    storage::hex,
    trie::Trie,
};

/// A pair with the weight it is drawn with.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedExample {
    /// The pair.
    pub example: Example,
    /// Relative frequency.
    pub weight: f32,
}

/// The captions of a training.
#[derive(Debug, Clone, Copy)]
pub struct TrainingCaptions<'a> {
    /// Captions to train on.
    pub train: &'a [ItemCaption],
    /// Captions to choose the best model by. Without any, the last model is the best.
    pub valid: &'a [ItemCaption],
}

/// Everything a training reads: tokenised pairs, identifiers and the trie.
///
/// # Example
/// ```no_run
/// # use cart_retrieval::{data::{ItemCaption, TextTokenizer}, index::CandidateIndex};
/// use cart_retrieval::train::{TrainingCaptions, TrainingData};
/// # fn f(tokenizer: TextTokenizer, captions: Vec<ItemCaption>, index: CandidateIndex) -> cart_retrieval::Result<()> {
/// let (valid, train) = captions.split_at(500);
/// let data = TrainingData::new(&tokenizer, TrainingCaptions { train, valid }, &index)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct TrainingData {
    pub(super) train: Arc<Vec<WeightedExample>>,
    pub(super) valid: Arc<Vec<Example>>,
    pub(super) identifiers: Arc<Codes>,
    pub(super) trie: Arc<Trie>,
    pub(super) padding: u32,
    pub(super) geometry: Option<Arc<PrefixStats>>,
    pub(super) held_out: Option<Arc<LeaveOneOut>>,
    /// Whose identifiers the trie's entries are; a pair's item is an entry.
    pub(super) owners: IdentifierMap,
    /// Training captions before any was repeated for further identifiers.
    captions: usize,
    /// The caption of every pair.
    pub(super) texts: Arc<Vec<u32>>,
}

impl TrainingData {
    /// Tokenises captions of candidates.
    ///
    /// # Errors
    /// [`Error::Captions`] without training captions, or where one describes an item that is not in
    /// the index; [`Error::Query`] for a blank caption.
    pub fn new(
        tokenizer: &TextTokenizer,
        captions: TrainingCaptions<'_>,
        index: &CandidateIndex,
    ) -> Result<Self> {
        let TrainingCaptions { train, valid } = captions;
        Error::captions("training captions")
            .expected("at least one")
            .found("none")
            .fix_if(train.is_empty(), "check the captions file and the recipe's filter")?;
        let example = |caption: &ItemCaption| {
            let remedy = "resolve captions against the candidates of this index";
            Error::captions(format!("caption {:?}", caption.text))
                .expected(format!("an item below {}", index.ids().len()))
                .found(caption.item.to_string())
                .fix_if(caption.item as usize >= index.ids().len(), remedy)?;
            Ok(Example { tokens: tokenizer.encode(&caption.text)?, item: caption.item })
        };
        let weighted = |caption: &ItemCaption| {
            Ok(WeightedExample { example: example(caption)?, weight: caption.weight })
        };
        Ok(Self {
            train: Arc::new(train.iter().map(weighted).collect::<Result<_>>()?),
            valid: Arc::new(valid.iter().map(example).collect::<Result<_>>()?),
            identifiers: Arc::new(index.trie().identifiers()),
            trie: Arc::new(index.trie().clone()),
            padding: tokenizer.padding(),
            geometry: index.prefix_stats().cloned(),
            held_out: None,
            owners: index.identifier_map().clone(),
            captions: train.len(),
            texts: Arc::new((0..train.len() as u32).collect()),
        })
    }

    /// Trains every caption on all identifiers of its candidate, in pairs of their own, where
    /// candidates have several ([`Assignment::several`]); otherwise only the first ones are trained
    /// on. A pass is that much longer.
    ///
    /// [`Assignment::several`]: crate::quantizer::Assignment::several
    pub fn with_all_identifiers(mut self) -> Self {
        let mut further = vec![Vec::new(); self.owners.items()];
        let aliases = (self.owners.items() as u32..).zip(self.owners.aliases());
        aliases.for_each(|(entry, &owner)| further[owner as usize].push(entry));
        let (mut train, mut texts) = (self.train.to_vec(), self.texts.to_vec());
        for text in 0..self.captions {
            let WeightedExample { example, weight } = train[text].clone();
            for &entry in &further[example.item as usize] {
                let example = Example { item: entry, ..example.clone() };
                train.push(WeightedExample { example, weight });
                texts.push(text as u32);
            }
        }
        (self.train, self.texts) = (Arc::new(train), Arc::new(texts));
        self
    }

    /// Lets every training text see its candidate's vector as it would be without that text.
    ///
    /// # Shapes
    /// - `held_out`: `[captions, D]`, in the order of the training captions
    ///
    /// # Errors
    /// [`Error::Training`] when there is not one vector per caption, or none of the candidates to
    /// compare with, or of another width.
    pub fn with_held_out(mut self, held_out: LeaveOneOut) -> Result<Self> {
        let width = self.geometry.as_ref().map(|geometry| geometry.dim());
        Error::training("held-out vectors")
            .expected(format!("one for each of {} captions, of the width {width:?}", self.captions))
            .found(format!("{} of width {}", held_out.len(), held_out.dim()))
            .fix_if(
                held_out.len() != self.captions || width != Some(held_out.dim()),
                "fit the space on the training captions, and give the index its vectors",
            )?;
        self.held_out = Some(Arc::new(held_out));
        Ok(self)
    }

    /// The training captions, once each.
    pub(super) fn captions(&self) -> Arc<Vec<WeightedExample>> {
        if self.captions == self.train.len() {
            self.train.clone()
        } else {
            Arc::new(self.train[..self.captions].to_vec())
        }
    }

    /// Number of training pairs.
    pub fn pairs(&self) -> usize {
        self.train.len()
    }

    /// Number of validation pairs.
    pub fn valid_pairs(&self) -> usize {
        self.valid.len()
    }

    /// SHA-256 of pairs and identifiers, in hexadecimal: what a resumed training must share.
    pub(super) fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let mut pair = |example: &Example, weight: f32| {
            hash.update(example.item.to_le_bytes());
            hash.update(weight.to_le_bytes());
            hash.update((example.tokens.len() as u64).to_le_bytes());
            example.tokens.iter().for_each(|token| hash.update(token.to_le_bytes()));
        };
        self.train.iter().for_each(|weighted| pair(&weighted.example, weighted.weight));
        self.valid.iter().for_each(|example| pair(example, 0.0));
        self.identifiers.as_flat().iter().for_each(|token| hash.update(token.to_le_bytes()));
        self.owners.aliases().iter().for_each(|owner| hash.update(owner.to_le_bytes()));
        let mut vectors = |values: &[f32]| values.iter().for_each(|v| hash.update(v.to_le_bytes()));
        if let Some(geometry) = &self.geometry {
            vectors(geometry.vectors().as_slice());
        }
        if let Some(held_out) = &self.held_out {
            (0..held_out.len()).for_each(|text| vectors(held_out.row(text)));
        }
        hex(&hash.finalize())
    }

    /// Checks that network and loss find in the data what they need.
    ///
    /// # Errors
    /// [`Error::Training`] for a guided network without vectors of its width, or with a loss over all
    /// tokens; [`Error::Config`] for a contrast or soft targets without an alignment or without
    /// vectors, and for settings of the guidance without any.
    pub(super) fn check<B: Backend>(&self, model: &Cart<B>, loss: &LossConfig) -> Result<()> {
        let width = self.geometry.as_ref().map(|geometry| geometry.dim());
        let found = || width.map_or("none".to_string(), |width| format!("of width {width}"));
        let head = model.alignment();
        if let Some(head) = head.filter(|head| head.is_guided()) {
            Error::training("scope of the loss")
                .expected("the legal tokens, for a guided network")
                .found("all tokens")
                .fix_if(loss.scope == Scope::All, "train with Scope::Legal")?;
            if width != Some(head.dim()) {
                return Err(Error::training("vectors of the candidates, for a guided network").expected(format!("of width {}", head.dim())).found(found()).fix("give the index the vectors it was made from (CandidateIndex::with_vectors)"));
            }
        }
        let guided = head.is_some_and(AlignmentHead::is_guided);
        let remedy = "leave them out, or use CartConfig::with_alignment, guided";
        Error::config("guide_dropout and guide_factor of the loss")
            .expected("0 and 1 for an unguided network")
            .found(format!("{} and {}", loss.guide_dropout, loss.guide_factor))
            .fix_if((loss.guide_dropout > 0.0 || loss.guide_factor != 1.0) && !guided, remedy)?;
        let needs = loss.alignment > 0.0 || loss.soft_targets > 0.0;
        Error::config("alignment and soft_targets of the loss")
            .expected("0, or a network with an alignment and candidates with vectors of its width")
            .found(format!("{} and {} with vectors {}", loss.alignment, loss.soft_targets, found()))
            .fix_if(
                needs && (head.is_none() || head.map(AlignmentHead::dim) != width),
                "use CartConfig::with_alignment and CandidateIndex::with_vectors",
            )
    }

    /// Where entries lie, if that is known; `texts` are the training texts that describe them.
    pub(super) fn guide<B: Backend>(
        &self,
        entries: &[u32],
        texts: Option<(&[u32], &LeaveOneOut)>,
        device: &B::Device,
    ) -> Option<GuideBatch<B>> {
        let geometry = self.geometry.as_ref()?;
        let source = GuideSource { identifiers: &self.identifiers, trie: &self.trie, geometry };
        let batch = GuideBatch::new(entries, texts, &source, device);
        Some(batch.of_items(entries.iter().map(|&entry| self.owners.of(entry)).collect()))
    }

    /// The trie of the candidates.
    pub fn trie(&self) -> &Arc<Trie> {
        &self.trie
    }

    /// Steps of one pass over the pairs.
    pub(super) fn steps_per_epoch(&self, config: &TrainConfig) -> usize {
        self.train.len().div_ceil(config.batch_size)
    }
}
