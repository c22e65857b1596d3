//! Replacing a file in one step.

use std::{
    ffi::OsString,
    fs::{self, File, TryLockError},
    io::{self, BufWriter},
    path::{Path, PathBuf},
};

use super::fs as calls;
use crate::error::{Error, Result};

/// Bytes gathered before each write to the file.
const BUFFER: usize = 1 << 16;

/// Writes a file so that readers see the old content or the new, never a part.
///
/// The content goes to a temporary file in the same folder, which is flushed, synced to the disk
/// and renamed over `path`; then the folder is synced (on Unix). On any error up to the rename, one
/// returned by `fill` included, the temporary file is removed and `path` is as it was. The folder
/// has to exist.
///
/// A symbolic link at `path` is replaced by the file, and what it points to stays as it is: so does
/// the content that a hard link shares. A device, a pipe or a folder at `path` is refused.
///
/// The temporary file is `.NAME.0.tmp`, locked while it is written. One that a killed process left
/// behind is removed by the next writer of the same file.
///
/// # Errors
/// [`Error::Io`] when the operating system refuses a step; whatever `fill` returns. Where it
/// refuses to sync the folder, `path` has the new content already.
///
/// # Example
/// ```
/// use std::io::Write;
/// use cart_retrieval::{Error, members::write_atomic};
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
    let invalid = |message: &str| refused(io::Error::new(io::ErrorKind::InvalidInput, message));
    let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
        return Err(invalid("the path does not end in a file name"));
    };
    // A rename would put a file in the place of `/dev/null`.
    if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return Err(invalid("a device or a pipe cannot be replaced by a file; name a file"));
    }
    let folder = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };

    let (temporary, file) = Temporary::create(folder, name.as_ref()).map_err(refused)?;
    let mut writer = BufWriter::with_capacity(BUFFER, file);
    fill(&mut writer)?;
    let file = writer.into_inner().map_err(|error| refused(error.into_error()))?;
    calls::sync_all(&file, &temporary.path).map_err(refused)?;
    // The lock is held until the file has its name. Other systems do not rename an open file.
    #[cfg(not(unix))]
    drop(file);
    temporary.rename_to(path).map_err(refused)?;
    calls::sync_folder(folder).map_err(refused)
}

/// A file that removes itself unless it was renamed, also when the writer panics.
struct Temporary {
    path: PathBuf,
    renamed: bool,
}

impl Temporary {
    /// Creates the first of `.NAME.0.tmp`, `.NAME.1.tmp`, .. that no other writer uses.
    ///
    /// Writers hold a lock on theirs, so one that can be locked was left behind: it is removed.
    fn create(folder: &Path, name: &Path) -> io::Result<(Self, File)> {
        let mut number = 0;
        loop {
            let mut hidden = OsString::from(".");
            hidden.push(name);
            hidden.push(format!(".{number}.tmp"));
            let path = folder.join(hidden);
            match calls::create_new(&path) {
                Ok(file) => {
                    // Another writer may have taken the new file for a leftover until it was
                    // locked.
                    let ours = match file.try_lock() {
                        Ok(()) => is_at(&file, &path),
                        Err(TryLockError::WouldBlock) => false,
                        // A file system without locks: nothing there is taken for a leftover.
                        Err(TryLockError::Error(_)) => true,
                    };
                    if ours {
                        return Ok((Self { path, renamed: false }, file));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if !remove_leftover(&path) {
                        number += 1;
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn rename_to(mut self, path: &Path) -> io::Result<()> {
        calls::rename(&self.path, path)?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            // The error that led here is the one to report.
            let _ = calls::remove_file(&self.path);
        }
    }
}

/// Removes a temporary file whose writer is gone; says whether the path is free.
fn remove_leftover(path: &Path) -> bool {
    match fs::symlink_metadata(path) {
        Err(error) => return error.kind() == io::ErrorKind::NotFound,
        Ok(found) if !found.is_file() => return false,
        Ok(_) => {}
    }
    let Ok(file) = File::open(path) else { return false };
    // Under its lock, so that no writer removes the file of the next one.
    file.try_lock().is_ok() && (!is_at(&file, path) || calls::remove_file(path).is_ok())
}

/// Whether the file at a path is the open one.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(there)) => open.dev() == there.dev() && open.ino() == there.ino(),
        _ => false,
    }
}

/// An open file keeps its name on other systems.
#[cfg(not(unix))]
fn is_at(_file: &File, path: &Path) -> bool {
    path.exists()
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
            Err(Error::index("a").expected("b").found("c").fix("d"))
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
    fn leftovers_of_killed_writers_are_removed_and_files_of_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        let hidden = |number: usize| folder.path().join(format!(".a.bin.{number}.tmp"));
        fs::write(hidden(0), "half").unwrap();
        put(&path, b"new").unwrap();
        assert_eq!(names(folder.path()), ["a.bin"]);
        // One that is being written, and folders, stay.
        let other = File::create(hidden(0)).unwrap();
        other.lock().unwrap();
        fs::create_dir(hidden(1)).unwrap();
        put(&path, b"newer").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"newer");
        assert_eq!(names(folder.path()), [".a.bin.0.tmp", ".a.bin.1.tmp", "a.bin"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_replaced_and_what_they_point_to_stays() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let (original, path) = (folder.path().join("original"), folder.path().join("a.bin"));
        fs::write(&original, "kept").unwrap();
        symlink(&original, &path).unwrap();
        put(&path, b"new").unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        fs::remove_file(&path).unwrap();
        fs::hard_link(&original, &path).unwrap();
        put(&path, b"new").unwrap();
        assert_eq!(fs::read(&original).unwrap(), b"kept");
        // A link in the place of the temporary file is not followed either.
        symlink(&original, folder.path().join(".a.bin.0.tmp")).unwrap();
        put(&path, b"newer").unwrap();
        assert_eq!(fs::read(&original).unwrap(), b"kept");
        let error = put(Path::new("/dev/null"), b"x").unwrap_err().to_string();
        assert!(error.contains("a device or a pipe"), "{error}");
    }

    #[test]
    fn writers_of_one_file_at_once_leave_one_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        std::thread::scope(|scope| {
            for byte in 0..8u8 {
                let path = &path;
                scope.spawn(move || {
                    (0..20).for_each(|_| put(path, &[byte; 1000]).unwrap());
                });
            }
        });
        let found = fs::read(&path).unwrap();
        assert_eq!(found, vec![found[0]; 1000]);
        assert_eq!(names(folder.path()), ["a.bin"]);
    }

    /// The old file or the new one, whatever fails; and the next writer cleans up.
    #[test]
    fn whatever_fails_the_file_is_whole() {
        use super::super::faults::{Fault, inject};
        for fault in [Fault::Once, Fault::Full, Fault::Killed] {
            for at in 0.. {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("a.bin");
                put(&path, b"old").unwrap();
                let injected = inject(folder.path(), at, fault);
                let result = put(&path, b"new");
                let happened = injected.happened();
                drop(injected);
                assert_eq!(result.is_err(), happened, "{fault:?} {at}");
                let found = fs::read(&path).unwrap();
                assert!(found == b"new" || happened && found == b"old", "{fault:?} {at}");
                if fault != Fault::Killed {
                    assert_eq!(names(folder.path()), ["a.bin"]);
                }
                put(&path, b"newer").unwrap();
                assert_eq!(names(folder.path()), ["a.bin"], "{fault:?} {at}");
                if !happened {
                    assert_eq!(at, 4);
                    break;
                }
            }
        }
    }

    #[test]
    fn bad_paths_are_io_errors() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().join("missing/a.bin"), folder.path().join(".."), "".into()] {
            assert!(matches!(put(&path, b"x"), Err(Error::Io { .. })), "{}", path.display());
        }
    }
}
