//! SHA-256 checksums of files and of what is being written.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// A writer that passes bytes on and keeps their SHA-256.
///
/// # Example
/// ```
/// use std::io::Write;
/// use cart_retrieval::members::{Sha256Writer, hex};
///
/// let mut writer = Sha256Writer::new(Vec::new());
/// writer.write_all(b"abc")?;
/// let (bytes, digest) = writer.finish();
/// assert_eq!(bytes, b"abc");
/// assert!(hex(&digest).starts_with("ba7816bf"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Sha256Writer<W> {
    inner: W,
    hasher: Sha256,
}

impl<W: Write> Sha256Writer<W> {
    /// Starts a checksum over what will be written to `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::new() }
    }

    /// The inner writer and the checksum of every byte it accepted.
    ///
    /// Nothing is flushed.
    pub fn finish(self) -> (W, [u8; 32]) {
        (self.inner, self.hasher.finalize().into())
    }
}

impl<W: Write> Write for Sha256Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The SHA-256 of a file, read in pieces.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read.
///
/// # Example
/// ```
/// use cart_retrieval::{Error, members::{hex, sha256_file}};
///
/// let folder = tempfile::tempdir().map_err(|source| Error::io("create", "folder", source))?;
/// let path = folder.path().join("abc");
/// std::fs::write(&path, "abc").map_err(|source| Error::io("write", &path, source))?;
/// assert!(hex(&sha256_file(&path)?).starts_with("ba7816bf"));
/// # Ok::<(), Error>(())
/// ```
pub fn sha256_file(path: impl AsRef<Path>) -> Result<[u8; 32]> {
    let path = path.as_ref();
    let refused = |source| Error::io("read", path, source);
    let mut file = File::open(path).map_err(refused)?;
    let mut hasher = Sha256::new();
    io::copy(&mut file, &mut hasher).map_err(refused)?;
    Ok(hasher.finalize().into())
}

/// Bytes as lowercase hexadecimal, two digits each.
///
/// # Example
/// ```
/// assert_eq!(cart_retrieval::members::hex(&[0, 171, 255]), "00abff");
/// ```
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// Accepts one byte a call.
    struct Slow(Vec<u8>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.extend(bytes.first());
            Ok(bytes.len().min(1))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn known_digests() {
        assert_eq!(hex(&Sha256Writer::new(Vec::new()).finish().1), EMPTY);
        let mut writer = Sha256Writer::new(Slow(Vec::new()));
        writer.write_all(b"abc").unwrap();
        let (inner, digest) = writer.finish();
        assert_eq!(inner.0, b"abc");
        assert_eq!(hex(&digest), ABC);
    }

    #[test]
    fn a_file_and_a_writer_agree() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let bytes: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let mut writer = Sha256Writer::new(io::sink());
        writer.write_all(&bytes).unwrap();
        assert_eq!(sha256_file(&path).unwrap(), writer.finish().1);
        assert!(matches!(sha256_file(folder.path().join("no")), Err(Error::Io { .. })));
    }
}
