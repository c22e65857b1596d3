//! The on-disk form of the trie.
//!
//! Little-endian: magic `CARTTRIE`, version u32, levels u32, items u64, one u32 size per level, the
//! dense first level (u32 each), the item of every row (u32 each), the columns of levels 1.. (u16
//! each), SHA-256 of all that.

use sha2::{Digest, Sha256};

use super::{Trie, table::inverse};
use crate::{
    error::{Error, Result},
    identifier::Vocabulary,
};

const MAGIC: &[u8; 8] = b"CARTTRIE";
const VERSION: u32 = 1;
const CHECKSUM: usize = 32;

impl Trie {
    /// The bytes of this trie, as [`Trie::from_bytes`] reads them.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + self.memory());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(self.levels() as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.len() as u64).to_le_bytes());
        for &size in self.vocabulary.sizes() {
            bytes.extend_from_slice(&(size as u32).to_le_bytes());
        }
        for value in self.first.iter().chain(&self.items) {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        for token in self.columns.iter().flatten() {
            bytes.extend_from_slice(&token.to_le_bytes());
        }
        let checksum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&checksum);
        bytes
    }

    /// Reads a trie and checks all its invariants, so that any byte string either is a valid trie
    /// or is refused.
    ///
    /// # Errors
    /// [`Error::Index`] naming what does not fit: magic, version, length, checksum, order, tokens.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader { bytes };
        if reader.take(8)? != MAGIC {
            return Err(malformed("the magic CARTTRIE", "something else"));
        }
        let version = reader.u32()?;
        if version != VERSION {
            return Err(malformed(&format!("format version {VERSION}"), &version.to_string()));
        }
        let levels = reader.u32()? as usize;
        let items = usize::try_from(reader.u64()?).unwrap_or(usize::MAX);
        if levels == 0 || items == 0 || items >= u32::MAX as usize || levels > bytes.len() {
            return Err(malformed(
                "at least one level and 1 to 2^32 - 2 items",
                &format!("{levels} levels, {items} items"),
            ));
        }
        let sizes = (0..levels).map(|_| reader.u32().map(|size| size as usize));
        let vocabulary = Vocabulary::new(sizes.collect::<Result<_>>()?)?;
        let expected = 4 * (vocabulary.size(0) as u128 + 1)
            + items as u128 * (4 + 2 * (levels as u128 - 1))
            + CHECKSUM as u128;
        if reader.bytes.len() as u128 != expected {
            return Err(malformed(
                &format!("{expected} bytes after the header"),
                &reader.bytes.len().to_string(),
            ));
        }
        let body = bytes.len() - CHECKSUM;
        if Sha256::digest(&bytes[..body]).as_slice() != &bytes[body..] {
            return Err(malformed("bytes that match their SHA-256", "a flipped byte"));
        }
        let first = reader.u32s(vocabulary.size(0) + 1)?;
        let items_by_row = reader.u32s(items)?;
        let columns = (1..levels).map(|_| reader.u16s(items)).collect::<Result<Vec<_>>>()?;
        let trie = Self {
            rows: checked_inverse(&items_by_row)?,
            vocabulary,
            first,
            columns,
            items: items_by_row,
        };
        trie.check()?;
        Ok(trie)
    }

    /// Checks the invariants of the table.
    fn check(&self) -> Result<()> {
        let n = self.items.len();
        let ascending = self.first.is_sorted()
            && self.first[0] == 0
            && self.first.last().map(|&end| end as usize) == Some(n);
        if !ascending {
            return Err(malformed("ascending offsets of the first level", "others"));
        }
        for (level, column) in self.columns.iter().enumerate() {
            let size = self.vocabulary.size(level + 1);
            if let Some(token) = column.iter().find(|&&token| usize::from(token) >= size) {
                return Err(malformed(
                    &format!("tokens below {size} at level {}", level + 1),
                    &token.to_string(),
                ));
            }
        }
        for range in self.first.windows(2) {
            for row in range[0] as usize + 1..range[1] as usize {
                let before = self.columns.iter().map(|column| column[row - 1]);
                let here = self.columns.iter().map(|column| column[row]);
                if before.ge(here) {
                    return Err(malformed("strictly ascending identifiers", &format!("row {row}")));
                }
            }
        }
        Ok(())
    }
}

fn checked_inverse(items: &[u32]) -> Result<Vec<u32>> {
    let mut seen = vec![false; items.len()];
    for &item in items {
        match seen.get_mut(item as usize) {
            Some(seen) if !*seen => *seen = true,
            _ => return Err(malformed("every item exactly once", &format!("item {item}"))),
        }
    }
    Ok(inverse(items))
}

fn malformed(expected: &str, found: &str) -> Error {
    Error::index("trie", expected, found, "save the index again, or restore the file from a copy")
}

/// Takes little-endian values from the front, refusing to run past the end.
struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let Some((head, tail)) = self.bytes.split_at_checked(count) else {
            return Err(malformed(
                &format!("{count} more bytes"),
                &format!("{} (a truncated file)", self.bytes.len()),
            ));
        };
        self.bytes = tail;
        Ok(head)
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

    fn u32s(&mut self, count: usize) -> Result<Vec<u32>> {
        let bytes = self.take(4 * count)?;
        Ok(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    fn u16s(&mut self, count: usize) -> Result<Vec<u16>> {
        let bytes = self.take(2 * count)?;
        Ok(bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identifier::Codes;

    fn small() -> Trie {
        let codes = Codes::from_rows(3, &[[1u16, 0, 0], [0, 2, 1], [1, 0, 1], [1, 2, 0]]).unwrap();
        Trie::build(&codes, &Vocabulary::new(vec![3, 3, 2]).unwrap()).unwrap()
    }

    #[test]
    fn bytes_round_trip() {
        let trie = small();
        assert_eq!(Trie::from_bytes(&trie.to_bytes()).unwrap(), trie);
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
    }

    #[test]
    fn a_valid_checksum_over_broken_contents_is_refused() {
        let trie = small();
        for broken in [
            Trie { items: vec![0, 0, 2, 3], ..trie.clone() },
            Trie { first: vec![0, 2, 1, 4], ..trie.clone() },
            Trie { columns: vec![vec![9; 4], vec![0, 1, 0, 1]], ..trie.clone() },
            Trie { columns: vec![vec![0; 4], vec![0; 4]], ..trie.clone() },
        ] {
            assert!(Trie::from_bytes(&broken.to_bytes()).is_err());
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Trie::from_bytes(&bytes);
            bytes.splice(0..0, *MAGIC);
            let _ = Trie::from_bytes(&bytes);
            bytes.splice(8..8, 1u32.to_le_bytes());
            let _ = Trie::from_bytes(&bytes);
        }
    }
}
