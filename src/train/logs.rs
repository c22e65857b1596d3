//! Logs of the metrics, in burn-train's layout: `train/epoch-1/Loss.log`, a value a line.
//!
//! burn-train's own logger panics where a file cannot be written, which ends the training. This one
//! says so once and goes on without.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use burn::train::{
    logger::MetricLogger,
    metric::{
        MetricDefinition, MetricEntry, MetricId, NumericEntry,
        store::{EpochSummary, MetricsUpdate, Split},
    },
};

use super::{TrainEvent, metric::Listener};
use crate::storage::fs;

/// Writes the metrics of a training below its folder.
pub(super) struct MetricLogs {
    folder: PathBuf,
    listener: Listener,
    names: HashMap<MetricId, String>,
    /// Open files by path, of one round.
    files: HashMap<PathBuf, BufWriter<File>>,
    round: usize,
    failed: bool,
}

impl MetricLogs {
    pub(super) fn new(folder: PathBuf, listener: Listener) -> Self {
        let (names, files) = (HashMap::new(), HashMap::new());
        Self { folder, listener, names, files, round: 0, failed: false }
    }

    fn path(&self, entry: &MetricEntry, split: &Split) -> Option<PathBuf> {
        let name = self.names.get(&entry.metric_id)?.replace(' ', "_");
        let folder = self.folder.join(split.to_string()).join(format!("epoch-{}", self.round));
        Some(folder.join(name).with_extension("log"))
    }

    fn write(&mut self, path: &Path, line: &str) -> io::Result<()> {
        if !self.files.contains_key(path) {
            let file = create(path)?;
            self.files.insert(path.to_path_buf(), BufWriter::new(file));
        }
        match self.files.get_mut(path) {
            Some(file) => writeln!(file, "{line}"),
            None => Ok(()),
        }
    }

    fn flush(&mut self) {
        let flush = |(path, mut file): (PathBuf, BufWriter<File>)| {
            let result = file.flush();
            // What could not be written is given up, not tried again.
            let _ = file.into_parts();
            result.err().map(|error| (path, error))
        };
        if let Some((path, error)) = self.files.drain().filter_map(flush).last() {
            self.fail(&path, &error);
        }
    }

    fn fail(&mut self, path: &Path, error: &io::Error) {
        self.files.drain().for_each(|(_, file)| drop(file.into_parts()));
        if !std::mem::replace(&mut self.failed, true) {
            let reason = format!("{}: {error}", path.display());
            (self.listener)(TrainEvent::LogFailed { reason });
        }
    }
}

/// Creates a log, or empties the one of a round that was begun before.
fn create(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = fs::open_or_create(path)?;
    fs::set_len(&file, path, 0)?;
    Ok(file)
}

impl MetricLogger for MetricLogs {
    fn log(&mut self, update: MetricsUpdate, epoch: usize, split: &Split) {
        if self.failed {
            return;
        }
        if self.round != epoch {
            self.flush();
            self.round = epoch;
        }
        let numeric = update.entries_numeric.iter().map(|update| &update.entry);
        for entry in update.entries.iter().chain(numeric) {
            let Some(path) = self.path(entry, split) else { continue };
            if let Err(error) = self.write(&path, &entry.serialized_entry.serialized) {
                self.fail(&path, &error);
                return;
            }
        }
    }

    /// Nothing here decides by the logs.
    fn read_numeric(
        &mut self,
        _name: &str,
        _epoch: usize,
        _split: &Split,
    ) -> Result<Vec<NumericEntry>, String> {
        Ok(Vec::new())
    }

    fn log_metric_definition(&mut self, definition: MetricDefinition) {
        self.names.insert(definition.metric_id, definition.name);
    }

    fn log_epoch_summary(&mut self, _summary: EpochSummary) {
        self.flush();
    }
}

impl Drop for MetricLogs {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use burn::train::metric::{MetricAttributes, SerializedEntry};

    use super::*;

    fn logged(folder: &Path, values: &[f64]) -> Vec<TrainEvent> {
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = events.clone();
        let listener: Listener = Arc::new(move |event| sink.lock().unwrap().push(event));
        let mut logs = MetricLogs::new(folder.to_path_buf(), listener);
        let metric_id = MetricId::new(Arc::new("Loss".to_string()));
        logs.log_metric_definition(MetricDefinition {
            metric_id: metric_id.clone(),
            name: "Loss".into(),
            description: None,
            attributes: MetricAttributes::None,
        });
        for value in values {
            let text = value.to_string();
            let entry =
                MetricEntry::new(metric_id.clone(), SerializedEntry::new(text.clone(), text));
            logs.log(MetricsUpdate::new(vec![entry], vec![]), 2, &Split::Train);
        }
        drop(logs);
        let events = events.lock().unwrap();
        events.clone()
    }

    #[test]
    fn values_are_written_and_a_log_that_cannot_be_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train/epoch-2/Loss.log");
        assert!(logged(folder.path(), &[0.5, 0.25, 1.0]).is_empty());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "0.5\n0.25\n1\n");
        assert!(logged(folder.path(), &[2.0]).is_empty());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "2\n");
        std::fs::remove_dir_all(folder.path().join("train")).unwrap();
        std::fs::write(folder.path().join("train"), "a file").unwrap();
        let events = logged(folder.path(), &[1.0, 2.0]);
        assert!(
            matches!(&events[..], [TrainEvent::LogFailed { reason }] if reason.contains("Loss.log")),
            "{events:?}"
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_ends_the_log_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train/epoch-2");
        std::fs::create_dir_all(&path).unwrap();
        std::os::unix::fs::symlink("/dev/full", path.join("Loss.log")).unwrap();
        let events = logged(folder.path(), &[1.0; 9000]);
        assert!(matches!(&events[..], [TrainEvent::LogFailed { .. }]), "{events:?}");
    }
}
