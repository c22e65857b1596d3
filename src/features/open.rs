//! Opening a file of any of the formats.

use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::Arc,
};

use memmap2::Mmap;

use super::{layout::Layout, npy, npz, placed::Placed, safetensors};
use crate::{
    error::{Error, Result},
    storage::{Array, map},
};

/// The formats, by the extension of the file's name.
#[derive(Debug, Clone, Copy)]
enum Format {
    Npy,
    Npz,
    Safetensors,
}

/// Opens the matrix in a file; also returns its columns.
pub(super) fn open(path: &Path, name: Option<&str>) -> Result<(Array<f32>, usize)> {
    let subject = path.display().to_string();
    let format = Format::of(path, &subject)?;
    if let (Format::Npy, Some(name)) = (format, name) {
        return Err(Error::features(subject)
            .expected("a .npz or .safetensors file, whose arrays have names")
            .found(format!("a .npy file and the name \"{name}\""))
            .fix("open it with `Features::open(path)`"));
    }
    if let Format::Npz = format {
        return npz::read(&subject, &map_file(path, &subject)?, name);
    }
    placed(path, subject, format, name)?.read()
}

/// Maps a file whose rows can be read one range at a time, and looks at its header only.
pub(super) fn place(path: &Path) -> Result<Placed> {
    let subject = path.display().to_string();
    let wrong = |expected: &str, found: &str, remedy: &str| {
        Err(Error::features(path.display().to_string()).expected(expected).found(found).fix(remedy))
    };
    let format = Format::of(path, &subject)?;
    if let Format::Npz = format {
        return wrong(
            "a .npy or .safetensors file, which can be read range by range",
            "a .npz archive",
            "save the array of this shard with `numpy.save`",
        );
    }
    let placed = placed(path, subject, format, None)?;
    if placed.layout.fortran {
        return wrong(
            "a row-major array, whose rows can be read range by range",
            "a column-major one",
            "save the shard with `numpy.save(path, numpy.ascontiguousarray(array))`",
        );
    }
    Ok(placed)
}

impl Format {
    fn of(path: &Path, subject: &str) -> Result<Self> {
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            Some("npy") => Ok(Self::Npy),
            Some("npz") => Ok(Self::Npz),
            Some("safetensors") => Ok(Self::Safetensors),
            _ => Err(Error::features(subject)
                .expected("a file that ends in .npy, .npz or .safetensors")
                .found(
                    extension.map_or("no extension".to_string(), |e| format!("the extension .{e}")),
                )
                .fix("save the features in one of these formats, or rename the file")),
        }
    }
}

fn map_file(path: &Path, subject: &str) -> Result<Arc<Mmap>> {
    let refused = |source| Error::io("open", path, source);
    // Asked before opening: to open a pipe would wait for its writer.
    let metadata = fs::metadata(path).map_err(refused)?;
    if metadata.is_dir() {
        return Err(refused(io::ErrorKind::IsADirectory.into()));
    }
    if !metadata.is_file() || metadata.len() == 0 {
        let found = if metadata.is_file() { "an empty file" } else { "a pipe or a device" };
        let remedy = "check the path, or write the features again";
        return Err(Error::features(subject)
            .expected("a file with features")
            .found(found)
            .fix(remedy));
    }
    let file = File::open(path).map_err(refused)?;
    map(&file).map(Arc::new).map_err(|source| Error::io("map", path, source))
}

/// The matrix of a `.npy` or `.safetensors` file.
fn placed(path: &Path, subject: String, format: Format, name: Option<&str>) -> Result<Placed> {
    let map = map_file(path, &subject)?;
    if let Format::Safetensors = format {
        return safetensors::place(&subject, map, name);
    }
    let (description, start) = npy::parse(&subject, &map)?;
    let end = map.len();
    let layout = Layout::new(&subject, &description, (end - start) as u64)?;
    Ok(Placed { subject, map, layout, start, end })
}
