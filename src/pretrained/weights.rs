//! Tensors of one or several files: safetensors, and with the feature `pth` PyTorch's own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::settings::Settings;
#[cfg(feature = "pth")]
use crate::storage::count;
use crate::{
    error::{Error, Result},
    storage::map,
};

/// The file of all weights.
pub(super) const SINGLE: &str = "model.safetensors";
/// The file that says where weights are, if there are several files.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// The tensors of a model.
pub enum Weights {
    /// In the format of safetensors, mapped.
    Mapped {
        /// The files.
        files: Vec<(PathBuf, Mmap)>,
        /// Where each tensor is.
        tensors: BTreeMap<String, Place>,
    },
    /// In the format of PyTorch, read when asked for.
    #[cfg(feature = "pth")]
    Pickled {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: usize,
        /// By name.
        tensors: BTreeMap<String, burn_store::TensorSnapshot>,
    },
}

/// Where a tensor is.
pub struct Place {
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
    pub fn open(folder: &Path) -> Result<Self> {
        let single = folder.join(SINGLE);
        if single.exists() {
            return Self::open_file(&single);
        }
        let index = folder.join(INDEX);
        if !index.exists() {
            return Err(Error::model(folder.display().to_string()).expected(format!("{SINGLE}, or {INDEX} and the files that it names")).found("neither").fix("save the model with save_pretrained(.., safe_serialization=True): folders with weights in the \
                 format of PyTorch are not read"));
        }
        Self::open_index(folder, &index)
    }

    /// One file: in the format of PyTorch if it is called `.pth`, `.pt` or `.bin`, otherwise in
    /// that of safetensors.
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub fn open_file(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        if extension.is_some_and(|extension| ["pth", "pt", "bin"].contains(&extension)) {
            return Self::open_pickle(path);
        }
        let (mut files, mut tensors) = (Vec::new(), BTreeMap::new());
        add(path.to_path_buf(), &mut files, &mut tensors)?;
        Ok(Self::Mapped { files, tensors })
    }

    #[cfg(feature = "pth")]
    fn open_pickle(path: &Path) -> Result<Self> {
        check_archive(path)?;
        let reader = burn_store::pytorch::PytorchReader::new(path).map_err(|e| {
            Error::model(path.display().to_string())
                .expected("tensors in the format of PyTorch")
                .found(e.to_string())
                .fix("the file is truncated, damaged, or holds more than tensors: fetch it again")
        })?;
        let tensors = reader.into_tensors().into_iter().collect();
        let bytes = std::fs::metadata(path).map_err(|e| Error::io("read", path, e))?.len();
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        Ok(Self::Pickled { path: path.to_path_buf(), bytes, tensors })
    }

    #[cfg(not(feature = "pth"))]
    fn open_pickle(path: &Path) -> Result<Self> {
        Err(Error::model(path.display().to_string()).expected("safetensors, in a build without the feature `pth`").found("a file in the format of PyTorch").fix("build with --features pth, or convert the file: safetensors.torch.save_file(torch.load(FILE), ..)"))
    }

    /// Number of bytes of all tensors; of those in the format of PyTorch, what they take as `f32`,
    /// at most twice the file's.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Mapped { tensors, .. } => tensors.values().map(|place| place.range.len()).sum(),
            #[cfg(feature = "pth")]
            Self::Pickled { bytes, tensors, .. } => {
                let shapes = tensors.values().map(|tensor| tensor.shape.to_vec());
                let shapes: Vec<Vec<usize>> = shapes.collect();
                let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
                count(&shapes).saturating_mul(4).min(bytes.saturating_mul(2))
            }
        }
    }

    fn open_index(folder: &Path, index: &Path) -> Result<Self> {
        let map = weight_map(index)?;
        let (mut files, mut tensors) = (Vec::new(), BTreeMap::new());
        for name in map.values().collect::<BTreeSet<_>>() {
            add(folder.join(name), &mut files, &mut tensors)?;
        }
        let weights = Self::Mapped { files, tensors };
        match map.keys().find(|tensor| weights.shape(tensor).is_none()) {
            Some(tensor) => Err(Error::model(index.display().to_string())
                .expected(format!("tensor {tensor:?} in {:?}", map[tensor]))
                .found("no tensor of that name")
                .fix("fetch all files again, from one revision")),
            None => Ok(weights),
        }
    }

    /// Names of all tensors, in order.
    pub(super) fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::Mapped { tensors, .. } => Box::new(tensors.keys().map(String::as_str)),
            #[cfg(feature = "pth")]
            Self::Pickled { tensors, .. } => Box::new(tensors.keys().map(String::as_str)),
        }
    }

    /// The files, for messages.
    pub(super) fn subject(&self) -> String {
        match self {
            Self::Mapped { files, .. } => match files.as_slice() {
                [(path, _)] => path.display().to_string(),
                files => {
                    let folder = files.first().and_then(|(path, _)| path.parent());
                    folder.map_or(String::new(), |folder| folder.join(INDEX).display().to_string())
                }
            },
            #[cfg(feature = "pth")]
            Self::Pickled { path, .. } => path.display().to_string(),
        }
    }

    /// Shape of a tensor, if it is there.
    pub(super) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match self {
            Self::Mapped { tensors, .. } => tensors.get(name).map(|place| place.shape.clone()),
            #[cfg(feature = "pth")]
            Self::Pickled { tensors, .. } => tensors.get(name).map(|tensor| tensor.shape.to_vec()),
        }
    }

    /// Refuses a tensor that is there and cannot be read.
    ///
    /// # Errors
    /// [`Error::Model`] for a tensor of integers.
    pub(super) fn check(&self, name: &str) -> Result<()> {
        let (known, found) = match self {
            Self::Mapped { tensors, .. } => match tensors.get(name) {
                Some(place) => (
                    matches!(place.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16),
                    place.dtype.to_string(),
                ),
                None => return Ok(()),
            },
            #[cfg(feature = "pth")]
            Self::Pickled { tensors, .. } => match tensors.get(name) {
                Some(tensor) => (tensor.dtype.is_float(), format!("{:?}", tensor.dtype)),
                None => return Ok(()),
            },
        };
        match known {
            true => Ok(()),
            false => Err(Error::model(format!("{}: tensor {name:?}", self.subject()))
                .expected("f32, f16 or bf16")
                .found(found)
                .fix("save the model in one of these")),
        }
    }

    /// Values of a tensor that is there and has passed [`Weights::check`].
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(super) fn values(&self, name: &str) -> std::result::Result<Vec<f32>, String> {
        match self {
            Self::Mapped { files, tensors } => {
                let place = tensors.get(name).ok_or_else(|| format!("{name:?} is not there"))?;
                let (_, map) = &files[place.file];
                let bytes = &map[place.range.clone()];
                Ok(match place.dtype {
                    Dtype::F32 => {
                        bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
                    }
                    Dtype::F16 => {
                        let halves = bytes.as_chunks().0.iter();
                        halves.map(|b| f16::from_le_bytes(*b).to_f32()).collect()
                    }
                    Dtype::BF16 => {
                        let halves = bytes.as_chunks().0.iter();
                        halves.map(|b| bf16::from_le_bytes(*b).to_f32()).collect()
                    }
                    other => return Err(format!("{name:?} is {other}")),
                })
            }
            #[cfg(feature = "pth")]
            Self::Pickled { path, tensors, .. } => {
                let tensor = tensors.get(name).ok_or_else(|| format!("{name:?} is not there"))?;
                let data = tensor
                    .to_data()
                    .map_err(|e| format!("{}: tensor {name:?}: {e:?}", path.display()))?;
                Ok(data.iter::<f32>().collect())
            }
        }
    }
}

/// Refuses a file in the format of PyTorch whose reading could take more time or memory than its
/// tensors need.
#[cfg(feature = "pth")]
fn check_archive(path: &Path) -> Result<()> {
    use std::io::Read;

    /// What the archive has besides tensors and their list: a few numbers.
    const SMALL: u64 = 1 << 20;
    let problem = |found: String| {
        Error::model(path.display().to_string()).expected("tensors as torch.save has written them since PyTorch 1.6: an archive whose data.pkl lists them").found(found).fix("fetch it again if it may be truncated or damaged; otherwise load it with \
             torch.load(FILE, weights_only=True) and save it again, best as safetensors")
    };
    let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
    let mut archive = zip::ZipArchive::new(std::io::BufReader::new(file))
        .map_err(|e| problem(format!("no such archive ({e})")))?;
    let mut lists = Vec::new();
    for at in 0..archive.len() {
        let entry = archive.by_index_raw(at).map_err(|e| problem(e.to_string()))?;
        let (name, size) = (entry.name().to_string(), entry.size());
        let is_list = name.ends_with("data.pkl");
        let longest = if is_list { super::pickle::LONGEST as u64 } else { SMALL };
        if entry.compression() != zip::CompressionMethod::Stored {
            return Err(problem(format!("{name}, which is compressed")));
        }
        if size > longest && !name.contains("data/") {
            return Err(problem(format!("{name} of {size} bytes")));
        }
        if is_list {
            lists.push(at);
        }
    }
    let [list] = lists[..] else {
        return Err(problem(format!("{} files called data.pkl", lists.len())));
    };
    let mut bytes = Vec::new();
    let entry = archive.by_index(list).map_err(|e| problem(e.to_string()))?;
    let read = entry.take(super::pickle::LONGEST as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|e| problem(e.to_string()))?;
    super::pickle::check(&bytes).map_err(problem)
}

/// Maps a file of safetensors and reads its header.
fn add(
    path: PathBuf,
    files: &mut Vec<(PathBuf, Mmap)>,
    tensors: &mut BTreeMap<String, Place>,
) -> Result<()> {
    let file = File::open(&path).map_err(|e| Error::io("read", &path, e))?;
    let map = map(&file).map_err(|e| Error::io("read", &path, e))?;
    let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|e| {
        Error::model(path.display().to_string())
            .expected("a .safetensors file whose header agrees with its length")
            .found(format!("{} bytes with a faulty header ({e})", map.len()))
            .fix("the file is truncated or damaged, or a pointer to a large file: fetch it again")
    })?;
    // `read_metadata` has checked that the tensors cover the file exactly.
    for (name, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        let start_of_data = 8 + header;
        let place = Place {
            file: files.len(),
            dtype: info.dtype,
            shape: info.shape.clone(),
            range: start_of_data + start..start_of_data + end,
        };
        tensors.insert(name, place);
    }
    files.push((path, map));
    Ok(())
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
        Error::model(&shown).expected(expected).found(e.to_string()).fix("fetch the file again")
    })?;
    let plain = |name: &str| Path::new(name).file_name() == Some(name.as_ref());
    match map.values().find(|name| !plain(name) || name.contains('\\')) {
        Some(name) => {
            Err(Error::model(&shown).expected("plain file names").found(format!("{name:?}")).fix(
                "do not use this file: names that lead out of the folder are a sign of an attack",
            ))
        }
        None => Ok(map),
    }
}
