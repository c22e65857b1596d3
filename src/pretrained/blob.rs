//! Files of the Hugging Face cache, which are stored under their checksums.

use std::path::Path;

use crate::{
    error::{Error, Result},
    storage::{hex, sha256_file},
};

/// Compares a file of the cache with the SHA-256 that it is stored under, and removes it if they
/// differ. Small files are stored under other names and pass.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read; [`Error::Model`] when its content is another.
pub(super) fn verify(path: &Path) -> Result<()> {
    let blob = path.canonicalize().map_err(|e| Error::io("read", path, e))?;
    let name = blob.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if name.len() != 64 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    let found = hex(&sha256_file(&blob)?);
    if found == name.to_ascii_lowercase() {
        return Ok(());
    }
    // Otherwise the next call would take it for whole.
    std::fs::remove_file(&blob).map_err(|e| Error::io("remove", &blob, e))?;
    Err(Error::model(path.display().to_string())
        .expected(format!("SHA-256 {name}"))
        .found(found)
        .fix("it was damaged during the download and has been removed: download it again"))
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn a_file_that_is_not_what_its_checksum_says_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let sum = hex(&Sha256::digest(b"weights"));
        let (blob, link) = (folder.path().join(&sum), folder.path().join("model.safetensors"));
        std::fs::write(&blob, "weights").unwrap();
        std::fs::hard_link(&blob, &link).unwrap();
        verify(&blob).unwrap();
        // Under a name of its own there is nothing to hold it to.
        verify(&link).unwrap();
        std::fs::write(&blob, "weighty").unwrap();
        let error = verify(&blob).unwrap_err().to_string();
        assert!(error.contains(&sum) && error.contains("download it again"), "{error}");
        assert!(!blob.exists());
        assert!(verify(&blob).is_err());
    }
}
