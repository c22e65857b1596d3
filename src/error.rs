//! The library's error: every message says what was expected, what was found and what to do.

use std::{fmt, io, path::PathBuf};

/// Shorthand for results of this library.
pub type Result<T> = std::result::Result<T, Error>;

/// One thing that is wrong, in the parts every message carries.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// What the message is about: a file and line, a parameter, a tensor.
    pub subject: String,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// What the reader can do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: expected {}, found {}; {}",
            self.subject, self.expected, self.found, self.remedy
        )
    }
}

/// Everything that a user's data, files or settings can cause.
///
/// Variants name the part of the library that refused; the [`Problem`] inside says what to do.
///
/// # Example
/// ```
/// use cart_retrieval::error::Error;
/// let error = Error::config("levels", "at least one level", "none", "pass a size for each level");
/// assert_eq!(
///     error.to_string(),
///     "configuration: levels: expected at least one level, found none; pass a size for each level"
/// );
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("cannot {action} {}: {source}; {remedy}", path.display())]
    Io {
        /// What was tried, as a verb: "read", "write", "create".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
        /// What to do.
        remedy: String,
    },
    /// A parameter is out of range or two parameters contradict each other.
    #[error("configuration: {0}")]
    Config(Problem),
    /// A feature matrix is malformed.
    #[error("features: {0}")]
    Features(Problem),
    /// Item ids are missing, duplicated or unknown.
    #[error("ids: {0}")]
    Ids(Problem),
    /// A captions file is malformed or contradicts the candidates.
    #[error("captions: {0}")]
    Captions(Problem),
    /// A splits file is malformed or contradicts the candidates.
    #[error("splits: {0}")]
    Splits(Problem),
    /// Metadata of candidates is malformed.
    #[error("metadata: {0}")]
    Metadata(Problem),
    /// A picture, sound or video cannot be read.
    #[error("media: {0}")]
    Media(Problem),
    /// A tokenizer cannot be trained, loaded or used.
    #[error("tokenizer: {0}")]
    Tokenizer(Problem),
    /// A quantizer cannot be fitted or applied.
    #[error("quantizer: {0}")]
    Quantizer(Problem),
    /// A fitted quantizer is too unhealthy to train a decoder on.
    #[error("collapsed quantizer: {0}")]
    Collapsed(Problem),
    /// An identifier or prefix is malformed or unknown.
    #[error("identifier: {0}")]
    Identifier(Problem),
    /// A saved index is malformed, corrupt or of another format.
    #[error("index: {0}")]
    Index(Problem),
    /// Weights do not fit the model.
    #[error("model: {0}")]
    Model(Problem),
    /// A training checkpoint is missing, corrupt or of another run.
    #[error("checkpoint: {0}")]
    Checkpoint(Problem),
    /// Training cannot start or continue.
    #[error("training: {0}")]
    Training(Problem),
    /// A query cannot be answered.
    #[error("query: {0}")]
    Query(Problem),
    /// A backend or a device is missing or does not work.
    #[error("device: {0}")]
    Device(Problem),
    /// An output would overwrite something else, or cannot be written.
    #[error("output: {0}")]
    Output(Problem),
    /// The caller asked to stop; what was finished is kept.
    #[error("interrupted: {0}")]
    Interrupted(Problem),
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $variant:ident),* $(,)?) => {
        impl Error {
            $(
                $(#[$doc])*
                pub fn $name(
                    subject: impl Into<String>,
                    expected: impl Into<String>,
                    found: impl Into<String>,
                    remedy: impl Into<String>,
                ) -> Self {
                    Self::$variant(Problem {
                        subject: subject.into(),
                        expected: expected.into(),
                        found: found.into(),
                        remedy: remedy.into(),
                    })
                }
            )*
        }
    };
}

constructors! {
    /// A [`Error::Config`].
    config => Config,
    /// A [`Error::Features`].
    features => Features,
    /// A [`Error::Ids`].
    ids => Ids,
    /// A [`Error::Captions`].
    captions => Captions,
    /// A [`Error::Splits`].
    splits => Splits,
    /// A [`Error::Metadata`].
    metadata => Metadata,
    /// A [`Error::Media`].
    media => Media,
    /// A [`Error::Tokenizer`].
    tokenizer => Tokenizer,
    /// A [`Error::Quantizer`].
    quantizer => Quantizer,
    /// A [`Error::Collapsed`].
    collapsed => Collapsed,
    /// A [`Error::Identifier`].
    identifier => Identifier,
    /// A [`Error::Index`].
    index => Index,
    /// A [`Error::Model`].
    model => Model,
    /// A [`Error::Checkpoint`].
    checkpoint => Checkpoint,
    /// A [`Error::Training`].
    training => Training,
    /// A [`Error::Query`].
    query => Query,
    /// A [`Error::Device`].
    device => Device,
    /// A [`Error::Output`].
    output => Output,
    /// A [`Error::Interrupted`].
    interrupted => Interrupted,
}

impl Error {
    /// Names the part that the subject belongs to, in front of it.
    pub(crate) fn within(mut self, part: impl fmt::Display) -> Self {
        if let Some(problem) = self.problem_mut() {
            problem.subject = format!("{part}: {}", problem.subject);
        }
        self
    }

    /// Adds to what the reader can do.
    pub(crate) fn or_else(mut self, remedy: &str) -> Self {
        if let Some(problem) = self.problem_mut() {
            problem.remedy = format!("{} ({remedy})", problem.remedy);
        }
        self
    }

    fn problem_mut(&mut self) -> Option<&mut Problem> {
        match self {
            Self::Io { .. } => None,
            Self::Config(problem)
            | Self::Features(problem)
            | Self::Ids(problem)
            | Self::Captions(problem)
            | Self::Splits(problem)
            | Self::Metadata(problem)
            | Self::Media(problem)
            | Self::Tokenizer(problem)
            | Self::Quantizer(problem)
            | Self::Collapsed(problem)
            | Self::Identifier(problem)
            | Self::Index(problem)
            | Self::Model(problem)
            | Self::Checkpoint(problem)
            | Self::Training(problem)
            | Self::Query(problem)
            | Self::Device(problem)
            | Self::Output(problem)
            | Self::Interrupted(problem) => Some(problem),
        }
    }

    /// An [`Error::Io`]; the remedy follows from the kind of the operating system's error.
    pub fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let remedy = match source.kind() {
            io::ErrorKind::NotFound => "check the path",
            io::ErrorKind::PermissionDenied => "check the permissions of the file and its folder",
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free some space; nothing was replaced"
            }
            io::ErrorKind::ReadOnlyFilesystem => {
                "the file system is read-only; choose another place"
            }
            io::ErrorKind::UnexpectedEof => "the file is truncated; make or fetch it again",
            io::ErrorKind::IsADirectory => "name a file, not a folder",
            io::ErrorKind::NotADirectory => "name a folder, not a file",
            _ => "check the device and the path",
        };
        Self::Io { action, path: path.into(), source, remedy: remedy.to_string() }
    }
}
