//! The index on disk: one folder, named by a manifest.
//!
//! Every file carries a part of its checksum in its name, so saving never touches a file that the
//! manifest in force names. The manifest is replaced last, in one step: a crash at any moment leaves
//! the old index or the new one. Files that no manifest names any more are removed afterwards.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Retriever;
use crate::{
    align::CandidateSpace,
    data::TextTokenizer,
    decode::BeamConfig,
    error::{Error, Result},
    features::{Features, ItemIds},
    model::CartConfig,
    quantizer::{CandidateIndex, CoarseToFine, HealthReport},
    storage::{NamedTensors, hex, load_module, sha256_file, write_bytes},
    trie::Trie,
};

/// Version of the folder's layout.
pub const FORMAT_VERSION: u32 = 2;
/// What marks a manifest as ours.
const KIND: &str = "cart-retrieval index";
/// Hexadecimal digits of a checksum.
const CHECKSUM: usize = 64;
/// Name of the manifest.
const MANIFEST: &str = "manifest.json";
/// All roles.
const ROLES: [&str; 7] = ["model", "quantizer", "tokenizer", "trie", "ids", VECTORS, SPACE];
/// Role of the file of the candidates' vectors, and name of its tensor.
const VECTORS: &str = "vectors";
/// Role of the file of the map that made them.
const SPACE: &str = "space";

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
    kind: String,
    /// Version of the layout.
    pub format: u32,
    /// SHA-256 of the manifest itself with zeros in this place.
    checksum: String,
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
    /// Files by role: `model`, `quantizer`, `tokenizer`, `trie`, `ids`; `vectors` and `space` where
    /// the index has them.
    pub files: BTreeMap<String, ManifestFile>,
}

impl Manifest {
    /// Reads the manifest of an index folder.
    ///
    /// # Errors
    /// [`Error::Io`] when there is none, [`Error::Index`] when it is not ours, is broken or changed, or
    /// has another format version.
    pub fn read(folder: impl AsRef<Path>) -> Result<Self> {
        let path = folder.as_ref().join(MANIFEST);
        let bytes = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        #[derive(Deserialize)]
        struct Head {
            kind: String,
            format: u32,
        }
        let broken = |error: serde_json::Error| {
            Error::index(
                path.display().to_string(),
                "the manifest of an index",
                error.to_string(),
                "name an index folder, or save the index again",
            )
        };
        let head: Head = serde_json::from_slice(&bytes).map_err(broken)?;
        if head.kind != KIND || head.format != FORMAT_VERSION {
            return Err(Error::index(
                path.display().to_string(),
                format!("kind {KIND:?}, format {FORMAT_VERSION}"),
                format!("kind {:?}, format {}", head.kind, head.format),
                "load it with the version of the library that wrote it",
            ));
        }
        let manifest: Self = serde_json::from_slice(&bytes).map_err(broken)?;
        let mut unsigned = bytes;
        let place = checksum_place(&unsigned).filter(|place| {
            let found = unsigned[place.clone()].to_vec();
            unsigned[place.clone()].fill(b'0');
            found == hex(&Sha256::digest(&unsigned)).as_bytes()
        });
        match place {
            Some(_) => Ok(manifest),
            None => Err(Error::index(
                path.display().to_string(),
                "the checksum in it",
                "another content",
                "the file was changed: restore it, or save the index again",
            )),
        }
    }

    /// The bytes of the file, with its checksum.
    fn signed(&self) -> serde_json::Result<Vec<u8>> {
        let unsigned = Self { checksum: "0".repeat(CHECKSUM), ..self.clone() };
        let mut bytes = serde_json::to_vec_pretty(&unsigned)?;
        let checksum = hex(&Sha256::digest(&bytes));
        if let Some(place) = checksum_place(&bytes) {
            bytes[place].copy_from_slice(checksum.as_bytes());
        }
        Ok(bytes)
    }

    /// Recomputes the checksum of every file.
    ///
    /// # Errors
    /// [`Error::Index`] naming the first file that was cut or changed, [`Error::Io`] naming one that
    /// is missing.
    pub fn verify(&self, folder: impl AsRef<Path>) -> Result<()> {
        for file in self.files.values() {
            let path = plain_path(folder.as_ref(), file)?;
            same(file, &path, &sha256_file(&path)?)?;
        }
        Ok(())
    }

    /// Reads a file and checks it.
    fn load(&self, folder: &Path, role: &str) -> Result<Vec<u8>> {
        let (file, path) = self.find(folder, role)?;
        let bytes = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        same(file, &path, &Sha256::digest(&bytes))?;
        Ok(bytes)
    }

    /// Checks a file that is not to be read as a whole.
    fn check(&self, folder: &Path, role: &str) -> Result<PathBuf> {
        let (file, path) = self.find(folder, role)?;
        same(file, &path, &sha256_file(&path)?)?;
        Ok(path)
    }

    /// A file that is there, of the right length.
    fn find(&self, folder: &Path, role: &str) -> Result<(&ManifestFile, PathBuf)> {
        let file = self.files.get(role).ok_or_else(|| {
            Error::index(
                folder.join(MANIFEST).display().to_string(),
                format!("a file in the role of {role}"),
                "none",
                "save the index again",
            )
        })?;
        let path = plain_path(folder, file)?;
        let length = std::fs::metadata(&path).map_err(|e| Error::io("read", &path, e))?.len();
        if length != file.bytes {
            return Err(Error::index(
                path.display().to_string(),
                format!("{} bytes", file.bytes),
                length.to_string(),
                "restore the file, or save the index again",
            ));
        }
        Ok((file, path))
    }
}

/// Where the checksum lies in the bytes of a manifest.
fn checksum_place(bytes: &[u8]) -> Option<Range<usize>> {
    const KEY: &[u8] = b"\"checksum\": \"";
    let start = bytes.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    (start + CHECKSUM <= bytes.len()).then_some(start..start + CHECKSUM)
}

/// The path of a file, whose name must not lead out of the folder.
fn plain_path(folder: &Path, file: &ManifestFile) -> Result<PathBuf> {
    if Path::new(&file.name).file_name() != Some(file.name.as_ref()) {
        return Err(Error::index(
            folder.join(MANIFEST).display().to_string(),
            "plain file names",
            format!("{:?}", file.name),
            "save the index again",
        ));
    }
    Ok(folder.join(&file.name))
}

/// Whether the checksum of a file is the manifest's.
fn same(file: &ManifestFile, path: &Path, digest: &[u8]) -> Result<()> {
    let found = hex(digest);
    match found == file.sha256 {
        true => Ok(()),
        false => Err(Error::index(
            path.display().to_string(),
            format!("SHA-256 {}", file.sha256),
            found,
            "the file was changed: restore it, or save the index again",
        )),
    }
}

impl<B: Backend> Retriever<B> {
    /// Checks that an index can be saved to a folder: that it does not exist, is empty, or holds an
    /// index already. Call it before a long training.
    ///
    /// # Errors
    /// [`Error::Index`] when something else is there, [`Error::Io`] when it cannot be read.
    pub fn check_folder(folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        match std::fs::read_dir(folder) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Error::io("read", folder, e)),
            Ok(mut entries) => match entries.next() {
                None => Ok(()),
                // An index that cannot be read is not replaced either: its error says why.
                Some(_) if folder.join(MANIFEST).exists() => Manifest::read(folder).map(|_| ()),
                Some(entry) => Err(Error::index(
                    folder.display().to_string(),
                    "a new or empty folder, or an index of this library",
                    match entry {
                        Ok(entry) => format!("{:?} and no {MANIFEST}", entry.file_name()),
                        Err(error) => error.to_string(),
                    },
                    "choose another folder; nothing was touched",
                )),
            },
        }
    }

    /// Saves the index to a folder, in one step as seen from outside.
    ///
    /// # Errors
    /// As [`Retriever::check_folder`]; [`Error::Io`] when a file cannot be written (an index that
    /// was there before is then still there).
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        Self::check_folder(folder)?;
        std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
        let mut tensors = NamedTensors::new();
        tensors.insert_module::<B, _>("", self.model())?;
        let ids: String = self.index.ids().iter().flat_map(|id| [id, "\n"]).collect();
        let mut files = BTreeMap::new();
        let mut parts = vec![
            ("model", "safetensors", tensors.to_bytes(&[])?),
            ("quantizer", "safetensors", self.quantizer.to_safetensors()?),
            ("tokenizer", "json", self.tokenizer.to_json()?.into_bytes()),
            ("trie", "bin", self.index.trie().to_bytes()),
            ("ids", "txt", ids.into_bytes()),
        ];
        if let Some(geometry) = self.index.geometry() {
            let vectors = geometry.vectors();
            let mut tensors = NamedTensors::new();
            let shape = [vectors.len(), vectors.dim()];
            tensors.insert_f32(VECTORS, &shape, vectors.as_slice());
            parts.push((VECTORS, "safetensors", tensors.to_bytes(&[])?));
        }
        if let Some(space) = &self.space {
            parts.push((SPACE, "safetensors", space.to_safetensors()?));
        }
        for (role, extension, bytes) in parts {
            let sha256 = hex(&Sha256::digest(&bytes));
            let name = format!("{role}-{}.{extension}", &sha256[..12]);
            write_bytes(folder.join(&name), &bytes)?;
            let file = ManifestFile { name, bytes: bytes.len() as u64, sha256 };
            files.insert(role.to_string(), file);
        }
        let manifest = Manifest {
            kind: KIND.to_string(),
            format: FORMAT_VERSION,
            checksum: String::new(),
            library: env!("CARGO_PKG_VERSION").to_string(),
            model: self.config.clone(),
            beam: self.beam.clone(),
            candidates: self.index.trie().len(),
            max_tokens: self.tokenizer.max_tokens(),
            health: self.index.health().clone(),
            groups: self.index.groups().map(<[String]>::to_vec),
            files,
        };
        let json = manifest
            .signed()
            .map_err(|e| Error::io("write", folder.join(MANIFEST), std::io::Error::other(e)))?;
        write_bytes(folder.join(MANIFEST), &json)?;
        remove_unnamed(folder, &manifest);
        Ok(())
    }

    /// Loads an index, checking every file. The trie is mapped ([`Trie::open`]); saving another index to the
    /// folder leaves it as it is.
    ///
    /// # Errors
    /// [`Error::Io`] for a missing file, [`Error::Index`] for a changed one or another format, and
    /// [`Error::Model`] for weights that do not fit.
    pub fn load(folder: impl AsRef<Path>, device: &B::Device) -> Result<Self> {
        let folder = folder.as_ref();
        let manifest = Manifest::read(folder)?;
        let (mut tensors, _) = NamedTensors::from_bytes(&manifest.load(folder, "model")?)?;
        let mut model = manifest.model.init_empty::<B>(tensors.bytes(), device)?;
        load_module::<B, _>(&mut model, &mut tensors, "")?;
        tensors.ensure_empty("model")?;
        let quantizer =
            CoarseToFine::from_safetensors(&manifest.load(folder, "quantizer")?, device)?;
        let tokenizer =
            TextTokenizer::from_bytes(&manifest.load(folder, "tokenizer")?, manifest.max_tokens)?;
        let trie = Trie::open(manifest.check(folder, "trie")?)?;
        let ids = String::from_utf8(manifest.load(folder, "ids")?)
            .map_err(|e| Error::index("ids", "UTF-8", e.to_string(), "save the index again"))?;
        let ids = ItemIds::new(&ids.lines().collect::<Vec<_>>())?;
        let mut index = CandidateIndex::new(ids, trie, manifest.health.clone())?;
        if let Some(groups) = &manifest.groups {
            index = index.with_groups(groups.clone())?;
        }
        if manifest.files.contains_key(VECTORS) {
            let bytes = manifest.load(folder, VECTORS)?;
            let (shape, values) = NamedTensors::from_bytes(&bytes)?.0.take_f32(VECTORS)?;
            let width = shape.last().copied().unwrap_or(0);
            index = index.with_vectors(Features::from_rows(values, width)?)?;
        }
        let retriever =
            Self::new(model, manifest.model.clone(), tokenizer, quantizer, index, device.clone())?;
        let retriever = retriever.with_beam(manifest.beam.clone());
        Ok(match manifest.files.contains_key(SPACE) {
            true => {
                let space = manifest.load(folder, SPACE)?;
                retriever.with_space(CandidateSpace::from_safetensors(&space)?)
            }
            false => retriever,
        })
    }
}

/// Removes files of ours that the manifest does not name. What cannot be removed does no harm.
fn remove_unnamed(folder: &Path, manifest: &Manifest) {
    let ours = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let named = manifest.files.values().any(|file| file.name == name);
        let role = ROLES.iter().any(|role| {
            name.strip_prefix(role).and_then(|rest| rest.strip_prefix('-')).is_some_and(|rest| {
                rest.len() > 12 && rest[..12].bytes().all(|b| b.is_ascii_hexdigit())
            })
        });
        role && !named
    };
    if let Ok(entries) = std::fs::read_dir(folder) {
        for path in entries.flatten().map(|entry| entry.path()).filter(ours) {
            let _ = std::fs::remove_file(path);
        }
    }
}
