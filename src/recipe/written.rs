//! What a recipe file says, before there are data.

use toml::{Table, Value};

use crate::error::{Error, Result};

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
    pub(super) file: Option<String>,
    pub(super) table: Table,
    /// Keys that are removed from the choice, too.
    pub(super) removed: Vec<Vec<String>>,
}

impl Settings {
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
    pub(super) fn replace(&mut self, setting: &str) -> Result<()> {
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
}

/// Removes a key, given by the tables that it is in.
pub(super) fn remove(table: &mut Table, keys: &[String]) {
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
