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
/// use cart_retrieval::Error;
/// let error = Error::config("levels")
///     .expected("at least one level")
///     .found("none")
///     .fix("pass a size for each level");
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

/// A [`Problem`] in the making: its parts are named and come in the order of the message.
///
/// # Example
/// ```
/// use cart_retrieval::Error;
/// let error = Error::config("k").expected("at least 1").found("0").fix("pass a positive k");
/// assert_eq!(
///     error.to_string(),
///     "configuration: k: expected at least 1, found 0; pass a positive k"
/// );
/// ```
#[must_use = "a problem becomes an error by `fix`"]
#[derive(Debug, Clone)]
pub struct ProblemBuilder<const PARTS: usize> {
    problem: Problem,
    make: fn(Problem) -> Error,
}

impl ProblemBuilder<0> {
    fn new(subject: String, make: fn(Problem) -> Error) -> Self {
        let empty = String::new;
        let problem = Problem { subject, expected: empty(), found: empty(), remedy: empty() };
        Self { problem, make }
    }

    /// What would have been right.
    pub fn expected(mut self, expected: impl Into<String>) -> ProblemBuilder<1> {
        self.problem.expected = expected.into();
        ProblemBuilder { problem: self.problem, make: self.make }
    }
}

impl ProblemBuilder<1> {
    /// What was there instead.
    pub fn found(mut self, found: impl Into<String>) -> ProblemBuilder<2> {
        self.problem.found = found.into();
        ProblemBuilder { problem: self.problem, make: self.make }
    }
}

impl ProblemBuilder<2> {
    /// What the reader can do about it.
    pub fn fix(mut self, remedy: impl Into<String>) -> Error {
        self.problem.remedy = remedy.into();
        (self.make)(self.problem)
    }

    /// [`fix`](Self::fix) for a check: an error if the condition holds, and `Ok` if it does not.
    ///
    /// The parts of the message are made in both cases: not for inner loops.
    ///
    /// # Errors
    /// The problem, if `wrong`.
    pub(crate) fn fix_if(self, wrong: bool, remedy: impl Into<String>) -> Result<()> {
        if wrong { Err(self.fix(remedy)) } else { Ok(()) }
    }
}

/// Checks that a setting lies in an interval, which is written as in a book: `[0, 1)` holds 0 and
/// not 1.
///
/// # Errors
/// [`Error::Config`] with the interval, the number and the remedy.
///
/// # Panics
/// When the interval is none.
#[doc(hidden)]
pub fn ensure_in(name: &str, number: f64, interval: &str, remedy: &str) -> Result<()> {
    let ends = interval.trim_matches(['[', '(', ')', ']']).split_once(", ");
    let ends = ends.and_then(|(low, high)| Some((low.parse().ok()?, high.parse().ok()?)));
    let (low, high): (f64, f64) = ends.expect("an interval has two ends");
    let above = if interval.starts_with('[') { number >= low } else { number > low };
    let below = if interval.ends_with(']') { number <= high } else { number < high };
    if above && below {
        return Ok(());
    }
    Err(Error::config(name)
        .expected(format!("a number in {interval}"))
        .found(number.to_string())
        .fix(remedy))
}

/// Checks that a list has elements, and that all are in an interval: [`ensure_in`].
///
/// # Errors
/// [`Error::Config`] with the interval, what was found and the remedy.
pub(crate) fn ensure_all_in(
    name: &str,
    numbers: &[f64],
    interval: &str,
    remedy: &str,
) -> Result<()> {
    let expected = format!("at least one number in {interval}");
    Error::config(name).expected(expected).found("none").fix_if(numbers.is_empty(), remedy)?;
    numbers.iter().try_for_each(|&number| ensure_in(name, number, interval, remedy))
}

/// Fields of a value, each with its name.
macro_rules! named {
    ($value:expr, $($field:ident),+ $(,)?) => {
        [$((stringify!($field), $value.$field)),+]
    };
}
pub(crate) use named;

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $variant:ident),* $(,)?) => {
        impl Error {
            $(
                $(#[$doc])*
                pub fn $name(subject: impl Into<String>) -> ProblemBuilder<0> {
                    ProblemBuilder::new(subject.into(), Self::$variant)
                }
            )*
        }
    };
}

constructors! {
    /// A [`Error::Config`] about this subject.
    config => Config,
    /// A [`Error::Features`] about this subject.
    features => Features,
    /// A [`Error::Ids`] about this subject.
    ids => Ids,
    /// A [`Error::Captions`] about this subject.
    captions => Captions,
    /// A [`Error::Splits`] about this subject.
    splits => Splits,
    /// A [`Error::Metadata`] about this subject.
    metadata => Metadata,
    /// A [`Error::Media`] about this subject.
    media => Media,
    /// A [`Error::Tokenizer`] about this subject.
    tokenizer => Tokenizer,
    /// A [`Error::Quantizer`] about this subject.
    quantizer => Quantizer,
    /// A [`Error::Collapsed`] about this subject.
    collapsed => Collapsed,
    /// A [`Error::Identifier`] about this subject.
    identifier => Identifier,
    /// A [`Error::Index`] about this subject.
    index => Index,
    /// A [`Error::Model`] about this subject.
    model => Model,
    /// A [`Error::Checkpoint`] about this subject.
    checkpoint => Checkpoint,
    /// A [`Error::Training`] about this subject.
    training => Training,
    /// A [`Error::Query`] about this subject.
    query => Query,
    /// A [`Error::Device`] about this subject.
    device => Device,
    /// A [`Error::Output`] about this subject.
    output => Output,
    /// A [`Error::Interrupted`] about this subject.
    interrupted => Interrupted,
}

impl Error {
    /// Names the part that the subject belongs to, in front of it.
    pub(crate) fn within(self, part: impl fmt::Display) -> Self {
        self.about(|subject| format!("{part}: {subject}"))
    }

    /// Changes the subject.
    pub(crate) fn about(mut self, change: impl FnOnce(&str) -> String) -> Self {
        if let Some(problem) = self.problem_mut() {
            problem.subject = change(&problem.subject);
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
