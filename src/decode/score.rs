//! Log-probabilities of a node's children.

use crate::{
    geometry::Guide,
    model::Scope,
    trie::{Node, Trie},
};

/// Turns a row of logits into log-probabilities of the legal children, on the host.
///
/// # Example
/// ```
/// use cart_retrieval::{decode::Scorer, identifier::{Codes, Vocabulary}, model::Scope, trie::Trie};
/// let codes = Codes::from_rows(1, &[[0], [2]])?;
/// let trie = Trie::build(&codes, &Vocabulary::new(vec![3])?)?;
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
    guide: Option<&'a Guide<'a>>,
}

impl<'a> Scorer<'a> {
    /// A scorer over a trie.
    pub fn new(trie: &'a Trie, scope: Scope) -> Self {
        Self { trie, scope, decoder_weight: 1.0, guide: None }
    }

    /// Multiplies every logit by a weight.
    pub fn with_decoder_weight(self, decoder_weight: f32) -> Self {
        Self { decoder_weight, ..self }
    }

    /// Adds to every logit what the candidates' geometry says.
    pub fn with_guide(self, guide: Option<&'a Guide<'a>>) -> Self {
        Self { guide, ..self }
    }

    /// Clears `out` and fills it with token, log-probability and node of every child, for query number
    /// `query` of the guide.
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
        if let Some(guide) = self.guide.filter(|_| out.len() > 1) {
            let numbers = guide.geometry().children(node);
            for (child, number) in out.iter_mut().zip(numbers) {
                child.1 += guide.score(query, node.depth(), number);
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
    use crate::identifier::{Codes, Vocabulary};

    /// Twin: softmax of the weighted logits by hand, over what is in scope.
    #[test]
    fn logits_are_weighted_before_they_are_normalised() {
        let codes = Codes::from_rows(1, &[[0u16], [2]]).unwrap();
        let trie = Trie::build(&codes, &Vocabulary::new(vec![3]).unwrap()).unwrap();
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
