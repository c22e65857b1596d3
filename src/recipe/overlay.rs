//! Recipe files: settings that differ from the automatic choice.

use std::{fs, path::Path};

use toml::{Table, Value};

use super::{
    choice::Choice,
    counts::{Facts, Rows},
    settings::{Origin, Recipe, TextSettings},
    task::selection,
    written::{Settings, remove},
};
use crate::{
    data::DataFolder,
    error::{Error, Result},
};

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
        let facts = facts(&selection, self.has("queries"), data)?;
        self.chosen(facts)
    }

    pub(super) fn chosen(&self, facts: Facts) -> Result<Recipe> {
        let facts = Facts { pretrained: self.has("text"), ..facts };
        let Choice { recipe, reasons } = Choice::of(&facts)?;
        let mut recipe = self.over(&recipe)?;
        recipe.origin = Some(Origin { facts, written: self.clone(), reasons });
        Ok(recipe)
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

/// Counts what the captions and splits of a recipe select. `asked` says whether the recipe's
/// captions to query with were written, not chosen.
fn facts(recipe: &Recipe, asked: bool, data: &DataFolder) -> Result<Facts> {
    let (items, train) = selection(recipe, data)?;
    let mut captions = vec![0_usize; items.len()];
    let mut words = 0;
    for caption in &train {
        captions[caption.item as usize] += 1;
        words = words.max(caption.text.split_whitespace().count());
    }
    // Nothing can be held out where every candidate has one caption.
    let none = asked || data.captions.select(&recipe.queries).is_err();
    let held_out = if none { 0 } else { data.select(&recipe.queries)?.len() };
    Ok(Facts {
        rows: Rows::of(items.as_slice(), items.dim(), None),
        pairs: train.len(),
        described: captions.iter().filter(|&&count| count > 0).count(),
        held_out,
        words,
        asks: asked || held_out > 0,
        unseen: recipe.splits.is_some() && recipe.generated.is_empty(),
        pretrained: recipe.text.is_some(),
    })
}

impl Recipe {
    /// Chooses all settings for some data: every candidate is indexed, and the last caption of each
    /// candidate with several is kept for [`Recipe::evaluate`].
    ///
    /// # Errors
    /// [`Error::Features`] when all candidates have equal features.
    pub fn for_data(data: &DataFolder) -> Result<Self> {
        Settings::default().recipe(data)
    }

    /// All settings as the text of a recipe file.
    ///
    /// # Errors
    /// [`Error::Config`] for a value that TOML cannot hold, as a seed of 2^63 or more.
    pub fn to_toml(&self) -> Result<String> {
        toml_of(self)
    }

    /// Uses a pretrained text encoder, and chooses again the settings that depend on it.
    ///
    /// # Errors
    /// As [`PretrainedText::open`](crate::pretrained::PretrainedText::open) for a folder that holds
    /// no text encoder; [`Error::Config`] when written settings contradict the new choice.
    pub fn with_encoder(self, folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let recipe = match &self.origin {
            Some(origin) => origin.written.clone().with_encoder(folder).chosen(origin.facts)?,
            None => {
                let dropout = self.text.as_ref().and_then(|text| text.dropout);
                let text = Some(TextSettings { pretrained: folder.to_path_buf(), dropout });
                Self { text, ..self }
            }
        };
        recipe.pretrained()?;
        Ok(recipe)
    }
}

/// All settings of a recipe as TOML.
fn toml_of(recipe: &Recipe) -> Result<String> {
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
    for keys in
        [&["mixed"][..], &["training", "interpolation"], &["quantizer", "coarse", "balance"]]
    {
        let mut value = keys.split_first().and_then(|(first, _)| table.get(*first));
        for key in &keys[1..] {
            value = value.and_then(|value| value.get(*key));
        }
        if let Some(value) = value {
            return Some(
                Error::config(format!("{subject}: {}", keys.join(".")))
                    .expected("a setting of this version")
                    .found(format!("{value}, for an option that gained nothing and was removed"))
                    .fix("remove the line"),
            );
        }
    }
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
