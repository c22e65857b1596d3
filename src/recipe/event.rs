//! Events of a fit.

use std::fmt;

use crate::{quantizer::QuantizerEvent, train::TrainEvent};

/// Events of a fit.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum FitEvent {
    /// A line for a log: a finished part, a result, or a replacement.
    Note(String),
    /// A possible problem; the fit continues.
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
