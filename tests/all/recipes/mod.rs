//! The recipes of the examples, and how data and recipe become a task.

mod foreign;
mod given;
mod late;
mod programs;

use std::path::{Path, PathBuf};

use cart_retrieval::{
    data::{Caption, Captions, DataFolder, LeakPolicy},
    expert::Asked,
    recipe::{Part, Recipe, Settings, Task},
};

fn recipes() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/recipes");
    let mut all: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

fn named(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/recipes").join(name)
}

#[test]
fn every_recipe_reads_and_is_valid() {
    let all = recipes();
    for set in ["flickr30k", "ms_coco", "msr_vtt", "msvd", "clotho", "audiocaps"] {
        assert!(all.contains(&named(&format!("{set}.toml"))), "{set}");
    }
    for path in all {
        let settings = Settings::read(&path).unwrap_or_else(|e| panic!("{e}"));
        let recipe = settings.preview().unwrap();
        assert!(!recipe.dataset.is_empty() && !recipe.protocol.is_empty(), "{}", path.display());
    }
}

#[test]
fn what_is_wrong_with_a_recipe_is_said() {
    let with = |setting: &str| Settings::read(named("flickr30k.toml")).unwrap().with(setting);
    for (setting, part) in [
        ("audit.threshold=2", "threshold of the audit"),
        ("audit.same_items=\"warn\"", "same_items"),
        ("audit.same_item=\"perhaps\"", "perhaps"),
        ("quantizer.coarse.k=0", "[quantizer]"),
        ("training.batch_size=0", "[training]"),
        ("beam.width=0", "[beam]"),
        ("space.folds=1", "[space]"),
        ("model.n_heads=7", "[model]"),
        ("queries.last=true", ""),
    ] {
        if part.is_empty() {
            assert!(with(setting).is_ok());
        } else {
            let found = with(setting).unwrap_err().to_string();
            assert!(found.contains(part) && found.contains("flickr30k.toml"), "{found}");
        }
    }
}

fn generate(folder: &Path, lines: &[(&str, &str)]) {
    let mut captions = Captions::new();
    for (id, text) in lines {
        let caption = Caption::new(*id, *text).with_kind("generated").with_weight(0.5);
        captions.push(caption).unwrap();
    }
    captions.to_jsonl(folder.join("generated.jsonl")).unwrap();
}

#[test]
fn captions_of_captioners_bring_candidates_into_the_training() {
    let folder = given::six_items();
    let data = DataFolder::open(folder.path()).unwrap();
    let settings = Settings::read(named("flickr30k.toml")).unwrap();
    let task = |recipe: &Recipe, part| Task::new(recipe, &data, part);
    let missing = task(&settings.preview().unwrap(), Part::Test).err().unwrap();
    for missing in [missing, settings.recipe(&data).unwrap_err()] {
        assert!(missing.to_string().contains("example `caption`"), "{missing}");
    }

    // i0 is of the validation split: nobody's business in the test.
    generate(folder.path(), &[("i0", "zero"), ("i1", "one"), ("i1", "1, number")]);
    let recipe = settings.recipe(&data).unwrap();
    let test = task(&recipe, Part::Test).unwrap();
    assert_eq!(test.asked, Asked::Part(vec![4]));
    let ids: Vec<&str> = test.items.ids().iter().collect();
    assert_eq!(ids, ["i2", "i3", "i4", "i5", "i1"]);
    assert_eq!(test.candidates.ids().iter().collect::<Vec<_>>(), ["i1"]);
    let texts: Vec<(u32, &str)> = test.texts().iter().map(|_| (0, "")).collect();
    assert_eq!(texts.len(), 2);
    assert_eq!(test.texts()[0].text, "one");
    assert_eq!((test.train.len(), test.train[8].item, test.train[8].weight), (10, 4, 0.5));
    assert!(test.train.iter().all(|caption| caption.text != "number 1" && caption.text != "zero"));
    assert!(test.queries.iter().all(|query| query.item == 0));
    assert_eq!(test.of_index(&[0]), [4]);

    // The second caption has the words of the second query, which the recipe tells; others refuse.
    assert_eq!((test.leaks.exact.same_item, test.leaks.near_same_item), (1, 1));
    assert!(test.check_leaks(&recipe).is_ok());
    let mut strict = recipe.clone();
    strict.audit.same_item = LeakPolicy::Refuse;
    let error = test.check_leaks(&strict).unwrap_err().to_string();
    assert!(error.contains("`i1`") && error.contains("\"1, number\""), "{error}");

    let tuning = task(&recipe, Part::Tuning).unwrap();
    assert_eq!(tuning.texts().len(), 1);
    assert_eq!(tuning.candidates.id(0), "i0");
}

#[test]
fn without_them_candidates_of_a_split_are_unseen() {
    let folder = given::six_items();
    let data = DataFolder::open(folder.path()).unwrap();
    let settings = |name: &str, unset| Settings::read(named(name)).unwrap().with(unset).unwrap();
    let recipe = settings("msr_vtt.toml", "generated=unset").recipe(&data).unwrap();
    let task = Task::new(&recipe, &data, Part::Test).unwrap();
    assert_eq!((task.asked.clone(), task.items.len(), task.train.len()), (Asked::Unseen, 4, 8));
    assert!(task.texts().is_empty());
    assert_eq!(task.known(), "unseen");
    // Rows of two lists are not mixed up: query item 0 and training item 0 are different items.
    assert_eq!(task.leaks.exact.same_item, 0);
    let none = Task::new(&recipe, &data, Part::Tuning).err().unwrap();
    assert!(none.to_string().contains("no tuning split"), "{none}");

    // Without splits, all items are trained on, with captions of captioners where there are some.
    generate(folder.path(), &[("i0", "zero")]);
    let recipe = settings("msvd.toml", "splits=unset").recipe(&data).unwrap();
    let task = Task::new(&recipe, &data, Part::Test).unwrap();
    assert_eq!((task.asked.clone(), task.train.len(), task.queries.len()), (Asked::All, 13, 12));
    assert_eq!(task.leaks.exact.same_item, 12);
}
