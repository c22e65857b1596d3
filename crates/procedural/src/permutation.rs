//! Numbers in another order, without a table.

/// A permutation of the numbers below `len`, drawn from a seed: what makes item `index` a function
/// of the seed and its number alone, and all items of a benchmark different.
///
/// A network of Feistel over as many bits as `len` needs, walked until it lands below `len` again
/// (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Permutation {
    len: u64,
    /// Bits of a half.
    half: u32,
    keys: [u64; ROUNDS],
}

const ROUNDS: usize = 6;

impl Permutation {
    /// # Panics
    /// When `len` is 0 or above 2^62.
    pub(super) fn new(len: u64, seed: u64) -> Self {
        assert!((1..=1 << 62).contains(&len), "{len} numbers");
        let bits = (64 - (len - 1).leading_zeros()).max(2);
        let mut state = seed ^ len.rotate_left(17);
        let keys = std::array::from_fn(|_| {
            state = mixed(state);
            state
        });
        Self { len, half: bits.div_ceil(2), keys }
    }

    /// Where a number goes.
    ///
    /// # Panics
    /// When it is not below `len`.
    pub(super) fn at(&self, number: u64) -> u64 {
        assert!(number < self.len, "{number} of {}", self.len);
        let mut value = number;
        loop {
            value = self.round_trip(value);
            if value < self.len {
                return value;
            }
        }
    }

    fn round_trip(&self, value: u64) -> u64 {
        let mask = (1 << self.half) - 1;
        let (mut left, mut right) = (value >> self.half, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mixed(right ^ key) & mask));
        }
        left << self.half | right
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// How the items of a benchmark are shared out among kinds of items, by their numbers alone.
///
/// Kinds take turns; a kind that has few compositions ends at its `most`, and the last kind takes
/// its turns then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shares<'a> {
    /// Turns of each kind in a cycle, and its most items; those of the last kind are not limited.
    pub(super) kinds: &'a [(usize, usize)],
    /// The most items of a benchmark.
    pub(super) items: usize,
}

impl Shares<'_> {
    /// The kind of item `index`, and its number among those of that kind: numbers of a kind are
    /// different, and those of the last one below `2 * items`.
    pub(super) fn of(&self, index: usize) -> (usize, u64) {
        let cycle: usize = self.kinds.iter().map(|(turns, _)| turns).sum();
        let (round, mut turn) = (index / cycle, index % cycle);
        let last = self.kinds.len() - 1;
        for (kind, &(turns, most)) in self.kinds.iter().enumerate() {
            if turn < turns {
                let number = round * turns + turn;
                if kind == last || number < most {
                    return (kind, number as u64);
                }
                break;
            }
            turn -= turns;
        }
        (last, (self.items + index) as u64)
    }
}

/// Takes numbers below given sizes out of one number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Digits(pub(super) u64);

impl Digits {
    pub(super) fn below(&mut self, size: usize) -> usize {
        let digit = self.0 % size as u64;
        self.0 /= size as u64;
        digit as usize
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// One of `size` numbers that is none of `taken`, which are different and below `size`.
    pub(super) fn other(&mut self, size: usize, taken: &[usize]) -> usize {
        let mut sorted = taken.to_vec();
        sorted.sort_unstable();
        let mut digit = self.below(size - taken.len());
        for taken in sorted {
            digit += usize::from(digit >= taken);
        }
        digit
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_number_is_taken_once() {
        for len in [1, 2, 3, 5, 64, 1_000, 4_097] {
            let permutation = Permutation::new(len, 7);
            let mut found: Vec<u64> = (0..len).map(|number| permutation.at(number)).collect();
            let in_order = found.clone();
            found.sort_unstable();
            assert!(found.into_iter().eq(0..len), "{len}");
            if len > 10 {
                let same = in_order.iter().zip(0..len).filter(|&(&a, b)| a == b).count();
                assert!(same < 10, "{same} of {len} stay where they are");
                let other = Permutation::new(len, 8);
                assert!((0..len).any(|number| other.at(number) != permutation.at(number)));
            }
        }
    }

    #[test]
    fn a_large_one_is_spread_evenly() {
        let len = 3_000_000_000;
        let permutation = Permutation::new(len, 1);
        let mut parts = [0; 10];
        (0..10_000).for_each(|number| parts[(permutation.at(number) * 10 / len) as usize] += 1);
        assert!(parts.iter().all(|&part| (850..1150).contains(&part)), "{parts:?}");
    }

    #[test]
    fn numbers_of_a_kind_are_different_and_kinds_end_at_their_most() {
        let shares = Shares { kinds: &[(1, 30), (2, 200), (2, 0)], items: 1_000 };
        let mut seen = HashSet::new();
        let mut counts = [0; 3];
        for index in 0..1_000 {
            let (kind, number) = shares.of(index);
            counts[kind] += 1;
            assert!(seen.insert((kind, number)));
            assert!(kind == 2 && number < 2_000 || number < [30, 200][kind]);
        }
        assert_eq!(counts, [30, 200, 770]);
    }

    #[test]
    fn digits_count_through_all_combinations() {
        let mut seen = HashSet::new();
        for number in 0..5 * 4 * 3 {
            let mut digits = Digits(number);
            let first = digits.other(5, &[]);
            let second = digits.other(5, &[first]);
            let third = digits.other(5, &[second, first]);
            assert!(first != second && third != first && third != second);
            assert!(seen.insert((first, second, third)));
        }
        assert_eq!(seen.len(), 60);
    }
}
