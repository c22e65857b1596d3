//! One rule for what a program writes: it never harms a file that somebody gave it.

mod place;

use std::path::{Path, PathBuf};

use self::place::{Identity, Place};
use super::fs;
use crate::error::{Error, Result};

/// Whether a file that is there already is one that the program wrote itself.
type IsOurs = fn(&Path) -> bool;

/// What a program reads and what it writes, checked before it computes or writes anything.
///
/// A program declares all of its inputs and outputs, then calls [`prepare`](Self::prepare). Refused
/// are
///
/// - an input that is missing or cannot be read;
/// - an output that is an input: the same path, another spelling of it, a symbolic link to it, a
///   hard link of it;
/// - a file that is there already, unless [`replaces`](Self::replaces) recognises it as the
///   program's own; links that lead nowhere, devices and pipes;
/// - a folder that is an input itself, or lies where all files are inputs ([`reads_below`]);
/// - two outputs that are one file;
/// - a place where nothing can be written: below a file, or without the right to write;
/// - more bytes than the disk has room for, where the program knows them ([`needs`]).
///
/// New files in a folder that is an input are fine, except below one of [`reads_below`].
///
/// [`reads_below`]: Self::reads_below
/// [`needs`]: Self::needs
///
/// # Example
/// ```
/// use cart_retrieval::{Error, expert::read_json, eval::write_json, members::Outputs};
///
/// let folder = tempfile::tempdir().map_err(|e| Error::io("create", "folder", e))?;
/// let (captions, report) = (folder.path().join("captions.jsonl"), folder.path().join("out/r.json"));
/// std::fs::write(&captions, "{}").map_err(|e| Error::io("write", &captions, e))?;
/// let ours = |path: &std::path::Path| read_json(path).is_ok();
/// let outputs = |to| {
///     Outputs::new().reads([&captions]).replaces([to], "a report of this program", ours)
/// };
/// outputs(&report).prepare()?;
/// write_json(&report, &[])?;
/// // The second run replaces the report; the captions are never replaced.
/// outputs(&report).prepare()?;
/// assert!(outputs(&captions).prepare().is_err());
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Outputs {
    inputs: Vec<PathBuf>,
    below: Vec<PathBuf>,
    files: Vec<OutputFile>,
    folders: Vec<PathBuf>,
    needs: Vec<(PathBuf, u64)>,
}

#[derive(Debug, Clone)]
struct OutputFile {
    path: PathBuf,
    /// What an earlier run may have left there, and how to recognise it.
    own: Option<(&'static str, IsOurs)>,
}

fn paths<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> impl Iterator<Item = PathBuf> {
    paths.into_iter().map(|path| path.as_ref().to_path_buf())
}

impl Outputs {
    /// Reads nothing and writes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Files and folders that are read; an optional one can be given as it is.
    pub fn reads<P: AsRef<Path>>(mut self, inputs: impl IntoIterator<Item = P>) -> Self {
        self.inputs.extend(paths(inputs));
        self
    }

    /// Folders all of whose files are read, whatever they are called: no output may lie in there,
    /// as the next run would read it.
    pub fn reads_below<P: AsRef<Path>>(mut self, folders: impl IntoIterator<Item = P>) -> Self {
        let folders: Vec<PathBuf> = paths(folders).collect();
        self.inputs.extend(folders.iter().cloned());
        self.below.extend(folders);
        self
    }

    /// Files that are written, none of which may be there.
    pub fn writes<P: AsRef<Path>>(mut self, files: impl IntoIterator<Item = P>) -> Self {
        self.files.extend(paths(files).map(|path| OutputFile { path, own: None }));
        self
    }

    /// Files that are written, and replaced where `is_ours` recognises one of an earlier run.
    pub fn replaces<P: AsRef<Path>>(
        mut self,
        files: impl IntoIterator<Item = P>,
        what: &'static str,
        is_ours: fn(&Path) -> bool,
    ) -> Self {
        let own = Some((what, is_ours as IsOurs));
        self.files.extend(paths(files).map(|path| OutputFile { path, own }));
        self
    }

    /// Folders that files are written to, created where they are missing. The program itself has to
    /// check what is in there, or declare the files.
    pub fn fills<P: AsRef<Path>>(mut self, folders: impl IntoIterator<Item = P>) -> Self {
        self.folders.extend(paths(folders));
        self
    }

    /// Bytes that are written below a path, at least.
    pub fn needs(mut self, path: impl AsRef<Path>, bytes: u64) -> Self {
        self.needs.push((path.as_ref().to_path_buf(), bytes));
        self
    }

    /// Checks everything, and changes nothing.
    ///
    /// # Errors
    /// [`Error::Io`] for an input that cannot be read; [`Error::Output`] that names the output, and
    /// what is in its way.
    pub fn check(&self) -> Result<()> {
        let inputs = self.inputs.iter().map(|path| Ok((path.as_path(), input(path)?)));
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let mut places: Vec<(PathBuf, &Path)> = Vec::new();
        for file in &self.files {
            let place = Place::of(&file.path)?;
            check_file(file, &place, &inputs)?;
            self.check_place(&file.path, &place, &mut places)?;
        }
        for folder in &self.folders {
            let place = Place::of(folder)?;
            check_folder(folder, &place, &inputs)?;
            self.check_place(folder, &place, &mut places)?;
        }
        place::check_space(&self.needs)
    }

    /// Checks everything, then creates the folders that outputs lie in.
    ///
    /// # Errors
    /// As [`Outputs::check`]; [`Error::Io`] for a folder that cannot be created.
    pub fn prepare(&self) -> Result<()> {
        self.check()?;
        let parents = self.files.iter().filter_map(|file| file.path.parent());
        for folder in parents.chain(self.folders.iter().map(PathBuf::as_path)) {
            fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
        }
        Ok(())
    }

    /// What holds for files and folders: not among inputs, not twice, and a place to write to.
    fn check_place<'a>(
        &self,
        path: &'a Path,
        place: &Place,
        places: &mut Vec<(PathBuf, &'a Path)>,
    ) -> Result<()> {
        for folder in &self.below {
            let root = folder.canonicalize().map_err(|e| Error::io("read", folder, e))?;
            if place.resolved.starts_with(&root) {
                return Err(Error::output(path.display().to_string())
                    .expected("a path outside of the folders whose files are all read")
                    .found(format!("a path in {}", folder.display()))
                    .fix("write somewhere else: the next run would read this output"));
            }
        }
        if let Some((_, other)) = places.iter().find(|(there, _)| *there == place.resolved) {
            return Err(Error::output(path.display().to_string())
                .expected("a separate output")
                .found(format!("the output {}", other.display()))
                .fix("name another path for one of them"));
        }
        places.push((place.resolved.clone(), path));
        place.check_parent(path)
    }
}

/// What identifies an input, which has to be readable.
fn input(path: &Path) -> Result<Identity> {
    let identity = Identity::of(path).map_err(|e| Error::io("read", path, e))?;
    place::check_readable(path).map_err(|e| Error::io("read", path, e))?;
    Ok(identity)
}

/// The input that an output is.
fn same<'a>(place: &Place, inputs: &[(&'a Path, Identity)]) -> Option<&'a Path> {
    let there = place.identity.as_ref()?;
    inputs.iter().find(|(_, input)| input == there).map(|(path, _)| *path)
}

fn check_file(file: &OutputFile, place: &Place, inputs: &[(&Path, Identity)]) -> Result<()> {
    let path = &file.path;
    let expected = match file.own {
        Some((what, _)) => format!("no file yet, or {what}"),
        None => "no file yet".to_string(),
    };
    let refused = |found: String, remedy: &str| {
        Err(Error::output(path.display().to_string()).expected(&*expected).found(found).fix(remedy))
    };
    if path.file_name().is_none() {
        return refused("a path that does not end in a name".into(), "name a file");
    }
    if let Some(input) = same(place, inputs) {
        let found = format!("the input {}, which it would replace", input.display());
        return refused(found, "name another file to write to");
    }
    let Ok(there) = path.metadata() else {
        if path.is_symlink() {
            let remedy = "name another file, or remove the link";
            return refused("a symbolic link to a file that is not there".into(), remedy);
        }
        return Ok(());
    };
    if there.is_dir() {
        return refused("a folder".into(), "name a file to write to");
    }
    if !there.is_file() {
        return refused("a device or a pipe".into(), "name a file to write to");
    }
    if file.own.is_some_and(|(_, is_ours)| is_ours(path)) {
        return Ok(());
    }
    refused("another file".into(), "name another file to write to, or remove this one yourself")
}

fn check_folder(path: &Path, place: &Place, inputs: &[(&Path, Identity)]) -> Result<()> {
    let refused = |found: String, remedy: &str| {
        let expected = "a folder to write to, or none yet";
        Err(Error::output(path.display().to_string()).expected(expected).found(found).fix(remedy))
    };
    if let Some(input) = same(place, inputs) {
        let found = format!("the input {}", input.display());
        return refused(found, "name another folder to write to");
    }
    match path.metadata() {
        Ok(there) if !there.is_dir() => refused("a file".into(), "name a folder to write to"),
        Ok(_) => place::check_writable(path, path),
        Err(_) if path.is_symlink() => {
            let remedy = "name another folder, or remove the link";
            refused("a symbolic link to a folder that is not there".into(), remedy)
        }
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
