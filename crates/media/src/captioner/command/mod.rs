//! Captions by a program of anyone's.

mod config;
mod lines;
mod process;
mod state;

use std::path::{Path, PathBuf};

use cart_retrieval::{
    Error, Result,
    cancel::Monitor,
    data::Captions,
    members::{fs, hex, sha256_file, write_bytes},
};
use serde::Serialize;
use sha2::{Digest, Sha256};

pub use self::config::CommandConfig;
use self::{lines::parse, process::run, state::State};
use super::{CaptionJob, CaptionProgress, Captioned, Captioner};

impl CommandConfig {
    /// The captioner of these settings.
    ///
    /// # Errors
    /// As [`CommandConfig::validate`].
    pub fn init(self) -> Result<CommandCaptioner> {
        self.validate()?;
        let name = || self.program.file_name().unwrap_or(self.program.as_os_str());
        let source = self.source.clone();
        let source = source.unwrap_or_else(|| name().to_string_lossy().into_owned());
        Ok(CommandCaptioner { config: self, source, state: None })
    }
}

/// Describes candidates by a program that reads paths and writes captions: [`CommandConfig`] says
/// how they talk.
///
/// With a folder for it, what finished batches gave is kept there, and the same job over the same
/// items goes on behind them.
///
/// # Example
/// ```no_run
/// use cart_media::{Modality, captioner::*, media_below};
/// use cart_retrieval::cancel::Monitor;
/// let media = media_below("pictures", &[Modality::Image])?.items;
/// let ids: Vec<&str> = media.iter().map(|item| item.id.as_str()).collect();
/// let job = CaptionJob::new(&ids)?.with_media("pictures", &media)?;
/// let captioner = CommandConfig::new("python3").with_args(["blip.py"]).init()?.with_state("captioning");
/// let monitor = Monitor::new().with_progress(|at: CaptionProgress| println!("{} of {}", at.done, at.total));
/// let made = captioner.caption(&job, &monitor)?;
/// captioner.save(&made.captions, "generated.jsonl")?;
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct CommandCaptioner {
    config: CommandConfig,
    source: String,
    state: Option<PathBuf>,
}

impl CommandCaptioner {
    /// Keeps finished batches in a folder, which is made where there is none.
    pub fn with_state(mut self, folder: impl Into<PathBuf>) -> Self {
        self.state = Some(folder.into());
        self
    }

    /// Removes the folder of finished batches, if there is one: after its captions were saved.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be removed.
    pub fn forget(&self) -> Result<()> {
        match &self.state {
            Some(folder) if folder.exists() => {
                fs::remove_dir_all(folder).map_err(|e| Error::io("remove", folder, e))
            }
            _ => Ok(()),
        }
    }
}

impl CommandCaptioner {
    /// Writes captions to a file and removes the folder of finished batches.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written, with the batches kept, or the folder cannot
    /// be removed.
    pub fn save(&self, captions: &Captions, file: impl AsRef<Path>) -> Result<()> {
        let bytes = captions.to_lines()?;
        if let Some(folder) = self.state.as_ref().filter(|folder| folder.exists()) {
            state::note_saved(folder, &hex(&Sha256::digest(&bytes)))?;
        }
        write_bytes(file, &bytes)?;
        self.forget()
    }

    /// Whether an earlier run wrote this file and was stopped before the folder of finished batches
    /// was removed, which is done then.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read or the folder not be removed.
    pub fn was_saved(&self, file: impl AsRef<Path>) -> Result<bool> {
        let Some(folder) = self.state.as_ref().filter(|_| file.as_ref().is_file()) else {
            return Ok(false);
        };
        let saved = state::saved(folder)?;
        // The checksum is the last file that is removed.
        let is_empty = std::fs::read_dir(folder).is_ok_and(|mut files| files.next().is_none());
        let same = is_empty || saved.is_some() && saved == Some(hex(&sha256_file(file)?));
        if same {
            self.forget()?;
        }
        Ok(same)
    }
}

/// An item, as the program reads it.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span: Option<(f64, f64)>,
}

/// The lines of all items.
fn input(job: &CaptionJob) -> Result<Vec<String>> {
    let line = |(at, id): (usize, &str)| {
        let item = job.media().map(|media| &media[at]);
        let path = item.and_then(|item| item.path.to_str());
        let line = Line { id, path, span: item.and_then(|item| item.span) };
        serde_json::to_string(&line).map_err(|e| {
            let remedy = "leave the item out";
            Error::captions(format!("item `{id}`"))
                .expected("a line of JSON")
                .found(e.to_string())
                .fix(remedy)
        })
    };
    job.ids().enumerate().map(line).collect()
}

impl Captioner for CommandCaptioner {
    fn source(&self) -> &str {
        &self.source
    }

    /// # Errors
    /// [`Error::Captions`] when the program is missing, fails, takes too long, writes too much, or
    /// writes anything but the lines that are asked for, which names the line; when no item at all
    /// gets a caption; when the folder of finished batches has those of another job.
    /// [`Error::Interrupted`] when stopped: the program is ended, finished batches are kept.
    fn caption(
        &self,
        job: &CaptionJob,
        monitor: &Monitor<'_, CaptionProgress>,
    ) -> Result<Captioned> {
        let ids: Vec<&str> = job.ids().collect();
        let lines = input(job)?;
        let state = match &self.state {
            Some(folder) => Some(State::open(folder, &self.config, &lines)?),
            None => None,
        };
        let (mut made, mut done) = (Captioned::default(), 0);
        let batches = ids.chunks(self.config.batch).zip(lines.chunks(self.config.batch));
        for (number, (ids, lines)) in batches.enumerate() {
            let kept = match &state {
                Some(state) => state.read(number, ids)?,
                None => None,
            };
            let batch = match kept {
                Some(batch) => {
                    made.resumed += ids.len();
                    batch
                }
                None if monitor.is_stopped() => return Err(self.interrupted(done, job.len())),
                None => {
                    let mut input = lines.join("\n");
                    input.push('\n');
                    let Some(output) =
                        run(&self.config, ids.len(), input, || monitor.is_stopped())?
                    else {
                        return Err(self.interrupted(done, job.len()));
                    };
                    let batch = parse(&self.config, ids, &output)?;
                    if let Some(state) = &state {
                        state.write(number, ids, &batch)?;
                    }
                    batch
                }
            };
            for (id, texts) in ids.iter().zip(&batch) {
                if texts.is_empty() {
                    made.without.push(id.to_string());
                }
                for (text, weight) in texts {
                    made.push(&self.source, id, text, self.config.weight * weight)?;
                }
            }
            done += ids.len();
            let without = made.without.len();
            monitor.report(CaptionProgress { done, without, total: job.len() });
        }
        if made.captions.is_empty() && !job.is_empty() {
            self.forget()?;
            return Err(Error::captions(self.config.shown())
                .expected(format!("a caption of at least one of {} items", job.len()))
                .found("none, and no failure")
                .fix("try the program by hand on a line of the input"));
        }
        Ok(made)
    }
}

impl CommandCaptioner {
    fn interrupted(&self, done: usize, of: usize) -> Error {
        let kept = match &self.state {
            Some(folder) => format!("which are kept in {}", folder.display()),
            None => "which are kept nowhere".into(),
        };
        Error::interrupted(self.config.shown())
            .expected(format!("captions of {of} items"))
            .found(format!("a stop after {done}, {kept}"))
            .fix("start it again with the same settings to continue")
    }
}

#[cfg(all(test, unix))]
mod tests;
