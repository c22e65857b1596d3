//! The order and the words that a training reads texts in.

use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// Batches among which pairs are sorted by length.
const WINDOW: usize = 16;

/// Puts what is of like length into one batch, within windows of some batches of a shuffled order,
/// so that little of a batch is padding; batches are shuffled.
pub(crate) fn by_like_length(
    mut order: Vec<u32>,
    batch: usize,
    length: impl Fn(u32) -> usize,
    rng: &mut ChaCha8Rng,
) -> Vec<u32> {
    // The last batch may be short: cut off before sorting, it holds captions of any length.
    let whole = order.len() / batch * batch;
    let (whole, rest) = order.split_at_mut(whole);
    for window in whole.chunks_mut(WINDOW * batch) {
        window.sort_by_key(|&index| length(index));
    }
    let mut batches: Vec<&[u32]> = whole.chunks_exact(batch).collect();
    batches.shuffle(rng);
    [batches.concat(), rest.to_vec()].concat()
}

/// Leaves out tokens between the first and the last with probability `share`, but not all of them.
pub fn drop_words(tokens: &[u32], share: f64, rng: &mut ChaCha8Rng) -> Vec<u32> {
    if share == 0.0 || tokens.len() <= 3 {
        return tokens.to_vec();
    }
    let last = tokens.len() - 1;
    let kept: Vec<u32> = tokens
        .iter()
        .enumerate()
        .filter(|&(at, _)| at == 0 || at == last || rng.random::<f64>() >= share)
        .map(|(_, &token)| token)
        .collect();
    if kept.len() > 2 { kept } else { tokens.to_vec() }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn dropped_words_leave_the_frame_and_something_between() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let tokens = [2, 10, 11, 12, 13, 3];
        let mut lengths = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let kept = drop_words(&tokens, 0.5, &mut rng);
            assert!(kept.len() > 2 && kept[0] == 2 && kept.last() == Some(&3));
            assert!(kept.is_sorted_by_key(|t| tokens.iter().position(|other| other == t)));
            lengths.insert(kept.len());
        }
        assert!(lengths.len() > 2);
        assert_eq!(drop_words(&tokens, 0.0, &mut rng), tokens);
    }
}
