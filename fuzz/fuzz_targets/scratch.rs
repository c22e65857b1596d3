//! Files for readers that take a path, in a folder of this process; TMPDIR=/dev/shm keeps them in
//! memory.

use std::{fs, path::PathBuf, sync::OnceLock};

/// A path in the folder.
pub fn path(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("cart-fuzz-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for files");
        folder
    });
    folder.join(name)
}

/// A file with these bytes.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = path(name);
    fs::write(&path, bytes).expect("space for a file");
    path
}
