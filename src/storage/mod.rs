//! Files on disk: atomic writes, bounded reads and checksums.
//!
//! Every format of this library goes through here, so that a crash leaves either the old file or
//! the new one and a damaged file is noticed. Each failure is an [`Error::Io`].

mod array;
pub(crate) mod atomic;
#[cfg(any(test, feature = "faults"))]
pub(crate) mod faults;
pub(crate) mod fs;
pub(crate) mod held;
pub(crate) mod limited;
pub(crate) mod lock;
mod mapped;
pub(crate) mod outputs;
pub(crate) mod sha256;
pub(crate) mod signed;
pub(crate) mod tensors;

pub(crate) use array::Array;
pub(crate) use atomic::write_atomic;
pub(crate) use fs::sync_folder;
pub(crate) use held::{count, ensure_held};
pub(crate) use limited::read_limited;
pub(crate) use lock::FileLock;
pub(crate) use mapped::{forget, map};
pub(crate) use sha256::{Sha256Writer, hex, sha256_file};
pub(crate) use tensors::{NamedTensors, load_module};

use std::{io::Write, path::Path};

use crate::error::{Error, Result};

/// Writes `bytes` as [`write_atomic`] does.
///
/// # Errors
/// As [`write_atomic`].
pub fn write_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    write_atomic(path, |file| file.write_all(bytes).map_err(|e| Error::io("write", path, e)))
}
