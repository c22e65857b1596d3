//! The on-disk form of the trie, which is also its form in memory: a file is mapped, not rebuilt.
//!
//! Little-endian: magic `CARTTRIE`, version u32, levels u32, items u64, one u32 size per level;
//! then, each starting at a multiple of 64 bytes, the dense first level (u32), the item of every
//! row (u32), the row of every item (u32), and the column of each further level (nothing, u8 or u16
//! a row, by the level's size); last, the SHA-256 of all that.

use std::{fs::File, ops::Range, path::Path, sync::Arc};

use memmap2::Mmap;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::{Trie, column::Column};
use crate::{
    error::{Error, Result},
    identifier::LevelSizes,
    storage::{Array, map},
};

const MAGIC: &[u8; 8] = b"CARTTRIE";
const VERSION: u32 = 2;
const CHECKSUM: usize = 32;
/// Sections start at multiples of this: a cache line, and a multiple of every number's size.
const ALIGNMENT: usize = 64;

/// Where the parts of a trie lie in its bytes.
struct Layout {
    vocabulary: LevelSizes,
    items: usize,
    first: Range<usize>,
    items_by_row: Range<usize>,
    rows: Range<usize>,
    columns: Vec<Range<usize>>,
}

impl Trie {
    /// The bytes of this trie, as [`Trie::from_bytes`] reads them.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1024 + self.memory());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(self.levels() as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.len() as u64).to_le_bytes());
        for &size in self.vocabulary.sizes() {
            bytes.extend_from_slice(&(size as u32).to_le_bytes());
        }
        let align = |bytes: &mut Vec<u8>| bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        for numbers in [&self.first, &self.items, &self.rows] {
            align(&mut bytes);
            for value in numbers.iter() {
                bytes.extend_from_slice(&value.to_le_bytes());
            }
        }
        for column in &self.columns {
            align(&mut bytes);
            bytes.extend(column.bytes());
        }
        let checksum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&checksum);
        bytes
    }

    /// Reads a trie and checks all its invariants, so that any byte string either is a valid trie
    /// or is refused. Nothing is allocated before the length fits.
    ///
    /// # Errors
    /// [`Error::Index`] naming what does not fit: magic, version, length, checksum, order, tokens.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let layout = Layout::read(bytes)?;
        let numbers = |range: &Range<usize>| -> Array<u32> {
            let number = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            bytes[range.clone()].chunks_exact(4).map(number).collect::<Vec<_>>().into()
        };
        let column = |level: usize, range: &Range<usize>| {
            let word = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]);
            match Column::width(layout.vocabulary.size(level)) {
                0 => Column::Zeros(layout.items),
                1 => Column::Bytes(bytes[range.clone()].to_vec().into()),
                _ => Column::Words(
                    bytes[range.clone()].chunks_exact(2).map(word).collect::<Vec<_>>().into(),
                ),
            }
        };
        let trie = Self {
            first: numbers(&layout.first),
            items: numbers(&layout.items_by_row),
            rows: numbers(&layout.rows),
            columns: (1..).zip(&layout.columns).map(|(l, range)| column(l, range)).collect(),
            vocabulary: layout.vocabulary,
        };
        trie.check()?;
        Ok(trie)
    }

    /// Maps a file of these bytes and checks it like [`Trie::from_bytes`]. The trie is used where
    /// it lies: its pages are shared with other processes and need not all be in memory.
    ///
    /// Nobody may change the file in place while it is mapped; replacing it by renaming another
    /// over it, as this library writes its files, does no harm.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, otherwise as [`Trie::from_bytes`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let refused = |e| Error::io("read", path, e);
        let file = File::open(path).map_err(refused)?;
        if file.metadata().map_err(refused)?.len() == 0 {
            // An empty file cannot be mapped everywhere.
            return Self::from_bytes(&[]);
        }
        let map = Arc::new(map(&file).map_err(refused)?);
        let layout = Layout::read(&map)?;
        match Self::in_place(&map, &layout) {
            Some(trie) => {
                trie.check()?;
                Ok(trie)
            }
            None => Self::from_bytes(&map),
        }
    }

    /// The trie of a map; none on machines that order bytes otherwise.
    fn in_place(map: &Arc<Mmap>, layout: &Layout) -> Option<Self> {
        let numbers = |range: &Range<usize>| Array::mapped(map, range.start, range.end);
        let column = |level: usize, range: &Range<usize>| {
            Some(match Column::width(layout.vocabulary.size(level)) {
                0 => Column::Zeros(layout.items),
                1 => Column::Bytes(Array::mapped(map, range.start, range.end)?),
                _ => Column::Words(Array::mapped(map, range.start, range.end)?),
            })
        };
        Some(Self {
            first: numbers(&layout.first)?,
            items: numbers(&layout.items_by_row)?,
            rows: numbers(&layout.rows)?,
            columns: (1..)
                .zip(&layout.columns)
                .map(|(level, range)| column(level, range))
                .collect::<Option<_>>()?,
            vocabulary: layout.vocabulary.clone(),
        })
    }

    /// Checks the invariants of the table.
    fn check(&self) -> Result<()> {
        let n = self.items.len();
        let ascending = self.first.is_sorted()
            && self.first[0] == 0
            && self.first.last().map(|&end| end as usize) == Some(n);
        ensure(ascending, "ascending offsets of the first level", "others")?;
        // Every row is found again through its item, so no item has two.
        let inverse = |(row, &item): (usize, &u32)| {
            self.rows.get(item as usize).is_some_and(|&found| found as usize == row)
        };
        if let Some(row) = self.items.par_iter().enumerate().position_any(|at| !inverse(at)) {
            let found = format!("item {} in row {row}", self.items[row]);
            return Err(malformed("every item exactly once", found));
        }
        for (level, column) in self.columns.iter().enumerate() {
            let size = self.vocabulary.size(level + 1);
            if let Some(token) = column.beyond(size) {
                let expected = format!("tokens below {size} at level {}", level + 1);
                return Err(malformed(expected, token.to_string()));
            }
        }
        let sorted = |row: usize| {
            let tokens = |row| self.columns.iter().map(move |column| column.token(row));
            tokens(row - 1).lt(tokens(row))
        };
        self.first.par_windows(2).try_for_each(|range| {
            let rows = range[0] as usize + 1..range[1] as usize;
            match rows.into_par_iter().find_any(|&row| !sorted(row)) {
                Some(row) => Err(malformed("strictly ascending identifiers", format!("row {row}"))),
                None => Ok(()),
            }
        })
    }
}

impl Layout {
    /// Reads the header, and checks the length and the checksum.
    fn read(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader { bytes, at: 0 };
        ensure(reader.take(8)? == MAGIC, "the magic CARTTRIE", "something else")?;
        let (version, known) = (reader.u32()?, format!("format version {VERSION}"));
        ensure(version == VERSION, known, version.to_string())?;
        let levels = reader.u32()? as usize;
        let items = usize::try_from(reader.u64()?).unwrap_or(usize::MAX);
        let fits = (1..=bytes.len()).contains(&levels) && (1..u32::MAX as usize).contains(&items);
        let found = format!("{levels} levels, {items} items");
        ensure(fits, "at least one level and 1 to 2^32 - 2 items", found)?;
        let sizes = (0..levels).map(|_| reader.u32().map(|size| size as usize));
        let sizes: Vec<usize> = sizes.collect::<Result<_>>()?;
        let vocabulary = LevelSizes::new(sizes.clone()).map_err(|_| {
            let expected = format!("levels of 1 to {} tokens", LevelSizes::MAX_LEVEL);
            malformed(expected, format!("{sizes:?}"))
        })?;
        let first = reader.section(4, vocabulary.size(0) + 1)?;
        let items_by_row = reader.section(4, items)?;
        let rows = reader.section(4, items)?;
        let columns = (1..levels)
            .map(|level| reader.section(Column::width(vocabulary.size(level)), items))
            .collect::<Result<_>>()?;
        let body = reader.at;
        let found = format!("{} (the file is truncated or has trailing bytes)", bytes.len());
        let expected = body + CHECKSUM;
        ensure(bytes.len() == expected, format!("{expected} bytes"), found)?;
        let same = Sha256::digest(&bytes[..body]).as_slice() == &bytes[body..];
        ensure(same, "bytes that match their SHA-256", "other bytes")?;
        Ok(Self { vocabulary, items, first, items_by_row, rows, columns })
    }
}

fn ensure(fits: bool, expected: impl Into<String>, found: impl Into<String>) -> Result<()> {
    if fits { Ok(()) } else { Err(malformed(expected, found)) }
}

fn malformed(expected: impl Into<String>, found: impl Into<String>) -> Error {
    Error::index("trie")
        .expected(expected)
        .found(found)
        .fix("save the index again, or restore the file from a copy")
}

/// Takes little-endian values from the front, refusing to run past the end.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.bytes.len());
        let Some(end) = end else {
            let left = self.bytes.len() - self.at;
            let expected = format!("{count} bytes after the first {}", self.at);
            return Err(malformed(expected, format!("{left} (the file is truncated)")));
        };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// The place of `count` numbers of `width` bytes at the next aligned one.
    fn section(&mut self, width: usize, count: usize) -> Result<Range<usize>> {
        self.take(self.at.next_multiple_of(ALIGNMENT) - self.at)?;
        let start = self.at;
        self.take(width.saturating_mul(count))?;
        Ok(start..self.at)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identifier::Codes;

    fn small() -> Trie {
        let codes = Codes::from_rows(3, &[[1u16, 0, 0], [0, 2, 1], [1, 0, 1], [1, 2, 0]]).unwrap();
        Trie::build(&codes, &LevelSizes::new(vec![3, 300, 2]).unwrap()).unwrap()
    }

    /// Opens bytes as a file.
    fn open(bytes: &[u8]) -> Result<Trie> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trie.bin");
        std::fs::write(&path, bytes).unwrap();
        Trie::open(&path)
    }

    /// With its checksum made anew.
    fn signed(mut bytes: Vec<u8>) -> Vec<u8> {
        let body = bytes.len() - CHECKSUM;
        let checksum = Sha256::digest(&bytes[..body]);
        bytes[body..].copy_from_slice(&checksum);
        bytes
    }

    #[test]
    fn bytes_and_files_round_trip() {
        for sizes in [vec![3, 300, 2], vec![2, 3, 2], vec![65_536, 65_536, 257]] {
            let codes =
                Codes::from_rows(3, &[[1u16, 0, 0], [0, 2, 1], [1, 0, 1], [1, 2, 0]]).unwrap();
            let trie = Trie::build(&codes, &LevelSizes::new(sizes).unwrap()).unwrap();
            let bytes = trie.to_bytes();
            assert_eq!(Trie::from_bytes(&bytes).unwrap(), trie);
            let mapped = open(&bytes).unwrap();
            assert_eq!(mapped, trie);
            assert_eq!(mapped.to_bytes(), bytes);
            assert_eq!(mapped.item_of(&[1, 2, 0]).unwrap(), 3);
        }
        let one = Codes::from_rows(1, &[[0u16]]).unwrap();
        let one = Trie::build(&one, &LevelSizes::new(vec![1]).unwrap()).unwrap();
        assert_eq!(open(&one.to_bytes()).unwrap(), one);
    }

    #[test]
    fn a_mapped_trie_outlives_the_name_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trie.bin");
        std::fs::write(&path, small().to_bytes()).unwrap();
        let mapped = Trie::open(&path).unwrap();
        let other = folder.path().join("other");
        std::fs::write(&other, b"something else").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(mapped, small());
        assert!(Trie::open(&path).unwrap_err().to_string().contains("CARTTRIE"));
        assert!(matches!(Trie::open(folder.path().join("none")), Err(Error::Io { .. })));
    }

    #[test]
    fn every_flipped_byte_and_every_truncation_is_refused() {
        let bytes = small().to_bytes();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(Trie::from_bytes(&bad).is_err(), "byte {at}");
            assert!(Trie::from_bytes(&bytes[..at]).is_err(), "cut at {at}");
        }
        assert!(open(&bytes[..bytes.len() - 1]).is_err() && open(&[]).is_err());
        let message = |bytes: &[u8]| Trie::from_bytes(bytes).unwrap_err().to_string();
        assert!(message(&bytes[..90]).contains("truncated"));
        let mut bad = bytes.clone();
        bad[70] ^= 1;
        assert!(message(&bad).contains("SHA-256"));
        bad[8] = 1;
        assert!(message(&bad).contains("format version 2"));
        // More items than there are bytes, and more than there is memory.
        for items in [5u64, 1 << 31, u64::MAX] {
            let mut bad = bytes.clone();
            bad[16..24].copy_from_slice(&items.to_le_bytes());
            assert!(Trie::from_bytes(&signed(bad)).is_err());
        }
    }

    #[test]
    fn a_valid_checksum_over_broken_contents_is_refused() {
        let trie = small();
        let words = |tokens: [u16; 4]| Column::Words(tokens.to_vec().into());
        let bytes = |tokens: [u8; 4]| Column::Bytes(tokens.to_vec().into());
        for broken in [
            Trie { items: vec![0, 0, 2, 3].into(), ..trie.clone() },
            Trie { rows: vec![0, 0, 2, 3].into(), ..trie.clone() },
            Trie { items: vec![9, 0, 2, 3].into(), ..trie.clone() },
            Trie { first: vec![0, 2, 1, 4].into(), ..trie.clone() },
            Trie { columns: vec![words([999; 4]), bytes([0, 1, 0, 1])], ..trie.clone() },
            Trie { columns: vec![words([2, 0, 0, 2]), bytes([1, 0, 7, 0])], ..trie.clone() },
            Trie { columns: vec![words([0; 4]), bytes([0; 4])], ..trie.clone() },
        ] {
            assert!(Trie::from_bytes(&broken.to_bytes()).is_err());
            assert!(open(&broken.to_bytes()).is_err());
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Trie::from_bytes(&bytes);
            bytes.splice(0..0, *MAGIC);
            let _ = Trie::from_bytes(&bytes);
            bytes.splice(8..8, VERSION.to_le_bytes());
            let _ = Trie::from_bytes(&bytes);
        }

        /// Changed bytes under a checksum that holds: refused, or a trie whose every row can be
        /// walked.
        #[test]
        fn changes_with_a_valid_checksum_are_refused_or_leave_a_trie(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut bytes = small().to_bytes();
            let body = bytes.len() - CHECKSUM;
            for (at, value) in changes {
                bytes[at.index(body)] = value;
            }
            if let Ok(trie) = Trie::from_bytes(&signed(bytes)) {
                for item in 0..trie.len() as u32 {
                    let identifier = trie.identifier_of(item).unwrap();
                    prop_assert_eq!(trie.item_of(identifier.tokens()).unwrap(), item);
                }
            }
        }
    }
}
