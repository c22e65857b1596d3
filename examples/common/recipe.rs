//! The recipe of a program, as its options name it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cart_retrieval::{
    data::DataFolder,
    members::write_bytes,
    pretrained::PretrainedText,
    recipe::{Recipe, Settings, Task},
};
use clap::Args;

/// Options of a recipe. Without any, all settings follow the data.
#[derive(Args, Clone, Debug, Default)]
pub struct RecipeArgs {
    /// Recipe file: settings that should differ from the automatic choice.
    #[arg(long, value_name = "FILE")]
    pub recipe: Option<PathBuf>,
    /// Pretrained text encoder: a model folder in the Hugging Face layout.
    #[arg(long, value_name = "FOLDER")]
    pub encoder: Option<PathBuf>,
    /// Overrides one setting of the recipe, as in `training.epochs=3`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Seed of all parts; overrides the recipe's.
    #[arg(long)]
    pub seed: Option<u64>,
}

impl RecipeArgs {
    /// The written settings, checked as far as they can be without data.
    pub fn settings(&self) -> Result<Settings> {
        self.settings_with::<&str>(&[])
    }

    /// The same with some more, as `--set` takes them.
    pub fn settings_with<S: AsRef<str>>(&self, more: &[S]) -> Result<Settings> {
        let mut settings = match &self.recipe {
            Some(file) => Settings::read(file)?,
            None => Settings::default(),
        };
        if let Some(folder) = &self.encoder {
            PretrainedText::open(folder).context("--encoder")?;
            settings = settings.with_encoder(folder);
        }
        let set = self.set.iter().map(String::as_str).chain(more.iter().map(AsRef::as_ref));
        Ok(settings.with_all(set)?)
    }

    /// All settings for some data.
    pub fn recipe(&self, settings: &Settings, data: &DataFolder) -> Result<Recipe> {
        let recipe = settings.recipe(data)?;
        // Opened before anything is computed.
        recipe.pretrained()?;
        Ok(match self.seed {
            Some(seed) => recipe.with_seed(seed),
            None => recipe,
        })
    }

    /// The same, and prints why they were chosen.
    pub fn chosen(&self, settings: &Settings, data: &DataFolder) -> Result<Recipe> {
        let recipe = self.recipe(settings, data)?;
        for reason in recipe.reasons() {
            println!("chosen: {reason}");
        }
        Ok(recipe)
    }

    /// Files and folders that are read.
    pub fn inputs(&self) -> impl Iterator<Item = &Path> {
        self.recipe.iter().chain(&self.encoder).map(PathBuf::as_path)
    }
}

/// Prints how many queries are among the training texts, and refuses what the recipe's audit
/// refuses.
pub fn check_leaks(task: &Task, recipe: &Recipe) -> Result<()> {
    println!("{}", task.leaks);
    for warning in task.check_leaks(recipe)? {
        eprintln!("audit: {warning}");
    }
    Ok(())
}

/// The first line of a recipe that a program wrote.
const WRITTEN: &str = "# Written by cart-retrieval: all settings of an index.";

/// Writes all settings of a recipe; a reader sees the old file or the whole new one.
pub fn write(path: &Path, recipe: &Recipe) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create the folder {}", folder.display()))?;
    }
    let text = format!("{WRITTEN}\n{}", recipe.to_toml()?);
    Ok(write_bytes(path, text.as_bytes())?)
}

/// Whether a file is a recipe that a program wrote.
pub fn is_ours(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.starts_with(WRITTEN))
}
