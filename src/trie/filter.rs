//! Which candidates a search may answer with.

use super::{Node, Trie};
use crate::error::{Error, Result};

/// Rows between two counts.
const BLOCK: usize = 512;
/// Rows in a word.
const WORD: usize = u64::BITS as usize;

/// The candidates that a search may answer with: one bit for each, in the order of the trie, and
/// counts of the bits before every block of 512.
///
/// How many allowed candidates lie below a prefix takes two counts and at most 16 words, however
/// long the list of candidates was. The bits take an eighth of a byte a candidate, the counts a
/// hundredth. A filter belongs to the trie that it was made for.
///
/// A filter takes candidates away and changes nothing else: the score of a candidate is the same
/// with and without it.
///
/// # Example
/// ```
/// use cart_retrieval::{expert::{Codes, Trie}, identifier::LevelSizes, decode::Filter};
/// let codes = Codes::from_rows(2, &[[1, 0], [0, 2], [1, 3]])?;
/// let trie = Trie::build(&codes, &LevelSizes::new(vec![2, 4])?)?;
/// let filter = Filter::allow(&trie, [2])?;
/// assert_eq!(filter.below(trie.root()), 1);
/// assert_eq!(filter.below(trie.find(&[0]).unwrap()), 0);
/// assert!(filter.allows(&trie, 2) && !filter.allows(&trie, 0));
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    bits: Vec<u64>,
    /// Bits before each block, and all of them at the end.
    before: Vec<u32>,
    rows: usize,
}

impl Filter {
    /// Allows these candidates and no others; one that is listed twice counts once. With none, a
    /// search answers nothing.
    ///
    /// # Errors
    /// [`Error::Identifier`] naming an item that is not there.
    pub fn allow(trie: &Trie, items: impl IntoIterator<Item = u32>) -> Result<Self> {
        let mut bits = vec![0u64; trie.len().div_ceil(WORD)];
        for item in items {
            let row = trie.row_of(item)?;
            bits[row / WORD] |= 1 << (row % WORD);
        }
        Ok(Self::new(bits, trie.len()))
    }

    /// Allows all candidates but these.
    ///
    /// # Errors
    /// As [`Filter::allow`].
    pub fn deny(trie: &Trie, items: impl IntoIterator<Item = u32>) -> Result<Self> {
        Ok(Self::allow(trie, items)?.not())
    }

    /// Allows the candidates that `allowed` says yes to; it is asked once for each.
    pub fn by_item(trie: &Trie, mut allowed: impl FnMut(u32) -> bool) -> Self {
        let mut bits = vec![0u64; trie.len().div_ceil(WORD)];
        for (row, &item) in trie.items(trie.root()).iter().enumerate() {
            bits[row / WORD] |= u64::from(allowed(item)) << (row % WORD);
        }
        Self::new(bits, trie.len())
    }

    /// Allows the candidates all of whose prefixes `allowed` says yes to. It is asked for prefixes
    /// of one token and more, up to whole identifiers, and not below one that it refuses: once for
    /// every prefix, not once a search.
    pub fn by_prefix(trie: &Trie, mut allowed: impl FnMut(&[u16]) -> bool) -> Self {
        let mut bits = vec![0u64; trie.len().div_ceil(WORD)];
        let mut prefix = Vec::with_capacity(trie.levels());
        descend(trie, trie.root(), &mut prefix, &mut allowed, &mut |row| {
            bits[row / WORD] |= 1 << (row % WORD);
        });
        Self::new(bits, trie.len())
    }

    fn new(bits: Vec<u64>, rows: usize) -> Self {
        let mut before = Vec::with_capacity(rows.div_ceil(BLOCK) + 1);
        let mut count = 0;
        for block in bits.chunks(BLOCK / WORD) {
            before.push(count);
            count += block.iter().map(|word| word.count_ones()).sum::<u32>();
        }
        before.push(count);
        Self { bits, before, rows }
    }

    /// The candidates that this filter does not allow.
    pub fn not(&self) -> Self {
        let mut bits: Vec<u64> = self.bits.iter().map(|word| !word).collect();
        let tail = self.rows % WORD;
        if let Some(last) = bits.last_mut().filter(|_| tail > 0) {
            *last &= (1 << tail) - 1;
        }
        Self::new(bits, self.rows)
    }

    /// The candidates that both allow.
    ///
    /// # Errors
    /// [`Error::Query`] for filters of tries of different sizes.
    pub fn and(&self, other: &Self) -> Result<Self> {
        self.combine(other, |a, b| a & b)
    }

    /// The candidates that either allows.
    ///
    /// # Errors
    /// As [`Filter::and`].
    pub fn or(&self, other: &Self) -> Result<Self> {
        self.combine(other, |a, b| a | b)
    }

    fn combine(&self, other: &Self, word: impl Fn(u64, u64) -> u64) -> Result<Self> {
        other.belongs(self.rows)?;
        let bits = self.bits.iter().zip(&other.bits).map(|(&a, &b)| word(a, b)).collect();
        Ok(Self::new(bits, self.rows))
    }

    /// How many candidates it allows.
    pub fn count(&self) -> usize {
        *self.before.last().expect("the count of all") as usize
    }

    /// How many candidates below a node it allows.
    pub fn below(&self, node: Node) -> usize {
        let lo = node.first_row();
        let hi = lo + node.count();
        match node.count() {
            1 => usize::from(self.bits[lo / WORD] >> (lo % WORD) & 1 == 1),
            _ => self.rank(hi) - self.rank(lo),
        }
    }

    /// Whether it allows an item; false for items that are not there.
    pub fn allows(&self, trie: &Trie, item: u32) -> bool {
        trie.row_of(item).is_ok_and(|row| self.bits[row / WORD] >> (row % WORD) & 1 == 1)
    }

    /// Bits of the rows before `row`.
    fn rank(&self, row: usize) -> usize {
        let block = row / BLOCK;
        let (from, to) = (block * BLOCK / WORD, row / WORD);
        let whole: u32 = self.bits[from..to].iter().map(|word| word.count_ones()).sum();
        let part = row % WORD;
        let rest = if part > 0 { (self.bits[to] & ((1 << part) - 1)).count_ones() } else { 0 };
        (self.before[block] + whole + rest) as usize
    }

    /// That it was made for a trie of so many candidates.
    fn belongs(&self, rows: usize) -> Result<()> {
        Error::query("filter")
            .expected(format!("a filter for {rows} candidates"))
            .found(self.rows.to_string())
            .fix_if(self.rows != rows, "make the filter for the trie that is searched")
    }
}

/// Visits the rows of identifiers none of whose prefixes is refused.
fn descend(
    trie: &Trie,
    node: Node,
    prefix: &mut Vec<u16>,
    allowed: &mut impl FnMut(&[u16]) -> bool,
    visit: &mut impl FnMut(usize),
) {
    if node.depth() == trie.levels() {
        return visit(node.first_row());
    }
    for (token, child) in trie.children(node) {
        prefix.push(token);
        if allowed(prefix) {
            descend(trie, child, prefix, allowed, visit);
        }
        prefix.pop();
    }
}

/// What queries may be answered with.
#[derive(Debug, Clone, Copy, Default)]
pub enum Filters<'a> {
    /// All candidates.
    #[default]
    None,
    /// The same candidates for every query.
    Same(&'a Filter),
    /// Candidates for each query; all where there is no filter.
    Each(&'a [Option<&'a Filter>]),
}

impl<'a> Filters<'a> {
    /// The filter of a query.
    pub fn of(&self, query: usize) -> Option<&'a Filter> {
        match self {
            Self::None => None,
            Self::Same(filter) => Some(filter),
            Self::Each(filters) => filters[query],
        }
    }

    /// Whether these are filters of so many candidates, for so many queries.
    pub(crate) fn check(&self, candidates: usize, queries: usize) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Same(filter) => filter.belongs(candidates),
            Self::Each(filters) if filters.len() != queries => Err(Error::query("filters")
                .expected(format!("{queries}, one per query"))
                .found(filters.len().to_string())
                .fix("give every query a filter, or none")),
            Self::Each(filters) => {
                filters.iter().flatten().try_for_each(|filter| filter.belongs(candidates))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identifier::{Codes, LevelSizes};

    /// Items in an order that is not the trie's.
    fn trie(n: usize) -> Trie {
        let rows: Vec<[u16; 2]> =
            (0..n).map(|i| (i * 7919) % n).map(|i| [(i / 50) as u16, (i % 50) as u16]).collect();
        let sizes = vec![n.div_ceil(50), 50];
        Trie::build(&Codes::from_rows(2, &rows).unwrap(), &LevelSizes::new(sizes).unwrap()).unwrap()
    }

    proptest! {
        /// Twin: counting one by one.
        #[test]
        fn counts_are_those_of_the_list(n in 1usize..1700, seed in 0u32..1000) {
            prop_assume!(n % 7919 != 0);
            let trie = trie(n);
            let chosen = |item: u32| (item.wrapping_mul(2654435761) ^ seed) % 5 < 2;
            let listed: Vec<u32> = (0..n as u32).filter(|&item| chosen(item)).collect();
            let filter = Filter::allow(&trie, listed.iter().copied().chain(listed.clone())).unwrap();
            prop_assert_eq!(filter.count(), listed.len());
            prop_assert_eq!(&filter, &Filter::by_item(&trie, chosen));
            prop_assert_eq!(&filter, &Filter::by_prefix(&trie, |prefix| {
                prefix.len() < 2 || chosen(trie.item_of(prefix).unwrap())
            }));
            let rest = Filter::deny(&trie, listed).unwrap();
            prop_assert_eq!(&rest, &filter.not());
            prop_assert_eq!(filter.and(&rest).unwrap().count(), 0);
            prop_assert_eq!(filter.or(&rest).unwrap().count(), n);
            let mut nodes = vec![trie.root()];
            while let Some(node) = nodes.pop() {
                let expected = trie.items(node).iter().filter(|&&item| chosen(item)).count();
                prop_assert_eq!(filter.below(node), expected);
                nodes.extend(trie.children(node).map(|(_, child)| child));
            }
            for item in 0..n as u32 {
                prop_assert_eq!(filter.allows(&trie, item), chosen(item));
            }
            prop_assert!(!filter.allows(&trie, n as u32));
        }
    }

    #[test]
    fn a_refused_prefix_is_not_looked_below() {
        let trie = trie(120);
        let mut asked = Vec::new();
        let filter = Filter::by_prefix(&trie, |prefix| {
            asked.push(prefix.to_vec());
            prefix[0] != 1
        });
        assert_eq!(filter.count(), 70);
        assert!(asked.iter().all(|prefix| prefix[0] != 1 || prefix.len() == 1));
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let (small, large) = (trie(10), trie(20));
        assert!(Filter::allow(&small, [10]).unwrap_err().to_string().contains("10"));
        let (a, b) = (Filter::allow(&small, [1]).unwrap(), Filter::allow(&large, [1]).unwrap());
        assert!(a.and(&b).is_err() && b.or(&a).is_err());
        assert!(Filters::Same(&a).check(20, 1).is_err());
        assert!(Filters::Each(&[Some(&a), None]).check(10, 1).is_err());
        assert!(Filters::Each(&[Some(&a), Some(&b)]).check(10, 2).is_err());
        assert!(Filters::Each(&[Some(&a), None]).check(10, 2).is_ok());
        assert!(Filters::None.check(3, 4).is_ok());
    }
}
