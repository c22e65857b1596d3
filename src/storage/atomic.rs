//! Replacing a file in one step.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::error::{Error, Result};

/// Bytes gathered before each write to the file.
const BUFFER: usize = 1 << 16;

/// Writes a file so that readers see the old content or the new, never a part.
///
/// The content goes to a temporary file in the same folder, which is flushed, synced to the disk
/// and renamed over `path`; then the folder is synced (on Unix). On any error up to the rename, one
/// returned by `fill` included, the temporary file is removed and `path` is as it was. A symbolic
/// link at `path` is replaced by the file. The folder has to exist.
///
/// # Errors
/// [`Error::Io`] when the operating system refuses a step; whatever `fill` returns. Where it refuses to sync the
/// folder, `path` has the new content already.
///
/// # Example
/// ```
/// use std::io::Write;
/// use cart_retrieval::{Error, storage::write_atomic};
///
/// let folder = tempfile::tempdir().map_err(|source| Error::io("create", "folder", source))?;
/// let path = folder.path().join("note.txt");
/// write_atomic(&path, |file| {
///     file.write_all(b"two dogs").map_err(|source| Error::io("write", &path, source))
/// })?;
/// assert_eq!(std::fs::read(&path).ok().as_deref(), Some(&b"two dogs"[..]));
/// # Ok::<(), Error>(())
/// ```
pub fn write_atomic(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let refused = |source| Error::io("write", path, source);
    let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
        return Err(refused(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the path does not end in a file name",
        )));
    };
    let folder = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };

    let (temporary, file) = Temporary::create(folder, name.as_ref()).map_err(refused)?;
    let mut writer = BufWriter::with_capacity(BUFFER, file);
    fill(&mut writer)?;
    let file = writer.into_inner().map_err(|error| refused(error.into_error()))?;
    file.sync_all().map_err(refused)?;
    // Closed first: some systems do not rename an open file.
    drop(file);
    temporary.rename_to(path).map_err(refused)?;
    sync_folder(folder).map_err(refused)
}

/// A file that removes itself unless it was renamed, also when the writer panics.
struct Temporary {
    path: PathBuf,
    renamed: bool,
}

impl Temporary {
    fn create(folder: &Path, name: &Path) -> io::Result<(Self, File)> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let mut hidden = std::ffi::OsString::from(".");
            hidden.push(name);
            hidden.push(format!(".{}-{number}.tmp", process::id()));
            let path = folder.join(hidden);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((Self { path, renamed: false }, file)),
                // Left behind by a killed process that had the same id.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn rename_to(mut self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            // The error that led here is the one to report.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes the rename itself durable.
#[cfg(unix)]
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Other systems do not open folders as files; the rename is durable there once it returns.
#[cfg(not(unix))]
pub(crate) fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn put(path: &Path, bytes: &[u8]) -> Result<()> {
        write_atomic(path, |file| {
            file.write_all(bytes).map_err(|source| Error::io("write", path, source))
        })
    }

    #[test]
    fn replaces_the_file_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        put(&path, b"old").unwrap();
        put(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["a.bin"]);
    }

    #[test]
    fn an_error_while_filling_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        put(&path, b"old").unwrap();
        let error = write_atomic(&path, |file| {
            file.write_all(b"half").map_err(|source| Error::io("write", &path, source))?;
            Err(Error::index("a", "b", "c", "d"))
        });
        assert!(matches!(error, Err(Error::Index(_))));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["a.bin"]);
    }

    #[test]
    fn a_panic_while_filling_leaves_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        let result = std::panic::catch_unwind(|| write_atomic(&path, |_| panic!("on purpose")));
        assert!(result.is_err());
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_rename_that_fails_leaves_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        assert!(matches!(put(&path, b"x"), Err(Error::Io { .. })));
        assert_eq!(names(folder.path()), ["taken"]);
    }

    #[test]
    fn bad_paths_are_io_errors() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().join("missing/a.bin"), folder.path().join(".."), "".into()] {
            assert!(matches!(put(&path, b"x"), Err(Error::Io { .. })), "{}", path.display());
        }
    }
}
