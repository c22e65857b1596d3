//! What can be said about identifiers before anything is computed.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{choice::Rows, settings::Recipe, task::Task};
use crate::{
    error::{Error, Result},
    quantizer::FineConfig,
};

/// What else helps.
const AUTOMATIC: &str = "without [quantizer] in the recipe, sizes follow the data";

/// Names the recipe's tables that an error of a quantizer is about.
pub(super) fn of_recipe(error: Error) -> Error {
    let tables = match error {
        Error::Quantizer(_) => "[quantizer] of the recipe",
        Error::Collapsed(_) => "[quantizer] and [health] of the recipe",
        error => return error,
    };
    error.within(tables).or_else(AUTOMATIC)
}

/// Refuses sizes that cannot be fitted, and codes that cannot be told apart, before an encoder is
/// tuned or a quantizer fitted.
///
/// # Errors
/// Names the recipe's table, the level and the setting.
pub(super) fn check(recipe: &Recipe, task: &Task) -> Result<()> {
    if recipe.repairs_quantizer() {
        return Ok(());
    }
    // Candidates with equal features become different vectors only by their texts.
    let by_texts = recipe.space.as_ref().is_some_and(|space| space.texts > 0.0);
    let labels = by_texts.then(|| labels(task));
    let rows = Rows::of(task.items.as_slice(), task.items.dim(), labels.as_deref());
    sizes(recipe, &rows).and_then(|()| shared(recipe, &rows)).map_err(of_recipe)
}

/// A number for the training texts of every candidate.
fn labels(task: &Task) -> Vec<u64> {
    let mut texts = vec![Vec::new(); task.items.len()];
    for caption in &task.train {
        texts[caption.item as usize].push(caption.text.as_str());
    }
    let label = |mut texts: Vec<&str>| {
        texts.sort_unstable();
        let mut hasher = DefaultHasher::new();
        texts.hash(&mut hasher);
        hasher.finish()
    };
    texts.into_iter().map(label).collect()
}

/// Checks that no level has more codes than there are distinct rows.
fn sizes(recipe: &Recipe, rows: &Rows) -> Result<()> {
    let found = rows.distinct;
    let refuse = |subject: String, setting: &str, size: usize| {
        let remedy = match found {
            0 | 1 => "pass rows that differ: equal rows cannot be told apart".to_string(),
            _ => format!("set {setting} to {found} or less, or pass more data"),
        };
        let expected = format!("at least {size} distinct rows");
        Err(Error::quantizer(subject, expected, format!("{found} distinct rows"), remedy))
    };
    let k = recipe.quantizer.coarse.k;
    if k > found {
        return refuse(format!("coarse level, k = {k}"), "k", k);
    }
    let fine = &recipe.quantizer.fine;
    // A node of a tree takes as many children as it has rows; at k = distinct rows, nothing is
    // left to fit.
    if matches!(fine, FineConfig::Hierarchical(_)) || k == found {
        return Ok(());
    }
    for (level, &size) in fine.sizes().iter().enumerate() {
        if size > found {
            let setting = format!("sizes[{level}]");
            return refuse(format!("fine level {}, {setting} = {size}", level + 1), &setting, size);
        }
    }
    Ok(())
}

/// Checks that duplicates and too few whole codes leave candidates enough codes of their own.
fn shared(recipe: &Recipe, rows: &Rows) -> Result<()> {
    let most = recipe.health.max_shared_items;
    let expected = format!("at most {:.1}% of the candidates sharing their code", 100.0 * most);
    let bound = |share: f64| (share * 100.0).ceil() / 100.0;
    let share = rows.repeated_share();
    if share > most {
        return Err(Error::collapsed(
            format!("{} candidates", rows.items),
            expected,
            format!(
                "{:.1}%, whatever the sizes: {} candidates are like another one",
                100.0 * share,
                rows.repeated
            ),
            format!(
                "remove duplicates, or set max_shared_items to {:.2} (unique tokens tell such \
                 candidates apart)",
                bound(share)
            ),
        ));
    }
    if rows.largest > recipe.health.max_largest_collision {
        return Err(Error::collapsed(
            format!("{} candidates", rows.items),
            format!("at most {} with one code", recipe.health.max_largest_collision),
            format!("{} that are all alike", rows.largest),
            format!("remove duplicates, or set max_largest_collision to {}", rows.largest),
        ));
    }
    let sizes = recipe.quantizer.fine.sizes();
    let codes =
        sizes.iter().fold(recipe.quantizer.coarse.k, |codes, &size| codes.saturating_mul(size));
    let share = 1.0 - codes as f64 / rows.items.max(1) as f64;
    if share > most {
        return Err(Error::collapsed(
            format!(
                "{codes} whole codes, k = {} times sizes = {sizes:?}",
                recipe.quantizer.coarse.k
            ),
            expected,
            format!("at least {:.1}% of {}", 100.0 * share, rows.items),
            "add a level to sizes",
        ));
    }
    Ok(())
}
