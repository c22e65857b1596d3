//! Columns of tokens as narrow as their level.

use crate::storage::Array;

/// The tokens of a level by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Column {
    /// A level of one token needs none.
    Zeros(usize),
    /// Up to 256 tokens.
    Bytes(Array<u8>),
    /// Up to 65,536.
    Words(Array<u16>),
}

impl Column {
    /// Bytes that a token of a level of this size takes.
    pub(super) fn width(size: usize) -> usize {
        match size {
            0 | 1 => 0,
            2..=256 => 1,
            _ => 2,
        }
    }

    /// A column for a level of this size, given the token of every row.
    pub(super) fn collect(size: usize, tokens: impl Iterator<Item = u16>) -> Self {
        match Self::width(size) {
            0 => Self::Zeros(tokens.count()),
            1 => Self::Bytes(tokens.map(|token| token as u8).collect::<Vec<_>>().into()),
            _ => Self::Words(tokens.collect::<Vec<_>>().into()),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Zeros(len) => *len,
            Self::Bytes(bytes) => bytes.len(),
            Self::Words(words) => words.len(),
        }
    }

    pub(super) fn token(&self, row: usize) -> u16 {
        match self {
            Self::Zeros(_) => 0,
            Self::Bytes(bytes) => u16::from(bytes[row]),
            Self::Words(words) => words[row],
        }
    }

    /// How many rows from `lo` on have the token of row `lo`, where rows `lo..hi` are sorted.
    pub(super) fn run(&self, lo: usize, hi: usize) -> usize {
        match self {
            Self::Zeros(_) => hi - lo,
            Self::Bytes(bytes) => run_length(&bytes[lo..hi]),
            Self::Words(words) => run_length(&words[lo..hi]),
        }
    }

    /// The rows of `lo..hi` that have a token, where these are sorted.
    pub(super) fn rows_of(&self, lo: usize, hi: usize, token: u16) -> (usize, usize) {
        let range = match self {
            Self::Zeros(_) if token == 0 => (0, hi - lo),
            Self::Zeros(_) => (0, 0),
            Self::Bytes(bytes) => match u8::try_from(token) {
                Ok(token) => equal_range(&bytes[lo..hi], token),
                Err(_) => (0, 0),
            },
            Self::Words(words) => equal_range(&words[lo..hi], token),
        };
        (lo + range.0, lo + range.1)
    }

    /// A token of the column that its level does not have.
    pub(super) fn beyond(&self, size: usize) -> Option<u16> {
        let beyond = |token: u16| usize::from(token) >= size;
        match self {
            Self::Zeros(_) => None,
            Self::Bytes(bytes) => bytes.iter().map(|&t| u16::from(t)).find(|&t| beyond(t)),
            Self::Words(words) => words.iter().copied().find(|&t| beyond(t)),
        }
    }

    /// Its bytes, little-endian.
    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Zeros(_) => Vec::new(),
            Self::Bytes(bytes) => bytes.to_vec(),
            Self::Words(words) => words.iter().flat_map(|word| word.to_le_bytes()).collect(),
        }
    }

    /// Bytes it takes in memory.
    pub(super) fn memory(&self) -> usize {
        match self {
            Self::Zeros(_) => 0,
            Self::Bytes(bytes) => bytes.len(),
            Self::Words(words) => 2 * words.len(),
        }
    }
}

fn equal_range<T: Copy + Ord>(sorted: &[T], token: T) -> (usize, usize) {
    let lo = sorted.partition_point(|&other| other < token);
    (lo, lo + sorted[lo..].partition_point(|&other| other == token))
}

/// How many entries at the start of a sorted slice equal its first: galloping, then halving.
fn run_length<T: Copy + PartialEq>(sorted: &[T]) -> usize {
    let Some(&first) = sorted.first() else { return 0 };
    let mut step = 1;
    while step < sorted.len() && sorted[step] == first {
        step *= 2;
    }
    let from = step / 2;
    let to = step.min(sorted.len());
    from + sorted[from..to].partition_point(|&token| token == first)
}
