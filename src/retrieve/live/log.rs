//! The changes since an index was saved, on disk: added to at the end, each one whole or not there.
//!
//! Little-endian. The file starts with the magic `CARTCHNG`, version `u32`, zero `u32`, the SHA-256
//! of the manifest that it belongs to, and SHA-256 of all that. A change is the magic `CHANGE`, two
//! zero bytes, the lengths `u64` of its head and its body, the first 8 bytes of the SHA-256 of
//! these 24 and of its number; head and body; SHA-256 of both and of its number. So a length that
//! was changed is told from a change that was cut short. A change with nothing but zeros behind its
//! start, or in the place of its checksum or of the end of that, at the end of the file was not
//! finished either.

use std::{
    fs::{File, OpenOptions},
    io::ErrorKind,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{super::folder::Manifest, change::Change};
use crate::{
    error::{Error, Result},
    storage::{fs, write_bytes},
};

const MAGIC: &[u8; 8] = b"CARTCHNG";
const VERSION: u32 = 1;
const RECORD: &[u8; 8] = b"CHANGE\0\0";
/// Bytes of a checksum.
const CHECKSUM: usize = 32;
/// Bytes before the first change.
const START: usize = 16 + 2 * CHECKSUM;
/// Bytes before a change's head.
const RECORD_START: usize = 32;

/// Changes that were read.
#[derive(Debug)]
pub(in crate::retrieve) struct Log {
    pub(in crate::retrieve) changes: Vec<Change>,
    /// Bytes up to the end of the last whole change; 0 where there is no file.
    pub(super) end: u64,
    /// Bytes behind it, of a change that was cut short.
    pub(in crate::retrieve) torn: u64,
}

impl Log {
    /// What the file's name starts with.
    pub(in crate::retrieve) const ROLE: &'static str = "changes";

    /// Name of the file that belongs to a manifest.
    pub(in crate::retrieve) fn name(manifest: &Manifest) -> String {
        format!("{}-{}.log", Self::ROLE, &manifest.digest()[..12])
    }

    /// Reads the changes since a manifest was written; `None` without a file.
    ///
    /// # Errors
    /// [`Error::Index`] when a byte was changed; a last change that was cut short, as by a crash,
    /// is none.
    pub(in crate::retrieve) fn read(folder: &Path, manifest: &Manifest) -> Result<Self> {
        let path = folder.join(Self::name(manifest));
        // Not mapped: the file is cut where a change was not finished.
        match std::fs::read(&path) {
            Ok(bytes) => Self::parse(&path.display().to_string(), &bytes, manifest),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                Ok(Self { changes: Vec::new(), end: 0, torn: 0 })
            }
            Err(e) => Err(Error::io("read", &path, e)),
        }
    }

    /// Whether there was a file.
    pub(in crate::retrieve) fn was_there(&self) -> bool {
        self.end > 0
    }

    fn parse(subject: &str, bytes: &[u8], manifest: &Manifest) -> Result<Self> {
        let wrong = |at: usize, expected: &str, found: &str| {
            let remedy = format!(
                "restore the file from a copy; the changes before byte {at} are intact: truncate \
                 the file to that length to drop the later ones"
            );
            Error::index(subject).expected(expected).found(found).fix(remedy)
        };
        let start = start(manifest);
        if bytes.get(..START) != Some(&start[..]) {
            let expected = format!("changes of the manifest, format {VERSION}");
            return Err(Error::index(subject).expected(expected).found("changes of another index, or a damaged file").fix("restore the file from a copy, or remove it to drop the changes since the index \
                 was saved"));
        }
        let (mut at, mut changes) = (START, Vec::new());
        while bytes.len() - at >= RECORD_START {
            let number = changes.len() as u64;
            let (header, rest) = bytes[at..].split_at(RECORD_START);
            let length = |from: usize| {
                let mut word = [0; 8];
                word.copy_from_slice(&header[from..from + 8]);
                usize::try_from(u64::from_le_bytes(word)).unwrap_or(usize::MAX)
            };
            if header[24..] != header_sum(&header[..24], number) || &header[..8] != RECORD {
                if is_blank(rest) {
                    break;
                }
                return Err(wrong(at, "the start of a change", "a changed byte"));
            }
            let (head, body) = (length(8), length(16));
            let whole = head.checked_add(body).and_then(|sum| sum.checked_add(CHECKSUM));
            let Some(whole) = whole.filter(|&whole| whole <= rest.len()) else {
                break;
            };
            let (content, sum) = rest[..whole].split_at(whole - CHECKSUM);
            if whole == rest.len() && is_blank(sum) {
                break;
            }
            let (head, body) = content.split_at(head);
            let expected = content_sum(head, body, number);
            if sum != expected {
                // All there but for the end of the checksum.
                let same = sum.iter().zip(&expected).take_while(|(a, b)| a == b).count();
                if whole == rest.len() && same + 4 <= CHECKSUM && is_blank(&sum[same..]) {
                    break;
                }
                return Err(wrong(at, "a change that matches its SHA-256", "a changed byte"));
            }
            let subject = format!("{subject}: change {number}");
            changes.push(Change::from_parts(&subject, head, body)?);
            at += RECORD_START + whole;
        }
        Ok(Self { changes, end: at as u64, torn: (bytes.len() - at) as u64 })
    }
}

/// Whether bytes are what some file systems leave at the end of a file when the power fails: its
/// length was written, but not what it holds.
fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// What a file of changes starts with.
fn start(manifest: &Manifest) -> Vec<u8> {
    let manifest = Sha256::digest(manifest.digest());
    let bytes = [&MAGIC[..], &VERSION.to_le_bytes(), &[0; 4], &manifest].concat();
    [&bytes[..], &Sha256::digest(&bytes)].concat()
}

fn header_sum(header: &[u8], number: u64) -> [u8; 8] {
    let digest = Sha256::new_with_prefix(header).chain_update(number.to_le_bytes()).finalize();
    let mut sum = [0; 8];
    sum.copy_from_slice(&digest[..8]);
    sum
}

fn content_sum(head: &[u8], body: &[u8], number: u64) -> [u8; CHECKSUM] {
    let digest = Sha256::new_with_prefix(head).chain_update(body);
    digest.chain_update(number.to_le_bytes()).finalize().into()
}

/// Cuts a file of changes back to those that are whole.
fn cut(file: &File, path: &Path, end: u64) -> std::io::Result<()> {
    fs::set_len(file, path, end)?;
    fs::sync_all(file, path)
}

/// Where changes are added.
#[derive(Debug)]
pub(super) struct LogWriter {
    path: PathBuf,
    file: File,
    /// Bytes of the file.
    pub(super) end: u64,
    /// Changes in the file.
    pub(super) number: u64,
    /// Nothing can be added: a change could not be cut back, or it is not known whether the file
    /// belongs to the manifest in force.
    broken: bool,
}

impl LogWriter {
    /// Opens the file of a manifest's changes to add some, and cuts off what was cut short; makes
    /// it where there is none.
    ///
    /// # Errors
    /// As [`Log::read`]; [`Error::Io`] when the file cannot be written.
    pub(super) fn open(folder: &Path, manifest: &Manifest) -> Result<(Self, Vec<Change>)> {
        let path = folder.join(Log::name(manifest));
        let mut log = Log::read(folder, manifest)?;
        if log.end == 0 {
            write_bytes(&path, &start(manifest))?;
            log.end = START as u64;
        }
        let refused = |e| Error::io("write", &path, e);
        let file = OpenOptions::new().write(true).open(&path).map_err(refused)?;
        if log.torn > 0 {
            cut(&file, &path, log.end).map_err(refused)?;
        }
        let number = log.changes.len() as u64;
        Ok((Self { path, file, end: log.end, number, broken: false }, log.changes))
    }

    /// Goes on with the file of the manifest that is in force now. Where that fails, nothing can be
    /// added until it does not.
    ///
    /// # Errors
    /// As [`LogWriter::open`] and [`Manifest::read`].
    pub(super) fn follow(&mut self, folder: &Path) -> Result<()> {
        self.broken = true;
        let manifest = Manifest::read(folder)?;
        // Still the same file: without what was refused but could not be cut off.
        if folder.join(Log::name(&manifest)) == self.path && self.path.exists() {
            cut(&self.file, &self.path, self.end).map_err(|e| Error::io("write", &self.path, e))?;
        }
        *self = Self::open(folder, &manifest)?.0;
        Ok(())
    }

    /// Adds a change. When this returns, it is on the disk.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written; the file is then as before.
    pub(super) fn append(&mut self, change: &Change) -> Result<()> {
        let refused = |e| Error::io("write", &self.path, e);
        if self.broken {
            let error =
                "an earlier failure left the file in doubt: compact the index, or open it again";
            return Err(refused(std::io::Error::other(error)));
        }
        let (head, body) = change.to_parts()?;
        // One change that cannot be read again would lose the whole index.
        let remedy = "look for numbers in metadata or features that JSON cannot represent";
        Error::index("change")
            .expected("a change that reads back as it was written")
            .found("another change")
            .fix_if(Change::from_parts("change", &head, &body)? != *change, remedy)?;
        let lengths = [&head, &body].map(|part| (part.len() as u64).to_le_bytes());
        let header = [&RECORD[..], &lengths[0], &lengths[1]].concat();
        let sums = (header_sum(&header, self.number), content_sum(&head, &body, self.number));
        let bytes = [&header[..], &sums.0, &head, &body, &sums.1].concat();
        let written = fs::write_at(&mut self.file, &self.path, self.end, &bytes)
            .and_then(|()| fs::sync_data(&self.file, &self.path));
        if let Err(error) = written {
            self.broken = cut(&self.file, &self.path, self.end).is_err();
            return Err(Error::io("write", &self.path, error));
        }
        self.end += bytes.len() as u64;
        self.number += 1;
        Ok(())
    }
}
