//! Recipe files: settings that differ from the automatic choice.

use std::{fs, path::Path};

use toml::{Table, Value};

use super::{
    choice::{Choice, Facts},
    settings::{Origin, Recipe},
};
use crate::{
    data::DataFolder,
    error::{Error, Result},
};

/// Settings of a recipe file, which replace the automatic choice.
///
/// # Example
/// ```no_run
/// use cart_retrieval::{data::DataFolder, recipe::Settings};
/// let data = DataFolder::open("my-data")?;
/// let settings = Settings::read("my-recipe.toml")?.with("training.epochs=10")?;
/// let recipe = settings.recipe(&data)?;
/// assert_eq!(recipe.training.epochs, 10);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    /// The file, for messages.
    file: Option<String>,
    table: Table,
    /// Keys that are removed from the choice, too.
    removed: Vec<Vec<String>>,
}

impl Settings {
    /// Reads a recipe file and checks its names and values.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read, [`Error::Config`] for one that is malformed,
    /// has an unknown key, or a value out of range.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        let file = path.display().to_string();
        let table = toml::from_str(&text).map_err(|error| malformed(&file, &error))?;
        Self { file: Some(file), table, removed: Vec::new() }.checked()
    }

    /// Replaces a setting, given as `table.key=value` with a TOML value. A value that is not TOML
    /// is taken as a string; `table.key=unset` removes a setting.
    ///
    /// # Errors
    /// [`Error::Config`] for a setting that does not exist or a value that it cannot have.
    pub fn with(mut self, setting: &str) -> Result<Self> {
        self.replace(setting)?;
        self.checked()
    }

    /// Replaces several settings, and checks them together.
    ///
    /// # Errors
    /// As [`Settings::with`].
    pub fn with_all<S: AsRef<str>>(
        mut self,
        settings: impl IntoIterator<Item = S>,
    ) -> Result<Self> {
        for setting in settings {
            self.replace(setting.as_ref())?;
        }
        self.checked()
    }

    /// Takes a pretrained text encoder.
    pub fn with_encoder(mut self, folder: &Path) -> Self {
        let text = self.table.entry("text").or_insert_with(|| Table::new().into());
        if let Some(text) = text.as_table_mut() {
            text.insert("pretrained".into(), folder.to_string_lossy().into_owned().into());
        }
        self
    }

    /// All settings before there are data: captions, splits, seed and names as these settings say,
    /// and everything that follows from data as for a thousand candidates.
    ///
    /// # Errors
    /// [`Error::Config`] for a value out of range.
    pub fn preview(&self) -> Result<Recipe> {
        self.over(&Choice::of_some_data(self.has("text")).recipe)
    }

    /// All settings: the automatic choice for some data, with these in its place.
    ///
    /// # Errors
    /// [`Error::Features`] when all candidates have equal features; [`Error::Config`] when these
    /// settings contradict the choice, [`Error::Captions`] or [`Error::Splits`] when the data have
    /// no such captions or splits.
    pub fn recipe(&self, data: &DataFolder) -> Result<Recipe> {
        let selection = self.preview()?;
        let facts = Facts::of(&selection, self.has("queries"), data)?;
        self.chosen(facts)
    }

    pub(super) fn chosen(&self, facts: Facts) -> Result<Recipe> {
        let facts = Facts { pretrained: self.has("text"), ..facts };
        let Choice { recipe, reasons } = Choice::of(&facts)?;
        let mut recipe = self.over(&recipe)?;
        recipe.origin = Some(Origin { facts, written: self.clone(), reasons });
        Ok(recipe)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    pub(super) fn set_seed(&mut self, seed: u64) {
        if let Ok(seed) = i64::try_from(seed) {
            self.table.insert("seed".into(), seed.into());
        }
    }

    pub(super) fn keep_quantizer(&mut self) {
        self.table.entry("quantizer").or_insert_with(|| Table::new().into());
    }

    /// Sets `a.b.c=value`; the value `unset` removes the key.
    fn replace(&mut self, setting: &str) -> Result<()> {
        let problem = |expected: &str, found: String| {
            Error::config(setting)
                .expected(expected)
                .found(found)
                .fix("write it as in training.epochs=10")
        };
        let Some((path, value)) = setting.split_once('=') else {
            return Err(problem("table.key=value", "no equals sign".into()));
        };
        let keys: Vec<String> = path.split('.').map(|key| key.trim().to_string()).collect();
        if value == "unset" {
            remove(&mut self.table, &keys);
            self.removed.push(keys);
            return Ok(());
        }
        self.removed.retain(|removed| !keys.starts_with(removed));
        let parsed: Table = toml::from_str(&format!("value = {value}"))
            .or_else(|_| toml::from_str(&format!("value = {value:?}")))
            .map_err(|error| problem("a TOML value", error.to_string()))?;
        let (last, tables) = keys.split_last().ok_or_else(|| problem("a key", "none".into()))?;
        let mut at = &mut self.table;
        for key in tables {
            let next = at.entry(key.as_str()).or_insert_with(|| Value::Table(Table::new()));
            at = next
                .as_table_mut()
                .ok_or_else(|| problem("a table before the dot", format!("the value {key}")))?;
        }
        at.insert(last.clone(), parsed["value"].clone());
        Ok(())
    }

    /// Checks names and values before there are data.
    fn checked(self) -> Result<Self> {
        self.preview()?;
        Ok(self)
    }

    /// These settings in place of those of a recipe.
    fn over(&self, chosen: &Recipe) -> Result<Recipe> {
        let subject = self.file.as_deref().unwrap_or("recipe");
        if let Some(error) = old_key(&self.table, subject) {
            return Err(error);
        }
        let mut table = Table::try_from(chosen).map_err(|error| malformed(subject, &error))?;
        merge(&mut table, &self.table, 0);
        self.removed.iter().for_each(|keys| remove(&mut table, keys));
        let recipe: Recipe = table.try_into().map_err(|error| malformed(subject, &error))?;
        recipe.validate().map_err(|error| error.within(subject))?;
        Ok(recipe)
    }
}

/// All settings of a recipe as TOML.
pub(super) fn to_toml(recipe: &Recipe) -> Result<String> {
    let mut value = Value::try_from(recipe).map_err(|error| malformed("recipe", &error))?;
    shorten(&mut value);
    toml::to_string(&value).map_err(|error| malformed("recipe", &error))
}

/// Writes numbers of single precision with as many digits as they have.
fn shorten(value: &mut Value) {
    match value {
        Value::Float(number) => {
            let single = *number as f32;
            if f64::from(single) == *number
                && let Ok(short) = single.to_string().parse()
            {
                *number = short;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(shorten),
        Value::Table(table) => table.iter_mut().for_each(|(_, value)| shorten(value)),
        _ => {}
    }
}

fn malformed(subject: &str, error: &dyn std::fmt::Display) -> Error {
    Error::config(subject)
        .expected("a recipe in TOML with the keys and values of docs/recipes.md")
        .found(error.to_string().trim().to_string())
        .fix("correct it, or remove it for the automatic choice")
}

/// Names the new form of a key that recipes had before.
fn old_key(table: &Table, subject: &str) -> Option<Error> {
    let automatic = table.get("automatic")?;
    Some(
        Error::config(format!("{subject}: automatic"))
            .expected("only settings that differ from the automatic choice")
            .found(automatic.to_string())
            .fix("remove the line: settings that a recipe leaves out are automatic"),
    )
}

/// Puts written settings in place of chosen ones. Caption filters are replaced whole.
fn merge(chosen: &mut Table, written: &Table, depth: usize) {
    for (key, value) in written {
        let whole = depth == 0 && ["train", "queries", "validation"].contains(&key.as_str());
        match (chosen.get_mut(key), value) {
            (Some(Value::Table(chosen)), Value::Table(written)) if !whole => {
                // Settings of one method mean nothing to another.
                let other = written.get("method").is_some_and(|m| chosen.get("method") != Some(m));
                if other {
                    chosen.clear();
                }
                merge(chosen, written, depth + 1);
            }
            _ => {
                chosen.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Removes a key, given by the tables that it is in.
fn remove(table: &mut Table, keys: &[String]) {
    match keys {
        [] => {}
        [key] => {
            table.remove(key);
        }
        [key, rest @ ..] => {
            if let Some(inner) = table.get_mut(key).and_then(Value::as_table_mut) {
                remove(inner, rest);
            }
        }
    }
}
