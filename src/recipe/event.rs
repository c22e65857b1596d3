//! What a fit tells while it runs.

use std::fmt;

use crate::{quantizer::QuantizerEvent, train::TrainEvent};

/// What a fit tells while it runs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum FitEvent {
    /// Something worth a line of a log: a part that is done, what was found, or replaced.
    Note(String),
    /// Something that may be wrong, although the fit goes on.
    Warning(String),
    /// Progress of the quantizer.
    Quantizer(QuantizerEvent),
    /// Progress of the training.
    Training(TrainEvent),
}

impl fmt::Display for FitEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Note(text) | Self::Warning(text) => f.write_str(text),
            Self::Quantizer(event) => write!(f, "{event:?}"),
            Self::Training(event) => write!(f, "{event:?}"),
        }
    }
}
