//! The manifest: what an index folder holds.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::super::live::ChangeStats;
use crate::{
    decode::BeamConfig,
    error::{Error, Result},
    index::HealthReport,
    model::CartConfig,
    storage::{
        hex, read_limited, sha256_file,
        signed::{UNSIGNED, signed_json, verified_checksum},
    },
};

/// Version of the folder's layout.
pub const FORMAT_VERSION: u32 = 4;
/// The oldest layout that is read.
const OLDEST_FORMAT: u32 = 2;
/// What marks a manifest as ours.
pub(super) const KIND: &str = "cart-retrieval index";
/// Name of the manifest.
pub(super) const MANIFEST: &str = "manifest.json";
/// The longest manifest that is read.
const LONGEST: u64 = 1 << 24;
/// Files of candidates that are longer are held to their length at a load and to their checksum by
/// [`Manifest::verify`]: they are mapped, and reading them as a whole is what a load spares.
const MAPPED: u64 = 1 << 25;

/// A file of the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// Its name in the folder.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// What an index folder holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub(super) kind: String,
    /// Version of the layout.
    pub format: u32,
    /// SHA-256 of the manifest itself with zeros in this place.
    pub(super) checksum: String,
    /// Version of the library that wrote it.
    pub library: String,
    /// Shape of the network.
    pub model: CartConfig,
    /// Default beam.
    pub beam: BeamConfig,
    /// Number of candidates.
    pub candidates: usize,
    /// Longest query of the tokenizer, in tokens.
    pub max_tokens: usize,
    /// Health of the quantizer on the candidates.
    pub health: HealthReport,
    /// Names of the groups that the first token tells apart; absent where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<String>>,
    /// Statistics of the changes since the quantizer was fitted.
    #[serde(default, rename = "growth")]
    pub stats: ChangeStats,
    /// Files by role: `model`, `quantizer`, `tokenizer`, `trie`, `ids`, `order`; `vectors`,
    /// `geometry`, `space`, `metadata`, `projection` and `tokens` where the index has them,
    /// `owners` where candidates have several identifiers.
    pub files: BTreeMap<String, ManifestFile>,
}

impl ManifestFile {
    /// Recomputes the checksum of the file in a folder.
    pub(super) fn verify(&self, folder: &Path) -> Result<()> {
        let path = plain_path(folder, self)?;
        same(self, &path, &sha256_file(&path)?)
    }
}

impl Manifest {
    /// Reads the manifest of an index folder.
    ///
    /// # Errors
    /// [`Error::Io`] when there is none, [`Error::Index`] when it is not ours, is broken or changed, or
    /// has another format version.
    pub fn read(folder: impl AsRef<Path>) -> Result<Self> {
        let path = folder.as_ref().join(MANIFEST);
        Self::parse(&path, read_limited(&path, LONGEST)?)
    }

    /// Reads a manifest from its bytes; `path` is where they are from.
    pub(super) fn parse(path: &Path, bytes: Vec<u8>) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            kind: String,
            format: u32,
        }
        let broken = |error: serde_json::Error| {
            Error::index(path.display().to_string())
                .expected("the manifest of an index")
                .found(error.to_string())
                .fix(
                    "name an index folder; if it is damaged, restore the file or save the index to \
                 another folder",
                )
        };
        let Head { kind, format } = serde_json::from_slice(&bytes).map_err(broken)?;
        let foreign = kind != KIND || !(OLDEST_FORMAT..=FORMAT_VERSION).contains(&format);
        Error::index(path.display().to_string())
            .expected(format!("kind {KIND:?}, format {OLDEST_FORMAT} to {FORMAT_VERSION}"))
            .found(format!("kind {kind:?}, format {format}"))
            .fix_if(foreign, "load it with the version of the library that wrote it")?;
        let manifest: Self = serde_json::from_slice(&bytes).map_err(broken)?;
        let changed = verified_checksum(bytes).as_ref() != Some(&manifest.checksum);
        let remedy = "the file was changed: restore it, or save the index to another folder";
        Error::index(path.display().to_string())
            .expected("the checksum in it")
            .found("another content")
            .fix_if(changed, remedy)?;
        Ok(manifest)
    }

    /// SHA-256 of the manifest, in hexadecimal: what tells it from others.
    pub(in crate::retrieve) fn digest(&self) -> &str {
        &self.checksum
    }

    /// Fills in the checksum; also gives the bytes of the file.
    pub(super) fn signed(mut self) -> serde_json::Result<(Self, Vec<u8>)> {
        self.checksum = UNSIGNED.into();
        let (bytes, checksum) = signed_json(&self)?;
        Ok((Self { checksum, ..self }, bytes))
    }

    /// Recomputes the checksum of every file.
    ///
    /// # Errors
    /// [`Error::Index`] naming the first file that was cut or changed, [`Error::Io`] naming one that
    /// is missing.
    pub fn verify(&self, folder: impl AsRef<Path>) -> Result<()> {
        self.files.values().try_for_each(|file| file.verify(folder.as_ref()))
    }

    /// Reads a file and checks it.
    pub(super) fn load(&self, folder: &Path, role: &str) -> Result<Vec<u8>> {
        let (file, path) = self.find(folder, role)?;
        let bytes = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        same(file, &path, &Sha256::digest(&bytes))?;
        Ok(bytes)
    }

    /// Checks a file that is not to be read as a whole; of a long one, its length.
    pub(super) fn check(&self, folder: &Path, role: &str) -> Result<PathBuf> {
        let (file, path) = self.find(folder, role)?;
        if file.bytes <= MAPPED {
            same(file, &path, &sha256_file(&path)?)?;
        }
        Ok(path)
    }

    /// Whether there is a file in a role.
    pub(super) fn has(&self, role: &str) -> bool {
        self.files.contains_key(role)
    }

    /// A file that is there, of the right length.
    fn find(&self, folder: &Path, role: &str) -> Result<(&ManifestFile, PathBuf)> {
        let file = self.files.get(role).ok_or_else(|| {
            Error::index(folder.join(MANIFEST).display().to_string())
                .expected(format!("a file in the role of {role}"))
                .found("none")
                .fix("save the index to another folder")
        })?;
        let path = plain_path(folder, file)?;
        let length = std::fs::metadata(&path).map_err(|e| Error::io("read", &path, e))?.len();
        Error::index(path.display().to_string())
            .expected(format!("{} bytes", file.bytes))
            .found(length.to_string())
            .fix_if(length != file.bytes, "restore the file, or save the index again")?;
        Ok((file, path))
    }
}

/// The path of a file, whose name must not lead out of the folder.
pub(super) fn plain_path(folder: &Path, file: &ManifestFile) -> Result<PathBuf> {
    let leads_out = Path::new(&file.name).file_name() != Some(file.name.as_ref());
    Error::index(folder.join(MANIFEST).display().to_string())
        .expected("plain file names")
        .found(format!("{:?}", file.name))
        .fix_if(leads_out, "restore the manifest, or save the index to another folder")?;
    Ok(folder.join(&file.name))
}

/// Whether the checksum of a file is the manifest's.
fn same(file: &ManifestFile, path: &Path, digest: &[u8]) -> Result<()> {
    let found = hex(digest);
    let changed = found != file.sha256;
    Error::index(path.display().to_string())
        .expected(format!("SHA-256 {}", file.sha256))
        .found(found)
        .fix_if(changed, "the file was changed: restore it, or save the index again")
}
