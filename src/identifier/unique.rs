//! Unique tokens: numbers for candidates whose other tokens collide.

use std::cmp::Ordering;

use rayon::prelude::*;

use super::{Codes, LevelSizes};
use crate::error::{Error, Result};

/// Identifiers made unique, and their vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniqueTokens {
    /// Whole identifiers `(c, v_1, .., v_M, u)`, one row per item.
    pub identifiers: Codes,
    /// Sizes of all levels; the last one is the largest collision.
    pub vocabulary: LevelSizes,
}

/// Appends the unique token: items that share all their semantic tokens are numbered 0, 1, 2, ...
///
/// The order is stable and ours (the paper leaves it open): by `distance`, the squared distance of
/// the item to the embedding that its tokens stand for, nearest first; then by item index. The item
/// that its tokens describe best thus gets 0.
///
/// # Errors
/// - [`Error::Identifier`] when `distance` has another length, or a token is outside its level.
/// - [`Error::Collapsed`] when more than 65,536 items share their tokens.
///
/// # Example
/// ```
/// use cart_retrieval::expert::{Codes, assign_unique};
/// let codes = Codes::from_rows(1, &[[2], [0], [2]])?;
/// let unique = assign_unique(&codes, &[3], &[0.5, 0.0, 0.1])?;
/// assert_eq!(unique.identifiers.as_flat(), &[2, 1, 0, 0, 2, 0]);
/// assert_eq!(unique.vocabulary.sizes(), &[3, 2]);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub fn assign_unique(codes: &Codes, sizes: &[usize], distance: &[f32]) -> Result<UniqueTokens> {
    if distance.len() != codes.len() || codes.is_empty() {
        return Err(Error::identifier("unique tokens")
            .expected("one distance for each of at least one item")
            .found(format!("{} distances for {} items", distance.len(), codes.len()))
            .fix("pass the distance of every item to its reconstruction"));
    }
    let semantic = LevelSizes::new(sizes.to_vec())?;
    codes.rows().try_for_each(|row| semantic.check(row))?;
    let mut order: Vec<u32> = (0..codes.len() as u32).collect();
    order.par_sort_unstable_by(|&a, &b| {
        let (a, b) = (a as usize, b as usize);
        codes
            .row(a)
            .cmp(codes.row(b))
            .then(distance[a].partial_cmp(&distance[b]).unwrap_or(Ordering::Equal))
            .then(a.cmp(&b))
    });
    let mut unique = vec![0u16; codes.len()];
    let mut largest = 1;
    let mut run = 0usize;
    for (position, &item) in order.iter().enumerate() {
        let same =
            position > 0 && codes.row(order[position - 1] as usize) == codes.row(item as usize);
        run = if same { run + 1 } else { 0 };
        largest = largest.max(run + 1);
        unique[item as usize] = u16::try_from(run).map_err(|_| {
            Error::collapsed("unique tokens")
                .expected(format!("at most {} items with the same tokens", LevelSizes::MAX_LEVEL))
                .found("more")
                .fix("use more codes or levels, so that the quantizer separates these items")
        })?;
    }
    let identifiers = codes.join(&Codes::from_flat(1, unique)?);
    let sizes = sizes.iter().copied().chain([largest]).collect();
    Ok(UniqueTokens { identifiers, vocabulary: LevelSizes::new(sizes)? })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// The rule, item by item: how many of the same tokens come before me?
    fn naive(codes: &Codes, distance: &[f32]) -> Vec<u16> {
        (0..codes.len())
            .map(|item| {
                (0..codes.len())
                    .filter(|&other| codes.row(other) == codes.row(item))
                    .filter(|&other| (distance[other], other) < (distance[item], item))
                    .count() as u16
            })
            .collect()
    }

    proptest! {
        #[test]
        fn numbers_follow_distance_then_index(
            rows in prop::collection::vec((0u16..3, 0u16..2, 0u8..4), 1..40)
        ) {
            let tokens: Vec<[u16; 2]> = rows.iter().map(|r| [r.0, r.1]).collect();
            let distance: Vec<f32> = rows.iter().map(|r| f32::from(r.2)).collect();
            let codes = Codes::from_rows(2, &tokens).unwrap();
            let unique = assign_unique(&codes, &[3, 2], &distance).unwrap();
            let got: Vec<u16> = unique.identifiers.rows().map(|row| row[2]).collect();
            prop_assert_eq!(got, naive(&codes, &distance));
            let mut seen = HashMap::new();
            for row in unique.identifiers.rows() {
                prop_assert!(seen.insert(row.to_vec(), ()).is_none());
                unique.vocabulary.check(row).unwrap();
            }
        }
    }

    #[test]
    fn lengths_and_sizes_are_checked() {
        let codes = Codes::from_rows(1, &[[2]]).unwrap();
        assert!(assign_unique(&codes, &[2], &[0.0]).is_err());
        assert!(assign_unique(&codes, &[3], &[]).is_err());
        assert!(assign_unique(&Codes::new(1), &[3], &[]).is_err());
    }

    #[test]
    fn too_many_equal_items_are_a_collapse() {
        let codes = Codes::from_flat(1, vec![0; 65_537]).unwrap();
        let error = assign_unique(&codes, &[1], &vec![0.0; 65_537]).unwrap_err();
        assert!(matches!(error, Error::Collapsed(_)));
    }
}
