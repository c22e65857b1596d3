//! What was taken from the files of a model.

use std::fmt;

/// Names of tensors that the text of a report holds.
const SHOWN: usize = 6;

/// What was taken from the files of a pretrained model, and what was not.
///
/// As text it names the first tensors that were not used; `unused` names all.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// Number of tensors that were used.
    pub used: usize,
    /// Number of parameters in them.
    pub parameters: usize,
    /// Names of the tensors that were not used, in order: heads, poolers, decoders, other towers.
    pub unused: Vec<String>,
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tensors of {:.2} M parameters", self.used, self.parameters as f64 / 1e6)?;
        let some = &self.unused[..self.unused.len().min(SHOWN)];
        match self.unused.len() - some.len() {
            _ if some.is_empty() => Ok(()),
            0 => write!(f, "; not used: {}", some.join(", ")),
            more => write!(f, "; not used: {} and {more} more", some.join(", ")),
        }
    }
}
