//! Names of the items, one per row.

use std::{fmt, path::Path};

use rayon::prelude::*;

use crate::{
    error::{Error, Result},
    storage::{read_limited, write_bytes},
};

/// The longest ids file that is read.
const LONGEST_FILE: u64 = 1 << 36;

/// Unique ids of `len` items, and the way back from an id to its row.
///
/// All ids share one string; with their ends and a sorted order for look-ups this costs 12 bytes
/// an id beside its text. An id is any text that is not blank and holds no control character or
/// line break, so that every list of ids is also a text file with one id per line.
///
/// # Example
/// ```
/// use cart_retrieval::features::ItemIds;
///
/// let ids = ItemIds::new(&["dog.jpg", "cat.jpg"])?;
/// assert_eq!(ids.get(0), "dog.jpg");
/// assert_eq!(ids.index_of("cat.jpg"), Some(1));
/// assert_eq!(ids.index_of("cow.jpg"), None);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ItemIds {
    text: String,
    /// End of each id in `text`; it starts where the one before ends.
    ends: Vec<usize>,
    /// Rows in the order of their ids.
    order: Vec<u32>,
}

impl ItemIds {
    /// Ids from a list.
    ///
    /// # Errors
    /// [`Error::Ids`] when an id is blank, repeated or holds a control character or line break.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::features::ItemIds;
    ///
    /// assert_eq!(ItemIds::new(&["a", "b"])?.len(), 2);
    /// let error = ItemIds::new(&["a", "b", "a"]).unwrap_err().to_string();
    /// assert!(error.contains("positions 0 and 2"), "{error}");
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn new<S: AsRef<str>>(ids: &[S]) -> Result<Self> {
        Self::checked("the list of ids", "position", 0, ids.iter().map(AsRef::as_ref))
    }

    /// Ids from a UTF-8 text file, one per line.
    ///
    /// Lines may end in `\n` or `\r\n`; the last end and a byte order mark are optional.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read; [`Error::Ids`] when it is no UTF-8, has no
    /// line, or an id is blank, repeated (both lines are named) or holds a control character.
    ///
    /// # Example
    /// ```no_run
    /// let ids = cart_retrieval::features::ItemIds::open("ids.txt")?;
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = read_text(path)?;
        Self::checked(&path.display().to_string(), "line", 1, text.lines())
    }

    /// Ids from several files, one after the other; also returns how many each has.
    ///
    /// # Errors
    /// As [`ItemIds::open`]; an id in two files is an error that names both.
    pub(super) fn open_parts<P: AsRef<Path>>(paths: &[P]) -> Result<(Self, Vec<usize>)> {
        let (mut text, mut ends) = (String::new(), Vec::new());
        let mut starts = vec![0];
        for path in paths {
            let path = path.as_ref();
            let part = read_text(path)?;
            let subject = path.display().to_string();
            append(&subject, "line", 1, part.lines(), &mut text, &mut ends)?;
            starts.push(ends.len());
        }
        let counts = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let ids = Self::assemble(text, ends).map_err(|fault| {
            fault.into_error("files of ids", |left, right| {
                let place = |row: usize| {
                    let part = starts[1..].partition_point(|&end| end <= row);
                    format!("line {} of {}", row - starts[part] + 1, paths[part].as_ref().display())
                };
                format!("in {} and in {}", place(left), place(right))
            })
        })?;
        Ok((ids, counts))
    }

    /// The ids `"0"`, `"1"`, ... of `len` items.
    ///
    /// # Panics
    /// When `len` exceeds [`u32::MAX`].
    ///
    /// # Example
    /// ```
    /// assert_eq!(cart_retrieval::features::ItemIds::numbered(3).get(2), "2");
    /// ```
    pub fn numbered(len: usize) -> Self {
        Self::of_rows(0..len)
    }

    /// Row numbers, written out, as ids.
    ///
    /// # Panics
    /// When a number is repeated or there are more than [`u32::MAX`].
    pub(super) fn of_rows(rows: impl IntoIterator<Item = usize>) -> Self {
        Self::selected(rows.into_iter().map(|row| row.to_string()))
    }

    /// Number of ids.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no id.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The id of a row.
    ///
    /// # Panics
    /// When `row` is out of range.
    pub fn get(&self, row: usize) -> &str {
        &self.text[start_of(&self.ends, row)..self.ends[row]]
    }

    /// The row of an id, in about log2(len) comparisons.
    pub fn index_of(&self, id: &str) -> Option<usize> {
        let place = self.order.binary_search_by(|&row| self.get(row as usize).cmp(id)).ok()?;
        Some(self.order[place] as usize)
    }

    /// The ids in the order of the rows.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::features::ItemIds;
    /// let ids = ItemIds::new(&["b", "a"])?;
    /// assert_eq!(ids.iter().collect::<Vec<_>>(), ["b", "a"]);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|row| self.get(row))
    }

    /// The ids of some rows, in the order given.
    ///
    /// # Panics
    /// When a row is out of range or named twice: ids are unique.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::features::ItemIds;
    /// let ids = ItemIds::new(&["a", "b", "c"])?;
    /// assert_eq!(ids.select(&[2, 0]).get(0), "c");
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn select(&self, rows: &[usize]) -> Self {
        Self::selected(rows.iter().map(|&row| self.get(row)))
    }

    fn selected<S: AsRef<str>>(ids: impl Iterator<Item = S>) -> Self {
        let (mut text, mut ends) = (String::new(), Vec::new());
        for id in ids {
            text.push_str(id.as_ref());
            ends.push(text.len());
        }
        Self::assemble(text, ends).unwrap_or_else(|fault| panic!("{}", fault.in_a_selection()))
    }

    /// Writes the ids, one per line, atomically.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        write_bytes(path, self.lines().as_bytes())
    }

    /// The ids, one per line.
    pub fn lines(&self) -> String {
        let mut lines = String::with_capacity(self.text.len() + self.len());
        for id in self.iter() {
            lines.push_str(id);
            lines.push('\n');
        }
        lines
    }

    /// Rows in the order of their ids.
    pub(crate) fn order(&self) -> &[u32] {
        &self.order
    }

    /// Ids from lines whose order is known, which spares sorting them: that they ascend in this
    /// order, all of them, shows that they are unique.
    ///
    /// # Errors
    /// [`Error::Ids`] for blank lines, control characters, and another order.
    pub(crate) fn from_lines_in_order(subject: &str, lines: &str, order: Vec<u32>) -> Result<Self> {
        let (mut text, mut ends) = (String::with_capacity(lines.len()), Vec::new());
        append(subject, "line", 1, lines.lines(), &mut text, &mut ends)?;
        let ids = Self { text, ends, order };
        let inside = ids.order.iter().all(|&row| (row as usize) < ids.len());
        let ascending = |pair: &[u32]| ids.get(pair[0] as usize) < ids.get(pair[1] as usize);
        if ids.order.len() != ids.len() || !inside || !ids.order.par_windows(2).all(ascending) {
            return Err(Error::ids(subject)
                .expected("every row once, in the order of their ids")
                .found("another order")
                .fix("save the index again, or restore the files from a copy"));
        }
        Ok(ids)
    }

    /// The rows that are kept, in their order, and further ids behind them.
    ///
    /// # Errors
    /// As [`ItemIds::new`] for the further ones, and [`Error::Ids`] for one that is there already.
    pub(crate) fn changed(
        &self,
        keep: impl Fn(usize) -> bool + Sync,
        added: &[String],
    ) -> Result<Self> {
        let (mut text, mut ends) = (String::with_capacity(self.text.len()), Vec::new());
        let mut places = vec![u32::MAX; self.len()];
        for (row, place) in places.iter_mut().enumerate().filter(|(row, _)| keep(*row)) {
            *place = ends.len() as u32;
            text.push_str(self.get(row));
            ends.push(text.len());
        }
        let kept = ends.len();
        let new = added.iter().map(String::as_str);
        append("ids to add", "position", 0, new, &mut text, &mut ends)?;
        let id = |row: u32| &text[start_of(&ends, row as usize)..ends[row as usize]];
        let mut new: Vec<u32> = (kept as u32..ends.len() as u32).collect();
        new.sort_unstable_by(|&a, &b| id(a).cmp(id(b)));
        // Both are in order already.
        let mut old = self.order.iter().map(|&row| places[row as usize]);
        let mut old = std::iter::from_fn(|| old.find(|&place| place != u32::MAX)).peekable();
        let mut order = Vec::with_capacity(ends.len());
        for row in new {
            while let Some(place) = old.next_if(|&place| id(place) <= id(row)) {
                order.push(place);
            }
            if let Some(&before) = order.last()
                && id(before) == id(row)
            {
                return Err(Error::ids("ids to add")
                    .expected("ids that the index does not have, each once")
                    .found(format!("\"{}\" a second time", id(row)))
                    .fix("rename the item, or update the existing one"));
            }
            order.push(row);
        }
        order.extend(old);
        Ok(Self { text, ends, order })
    }

    /// Builds from ids whose places are called `place` and counted from `first`.
    fn checked<'a>(
        subject: &str,
        place: &str,
        first: usize,
        ids: impl Iterator<Item = &'a str>,
    ) -> Result<Self> {
        let (mut text, mut ends) = (String::new(), Vec::new());
        append(subject, place, first, ids, &mut text, &mut ends)?;
        Self::assemble(text, ends).map_err(|fault| {
            fault.into_error(subject, |left, right| {
                format!("in {place}s {} and {}", left + first, right + first)
            })
        })
    }

    fn assemble(text: String, ends: Vec<usize>) -> std::result::Result<Self, Fault> {
        let len = u32::try_from(ends.len()).map_err(|_| Fault::TooMany(ends.len()))?;
        let id = |row: u32| &text[start_of(&ends, row as usize)..ends[row as usize]];
        let mut order: Vec<u32> = (0..len).collect();
        order.par_sort_unstable_by(|&a, &b| id(a).cmp(id(b)).then(a.cmp(&b)));
        // The repetition that comes first in the list, so that the message is always the same.
        let repeated = order
            .windows(2)
            .filter(|pair| id(pair[0]) == id(pair[1]))
            .map(|pair| (pair[0], pair[1]))
            .min_by_key(|pair| pair.1);
        if let Some((left, right)) = repeated {
            let rows = (left as usize, right as usize);
            return Err(Fault::Repeated { id: id(left).to_string(), rows });
        }
        Ok(Self { text, ends, order })
    }
}

impl fmt::Debug for ItemIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ItemIds({} ids", self.len())?;
        for id in self.iter().take(3) {
            write!(f, ", {id:?}")?;
        }
        f.write_str(if self.len() > 3 { ", ...)" } else { ")" })
    }
}

/// What is wrong with a whole list.
enum Fault {
    Repeated { id: String, rows: (usize, usize) },
    TooMany(usize),
}

impl Fault {
    /// The error about a list; `places` says where the two rows of one id are.
    fn into_error(self, subject: &str, places: impl Fn(usize, usize) -> String) -> Error {
        match self {
            Self::Repeated { id, rows: (left, right) } => Error::ids(subject)
                .expected("unique ids")
                .found(format!("\"{id}\" {}", places(left, right)))
                .fix("rename or drop one of the two items"),
            Self::TooMany(len) => Error::ids(subject)
                .expected(format!("at most {} ids", u32::MAX))
                .found(len.to_string())
                .fix("split the candidates over several indexes"),
        }
    }

    fn in_a_selection(&self) -> String {
        match self {
            Self::Repeated { id, rows } => format!(
                "a selection names each row once; item \"{id}\" is at positions {} and {}",
                rows.0, rows.1
            ),
            Self::TooMany(len) => format!("at most {} items, not {len}", u32::MAX),
        }
    }
}

/// The text of a file of ids, without a byte order mark.
fn read_text(path: &Path) -> Result<String> {
    let subject = path.display().to_string();
    let bytes = read_limited(path, LONGEST_FILE)?;
    let mut text = String::from_utf8(bytes).map_err(|fault| {
        let valid = &fault.as_bytes()[..fault.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|&&byte| byte == b'\n').count() + 1;
        Error::ids(&subject)
            .expected("UTF-8 text")
            .found(format!("other bytes in line {line}"))
            .fix("save the ids as UTF-8")
    })?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    if text.is_empty() {
        return Err(Error::ids(subject)
            .expected("one id per line")
            .found("an empty file")
            .fix("write the id of every row on a line of its own"));
    }
    Ok(text)
}

/// Appends ids whose places are called `place` and counted from `first`, checking each.
fn append<'a>(
    subject: &str,
    place: &str,
    first: usize,
    ids: impl Iterator<Item = &'a str>,
    text: &mut String,
    ends: &mut Vec<usize>,
) -> Result<()> {
    for (row, id) in ids.enumerate() {
        let found = if id.trim().is_empty() {
            "a blank line".to_string()
        } else if let Some(bad) = id.chars().find(|&c| breaks_lines(c)) {
            format!("the character U+{:04X} in \"{}\"", bad as u32, id.escape_debug())
        } else {
            text.push_str(id);
            ends.push(text.len());
            continue;
        };
        return Err(Error::ids(format!("{subject}: {place} {}", row + first))
            .expected("an id of printable characters")
            .found(found)
            .fix("give every item an id on one line"));
    }
    Ok(())
}

fn start_of(ends: &[usize], row: usize) -> usize {
    row.checked_sub(1).map_or(0, |before| ends[before])
}

/// Control characters and the two Unicode line breaks that are none.
pub fn breaks_lines(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn open(bytes: &[u8]) -> Result<ItemIds> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ids.txt");
        std::fs::write(&path, bytes).unwrap();
        ItemIds::open(path)
    }

    #[test]
    fn reads_lines_with_any_ends() {
        for bytes in [&b"a b\nc"[..], b"a b\nc\n", b"a b\r\nc\r\n", b"\xef\xbb\xbfa b\nc\n"] {
            assert_eq!(open(bytes).unwrap(), ItemIds::new(&["a b", "c"]).unwrap());
        }
    }

    #[test]
    fn faults_name_their_lines() {
        for (bytes, words) in [
            (&b""[..], &["empty file"][..]),
            (b"\n", &["line 1", "blank"]),
            (b"a\n\nb\n", &["line 2", "blank"]),
            (b"a\nb\n \t\n", &["line 3", "blank"]),
            (b"a\nb\tc\n", &["line 2", "U+0009"]),
            (b"a\nb\0\n", &["line 2", "U+0000"]),
            (b"a\nb\rc\n", &["line 2", "U+000D"]),
            ("a\nb\u{2028}c\n".as_bytes(), &["line 2", "U+2028"]),
            (b"a\nb\xff\n", &["line 2", "UTF-8"]),
            (b"x\ny\nx\ny\n", &["\"x\"", "lines 1 and 3"]),
        ] {
            let error = open(bytes).unwrap_err();
            assert!(matches!(error, Error::Ids(_)));
            let message = error.to_string();
            for word in words {
                assert!(message.contains(word), "{message}: {word}");
            }
        }
        assert!(matches!(ItemIds::open("no/such/ids.txt"), Err(Error::Io { .. })));
        assert!(ItemIds::new(&["a", "b\nc"]).is_err());
    }

    #[test]
    fn numbered_and_selected() {
        let ids = ItemIds::numbered(120);
        assert_eq!((ids.len(), ids.get(119), ids.index_of("42")), (120, "119", Some(42)));
        assert_eq!(ids.index_of("042"), None);
        let some = ids.select(&[100, 7]);
        assert_eq!(some.iter().collect::<Vec<_>>(), ["100", "7"]);
        assert_eq!((some.index_of("7"), some.index_of("8")), (Some(1), None));
        assert!(ItemIds::numbered(0).is_empty());
        assert_eq!(format!("{some:?}"), "ItemIds(2 ids, \"100\", \"7\")");
    }

    #[test]
    #[should_panic(expected = "names each row once")]
    fn a_row_is_selected_once() {
        ItemIds::numbered(3).select(&[1, 1]);
    }

    proptest! {
        /// Twin: a list that is changed and made anew.
        #[test]
        fn changed_ids_are_those_of_the_changed_list(
            old in proptest::collection::hash_set("[a-d]{1,3}", 1..20),
            new in proptest::collection::hash_set("[a-e]{1,3}", 0..20),
            removed in any::<u64>(),
        ) {
            let old: Vec<String> = old.into_iter().collect();
            let keep = |row: usize| removed >> (row % 64) & 1 == 0;
            let added: Vec<String> = new.into_iter().collect();
            let kept = old.iter().enumerate().filter(|(row, _)| keep(*row)).map(|(_, id)| id.clone());
            let list: Vec<String> = kept.chain(added.iter().cloned()).collect();
            let ids = ItemIds::new(&old).unwrap();
            match (ids.changed(keep, &added), ItemIds::new(&list)) {
                (Ok(changed), Ok(made)) => prop_assert_eq!(changed, made),
                (Err(_), Err(_)) => {}
                (a, b) => prop_assert!(false, "{:?} {:?}", a, b),
            }
            let again = ItemIds::from_lines_in_order("ids", &ids.lines(), ids.order().to_vec());
            prop_assert_eq!(again.unwrap(), ids);
        }
    }

    #[test]
    fn an_order_that_is_none_is_refused() {
        for order in [vec![0, 1], vec![1, 1], vec![1], vec![1, 0, 0], vec![1, 2]] {
            assert!(ItemIds::from_lines_in_order("ids", "b\na\n", order).is_err());
        }
        assert!(ItemIds::from_lines_in_order("ids", "b\na\n", vec![1, 0]).is_ok());
        assert!(ItemIds::from_lines_in_order("ids", "a\na\n", vec![0, 1]).is_err());
    }

    proptest! {
        #[test]
        fn look_up_agrees_with_a_map_and_files_round_trip(
            ids in proptest::collection::hash_set(r"\PC{1,6}", 1..40)
        ) {
            let list: Vec<String> =
                ids.into_iter().filter(|id| !id.trim().is_empty() && !id.contains(breaks_lines)).collect();
            prop_assume!(!list.is_empty() && !list[0].starts_with('\u{feff}'));
            let map: HashMap<&str, usize> =
                list.iter().enumerate().map(|(row, id)| (id.as_str(), row)).collect();
            let ids = ItemIds::new(&list).unwrap();
            for (row, id) in list.iter().enumerate() {
                prop_assert_eq!(ids.get(row), id);
                prop_assert_eq!(ids.index_of(id), map.get(id.as_str()).copied());
            }
            prop_assert_eq!(ids.index_of("not among them"), None);
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("ids.txt");
            ids.save(&path).unwrap();
            prop_assert_eq!(ItemIds::open(&path).unwrap(), ids);
        }
    }
}
