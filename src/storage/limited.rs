//! Reading a whole file without trusting its size.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use crate::error::{Error, Result};

/// Reads a file of at most `limit` bytes into memory.
///
/// For files whose size is known to be modest (a manifest, a list of ids), so that a wrong path
/// does not fill the memory.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read or is longer than `limit`.
///
/// # Example
/// ```
/// use cart_retrieval::{Error, members::read_limited};
///
/// let folder = tempfile::tempdir().map_err(|source| Error::io("create", "folder", source))?;
/// let path = folder.path().join("note.txt");
/// std::fs::write(&path, "dogs").map_err(|source| Error::io("write", &path, source))?;
/// assert_eq!(read_limited(&path, 4)?, b"dogs");
/// assert!(read_limited(&path, 3).is_err());
/// # Ok::<(), Error>(())
/// ```
pub fn read_limited(path: impl AsRef<Path>, limit: u64) -> Result<Vec<u8>> {
    let path = path.as_ref();
    let refused = |source| Error::io("read", path, source);
    let too_long = |length: String| {
        let message = format!("the file has {length} bytes; at most {limit} are expected");
        refused(io::Error::new(io::ErrorKind::FileTooLarge, message))
    };

    let file = File::open(path).map_err(refused)?;
    let length = file.metadata().map_err(refused)?.len();
    if length > limit {
        return Err(too_long(length.to_string()));
    }
    // A pipe or a growing file has another length than it says.
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(refused)?;
    if bytes.len() as u64 > limit {
        return Err(too_long(format!("more than {limit}")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_up_to_the_limit_and_no_further() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, [7; 100]).unwrap();
        assert_eq!(read_limited(&path, 100).unwrap(), [7; 100]);
        assert_eq!(read_limited(&path, u64::MAX).unwrap().len(), 100);
        let error = read_limited(&path, 99).unwrap_err().to_string();
        assert!(error.contains("100 bytes") && error.contains("at most 99"), "{error}");
    }

    #[test]
    fn missing_files_and_folders_are_io_errors() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().join("missing"), folder.path().to_path_buf()] {
            assert!(matches!(read_limited(&path, 1 << 20), Err(Error::Io { .. })));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_endless_file_is_refused() {
        assert!(matches!(read_limited("/dev/zero", 1000), Err(Error::Io { .. })));
    }
}
