//! Tensors of one or several safetensors files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::settings::Settings;
use crate::error::{Error, Result};

/// The file of all weights.
pub(super) const SINGLE: &str = "model.safetensors";
/// The file that says where weights are, if there are several files.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// The tensors of a folder.
pub(super) struct Weights {
    files: Vec<(PathBuf, Mmap)>,
    tensors: BTreeMap<String, Place>,
}

/// Where a tensor is.
struct Place {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    range: std::ops::Range<usize>,
}

impl Weights {
    /// Maps the files of a folder and reads their headers.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that is missing, [`Error::Model`] for one that is cut or is none,
    /// and for an index that names files outside of the folder, or tensors that are not there.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let single = folder.join(SINGLE);
        if single.exists() {
            let mut weights = Self { files: Vec::new(), tensors: BTreeMap::new() };
            weights.add(single)?;
            return Ok(weights);
        }
        let index = folder.join(INDEX);
        if !index.exists() {
            return Err(Error::model(
                folder.display().to_string(),
                format!("{SINGLE}, or {INDEX} and the files that it names"),
                "neither",
                "save the model with save_pretrained(.., safe_serialization=True): weights in the \
                 format of PyTorch are not read",
            ));
        }
        Self::open_index(folder, &index)
    }

    fn open_index(folder: &Path, index: &Path) -> Result<Self> {
        let map = weight_map(index)?;
        let mut weights = Self { files: Vec::new(), tensors: BTreeMap::new() };
        for name in map.values().collect::<BTreeSet<_>>() {
            weights.add(folder.join(name))?;
        }
        match map.keys().find(|tensor| !weights.tensors.contains_key(*tensor)) {
            Some(tensor) => Err(Error::model(
                index.display().to_string(),
                format!("tensor {tensor:?} in {:?}", map[tensor]),
                "no tensor of that name",
                "fetch all files again, from one revision",
            )),
            None => Ok(weights),
        }
    }

    fn add(&mut self, path: PathBuf) -> Result<()> {
        let file = File::open(&path).map_err(|e| Error::io("read", &path, e))?;
        // SAFETY: as in `features::map`: read-only, and any bytes are valid; another process that
        // cuts the file meanwhile would stop this one. The map is dropped once weights are loaded.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io("read", &path, e))?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|e| {
            Error::model(
                path.display().to_string(),
                "a .safetensors file whose header agrees with its length",
                format!("{} bytes with a faulty header ({e})", map.len()),
                "the file is truncated or damaged, or a pointer to a large file: fetch it again",
            )
        })?;
        // `read_metadata` has checked that the tensors cover the file exactly.
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let start_of_data = 8 + header;
            let place = Place {
                file: self.files.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                range: start_of_data + start..start_of_data + end,
            };
            self.tensors.insert(name, place);
        }
        self.files.push((path, map));
        Ok(())
    }

    /// Names of all tensors, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The files, for messages.
    pub(super) fn subject(&self) -> String {
        match self.files.as_slice() {
            [(path, _)] => path.display().to_string(),
            files => {
                let folder = files.first().and_then(|(path, _)| path.parent());
                folder.map_or(String::new(), |folder| folder.join(INDEX).display().to_string())
            }
        }
    }

    /// Shape and values of a tensor, if it is there.
    ///
    /// # Errors
    /// [`Error::Model`] for a tensor of integers.
    pub(super) fn get(&self, name: &str) -> Result<Option<(&[usize], Vec<f32>)>> {
        let Some(place) = self.tensors.get(name) else {
            return Ok(None);
        };
        let (path, map) = &self.files[place.file];
        let bytes = &map[place.range.clone()];
        let values = match place.dtype {
            Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::F16 => {
                bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect()
            }
            Dtype::BF16 => {
                bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect()
            }
            other => {
                return Err(Error::model(
                    format!("{}: tensor {name:?}", path.display()),
                    "f32, f16 or bf16",
                    other.to_string(),
                    "save the model in one of these",
                ));
            }
        };
        Ok(Some((&place.shape, values)))
    }
}

/// The files that an index names.
#[cfg(feature = "hub")]
pub(super) fn file_names(index: &Path) -> Result<BTreeSet<String>> {
    Ok(weight_map(index)?.into_values().collect())
}

/// The file of every tensor; no name leads out of the folder.
fn weight_map(index: &Path) -> Result<BTreeMap<String, String>> {
    let shown = index.display().to_string();
    let settings = Settings::read(index)?;
    let map = settings.get("weight_map").cloned().unwrap_or_default();
    let map: BTreeMap<String, String> = serde_json::from_value(map).map_err(|e| {
        let expected = "a weight_map from tensors to files";
        Error::model(&shown, expected, e.to_string(), "fetch the file again")
    })?;
    let plain = |name: &str| Path::new(name).file_name() == Some(name.as_ref());
    match map.values().find(|name| !plain(name) || name.contains('\\')) {
        Some(name) => Err(Error::model(
            &shown,
            "plain file names",
            format!("{name:?}"),
            "do not use it: a name that leads out of the folder is no accident",
        )),
        None => Ok(map),
    }
}
