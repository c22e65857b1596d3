//! The `.npz` format: a zip archive of `.npy` files.

use std::io::{self, Cursor, Read};

use zip::ZipArchive;

use super::{
    layout::{Description, Layout, choose},
    npy::{self, LONGEST_HEADER},
};
use crate::{
    error::{Error, Result},
    storage::Array,
};

/// Reads the chosen array of an archive; also returns its columns.
///
/// Arrays in archives are copied, compressed or not.
pub(super) fn read(
    subject: &str,
    bytes: &[u8],
    wanted: Option<&str>,
) -> Result<(Array<f32>, usize)> {
    let mut archive =
        ZipArchive::new(Cursor::new(bytes)).map_err(|source| damaged(subject, &source.into()))?;
    let arrays = archive.file_names().filter_map(|name| name.strip_suffix(".npy"));
    let mut names: Vec<String> = arrays.map(str::to_string).collect();
    if let Some(wanted) = wanted.filter(|wanted| names.iter().any(|name| name == wanted)) {
        // The other arrays need not be readable then.
        names = vec![wanted.to_string()];
    }
    let mut arrays = Vec::with_capacity(names.len());
    for name in names {
        let (description, ()) = entry(subject, &mut archive, &name, |_, _, _| Ok(()))?;
        arrays.push((name, description));
    }
    let (name, _) = choose(subject, arrays, wanted)?;
    let subject = format!("{subject}: array \"{name}\"");
    let (_, (numbers, dim)) =
        entry(&subject, &mut archive, &name, |description, length, reader| {
            let layout = Layout::new(&subject, description, length)?;
            let numbers = layout.read(&subject, &mut *reader)?;
            // The archive's checksum is compared at the end of the entry.
            match reader.read(&mut [0]) {
                Ok(0) => Ok((numbers, layout.dim)),
                Ok(_) => Err(damaged(&subject, &io::Error::other("bytes after the array"))),
                Err(source) => Err(damaged(&subject, &source)),
            }
        })?;
    Ok((numbers.into(), dim))
}

/// Opens one entry, parses its header and hands on the length and a reader of its payload.
fn entry<T>(
    subject: &str,
    archive: &mut ZipArchive<Cursor<&[u8]>>,
    name: &str,
    then: impl FnOnce(&Description, u64, &mut dyn Read) -> Result<T>,
) -> Result<(Description, T)> {
    let mut file = archive
        .by_name(&format!("{name}.npy"))
        .map_err(|source| damaged(subject, &source.into()))?;
    let mut head = Vec::new();
    let limit = LONGEST_HEADER as u64;
    file.by_ref().take(limit).read_to_end(&mut head).map_err(|source| damaged(subject, &source))?;
    let (description, start) = npy::parse(subject, &head)?;
    let length = file.size().saturating_sub(start as u64);
    let value = then(&description, length, &mut (&head[start..]).chain(file))?;
    Ok((description, value))
}

fn damaged(subject: &str, source: &io::Error) -> Error {
    Error::features(subject)
        .expected("a zip archive of .npy files")
        .found(format!("one that cannot be read ({source})"))
        .fix("save the arrays with `numpy.savez`, or fetch the file again")
}
