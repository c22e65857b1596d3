//! Sorting identifiers.

use rayon::prelude::*;

use super::{Trie, column::Column, table::inverse};
use crate::{
    error::{Error, Result},
    identifier::{Codes, Identifier, LevelSizes},
};

/// An identifier as one number that sorts as it does.
trait Key: Ord + Copy + Default + Send + Sync {
    /// Puts a token of a level of so many bits behind those before it.
    fn push(self, token: u16, bits: u32) -> Self;

    /// The token that ends `shift` bits before the end.
    fn token(self, shift: u32, bits: u32) -> u16;
}

macro_rules! key {
    ($kind:ty) => {
        impl Key for $kind {
            fn push(self, token: u16, bits: u32) -> Self {
                self << bits | <$kind>::from(token)
            }

            fn token(self, shift: u32, bits: u32) -> u16 {
                (self >> shift & ((1 << bits) - 1)) as u16
            }
        }
    };
}

key!(u64);
key!(u128);

/// Bits that tell the tokens of a level apart.
fn bits(size: usize) -> u32 {
    size.next_power_of_two().trailing_zeros()
}

impl Trie {
    /// Sorts identifiers, one row per item, into a trie, on all threads.
    ///
    /// # Errors
    /// [`Error::Identifier`] without items, with more than 2^32 - 2, with a token outside its
    /// level, or with two items of the same identifier (both named).
    pub fn build(identifiers: &Codes, vocabulary: &LevelSizes) -> Result<Self> {
        let n = identifiers.len();
        let remedy = "index at least one candidate, and split larger collections";
        Error::identifier("trie")
            .expected("1 to 2^32 - 2 identifiers")
            .found(n.to_string())
            .fix_if(n == 0 || n >= u32::MAX as usize, remedy)?;
        identifiers
            .as_flat()
            .par_chunks_exact(identifiers.levels())
            .try_for_each(|row| vocabulary.check(row))?;
        let total: u32 = vocabulary.sizes().iter().map(|&size| bits(size)).sum();
        match total {
            // A level of 65,536 tokens and 64 bits: a shift by all bits of a key never happens.
            total if total <= u64::BITS => packed::<u64>(identifiers, vocabulary),
            total if total <= u128::BITS => packed::<u128>(identifiers, vocabulary),
            _ => compared(identifiers, vocabulary),
        }
    }

    /// From items in the order of their identifiers, and a token by row and level.
    fn from_sorted(
        vocabulary: &LevelSizes,
        items: Vec<u32>,
        token: impl Fn(usize, usize) -> u16 + Sync,
    ) -> Self {
        let columns = (1..vocabulary.levels())
            .into_par_iter()
            .map(|level| {
                let tokens = (0..items.len()).map(|row| token(row, level));
                Column::collect(vocabulary.size(level), tokens)
            })
            .collect();
        let first: Vec<u32> = (0..=vocabulary.size(0))
            .into_par_iter()
            .map(|coarse| {
                let below = |&row: &u32| usize::from(token(row as usize, 0)) < coarse;
                partition(items.len() as u32, below)
            })
            .collect();
        let rows = inverse(&items);
        Self {
            vocabulary: vocabulary.clone(),
            first: first.into(),
            columns,
            items: items.into(),
            rows: rows.into(),
        }
    }
}

/// How many of the rows `0..n` come before the first for which `below` does not hold.
fn partition(n: u32, below: impl Fn(&u32) -> bool) -> u32 {
    let (mut lo, mut hi) = (0, n);
    while lo < hi {
        let middle = lo + (hi - lo) / 2;
        if below(&middle) { lo = middle + 1 } else { hi = middle }
    }
    lo
}

/// By identifiers that fit into one number.
fn packed<K: Key>(identifiers: &Codes, vocabulary: &LevelSizes) -> Result<Trie> {
    let widths: Vec<u32> = vocabulary.sizes().iter().map(|&size| bits(size)).collect();
    let mut keys: Vec<(K, u32)> = identifiers
        .as_flat()
        .par_chunks_exact(identifiers.levels())
        .zip(0u32..identifiers.len() as u32)
        .map(|(row, item)| {
            let push = |key: K, (&token, &bits): (&u16, &u32)| key.push(token, bits);
            (row.iter().zip(&widths).fold(K::default(), push), item)
        })
        .collect();
    keys.par_sort_unstable();
    let twice = keys.par_windows(2).find_first(|pair| pair[0].0 == pair[1].0);
    if let Some([a, b]) = twice.map(|pair| [pair[0].1, pair[1].1]) {
        return Err(duplicate(identifiers, a, b));
    }
    let shifts: Vec<u32> =
        (0..widths.len()).map(|level| widths[level + 1..].iter().sum()).collect();
    let items = keys.par_iter().map(|key| key.1).collect();
    let token = |row: usize, level: usize| match widths[level] {
        0 => 0,
        bits => keys[row].0.token(shifts[level], bits),
    };
    Ok(Trie::from_sorted(vocabulary, items, token))
}

/// By comparing rows.
fn compared(identifiers: &Codes, vocabulary: &LevelSizes) -> Result<Trie> {
    let row = |item: u32| identifiers.row(item as usize);
    let mut items: Vec<u32> = (0..identifiers.len() as u32).collect();
    items.par_sort_unstable_by(|&a, &b| row(a).cmp(row(b)).then(a.cmp(&b)));
    let twice = items.par_windows(2).find_first(|pair| row(pair[0]) == row(pair[1]));
    if let Some([a, b]) = twice.map(|pair| [pair[0], pair[1]]) {
        return Err(duplicate(identifiers, a, b));
    }
    let in_order = items.clone();
    Ok(Trie::from_sorted(vocabulary, items, |at, level| row(in_order[at])[level]))
}

fn duplicate(identifiers: &Codes, a: u32, b: u32) -> Error {
    Error::identifier(format!("items {a} and {b}"))
        .expected("an identifier of its own for every item")
        .found(format!("{} for both", Identifier::new(identifiers.row(a as usize).to_vec())))
        .fix("append unique tokens (identifier::assign_unique)")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Twin: sorting by comparison. Wide levels do not fit one number of 64 bits, or of 128.
        #[test]
        fn all_ways_to_sort_agree(
            rows in prop::collection::btree_set(prop::collection::vec(0u16..40, 10), 1..80)
                .prop_map(|rows| rows.into_iter().collect::<Vec<_>>()).prop_shuffle(),
            wide in 0usize..3,
        ) {
            let size = [40, 2000, 65_536][wide];
            let codes = Codes::from_rows(10, &rows).unwrap();
            let vocabulary = LevelSizes::new(vec![size; 10]).unwrap();
            let trie = Trie::build(&codes, &vocabulary).unwrap();
            prop_assert_eq!(&trie, &compared(&codes, &vocabulary).unwrap());
            prop_assert_eq!(trie.identifiers(), codes);
        }
    }
}
