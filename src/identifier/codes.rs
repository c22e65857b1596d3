//! A flat table of tokens, one row per item.

use crate::error::{Error, Result};

/// Tokens of many items: `[len, levels]`, row-major, 16 bits each.
///
/// # Example
/// ```
/// use cart_retrieval::expert::Codes;
/// let codes = Codes::from_rows(2, &[[3, 1], [0, 5]])?;
/// assert_eq!(codes.row(1), &[0, 5]);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Codes {
    levels: usize,
    data: Vec<u16>,
}

impl Codes {
    /// An empty table with `levels` columns.
    pub fn new(levels: usize) -> Self {
        Self { levels, data: Vec::new() }
    }

    /// A table over a flat buffer of `[len, levels]` tokens.
    ///
    /// # Errors
    /// [`Error::Identifier`] when `levels` is zero or the buffer is no whole number of rows.
    pub fn from_flat(levels: usize, data: Vec<u16>) -> Result<Self> {
        if levels == 0 || !data.len().is_multiple_of(levels) {
            return Err(Error::identifier("token table")
                .expected("a whole number of rows of at least one level")
                .found(format!("{} tokens in rows of {levels}", data.len()))
                .fix("pass one token per level for every item"));
        }
        Ok(Self { levels, data })
    }

    /// A table from rows.
    ///
    /// # Errors
    /// [`Error::Identifier`] when a row has another number of levels.
    pub fn from_rows<R: AsRef<[u16]>>(levels: usize, rows: &[R]) -> Result<Self> {
        let mut data = Vec::with_capacity(levels * rows.len());
        for (index, row) in rows.iter().enumerate() {
            let row = row.as_ref();
            if row.len() != levels {
                return Err(Error::identifier(format!("row {index}"))
                    .expected(format!("{levels} tokens"))
                    .found(row.len().to_string())
                    .fix("give every item one token per level"));
            }
            data.extend_from_slice(row);
        }
        Self::from_flat(levels, data)
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.data.len().checked_div(self.levels).unwrap_or(0)
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Tokens per item.
    pub fn levels(&self) -> usize {
        self.levels
    }

    /// Tokens of one item.
    ///
    /// # Panics
    /// When `item` is out of range.
    pub fn row(&self, item: usize) -> &[u16] {
        &self.data[item * self.levels..(item + 1) * self.levels]
    }

    /// All rows in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[u16]> {
        self.data.chunks_exact(self.levels.max(1))
    }

    /// The flat buffer, `[len, levels]` row-major.
    pub fn as_flat(&self) -> &[u16] {
        &self.data
    }

    /// Appends one row.
    ///
    /// # Panics
    /// When the row has another number of levels.
    pub fn push(&mut self, row: &[u16]) {
        assert_eq!(row.len(), self.levels, "a row has one token per level");
        self.data.extend_from_slice(row);
    }

    /// The first `levels` columns.
    pub fn prefix(&self, levels: usize) -> Self {
        let levels = levels.min(self.levels);
        let data = self.rows().flat_map(|row| row[..levels].iter().copied()).collect();
        Self { levels, data }
    }

    /// Columns of `self` followed by the columns of `other`.
    ///
    /// # Panics
    /// When the two have different numbers of items.
    pub fn join(&self, other: &Self) -> Self {
        assert_eq!(self.len(), other.len(), "both tables have one row per item");
        let mut data = Vec::with_capacity(self.data.len() + other.data.len());
        for (left, right) in self.rows().zip(other.rows()) {
            data.extend_from_slice(left);
            data.extend_from_slice(right);
        }
        Self { levels: self.levels + other.levels, data }
    }
}
