//! Settings of a program that captions.

use std::path::PathBuf;

use cart_retrieval::{Error, Result};
use serde::{Deserialize, Serialize};

use super::super::check_weight;

/// Settings of a [`CommandCaptioner`](super::CommandCaptioner).
///
/// The program is started as it is, without a shell, once for every batch of items. It reads JSON
/// lines from its standard input until that ends, `{"id": "..", "path": ".."}` (with `"span":
/// [from, to]` in seconds where a part of a file is meant; without `path` where the job knows no
/// files), and writes JSON lines `{"id": "..", "caption": ".."}`, optionally with `"weight"`, to
/// its standard output, in any order. It ends with the exit status 0. What it writes to its
/// standard error is quoted when it fails.
///
/// # Example
/// ```
/// use cart_media::captioner::CommandConfig;
/// let config: CommandConfig = serde_json::from_str(
///     r#"{"program": "python3", "args": ["blip.py", "--model", "large"], "source": "blip-large", "weight": 0.5}"#,
/// ).unwrap();
/// assert_eq!((config.batch, config.per_item), (1024, 1));
/// config.validate()?;
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandConfig {
    /// The program: a path, or a name that is looked up in `PATH`.
    pub program: PathBuf,
    /// What it is started with.
    #[serde(default)]
    pub args: Vec<String>,
    /// Source of its captions; without one, the program's file name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Weight of its captions, times the one that it gives, if it gives any.
    #[serde(default = "one")]
    pub weight: f32,
    /// Most captions of an item.
    #[serde(default = "single")]
    pub per_item: usize,
    /// Items a start of the program. What a batch gave is kept as soon as it is done.
    #[serde(default = "batch")]
    pub batch: usize,
    /// Seconds that a batch may take.
    #[serde(default = "seconds")]
    pub seconds: f64,
    /// Bytes that the program may write for a batch.
    #[serde(default = "most_bytes")]
    pub most_bytes: usize,
}

fn one() -> f32 {
    1.0
}

fn single() -> usize {
    1
}

fn batch() -> usize {
    1024
}

fn seconds() -> f64 {
    3600.0
}

fn most_bytes() -> usize {
    64 << 20
}

impl CommandConfig {
    /// A program without arguments: one caption an item, 1024 items a batch, an hour and 64 MiB for
    /// each.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            source: None,
            weight: one(),
            per_item: single(),
            batch: batch(),
            seconds: seconds(),
            most_bytes: most_bytes(),
        }
    }

    /// Sets the arguments.
    pub fn with_args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args = args.into_iter().map(Into::into).collect();
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] for no program, a blank source, counts of 0, or a weight or time that is
    /// not above 0.
    pub fn validate(&self) -> Result<()> {
        let wrong = |name: &str, expected: &str, found: String, remedy: &str| {
            Err(Error::config(format!("{name} of the captioner"))
                .expected(expected)
                .found(found)
                .fix(remedy))
        };
        if self.program.as_os_str().is_empty() {
            let remedy = "name one, such as `python3`";
            return wrong("program", "a program", "none".into(), remedy);
        }
        if self.source.as_ref().is_some_and(|source| source.trim().is_empty()) {
            let remedy = "name the captioner's model, or leave it out";
            return wrong("source", "a name", format!("{:?}", self.source), remedy);
        }
        for (name, count) in
            [("per_item", self.per_item), ("batch", self.batch), ("most_bytes", self.most_bytes)]
        {
            if count == 0 {
                return wrong(name, "at least 1", "0".into(), "leave it out for the default");
            }
        }
        if self.seconds.is_nan() || self.seconds <= 0.0 {
            let remedy = "leave it out for an hour a batch";
            return wrong("seconds", "a time above 0", self.seconds.to_string(), remedy);
        }
        check_weight(self.weight)
    }

    /// The command, for messages.
    pub(super) fn shown(&self) -> String {
        format!("captioner `{}`", self.program.display())
    }
}
