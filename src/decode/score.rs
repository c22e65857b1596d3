//! Log-probabilities of a node's children.

use crate::{
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
/// Scorer::new(&trie, Scope::Legal).children(trie.root(), &[1.0, 9.0, 1.0], &mut children);
/// assert_eq!(children.len(), 2);
/// assert!((children[0].1 - 0.5f32.ln()).abs() < 1e-6);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Scorer<'a> {
    trie: &'a Trie,
    scope: Scope,
}

impl<'a> Scorer<'a> {
    /// A scorer over a trie.
    pub fn new(trie: &'a Trie, scope: Scope) -> Self {
        Self { trie, scope }
    }

    /// Clears `out` and fills it with token, log-probability and node of every child.
    ///
    /// # Panics
    /// When `logits` is shorter than the level's vocabulary.
    pub fn children(&self, node: Node, logits: &[f32], out: &mut Vec<(u16, f32, Node)>) {
        out.clear();
        out.extend(
            self.trie
                .children(node)
                .map(|(token, child)| (token, logits[usize::from(token)], child)),
        );
        let normaliser = match self.scope {
            // One child has probability 1, exactly.
            Scope::Legal if out.len() == 1 => out[0].1,
            Scope::Legal => log_sum_exp(out.iter().map(|child| child.1)),
            Scope::All => log_sum_exp(logits.iter().copied()),
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
