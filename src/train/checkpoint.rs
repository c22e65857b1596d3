//! The files of a checkpoint: their names, and whether they are what was written.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::storage::{hex, sha256_file};

/// Folder of the checkpoints inside a training's folder: burn-train's name for it.
pub(super) const FOLDER: &str = "checkpoint";
/// The files of a checkpoint, by burn-train's names.
pub(super) const PARTS: [&str; 3] = ["model", "optim", "scheduler"];
/// Their extension.
pub(super) const EXTENSION: &str = "mpk";

/// A part of a checkpoint, without extension.
pub(super) fn file(folder: &Path, part: &str, round: usize) -> PathBuf {
    folder.join(FOLDER).join(format!("{part}-{round}"))
}

/// Part and round of a checkpoint's file by its name; `None` for other files.
pub(super) fn part_of(name: &str) -> Option<(&'static str, usize)> {
    let (part, round) = name.strip_suffix(EXTENSION)?.strip_suffix('.')?.split_once('-')?;
    let part = PARTS.into_iter().find(|known| *known == part)?;
    // A round has one spelling.
    round.parse().ok().filter(|number: &usize| number.to_string() == round).map(|r| (part, r))
}

/// What is wrong with a file of a checkpoint.
#[derive(Debug)]
pub(super) enum Fault {
    Missing(String),
    Damaged(String),
}

impl Fault {
    /// What to tell of it.
    pub(super) fn reason(self) -> String {
        match self {
            Self::Missing(reason) | Self::Damaged(reason) => reason,
        }
    }
}

/// Checks that a part of a checkpoint is there and has the SHA-256 that was taken when it was
/// written; in a training of an older version, which took none, that it is there.
pub(super) fn check(
    folder: &Path,
    part: &str,
    round: usize,
    sums: &BTreeMap<String, String>,
) -> std::result::Result<(), Fault> {
    let path = file(folder, part, round).with_extension(EXTENSION);
    let name = || path.file_name().unwrap_or_default().display().to_string();
    if !path.exists() {
        return Err(Fault::Missing(format!("{} is missing", name())));
    }
    let Some(sum) = sums.get(part) else {
        return Ok(());
    };
    match sha256_file(&path) {
        Ok(found) if hex(&found) == *sum => Ok(()),
        Ok(_) => Err(Fault::Damaged(format!("{} has changed: its SHA-256 differs", name()))),
        Err(error) => Err(Fault::Damaged(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::recorder::write_item;

    #[test]
    fn names_of_checkpoints_are_told_from_others() {
        assert_eq!(part_of("model-12.mpk"), Some(("model", 12)));
        assert_eq!(part_of("scheduler-0.mpk"), Some(("scheduler", 0)));
        for other in ["model-12", "model-+2.mpk", "model-02.mpk", "models-2.mpk", "model-2.mpk.bak"]
        {
            assert_eq!(part_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_part_that_is_missing_or_changed_is_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(FOLDER)).unwrap();
        let path = file(folder.path(), "model", 3).with_extension(EXTENSION);
        let sum = write_item(&path, &[1.5f32, 2.5]).unwrap();
        let sums = BTreeMap::from([("model".to_string(), sum)]);
        check(folder.path(), "model", 3, &sums).unwrap();
        let missing = check(folder.path(), "model", 4, &sums).unwrap_err();
        assert!(matches!(missing, Fault::Missing(_)));
        let good = std::fs::read(&path).unwrap();
        for bit in 0..8 * good.len() {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, bytes).unwrap();
            let fault = check(folder.path(), "model", 3, &sums).unwrap_err();
            assert!(matches!(fault, Fault::Damaged(_)), "bit {bit}");
            // A training of an older version has no checksums.
            check(folder.path(), "model", 3, &BTreeMap::new()).unwrap();
        }
    }
}
