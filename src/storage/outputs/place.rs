//! Where an output would lie: what is there, the folder that it goes into, the room on the disk.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Component, Path, PathBuf},
};

use crate::error::{Error, Result};

/// What tells one file or folder from all others, however it is spelled: links to it included.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity(#[cfg(unix)] (u64, u64), #[cfg(not(unix))] PathBuf);

impl Identity {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            path.metadata().map(|found| Self((found.dev(), found.ino())))
        }
        #[cfg(not(unix))]
        path.canonicalize().map(Self)
    }
}

/// Where a path leads.
#[derive(Debug)]
pub(super) struct Place {
    /// What is there, if anything.
    pub(super) identity: Option<Identity>,
    /// The path without links and `..` as far as it exists, and the names after that.
    pub(super) resolved: PathBuf,
    /// The last of its folders that exists, or the file that is in the place of one.
    ancestor: PathBuf,
}

impl Place {
    pub(super) fn of(path: &Path) -> Result<Self> {
        let refused = |e| Error::io("write", path, e);
        let absolute = std::path::absolute(path).map_err(refused)?;
        let mut names: Vec<OsString> = Vec::new();
        let mut there = absolute.as_path();
        // The path itself may be a link: its folder counts, and its name.
        let ancestor = loop {
            let exists = names.is_empty() && there.is_dir() || !names.is_empty() && there.exists();
            if exists {
                break there.canonicalize().map_err(refused)?;
            }
            let (Some(parent), Some(name)) = (there.parent(), there.components().next_back())
            else {
                break there.to_path_buf();
            };
            names.push(name.as_os_str().to_os_string());
            there = parent;
        };
        let mut resolved = ancestor.clone();
        for name in names.iter().rev() {
            match Path::new(name).components().next() {
                Some(Component::ParentDir) => {
                    resolved.pop();
                }
                _ => resolved.push(name),
            }
        }
        Ok(Self { identity: Identity::of(path).ok(), resolved, ancestor })
    }

    /// Whether something can be created there.
    pub(super) fn check_parent(&self, path: &Path) -> Result<()> {
        if !self.ancestor.is_dir() {
            return Err(Error::output(path.display().to_string())
                .expected("a place in a folder")
                .found(format!("the file {} where a folder should be", self.ancestor.display()))
                .fix("name a path in another folder"));
        }
        check_writable(path, &self.ancestor)
    }
}

/// Whether files can be created in a folder, by the rights that the system knows of.
pub(super) fn check_writable(path: &Path, folder: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use nix::unistd::{AccessFlags, access};
        if let Err(error) = access(folder, AccessFlags::W_OK | AccessFlags::X_OK) {
            return Err(Error::output(path.display().to_string())
                .expected("a folder that can be written to")
                .found(format!("{}: {}", folder.display(), error.desc()))
                .fix("choose another place, or change the permissions of this folder"));
        }
    }
    #[cfg(not(unix))]
    let _ = (path, folder);
    Ok(())
}

/// Whether a file or folder can be read, by the rights that the system knows of.
pub(super) fn check_readable(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use nix::unistd::{AccessFlags, access};
        let folder = if path.is_dir() { AccessFlags::X_OK } else { AccessFlags::empty() };
        access(path, AccessFlags::R_OK | folder)?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Whether the disks have room for what is needed; where that cannot be told, they do.
pub(super) fn check_space(needs: &[(PathBuf, u64)]) -> Result<()> {
    let mut disks: BTreeMap<Identity, u64> = BTreeMap::new();
    for (path, bytes) in needs {
        let place = Place::of(path)?;
        let Some((disk, free)) = free_space(&place.ancestor) else { continue };
        let needed = disks.entry(disk).or_default();
        *needed = needed.saturating_add(*bytes);
        if *needed > free {
            return Err(Error::output(path.display().to_string())
                .expected(format!("at least {} MB free on the disk", needed.div_ceil(1_000_000)))
                .found(format!("{} MB", free / 1_000_000))
                .fix("free some space, or write to another disk"));
        }
    }
    Ok(())
}

/// The disk of a folder, and the bytes that are free on it.
#[cfg(unix)]
fn free_space(folder: &Path) -> Option<(Identity, u64)> {
    use std::os::unix::fs::MetadataExt;
    let found = nix::sys::statvfs::statvfs(folder).ok()?;
    // Some file systems, such as those of containers, tell no size.
    if found.blocks() == 0 {
        return None;
    }
    // The types differ between systems.
    #[allow(clippy::unnecessary_cast)]
    let free = (found.blocks_available() as u64).saturating_mul(found.fragment_size() as u64);
    Some((Identity((folder.metadata().ok()?.dev(), 0)), free))
}

#[cfg(not(unix))]
fn free_space(_folder: &Path) -> Option<(Identity, u64)> {
    None
}
