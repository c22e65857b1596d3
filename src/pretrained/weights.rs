//! Tensors of one or several files: safetensors, and with the feature `pth` PyTorch's own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::{Path, PathBuf},
    rc::Rc,
};

use half::{bf16, f16};
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

type Outcome<T> = std::result::Result<T, String>;

/// The tensors of a model, which are read when they are asked for.
pub struct Weights {
    /// The file, or the index of several.
    path: PathBuf,
    bytes: usize,
    tensors: BTreeMap<String, Tensor>,
}

struct Tensor {
    shape: Vec<usize>,
    /// Its type in the file, and whether such numbers are read.
    dtype: String,
    is_read: bool,
    read: Box<dyn Fn() -> Outcome<Vec<f32>>>,
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
        let mut weights = Self::none(path);
        weights.add(path)?;
        Ok(weights)
    }

    fn none(path: &Path) -> Self {
        Self { path: path.to_path_buf(), bytes: 0, tensors: BTreeMap::new() }
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
        let mut weights = Self::none(path);
        for (name, tensor) in reader.into_tensors() {
            let (shape, dtype) = (tensor.shape.to_vec(), tensor.dtype);
            weights.bytes = weights.bytes.saturating_add(count(&[&shape]).saturating_mul(4));
            let subject = format!("{}: tensor {name:?}", path.display());
            let read = move || {
                let data = tensor.to_data().map_err(|e| format!("{subject}: {e:?}"))?;
                Ok(data.iter::<f32>().collect())
            };
            let (dtype, is_read) = (format!("{dtype:?}"), dtype.is_float());
            weights.tensors.insert(name, Tensor { shape, dtype, is_read, read: Box::new(read) });
        }
        let length = std::fs::metadata(path).map_err(|e| Error::io("read", path, e))?.len();
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        weights.bytes = weights.bytes.min(length.saturating_mul(2));
        Ok(weights)
    }

    #[cfg(not(feature = "pth"))]
    fn open_pickle(path: &Path) -> Result<Self> {
        Err(Error::model(path.display().to_string()).expected("safetensors, in a build without the feature `pth`").found("a file in the format of PyTorch").fix("build with --features pth, or convert the file: safetensors.torch.save_file(torch.load(FILE), ..)"))
    }

    /// Number of bytes of all tensors; of those in the format of PyTorch, what they take as `f32`,
    /// at most twice the file's.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn open_index(folder: &Path, index: &Path) -> Result<Self> {
        let map = weight_map(index)?;
        let mut weights = Self::none(index);
        for name in map.values().collect::<BTreeSet<_>>() {
            weights.add(&folder.join(name))?;
        }
        match map.keys().find(|tensor| !weights.tensors.contains_key(*tensor)) {
            Some(tensor) => Err(Error::model(index.display().to_string())
                .expected(format!("tensor {tensor:?} in {:?}", map[tensor]))
                .found("no tensor of that name")
                .fix("fetch all files again, from one revision")),
            None => Ok(weights),
        }
    }

    /// Maps a file of safetensors and reads its header.
    fn add(&mut self, path: &Path) -> Result<()> {
        let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
        let map = Rc::new(map(&file).map_err(|e| Error::io("read", path, e))?);
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|e| {
            Error::model(path.display().to_string())
                .expected("a .safetensors file whose header agrees with its length")
                .found(format!("{} bytes with a faulty header ({e})", map.len()))
                .fix("the file is truncated or damaged, or a pointer to a large file: fetch it again")
        })?;
        // `read_metadata` has checked that the tensors cover the file exactly.
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            self.bytes += end - start;
            let (map, range) = (Rc::clone(&map), 8 + header + start..8 + header + end);
            let (shape, dtype) = (info.shape.clone(), info.dtype);
            let is_read = matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16);
            let read = Box::new(move || floats(&map[range.clone()], dtype));
            self.tensors.insert(name, Tensor { shape, dtype: dtype.to_string(), is_read, read });
        }
        Ok(())
    }

    /// Names of all tensors, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The files, for messages.
    pub(super) fn subject(&self) -> String {
        self.path.display().to_string()
    }

    /// Shape of a tensor, if it is there.
    pub(super) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|tensor| tensor.shape.clone())
    }

    /// Refuses a tensor that is there and cannot be read.
    ///
    /// # Errors
    /// [`Error::Model`] for a tensor of integers.
    pub(super) fn check(&self, name: &str) -> Result<()> {
        match self.tensors.get(name).filter(|tensor| !tensor.is_read) {
            None => Ok(()),
            Some(tensor) => Err(Error::model(format!("{}: tensor {name:?}", self.subject()))
                .expected("f32, f16 or bf16")
                .found(&tensor.dtype)
                .fix("save the model in one of these")),
        }
    }

    /// Values of a tensor that is there and has passed [`Weights::check`].
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(super) fn values(&self, name: &str) -> Outcome<Vec<f32>> {
        let tensor = self.tensors.get(name).ok_or_else(|| format!("{name:?} is not there"))?;
        (tensor.read)()
    }
}

/// Numbers of a file of safetensors.
fn floats(bytes: &[u8], dtype: Dtype) -> Outcome<Vec<f32>> {
    let halves = bytes.as_chunks().0.iter().copied();
    Ok(match dtype {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F16 => halves.map(|b| f16::from_le_bytes(b).to_f32()).collect(),
        Dtype::BF16 => halves.map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
        other => return Err(format!("numbers of the type {other}")),
    })
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
