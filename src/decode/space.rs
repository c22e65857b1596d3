//! What a search searches: the trie and the candidates' statistics, and how the children of a
//! prefix score.

use std::sync::Arc;

use burn::tensor::backend::Backend;

use super::{BeamConfig, Filters, encoded::QueryVectors};
use crate::{
    error::{Error, Result},
    index::{CandidateIndex, IdentifierMap, PrefixPrior, PrefixStats, TokenStates},
    model::{Cart, Scope},
    trie::{Node, Trie},
};

/// The candidates of a search. A trie alone will do for a network without guidance.
#[derive(Debug, Clone, Copy)]
pub struct SearchSpace<'a> {
    /// All identifiers.
    pub trie: &'a Trie,
    /// Statistics of the candidates' vectors.
    pub prefix_stats: Option<&'a PrefixStats>,
    /// Token states of the candidates' texts.
    pub token_states: Option<CandidateTokens<'a>>,
    /// Which candidates each query may find.
    pub filters: Filters<'a>,
}

/// Token states of candidates, by the rows of the trie.
#[derive(Debug, Clone, Copy)]
pub struct CandidateTokens<'a> {
    /// Of all candidates.
    pub states: &'a TokenStates,
    /// Which candidate each row of the trie belongs to.
    pub owners: &'a IdentifierMap,
}

impl<'a> From<&'a Trie> for SearchSpace<'a> {
    fn from(trie: &'a Trie) -> Self {
        Self { trie, prefix_stats: None, token_states: None, filters: Filters::None }
    }
}

impl<'a> From<&'a Arc<Trie>> for SearchSpace<'a> {
    fn from(trie: &'a Arc<Trie>) -> Self {
        Self::from(&**trie)
    }
}

impl<'a> From<&'a CandidateIndex> for SearchSpace<'a> {
    fn from(index: &'a CandidateIndex) -> Self {
        let stats = index.prefix_stats().map(|stats| &**stats);
        let owners = index.identifier_map();
        let tokens = index.token_states().map(|states| CandidateTokens { states, owners });
        Self { token_states: tokens, ..Self::from(index.trie()).with_prefix_stats(stats) }
    }
}

impl<'a> SearchSpace<'a> {
    /// Adds statistics of the candidates' vectors, which a guided network and a rerank need.
    pub fn with_prefix_stats(self, prefix_stats: Option<&'a PrefixStats>) -> Self {
        Self { prefix_stats, ..self }
    }

    /// Restricts which candidates each query may find.
    pub fn with_filters(self, filters: Filters<'a>) -> Self {
        Self { filters, ..self }
    }

    /// The prior over the children of every prefix, where both the network has an alignment
    /// (`vectors` are the queries') and the candidates have vectors.
    ///
    /// # Errors
    /// [`Error::Model`] when the network needs statistics that are missing or of another shape;
    /// [`Error::Config`] for guidance over all tokens, most of which have no statistics, for a rerank
    /// without an alignment, and for a decoder of weight 0 without guidance.
    pub(super) fn prior<B: Backend>(
        &self,
        model: &Cart<B>,
        vectors: Option<&QueryVectors>,
        config: &BeamConfig,
    ) -> Result<Option<PrefixPrior<'a>>> {
        let guided = model.alignment().is_some_and(|head| head.is_guided());
        Error::config("scope of the search")
            .expected("the legal tokens, for a guided network")
            .found("all tokens")
            .fix_if(guided && config.scope == Scope::All, "search with Scope::Legal")?;
        Error::config("weight of the decoder")
            .expected("more than 0, for an unguided network")
            .found("0")
            .fix_if(config.decoder_weight == 0.0 && !guided, "keep 1")?;
        Error::config("weight of the late interaction")
            .expected("0 for an index without token states")
            .found(config.late_interaction.to_string())
            .fix_if(
                config.late_interaction > 0.0 && self.token_states.is_none(),
                "make the index with [late_interaction] in its recipe (align::LateInteractionConfig)",
            )?;
        match (vectors, self.prefix_stats) {
            (Some(QueryVectors { vectors, scales }), Some(stats)) => {
                PrefixPrior::new(stats, vectors.clone(), scales.clone()).map(Some)
            }
            (Some(_), None) if guided => Err(Error::model("candidates")
                .expected("vectors of the candidates, for a guided network")
                .found("identifiers only")
                .fix("give the index the vectors it was made from (CandidateIndex::with_vectors)")),
            _ if config.rerank > 0.0 => Err(Error::config("weight of the rerank")
                .expected("0 without an alignment of queries and candidates")
                .found(config.rerank.to_string())
                .fix("train with CartConfig::with_alignment, on candidates with vectors")),
            _ => Ok(None),
        }
    }
}

/// Turns a row of logits into log-probabilities of the legal children.
///
/// # Example
/// ```
/// use cart_retrieval::{expert::{Scorer, Codes, Trie}, identifier::LevelSizes, model::Scope};
/// let codes = Codes::from_rows(1, &[[0], [2]])?;
/// let trie = Trie::build(&codes, &LevelSizes::new(vec![3])?)?;
/// let mut children = Vec::new();
/// Scorer::new(&trie, Scope::Legal).children(0, trie.root(), &[1.0, 9.0, 1.0], &mut children);
/// assert_eq!(children.len(), 2);
/// assert!((children[0].1 - 0.5f32.ln()).abs() < 1e-6);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Scorer<'a> {
    trie: &'a Trie,
    scope: Scope,
    decoder_weight: f32,
    prior: Option<&'a PrefixPrior<'a>>,
}

impl<'a> Scorer<'a> {
    /// A scorer over a trie.
    pub fn new(trie: &'a Trie, scope: Scope) -> Self {
        Self { trie, scope, decoder_weight: 1.0, prior: None }
    }

    /// Multiplies every logit by a weight.
    pub fn with_decoder_weight(self, decoder_weight: f32) -> Self {
        Self { decoder_weight, ..self }
    }

    /// Adds the candidates' prior to every logit.
    pub fn with_prior(self, prior: Option<&'a PrefixPrior<'a>>) -> Self {
        Self { prior, ..self }
    }

    /// Clears `out` and fills it with token, log-probability and node of every child, for query
    /// number `query` of the prior.
    ///
    /// # Panics
    /// When `logits` is shorter than the level's vocabulary.
    pub fn children(
        &self,
        query: usize,
        node: Node,
        logits: &[f32],
        out: &mut Vec<(u16, f32, Node)>,
    ) {
        out.clear();
        out.extend(self.trie.children(node).map(|(token, child)| {
            (token, self.decoder_weight * logits[usize::from(token)], child)
        }));
        if let Some(prior) = self.prior.filter(|_| out.len() > 1) {
            let numbers = prior.stats().children(node);
            for (child, number) in out.iter_mut().zip(numbers) {
                child.1 += prior.score(query, node.depth(), number);
            }
        }
        let normaliser = match self.scope {
            // One child has probability 1, exactly.
            Scope::Legal if out.len() == 1 => out[0].1,
            Scope::Legal => log_sum_exp(out.iter().map(|child| child.1)),
            Scope::All => log_sum_exp(logits.iter().map(|logit| self.decoder_weight * logit)),
        };
        for child in out {
            child.1 -= normaliser;
        }
    }
}

fn log_sum_exp(values: impl Iterator<Item = f32> + Clone) -> f32 {
    let top = values.clone().fold(f32::NEG_INFINITY, f32::max);
    top + values.map(|value| (value - top).exp()).sum::<f32>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identifier::{Codes, LevelSizes};

    /// Twin: softmax of the weighted logits by hand, over what is in scope.
    #[test]
    fn logits_are_weighted_before_they_are_normalised() {
        let codes = Codes::from_rows(1, &[[0u16], [2]]).unwrap();
        let trie = Trie::build(&codes, &LevelSizes::new(vec![3]).unwrap()).unwrap();
        let logits = [1.0f32, 4.0, -2.0];
        for (scope, in_scope) in [(Scope::Legal, vec![0, 2]), (Scope::All, vec![0, 1, 2])] {
            for weight in [0.0f32, 0.5, 2.0] {
                let scorer = Scorer::new(&trie, scope).with_decoder_weight(weight);
                let mut children = Vec::new();
                scorer.children(0, trie.root(), &logits, &mut children);
                let total: f32 = in_scope.iter().map(|&t: &usize| (weight * logits[t]).exp()).sum();
                assert_eq!(children.len(), 2);
                for (token, log_p, _) in children {
                    let expected = weight * logits[usize::from(token)] - total.ln();
                    assert!((log_p - expected).abs() < 1e-5, "{scope:?} {weight}: {log_p}");
                }
            }
        }
    }
}
