//! Captions out of two captions.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::ItemCaption;

/// For every item with several captions, `per_item` texts more, each of two of its captions, drawn and put together by a
/// seed: a longer query that says what two people saw.
///
/// Weights are the means of the two. Items with one caption get none. Ours, not of the paper.
///
/// # Example
/// ```
/// use cart_retrieval::{data::ItemCaption, expert::mixed_captions};
/// let caption = |item, text: &str| ItemCaption { item, text: text.into(), weight: 1.0 };
/// let captions = [caption(0, "two dogs"), caption(0, "a snowy field"), caption(1, "a cat")];
/// let mixed = mixed_captions(&captions, 1, 7);
/// assert_eq!(mixed.len(), 1);
/// assert!(mixed[0].text == "two dogs, a snowy field" || mixed[0].text == "a snowy field, two dogs");
/// ```
pub fn mixed_captions(captions: &[ItemCaption], per_item: usize, seed: u64) -> Vec<ItemCaption> {
    let mut order: Vec<usize> = (0..captions.len()).collect();
    order.sort_by_key(|&at| captions[at].item);
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x3117);
    let mut mixed = Vec::new();
    for own in order.chunk_by(|&a, &b| captions[a].item == captions[b].item) {
        if own.len() < 2 {
            continue;
        }
        for _ in 0..per_item {
            let first = rng.random_range(0..own.len());
            // Any but the first.
            let second = (first + rng.random_range(1..own.len())) % own.len();
            let (first, second) = (&captions[own[first]], &captions[own[second]]);
            mixed.push(ItemCaption {
                item: first.item,
                text: format!("{}, {}", first.text, second.text),
                weight: (first.weight + second.weight) / 2.0,
            });
        }
    }
    mixed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_different_captions_of_one_item_are_put_together() {
        let captions: Vec<ItemCaption> = (0..40)
            .map(|at| ItemCaption { item: at % 8, text: format!("t{at}"), weight: at as f32 + 1.0 })
            .chain([ItemCaption { item: 9, text: "alone".into(), weight: 1.0 }])
            .collect();
        let mixed = mixed_captions(&captions, 3, 1);
        assert_eq!(mixed.len(), 8 * 3);
        for caption in &mixed {
            let (first, second) = caption.text.split_once(", ").unwrap();
            let number = |text: &str| text[1..].parse::<u32>().unwrap();
            let (first, second) = (number(first), number(second));
            assert_ne!(first, second);
            assert_eq!((first % 8, second % 8), (caption.item, caption.item));
            assert_eq!(caption.weight, (first + second + 2) as f32 / 2.0);
        }
        assert_eq!(mixed, mixed_captions(&captions, 3, 1));
        assert_ne!(mixed, mixed_captions(&captions, 3, 2));
        assert!(mixed_captions(&captions, 0, 1).is_empty());
    }
}
