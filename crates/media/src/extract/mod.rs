//! From files of media to the features of a data folder.

mod annotations;
mod json;
mod publish;
mod report;
mod run;
mod state;
#[cfg(test)]
mod tests;

pub use report::{ExtractConfig, ExtractProgress, Extracted, Failure, UnknownIds};
pub use run::Extraction;
