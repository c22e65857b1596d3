//! What a candidate's vector would be without the text at hand.

use crate::error::{Error, Result};

/// For every training text, the vector of its candidate made without that text, and without that
/// candidate in the regression.
///
/// A candidate whose vector is made from its training texts lies closer to them than to any query
/// it will meet. A training that sees that vector learns to trust it too much; it should see this
/// one.
#[derive(Debug, Clone, PartialEq)]
pub struct LeaveOneOut {
    dim: usize,
    values: Vec<f32>,
}

impl LeaveOneOut {
    /// Takes vectors in the order of the training texts.
    ///
    /// # Shapes
    /// - `values`: `[texts, dim]`
    ///
    /// # Errors
    /// [`Error::Training`] when that is no whole number of rows.
    pub fn new(dim: usize, values: Vec<f32>) -> Result<Self> {
        let remedy = "pass a vector for every training text";
        Error::training("held-out vectors")
            .expected(format!("whole rows of {dim} numbers, at least one"))
            .found(format!("{} numbers", values.len()))
            .fix_if(dim == 0 || !values.len().is_multiple_of(dim), remedy)?;
        Ok(Self { dim, values })
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.values.len() / self.dim
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Width of the vectors.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The vector for a text, `[dim]`.
    ///
    /// # Panics
    /// When there is no such text.
    pub fn row(&self, text: usize) -> &[f32] {
        &self.values[text * self.dim..(text + 1) * self.dim]
    }
}
