//! Captions: the texts that describe items, as read from `captions.jsonl`.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    error::{Error, Result},
    features::{advice_by, shown},
    storage::write_bytes,
};

/// Kind of the captions that a captioner made.
pub const GENERATED: &str = "generated";

/// One text that describes one item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Caption {
    /// Id of the described item, as in `ids.txt`.
    pub id: String,
    /// The text, as written in the file.
    #[serde(rename = "caption")]
    pub text: String,
    /// What sort of text it is: "name", "keywords", "human".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Where it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Weight in training; 1 unless the file says otherwise.
    #[serde(default = "one", deserialize_with = "one_if_null", skip_serializing_if = "is_one")]
    pub weight: f32,
    /// Number given by the data set, such as the annotator's; nothing here depends on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idx: Option<i64>,
}

fn one() -> f32 {
    1.0
}

fn one_if_null<'de, D: Deserializer<'de>>(weight: D) -> std::result::Result<f32, D::Error> {
    Ok(Option::deserialize(weight)?.unwrap_or_else(one))
}

fn is_one(weight: &f32) -> bool {
    *weight == 1.0
}

/// A caption whose item is known by its row in the feature matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemCaption {
    /// Row of the item.
    pub item: u32,
    /// The text.
    pub text: String,
    /// Weight in training.
    pub weight: f32,
}

/// A set of captions in file order; several captions may describe one item.
///
/// Each caption remembers the file and line that it came from, for later error messages.
///
/// # Example
/// ```
/// use cart_retrieval::data::Captions;
/// let captions = Captions::from_pairs([("cat.jpg", "a cat asleep"), ("dog.jpg", "a wet dog")])?;
/// let ids = ["cat.jpg", "dog.jpg"];
/// let resolved = captions.resolve(|id| ids.iter().position(|known| *known == id))?;
/// assert_eq!(resolved[1].item, 1);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Captions {
    captions: Vec<Caption>,
    // Parallel to `captions`; `None` for captions that were not read from a file.
    origins: Vec<Option<Origin>>,
}

#[derive(Debug, Clone)]
struct Origin {
    file: Arc<str>,
    line: usize,
}

impl Caption {
    /// A caption of weight 1 without kind or source.
    pub fn new(id: impl Into<String>, text: impl Into<String>) -> Self {
        let (id, text) = (id.into(), text.into());
        Self { id, text, kind: None, source: None, weight: 1.0, idx: None }
    }

    /// Sets the kind.
    pub fn with_kind(self, kind: impl Into<String>) -> Self {
        Self { kind: Some(kind.into()), ..self }
    }

    /// Sets the source.
    pub fn with_source(self, source: impl Into<String>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// Sets the weight, a positive number.
    pub fn with_weight(self, weight: f32) -> Self {
        Self { weight, ..self }
    }

    fn validate(&self, subject: impl Fn() -> String) -> Result<()> {
        let wrong = |expected: &str, found: String, remedy: &str| {
            Err(Error::captions(subject()).expected(expected).found(found).fix(remedy))
        };
        if self.id.trim().is_empty() {
            return wrong("an id", format!("{:?}", self.id), "give the item's id, as in ids.txt");
        }
        if self.text.trim().is_empty() {
            let found = format!("{:?} for `{}`", self.text, self.id);
            return wrong("a caption with some text", found, "write a text or remove the line");
        }
        if !(self.weight.is_finite() && self.weight > 0.0) {
            let remedy = "use a positive weight, or remove the caption to leave it out";
            return wrong("a finite weight above 0", self.weight.to_string(), remedy);
        }
        Ok(())
    }
}

impl Captions {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads JSON lines: `{"id", "caption"}`, optionally `"kind"`, `"source"`, `"weight"`, `"idx"`.
    ///
    /// Blank lines are skipped and other keys ignored.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read; [`Error::Captions`] with the file and line when
    /// a line is no such object, is not UTF-8, or has an empty caption or a weight that is not
    /// positive, and when the file holds no caption.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::data::Captions;
    /// let folder = tempfile::tempdir().unwrap();
    /// let path = folder.path().join("captions.jsonl");
    /// std::fs::write(&path, "{\"id\": \"a\", \"caption\": \"two dogs\", \"kind\": \"human\"}\n").unwrap();
    /// let captions = Captions::from_jsonl(&path)?;
    /// assert_eq!(captions.kinds(), ["human"]);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn from_jsonl(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
        let file: Arc<str> = path.display().to_string().into();
        let mut captions = Self::new();
        // Some editors put a byte order mark first; JSON knows none.
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
        for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let origin = Origin { file: file.clone(), line: number + 1 };
            if let Some(caption) = parse_line(line, &origin)? {
                captions.captions.push(caption);
                captions.origins.push(Some(origin));
            }
        }
        if captions.is_empty() {
            return Err(Error::captions(file.as_ref())
                .expected("at least one caption")
                .found("an empty file")
                .fix(r#"write one {"id": "...", "caption": "..."} a line"#));
        }
        Ok(captions)
    }

    /// Captions from pairs of item id and text.
    ///
    /// # Errors
    /// [`Error::Captions`] for an empty id or text.
    pub fn from_pairs<I, T>(pairs: impl IntoIterator<Item = (I, T)>) -> Result<Self>
    where
        I: Into<String>,
        T: Into<String>,
    {
        let mut captions = Self::new();
        for (id, text) in pairs {
            captions.push(Caption::new(id, text))?;
        }
        Ok(captions)
    }

    /// Adds a caption at the end.
    ///
    /// # Errors
    /// [`Error::Captions`] for an empty id or text, or a weight that is not positive.
    pub fn push(&mut self, caption: Caption) -> Result<()> {
        caption.validate(|| format!("caption {}", self.captions.len()))?;
        self.captions.push(caption);
        self.origins.push(None);
        Ok(())
    }

    /// Adds the captions of another set at the end.
    pub fn extend(&mut self, other: Self) {
        self.captions.extend(other.captions);
        self.origins.extend(other.origins);
    }

    /// Number of captions.
    pub fn len(&self) -> usize {
        self.captions.len()
    }

    /// Whether there is no caption.
    pub fn is_empty(&self) -> bool {
        self.captions.is_empty()
    }

    /// The captions in file order.
    pub fn iter(&self) -> std::slice::Iter<'_, Caption> {
        self.captions.iter()
    }

    /// The kinds that occur, sorted.
    pub fn kinds(&self) -> Vec<&str> {
        let kinds: BTreeSet<&str> = self.iter().filter_map(|c| c.kind.as_deref()).collect();
        kinds.into_iter().collect()
    }

    /// The sources that occur, sorted.
    pub fn sources(&self) -> Vec<&str> {
        let sources: BTreeSet<&str> = self.iter().filter_map(|c| c.source.as_deref()).collect();
        sources.into_iter().collect()
    }

    /// A set of the captions that `keep` accepts; `keep` sees each once, in order.
    pub fn filter(&self, mut keep: impl FnMut(&Caption) -> bool) -> Self {
        let mut kept = Self::new();
        for (caption, origin) in self.captions.iter().zip(&self.origins) {
            if keep(caption) {
                kept.captions.push(caption.clone());
                kept.origins.push(origin.clone());
            }
        }
        kept
    }

    /// Drops the captions that `keep` refuses, as [`Vec::retain`].
    pub fn retain(&mut self, mut keep: impl FnMut(&Caption) -> bool) {
        let (captions, origins) =
            (std::mem::take(&mut self.captions), std::mem::take(&mut self.origins));
        let kept = captions.into_iter().zip(origins).filter(|(caption, _)| keep(caption));
        (self.captions, self.origins) = kept.unzip();
    }

    /// Looks up every caption's item; `index_of` gives the row of an id.
    ///
    /// # Errors
    /// [`Error::Captions`] for the first id that `index_of` does not know, with its line, how many
    /// captions are concerned, and a known id of nearly the same spelling where there is one.
    pub fn resolve(&self, index_of: impl Fn(&str) -> Option<usize>) -> Result<Vec<ItemCaption>> {
        let mut resolved = Vec::with_capacity(self.len());
        for (position, caption) in self.captions.iter().enumerate() {
            let Some(item) = index_of(&caption.id).and_then(|index| u32::try_from(index).ok())
            else {
                let unknown = self.iter().filter(|c| index_of(&c.id).is_none()).count();
                return Err(Error::captions(self.subject(position))
                    .expected("the id of a candidate")
                    .found(format!(
                        "{}, one of {unknown} captions with an unknown id",
                        shown(&caption.id)
                    ))
                    .fix(advice_by(&caption.id, |id| index_of(id).is_some()).unwrap_or_else(
                        || {
                            "add the item to ids.txt and the features, or remove its captions"
                                .into()
                        },
                    )));
            };
            let (text, weight) = (caption.text.clone(), caption.weight);
            resolved.push(ItemCaption { item, text, weight });
        }
        Ok(resolved)
    }

    /// Rows among `0..items` that no caption describes, ascending; unknown ids are left aside.
    pub fn items_without_caption(
        &self,
        items: usize,
        index_of: impl Fn(&str) -> Option<usize>,
    ) -> Vec<u32> {
        let mut seen = vec![false; items];
        for index in self.iter().filter_map(|caption| index_of(&caption.id)) {
            if let Some(seen) = seen.get_mut(index) {
                *seen = true;
            }
        }
        (0u32..).zip(seen).filter_map(|(item, seen)| (!seen).then_some(item)).collect()
    }

    /// Writes the set as JSON lines, replacing the file in one step.
    ///
    /// # Errors
    /// [`Error::Io`]; the file then holds what it held before.
    pub fn to_jsonl(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        write_bytes(path, &self.to_lines()?)
    }

    /// The set as JSON lines.
    ///
    /// # Errors
    /// [`Error::Io`] when a caption cannot be written as JSON.
    pub fn to_lines(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for caption in self.iter() {
            serde_json::to_writer(&mut bytes, caption)
                .map_err(|e| Error::io("write", "captions", e.into()))?;
            bytes.push(b'\n');
        }
        Ok(bytes)
    }

    /// Where the caption at a position comes from: its file and line, or its position.
    fn subject(&self, position: usize) -> String {
        match &self.origins[position] {
            Some(origin) => format!("{}:{}", origin.file, origin.line),
            None => format!("caption {position}"),
        }
    }
}

impl PartialEq for Captions {
    /// Compares the captions; where they were read from does not matter.
    fn eq(&self, other: &Self) -> bool {
        self.captions == other.captions
    }
}

impl<'a> IntoIterator for &'a Captions {
    type Item = &'a Caption;
    type IntoIter = std::slice::Iter<'a, Caption>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The caption of a line; `None` for a blank one.
fn parse_line(line: &[u8], origin: &Origin) -> Result<Option<Caption>> {
    let subject = || format!("{}:{}", origin.file, origin.line);
    let line = std::str::from_utf8(line).map_err(|e| {
        Error::captions(subject())
            .expected("UTF-8 text")
            .found(format!("another encoding at byte {} of the line", e.valid_up_to()))
            .fix("save the file as UTF-8")
    })?;
    if line.trim().is_empty() {
        return Ok(None);
    }
    let caption: Caption = serde_json::from_str(line).map_err(|e| {
        let message = e.to_string();
        // serde_json counts lines within the one line that it was given.
        let message = message.split(" at line ").next().unwrap_or(&message);
        Error::captions(subject())
            .expected(r#"one JSON object {"id": "...", "caption": "..."}"#)
            .found(format!("{message} (column {})", e.column()))
            .fix("correct the line; ids and captions are strings in double quotes")
    })?;
    caption.validate(subject)?;
    Ok(Some(caption))
}

#[cfg(test)]
#[path = "captions_tests.rs"]
mod tests;
