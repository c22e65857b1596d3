//! A JSON object for every candidate.

use std::{collections::HashMap, fs::File, path::Path, sync::Arc};

use rayon::prelude::*;
use serde_json::Value;

use super::{check::Observed, condition::Condition, fields::Fields};
use crate::{
    error::{Error, Result},
    features::{ItemIds, advice, shown},
    storage::{Array, map, read_limited},
};

/// The longest file of a user's that is read.
const LONGEST_FILE: u64 = 1 << 34;
/// The longest line of it.
const LONGEST_LINE: usize = 1 << 20;

/// Most objects and lists of an object that lie within each other. What is written within others,
/// as in a file of changes, has to stay below the 128 that are read.
const DEEPEST: usize = 64;

/// Texts that changes leave behind before they are joined.
const MOST_TEXTS: usize = 64;

/// A JSON object for every candidate, in the order of the candidates.
///
/// Objects stay text and are parsed when they are asked for; of a saved index they stay in its
/// mapped file. Beside their text a candidate takes 16 bytes.
///
/// # Example
/// ```
/// use cart_retrieval::metadata::{Condition, ItemMetadata};
/// let rows = [r#"{"year": 2019}"#, r#"{"year": 2021, "camera": {"make": "Leica"}}"#];
/// let rows = rows.map(|row| serde_json::from_str(row).unwrap());
/// let metadata = ItemMetadata::new(&rows)?;
/// assert_eq!(metadata.get(1)?["year"], 2021);
/// let recent = Condition::parse(r#"{"year": {"ge": 2020}}"#)?;
/// assert_eq!(metadata.matching(&recent)?, [false, true]);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ItemMetadata {
    texts: Vec<Arc<Array<u8>>>,
    places: Vec<Place>,
}

/// Where an object's text lies.
#[derive(Debug, Clone, Copy)]
struct Place {
    text: u32,
    length: u32,
    start: u64,
}

/// Whether a value has more than so many objects and lists within each other.
fn is_deeper(value: &Value, levels: usize) -> bool {
    match (value, levels.checked_sub(1)) {
        (Value::Array(values), Some(left)) => values.iter().any(|value| is_deeper(value, left)),
        (Value::Object(fields), Some(left)) => fields.values().any(|value| is_deeper(value, left)),
        (Value::Array(_) | Value::Object(_), None) => true,
        _ => false,
    }
}

impl ItemMetadata {
    /// Of objects in the order of the candidates.
    ///
    /// # Errors
    /// [`Error::Metadata`] for an object of more than a MiB, or of more than 64 objects and lists
    /// within each other.
    pub fn new(rows: &[Fields]) -> Result<Self> {
        let mut metadata = Self { texts: Vec::new(), places: Vec::new() };
        metadata.append(rows)?;
        Ok(metadata)
    }

    /// An empty object for each candidate.
    pub fn empty(len: usize) -> Self {
        let place = Place { text: 0, length: 2, start: 0 };
        Self { texts: vec![Arc::new(b"{}".to_vec().into())], places: vec![place; len] }
    }

    /// Of a JSON Lines file: an object a line, with the candidate's `id` among its fields.
    /// Candidates without a line have no fields.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read; [`Error::Metadata`] naming the line that is no
    /// such object, names a candidate that is not there, or one that had a line before.
    pub fn from_jsonl(path: impl AsRef<Path>, ids: &ItemIds) -> Result<Self> {
        Self::from_jsonl_without(path, ids, &|_| false)
    }

    /// The same without the lines of some ids.
    pub(crate) fn from_jsonl_without(
        path: impl AsRef<Path>,
        ids: &ItemIds,
        gone: &dyn Fn(&str) -> bool,
    ) -> Result<Self> {
        let path = path.as_ref();
        let bytes = read_limited(path, LONGEST_FILE)?;
        // Some editors put a byte order mark first; JSON knows none.
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
        let mut rows = vec![Fields::new(); ids.len()];
        let mut seen: HashMap<usize, usize> = HashMap::new();
        for (at, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            if line.trim_ascii().is_empty() {
                continue;
            }
            let wrong = |expected: &str, found: String, remedy: &str| {
                let subject = format!("{}: line {}", path.display(), at + 1);
                Error::metadata(subject).expected(expected).found(found).fix(remedy)
            };
            let mut fields: Fields = serde_json::from_slice(line).map_err(|e| {
                wrong("a JSON object", e.to_string(), "write an object on each line")
            })?;
            let item = match fields.remove("id") {
                Some(Value::String(id)) if gone(&id) => continue,
                Some(Value::String(id)) => ids.index_of(&id).ok_or_else(|| {
                    let near = ids.near(&id).map(|near| advice(&id, near));
                    let remedy = near.unwrap_or("correct the id, or remove the line".into());
                    wrong("the id of a candidate", shown(&id), &remedy)
                })?,
                other => {
                    let found = other.map_or("none".to_string(), |value| value.to_string());
                    return Err(wrong("a field `id` with a text", found, "name the candidate"));
                }
            };
            if let Some(before) = seen.insert(item, at + 1) {
                let found = format!("{:?}, which line {before} also has", ids.get(item));
                return Err(wrong(
                    "a candidate without an earlier line",
                    found,
                    "merge the two lines",
                ));
            }
            rows[item] = fields;
        }
        Self::new(&rows)
    }

    /// Maps a file that [`ItemMetadata::to_bytes`] wrote.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let refused = |e| Error::io("read", path, e);
        let file = File::open(path).map_err(refused)?;
        // Texts are parsed when they are asked for.
        let map = Arc::new(map(&file).map_err(refused)?);
        let mut places = Vec::new();
        let mut start = 0;
        while let Some(length) = map[start..].iter().position(|&byte| byte == b'\n') {
            if length > LONGEST_LINE {
                break;
            }
            places.push(Place { text: 0, length: length as u32, start: start as u64 });
            start += length + 1;
        }
        Error::metadata(path.display().to_string())
            .expected(format!("lines of at most {LONGEST_LINE} bytes"))
            .found(format!("a longer or cut line {}", places.len() + 1))
            .fix_if(start != map.len(), "save the index again, or restore the file from a copy")?;
        let text = Array::mapped(&map, 0, map.len()).unwrap_or_else(|| map.to_vec().into());
        Ok(Self { texts: vec![Arc::new(text)], places })
    }

    /// The objects, one per line.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for place in &self.places {
            bytes.extend_from_slice(self.text(place));
            bytes.push(b'\n');
        }
        bytes
    }

    /// The objects of the candidates that are kept, and further ones behind them.
    pub(crate) fn changed(&self, keep: impl Fn(usize) -> bool, added: &[Fields]) -> Result<Self> {
        let kept = self.places.iter().enumerate().filter(|(item, _)| keep(*item));
        let mut changed =
            Self { texts: self.texts.clone(), places: kept.map(|(_, place)| *place).collect() };
        if changed.texts.len() > MOST_TEXTS {
            changed = changed.joined();
        }
        changed.append(added)?;
        Ok(changed)
    }

    /// The same objects in one text, without unreferenced parts.
    fn joined(&self) -> Self {
        let mut start = 0;
        let place = |place: &Place| {
            let moved = Place { text: 0, length: place.length, start };
            start += u64::from(place.length) + 1;
            moved
        };
        let places = self.places.iter().map(place).collect();
        Self { texts: vec![Arc::new(self.to_bytes().into())], places }
    }

    /// Puts other objects in the places of some.
    pub(crate) fn replace(&mut self, rows: Vec<(usize, Fields)>) -> Result<()> {
        let (items, rows): (Vec<usize>, Vec<Fields>) = rows.into_iter().unzip();
        let len = self.places.len();
        self.append(&rows)?;
        for (item, place) in items.into_iter().zip(self.places.split_off(len)) {
            self.places[item] = place;
        }
        Ok(())
    }

    fn append(&mut self, rows: &[Fields]) -> Result<()> {
        let mut bytes = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            let wrong = |expected: String, found: String, remedy: &str| {
                let subject = format!("object {at}");
                Error::metadata(subject).expected(expected).found(found).fix(remedy)
            };
            if row.values().any(|value| is_deeper(value, DEEPEST - 1)) {
                let expected = format!("at most {DEEPEST} nested objects and lists");
                return Err(wrong(expected, "more".into(), "use a flatter object"));
            }
            let start = bytes.len();
            serde_json::to_writer(&mut bytes, row)
                .map_err(|e| wrong("JSON".into(), e.to_string(), "correct it"))?;
            let length = bytes.len() - start;
            if length > LONGEST_LINE {
                let expected = format!("at most {LONGEST_LINE} bytes of JSON");
                return Err(wrong(expected, length.to_string(), "keep long texts elsewhere"));
            }
            let text = self.texts.len() as u32;
            self.places.push(Place { text, length: length as u32, start: start as u64 });
        }
        if !bytes.is_empty() {
            self.texts.push(Arc::new(bytes.into()));
        }
        Ok(())
    }

    fn text(&self, place: &Place) -> &[u8] {
        let start = place.start as usize;
        &self.texts[place.text as usize][start..start + place.length as usize]
    }

    /// The objects of some candidates, in the order given.
    ///
    /// # Panics
    /// When there is no such candidate.
    pub fn select(&self, items: &[usize]) -> Self {
        let places = items.iter().map(|&item| self.places[item]).collect();
        Self { texts: self.texts.clone(), places }
    }

    /// Number of candidates.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is no candidate.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The object of a candidate.
    ///
    /// # Errors
    /// [`Error::Metadata`] when there is no such candidate, or its text is damaged.
    pub fn get(&self, item: usize) -> Result<Fields> {
        let wrong = |expected: String, found: String, remedy: &str| {
            Error::metadata(format!("object of candidate {item}"))
                .expected(expected)
                .found(found)
                .fix(remedy)
        };
        let place = self.places.get(item).ok_or_else(|| {
            let expected = format!("a candidate below {}", self.len());
            wrong(expected, item.to_string(), "use candidates of this index")
        })?;
        serde_json::from_slice(self.text(place)).map_err(|e| {
            wrong("a JSON object".into(), e.to_string(), "restore the index from a copy")
        })
    }

    /// Whether each candidate meets a condition, on all threads.
    ///
    /// # Errors
    /// As [`ItemMetadata::get`]; [`Error::Query`] for a condition on a field that no candidate has,
    /// or on values of a kind that the field never has ([`Condition`] says how to allow a field
    /// that may be missing).
    pub fn matching(&self, condition: &Condition) -> Result<Vec<bool>> {
        let observed = Observed::new(condition);
        let holds = |item| {
            let fields = self.get(item)?;
            observed.note(&fields);
            Ok(condition.holds(&fields))
        };
        let met = (0..self.len()).into_par_iter().map(holds).collect::<Result<Vec<_>>>()?;
        if !self.is_empty() {
            observed.check(|| (0..self.len()).map(|item| self.get(item)))?;
        }
        Ok(met)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        value.as_object().unwrap().clone()
    }

    fn from_lines(lines: &str) -> Result<ItemMetadata> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metadata.jsonl");
        std::fs::write(&path, lines).unwrap();
        ItemMetadata::from_jsonl(&path, &ItemIds::new(&["a", "b", "c"]).unwrap())
    }

    #[test]
    fn lines_belong_to_candidates_by_their_id() {
        let metadata =
            from_lines("{\"id\": \"c\", \"n\": 3}\n\n{\"n\": \"x\\ny\", \"id\": \"a\"}\n").unwrap();
        assert_eq!(metadata.get(0).unwrap(), fields(json!({"n": "x\ny"})));
        assert_eq!(metadata.get(1).unwrap(), Fields::new());
        assert_eq!(metadata.get(2).unwrap(), fields(json!({"n": 3})));
        assert!(metadata.get(3).unwrap_err().to_string().contains("below 3"));
        let marked = from_lines("\u{feff}{\"id\": \"b\", \"n\": 1}\r\n").unwrap();
        assert_eq!(marked.get(1).unwrap(), fields(json!({"n": 1})));
    }

    #[test]
    fn wrong_lines_are_named() {
        for (lines, words) in [
            ("{\"id\": \"a\"}\n[1]\n", "line 2"),
            ("{\"n\": 1}\n", "`id`"),
            ("{\"id\": 7}\n", "found 7"),
            ("{\"id\": \"d\"}\n", "\"d\""),
            ("{\"id\": \"a\"}\n{\"id\": \"a\"}\n", "line 1 also has"),
            ("{\"id\": \"a\"", "line 1"),
            ("{\"id\": \" a\"}\n", "\"a\" exists and looks the same"),
        ] {
            let error = from_lines(lines).unwrap_err().to_string();
            assert!(error.contains(words), "{error}: {words}");
        }
    }

    #[test]
    fn files_and_changes_keep_every_object() {
        let rows: Vec<Fields> = (0..5).map(|n| fields(json!({ "n": n, "t": "é\n" }))).collect();
        let metadata = ItemMetadata::new(&rows).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metadata.jsonl");
        std::fs::write(&path, metadata.to_bytes()).unwrap();
        let mapped = ItemMetadata::open(&path).unwrap();
        let mut changed = mapped.changed(|item| item % 2 == 0, &rows[1..2]).unwrap();
        changed.replace(vec![(1, fields(json!({"n": 9}))), (3, Fields::new())]).unwrap();
        let numbers: Vec<Option<i64>> =
            (0..4).map(|item| changed.get(item).unwrap().get("n")?.as_i64()).collect();
        assert_eq!((changed.len(), numbers), (4, vec![Some(0), Some(9), Some(4), None]));
        assert_eq!(mapped.get(3).unwrap(), rows[3]);
        assert_eq!(ItemMetadata::empty(2).changed(|_| true, &rows).unwrap().len(), 7);
        std::fs::write(&path, b"{}\n{}").unwrap();
        assert!(ItemMetadata::open(&path).unwrap_err().to_string().contains("line 2"));
    }

    #[test]
    fn many_changes_are_joined() {
        let row = |n: usize| fields(json!({ "n": n }));
        let mut metadata = ItemMetadata::new(&[row(0)]).unwrap();
        for n in 1..200 {
            metadata = metadata.changed(|item| item > 0 || n % 3 > 0, &[row(n)]).unwrap();
            assert!(metadata.texts.len() <= MOST_TEXTS + 1);
        }
        let left: Vec<u64> =
            (0..metadata.len()).map(|i| metadata.get(i).unwrap()["n"].as_u64().unwrap()).collect();
        assert_eq!(left, (66..200).collect::<Vec<u64>>());
    }

    #[test]
    fn a_damaged_object_is_an_error_when_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metadata.jsonl");
        std::fs::write(&path, b"{}\n{\xff}\n").unwrap();
        let metadata = ItemMetadata::open(&path).unwrap();
        assert!(metadata.get(0).is_ok());
        assert!(matches!(metadata.get(1), Err(Error::Metadata(_))));
        assert!(metadata.matching(&Condition::parse("{}").unwrap()).is_err());
    }
}
