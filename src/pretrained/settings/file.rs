//! A JSON file of settings.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::fields::{Rule, Table, is_among, rule};
use crate::{
    error::{Error, Result},
    nn::Activation,
    storage::read_limited,
};

/// Most bytes of a settings file.
const LIMIT: u64 = 16 << 20;

/// Settings of the preparation of media, as transformers 4 writes them.
pub const PREPROCESSOR: &str = "preprocessor_config.json";
/// The same, as transformers 5 writes them: nested.
pub const PROCESSOR: &str = "processor_config.json";

/// What to do about a setting that is not supported.
pub(super) const UNSUPPORTED: &str =
    "name the folder of a model of a family that is supported, or fetch the file again";

/// A JSON file of settings, or an object within one.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(super) path: PathBuf,
    /// The keys that lead to the object, each with a dot behind it.
    pub(super) prefix: String,
    /// The values by their names.
    pub values: Map<String, Value>,
}

/// Reads a JSON file; a byte order mark of UTF-8 is passed over.
pub(super) fn read_json(path: &Path) -> Result<Value> {
    let bytes = read_limited(path, LIMIT)?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    serde_json::from_slice(bytes).map_err(|e| {
        let utf16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
        Error::model(path.display().to_string())
            .expected("a file of settings in JSON, in UTF-8")
            .found(if utf16 { "UTF-16".to_string() } else { e.to_string() })
            .fix(if utf16 { "save the file in UTF-8" } else { "fetch the file again" })
    })
}

impl Settings {
    /// Reads a file, which must hold an object.
    pub fn read(path: &Path) -> Result<Self> {
        match read_json(path)? {
            Value::Object(values) => {
                Ok(Self { path: path.to_path_buf(), prefix: String::new(), values })
            }
            other => Err(Error::model(path.display().to_string())
                .expected("settings: an object in JSON")
                .found(brief(&other))
                .fix("fetch the file again")),
        }
    }

    /// Reads a file if it is there.
    pub fn read_if_there(path: &Path) -> Result<Option<Self>> {
        if path.exists() { Self::read(path).map(Some) } else { Ok(None) }
    }

    /// The value of a key, unless it is absent or null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    /// The object under a key, if there is one.
    pub fn object(&self, key: &str) -> Result<Option<Self>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(values)) => Ok(Some(Self {
                path: self.path.clone(),
                prefix: format!("{}{key}.", self.prefix),
                values: values.clone(),
            })),
            Some(other) => Err(self.problem(key, "an object in JSON", brief(other))),
        }
    }

    /// The object under a key; an empty one where there is none.
    pub fn object_or_empty(&self, key: &str) -> Result<Self> {
        let prefix = format!("{}{key}.", self.prefix);
        let empty = Self { path: self.path.clone(), prefix, values: Map::new() };
        Ok(self.object(key)?.unwrap_or(empty))
    }

    /// Refuses fields that are neither followed nor known to change nothing.
    pub fn check(&self, table: Table) -> Result<()> {
        for (name, value) in self.values.iter().filter(|(_, value)| !value.is_null()) {
            let (expected, remedy) = match rule(table, name) {
                Some(Rule::Followed(_) | Rule::Harmless(_)) => continue,
                Some(Rule::Only(accepted, _)) if is_among(value, accepted) => continue,
                Some(Rule::Only(accepted, why)) => {
                    (format!("{}: {why}", accepted.join(" or ")), UNSUPPORTED)
                }
                Some(Rule::Refused(why)) => (format!("nothing: {why}"), UNSUPPORTED),
                None => (
                    "a field that the library knows (the table in docs/encoders.md)".into(),
                    "it could change the embeddings: use another model, or remove the field if it does not",
                ),
            };
            let subject = self.subject(name);
            return Err(Error::model(subject).expected(expected).found(brief(value)).fix(remedy));
        }
        Ok(())
    }

    pub(super) fn subject(&self, key: &str) -> String {
        format!("{}: {}{key}", self.path.display(), self.prefix)
    }

    /// An error about the value of a key.
    pub fn problem(&self, key: &str, expected: &str, found: impl ToString) -> Error {
        Error::model(self.subject(key)).expected(expected).found(found.to_string()).fix(UNSUPPORTED)
    }

    /// The size under a key, which must be there.
    pub fn size(&self, key: &str) -> Result<usize> {
        let value = self.get(key).ok_or_else(|| self.problem(key, "a size", "nothing"))?;
        self.as_size(key, value)
    }

    /// The size under a key; `default` where there is none.
    pub fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        self.get(key).map_or(Ok(default), |value| self.as_size(key, value))
    }

    pub(super) fn as_size(&self, key: &str, value: &Value) -> Result<usize> {
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        // No table is that large; the limit keeps products of sizes from overflowing.
        let size = size.filter(|&size| size < 1 << 31);
        size.ok_or_else(|| self.problem(key, "a size", brief(value)))
    }

    /// A list of sizes.
    pub fn sizes_or(&self, key: &str, default: &[usize]) -> Result<Vec<usize>> {
        match self.read_or(key, None, "a list of sizes", |value| value.as_array().map(Some))? {
            Some(values) => values.iter().map(|value| self.as_size(key, value)).collect(),
            None => Ok(default.to_vec()),
        }
    }

    /// A size, or a list of height and width that are the same.
    pub fn sides_or(&self, key: &str, default: usize) -> Result<usize> {
        match self.get(key) {
            Some(value) if value.is_array() => match self.sizes_or(key, &[])?[..] {
                [height, width] if height == width => Ok(height),
                _ => Err(self.problem(key, "the same height and width", brief(value))),
            },
            _ => self.size_or(key, default),
        }
    }

    /// The number under a key; `default` where there is none.
    pub fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        self.read_or(key, default, "a number", Value::as_f64)
    }

    /// Whether a key is true; `default` where it is absent.
    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        self.read_or(key, default, "true or false", Value::as_bool)
    }

    /// The text under a key; `default` where there is none.
    pub fn text_or<'a>(&'a self, key: &str, default: &'a str) -> Result<&'a str> {
        self.read_or(key, default, "a text", Value::as_str)
    }

    fn read_or<'a, T>(
        &'a self,
        key: &str,
        default: T,
        expected: &str,
        read: fn(&'a Value) -> Option<T>,
    ) -> Result<T> {
        self.get(key).map_or(Ok(default), |value| {
            read(value).ok_or_else(|| self.problem(key, expected, brief(value)))
        })
    }

    /// The activation that the text under a key names, or that `default` names where there is none.
    pub fn activation(&self, key: &str, default: &str) -> Result<Activation> {
        let name = self.text_or(key, default)?;
        activation(name).ok_or_else(|| {
            self.problem(key, "relu, gelu, gelu_new, gelu_pytorch_tanh or quick_gelu", name)
        })
    }

    /// Refuses a text other than the one expected; one that is absent counts as `default`.
    pub fn must_be(&self, key: &str, default: &str, expected: &str) -> Result<()> {
        let found = self.text_or(key, default)?;
        if found == expected { Ok(()) } else { Err(self.problem(key, expected, found)) }
    }
}

/// A value for a message: not longer than a line.
pub fn brief(value: &Value) -> String {
    const LONGEST: usize = 80;
    let text = value.to_string();
    if text.chars().count() <= LONGEST {
        return text;
    }
    text.chars().take(LONGEST).chain("...".chars()).collect()
}

pub(super) fn activation(name: &str) -> Option<Activation> {
    Some(match name {
        "relu" => Activation::Relu,
        "gelu" => Activation::Gelu,
        "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
        "quick_gelu" => Activation::QuickGelu,
        _ => return None,
    })
}
