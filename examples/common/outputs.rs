//! Files that the programs write, and recognise as their own when they are run again.

use std::path::{Path, PathBuf};

use cart_retrieval::{expert::read_json, members::Outputs};

use crate::{page, recipe};

/// The figures of an evaluation as JSON.
pub fn with_report(outputs: Outputs, json: &Option<PathBuf>) -> Outputs {
    let is_ours = |path: &Path| read_json(path).is_ok();
    outputs.replaces(json, "figures written by one of these programs", is_ours)
}

/// A page to look at.
pub fn with_page(outputs: Outputs, path: &Path) -> Outputs {
    outputs.replaces([path], "a page written by one of these programs", page::is_ours)
}

/// A recipe with all settings.
pub fn with_recipe(outputs: Outputs, path: &Option<PathBuf>) -> Outputs {
    outputs.replaces(path, "a recipe written by one of these programs", recipe::is_ours)
}
