//! Checks of identifier settings before anything is computed.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{counts::Rows, settings::Recipe, task::Task};
use crate::{
    error::{Error, Result},
    quantizer::FineConfig,
};

/// An additional remedy.
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
            0 | 1 => {
                "use candidates whose features differ: equal rows cannot be told apart".to_string()
            }
            _ => format!("set {setting} to {found} or less, or pass more data"),
        };
        let expected = format!("at least {size} distinct rows");
        Err(Error::quantizer(subject)
            .expected(expected)
            .found(format!("{found} distinct rows"))
            .fix(remedy))
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
    let expected = format!("at most {:.1}% of the candidates sharing a code", 100.0 * most);
    let bound = |share: f64| (share * 100.0).ceil() / 100.0;
    let share = rows.repeated_share();
    let remedy = format!(
        "remove duplicates, or set max_shared_items to {:.2} (unique tokens tell such \
                 candidates apart)",
        bound(share)
    );
    Error::collapsed(format!("{} candidates", rows.items))
        .expected(&expected)
        .found(format!(
            "{:.1}% with any sizes: {} candidates have the same features as another one",
            100.0 * share,
            rows.repeated
        ))
        .fix_if(share > most, remedy)?;
    let remedy = format!("remove duplicates, or set max_largest_collision to {}", rows.largest);
    Error::collapsed(format!("{} candidates", rows.items))
        .expected(format!("at most {} with one code", recipe.health.max_largest_collision))
        .found(format!("{} with equal features", rows.largest))
        .fix_if(rows.largest > recipe.health.max_largest_collision, remedy)?;
    let sizes = recipe.quantizer.fine.sizes();
    let codes =
        sizes.iter().fold(recipe.quantizer.coarse.k, |codes, &size| codes.saturating_mul(size));
    let share = 1.0 - codes as f64 / rows.items.max(1) as f64;
    Error::collapsed(format!(
        "{codes} whole codes, k = {} times sizes = {sizes:?}",
        recipe.quantizer.coarse.k
    ))
    .expected(expected)
    .found(format!("at least {:.1}% of {}", 100.0 * share, rows.items))
    .fix_if(share > most, "add a level to sizes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data::{Caption, Captions, DataFolder},
        features::Features,
        recipe::{Part, Settings},
    };

    /// Two captions for each item; rows that are equal where `kind` is.
    fn folder(items: usize, kind: fn(usize) -> usize) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let row = |item: usize| {
            (0..6).map(move |column| ((item * 37 + column * 11 + 5) as f32 * 0.77).sin() + 0.01)
        };
        let rows: Vec<f32> = (0..items).flat_map(|item| row(kind(item))).collect();
        let ids: Vec<String> = (0..items).map(|item| format!("mine/{item}.png")).collect();
        let features = Features::from_rows(rows, 6).unwrap().with_id_list(ids.clone()).unwrap();
        features.save_npy(path("features.npy")).unwrap();
        features.save_ids(path("ids.txt")).unwrap();
        let mut captions = Captions::new();
        for (item, id) in ids.iter().enumerate() {
            for text in 0..2 {
                let text = format!("view {text} of the thing number {item}");
                captions.push(Caption::new(id, text)).unwrap();
            }
        }
        captions.to_jsonl(path("captions.jsonl")).unwrap();
        folder
    }

    /// Errors come before anything is fitted, and their advice is enough.
    #[test]
    fn sizes_are_checked_before_work_and_by_the_advice() {
        let checked = |items: usize, kind: fn(usize) -> usize, settings: &[&str]| {
            let folder = folder(items, kind);
            let data = DataFolder::open(folder.path()).unwrap();
            let usual = [
                "train={}",
                "queries={}",
                "quantizer.coarse.k=32",
                "quantizer.fine={method=\"rq-vae\",sizes=[64,64,64,64]}",
                "health.max_shared_items=0.1",
            ];
            let settings = Settings::default().with_all(usual.iter().chain(settings)).unwrap();
            let recipe = settings.recipe(&data).unwrap();
            let task = Task::new(&recipe, &data, Part::Test).unwrap();
            check(&recipe, &task).map_err(|error| error.to_string())
        };
        let error = checked(30, |item| item, &[]).unwrap_err();
        assert!(error.contains("[quantizer]") && error.contains("set k to 30 or less"), "{error}");
        assert_eq!(checked(30, |item| item, &["quantizer.coarse.k=30"]), Ok(()));
        let k = "quantizer.coarse.k=29";
        let error = checked(30, |item| item, &[k]).unwrap_err();
        assert!(error.contains("fine level 1, sizes[0] = 64"), "{error}");
        assert!(error.contains("set sizes[0] to 30 or less"), "{error}");
        let sizes = "quantizer.fine.sizes=[30,30,30,30]";
        assert_eq!(checked(30, |item| item, &[k, sizes]), Ok(()));

        let few = ["quantizer.coarse.k=2", "quantizer.fine.sizes=[2]"];
        let error = checked(30, |item| item, &few).unwrap_err();
        assert!(error.contains("at least 86.7% of 30; add a level to sizes"), "{error}");
        let error = checked(30, |item| item / 2, &few).unwrap_err();
        assert!(error.contains("100.0% with any sizes: 30 candidates"), "{error}");
        assert!(error.contains("set max_shared_items to 1.00"), "{error}");
        let all = [few[0], few[1], "health.max_shared_items=1.0"];
        assert_eq!(checked(30, |item| item / 2, &all), Ok(()));
    }
}
