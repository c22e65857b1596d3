//! The system calls that change files: every write of the library goes through here.
//!
//! Each function is the one of `std::fs`, counted, so that unit tests can let the n-th
//! fail (`faults`). Without them and without the feature `faults` nothing is counted.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::Path,
};

#[cfg(any(test, feature = "faults"))]
use super::faults::{Call, call};

/// What a call needs of the disk, for [`call`].
#[cfg(not(any(test, feature = "faults")))]
#[derive(Clone, Copy)]
enum Call {
    Grow,
    Free,
}

#[cfg(not(any(test, feature = "faults")))]
fn call(_: &Path, _: Call) -> io::Result<()> {
    Ok(())
}

/// Creates a folder and its parents where they are missing.
pub fn create_dir_all(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    call(path, Call::Grow)?;
    fs::create_dir_all(path)
}

/// Creates a file that must not exist yet.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    call(path, Call::Grow)?;
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// Opens a file to write to, and creates it where it is missing; it keeps its content.
pub(crate) fn open_or_create(path: &Path) -> io::Result<File> {
    if !path.exists() {
        call(path, Call::Grow)?;
    }
    OpenOptions::new().create(true).truncate(false).write(true).open(path)
}

/// Writes bytes at a place of an open file.
pub(crate) fn write_at(file: &mut File, path: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    let called = call(path, Call::Grow);
    // A disk that fills up, or a process that is killed, leaves a part.
    #[cfg(any(test, feature = "faults"))]
    if called.is_err() && super::faults::alive(path) {
        file.write_all(&bytes[..bytes.len() / 2])?;
    }
    called?;
    file.write_all(bytes)
}

/// Writes the content of an open file to the disk.
pub(crate) fn sync_all(file: &File, path: &Path) -> io::Result<()> {
    call(path, Call::Grow)?;
    file.sync_all()
}

/// Writes the content of an open file to the disk, without its times.
pub(crate) fn sync_data(file: &File, path: &Path) -> io::Result<()> {
    call(path, Call::Grow)?;
    file.sync_data()
}

/// Cuts an open file.
pub(crate) fn set_len(file: &File, path: &Path, length: u64) -> io::Result<()> {
    call(path, Call::Free)?;
    file.set_len(length)
}

/// Renames a file or folder; a file at the new name is replaced.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    call(to, Call::Free)?;
    fs::rename(from, to)
}

/// Gives a file a second name.
pub fn hard_link(from: &Path, to: &Path) -> io::Result<()> {
    call(to, Call::Grow)?;
    fs::hard_link(from, to)
}

/// Removes a file, or a link.
pub fn remove_file(path: &Path) -> io::Result<()> {
    call(path, Call::Free)?;
    fs::remove_file(path)
}

/// Removes a folder and everything in it, file by file; links are removed, not followed.
pub fn remove_dir_all(path: &Path) -> io::Result<()> {
    let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_type()?.is_dir() {
            remove_dir_all(&entry.path())?;
        } else {
            remove_file(&entry.path())?;
        }
    }
    call(path, Call::Free)?;
    fs::remove_dir(path)
}

/// Makes the names in a folder durable.
#[cfg(unix)]
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    call(folder, Call::Grow)?;
    File::open(folder)?.sync_all()
}

/// Other systems do not open folders as files; a rename is durable there once it returns.
#[cfg(not(unix))]
pub fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}
