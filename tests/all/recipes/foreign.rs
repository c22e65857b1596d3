//! Data folders that no recipe was written for, through what the README's commands call.

use std::path::Path;

use burn::backend::Flex;
use cart_retrieval::{
    Result,
    data::{Caption, Captions, DataFolder},
    features::Features,
    recipe::{Fit, Judge, Part, Recipe, Settings, Task},
    retrieve::{LiveRetriever, NewCandidates, Retriever},
};

use super::named;

/// Captions without kinds, `each` for an item; rows that are equal where `kind` is.
fn folder(items: usize, each: usize, kind: impl Fn(usize) -> usize) -> tempfile::TempDir {
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
        for text in 0..each {
            let text = format!("view {text} of the thing number {item}");
            captions.push(Caption::new(id, text)).unwrap();
        }
    }
    captions.to_jsonl(path("captions.jsonl")).unwrap();
    folder
}

fn any(folder: &Path, settings: &[&str]) -> Result<(Recipe, DataFolder)> {
    let data = DataFolder::open(folder)?;
    Ok((Settings::default().with_all(settings)?.recipe(&data)?, data))
}

/// `train`.
fn trained(recipe: &Recipe, task: &Task) -> Result<Retriever<Flex>> {
    Ok(Fit::new(recipe, task).run(&[Default::default()])?.retriever)
}

#[test]
fn the_commands_of_the_readme_take_any_captions() {
    let _turn = crate::turn();
    let out = tempfile::tempdir().unwrap();
    let quick = ["training.epochs=1", "model.d_model=16", "model.d_ff=16", "model.n_heads=2"];
    let own = |item: usize| item;
    let two = |item: usize| item % 2;
    for (items, each, folder) in [
        (2, 1, folder(2, 1, own)),
        (3, 2, folder(3, 2, own)),
        (5, 1, folder(5, 1, own)),
        (30, 3, folder(30, 3, own)),
        (30, 1, folder(30, 1, two)),
        (120, 2, folder(120, 2, own)),
        (520, 1, folder(520, 1, own)),
    ] {
        let (recipe, data) = any(folder.path(), &quick).unwrap();
        let task = Task::new(&recipe, &data, Part::Test).unwrap();
        task.check_leaks(&recipe).unwrap();
        let retriever = trained(&recipe, &task).unwrap_or_else(|e| panic!("{items}: {e}"));
        let index = out.path().join(format!("index-{items}-{each}"));
        retriever.save(&index).unwrap();

        // `evaluate`: what was held out, or nothing.
        let retriever = Retriever::<Flex>::load(&index, &Default::default()).unwrap();
        assert_eq!(task.queries.len(), if each > 1 { items } else { 0 });
        assert_eq!(task.train.len(), items * each - task.queries.len());
        assert_eq!(task.nothing_to_ask(&recipe).is_some(), each == 1);
        if each > 1 {
            let judge = Judge::new(&task);
            let rankings = task.rankings(&retriever, &judge.texts, 20).unwrap();
            assert_eq!(rankings.len(), items);
            assert!(judge.share_found(&rankings) > 0.0);
        }

        // `search` and `serve`, and growth.
        let hits = retriever.query("view 0 of the thing number 1").top(2).run().unwrap();
        assert_eq!(hits.len(), 2);
        let live = LiveRetriever::<Flex>::open(&index, &Default::default()).unwrap();
        let row: Vec<f32> = task.items.row(0).iter().map(|value| value + 0.1).collect();
        let new = Features::from_rows(row, 6).unwrap();
        let new = new.with_id_list(vec!["new.png".to_string()]).unwrap();
        live.add(&NewCandidates::new(&new)).unwrap();
        assert_eq!(live.snapshot().index().ids().len(), items + 1);
    }
}

#[test]
fn some_items_with_one_caption_some_with_none_some_twice_the_same() {
    let folder = folder(6, 1, |item| item);
    let mut captions = Captions::new();
    for (id, text) in [
        ("mine/0.png", "a red ball"),
        ("mine/1.png", "a blue ball"),
        ("mine/1.png", "the sky"),
        ("mine/2.png", "a dog"),
        ("mine/2.png", "A dog!"),
    ] {
        captions.push(Caption::new(id, text)).unwrap();
    }
    captions.to_jsonl(folder.path().join("captions.jsonl")).unwrap();
    let (recipe, data) = any(folder.path(), &[]).unwrap();
    let said = recipe.reasons().join("\n");
    assert!(said.contains("3 candidates have no caption"), "{said}");
    let task = Task::new(&recipe, &data, Part::Test).unwrap();
    assert_eq!(task.train.len(), 3);
    let asked: Vec<&str> = task.queries.iter().map(|query| query.text.as_str()).collect();
    assert_eq!(asked, ["the sky"]);
    task.check_leaks(&recipe).unwrap();
}

#[test]
fn other_recipes_say_what_they_miss_in_foreign_data() {
    let folder = folder(6, 1, |item| item);
    let data = DataFolder::open(folder.path()).unwrap();
    let refused = |recipe: &str, settings: &[&str]| {
        let settings = Settings::read(named(recipe)).unwrap().with_all(settings).unwrap();
        let task = settings.recipe(&data).and_then(|recipe| Task::new(&recipe, &data, Part::Test));
        task.err().unwrap().to_string()
    };
    let sources = ["train.kinds=[]", "queries.kinds=[]", "train.sources=[\"me\"]"];
    let validation = ["train={}", "queries={}", "validation.kinds=[\"x\"]"];
    for (recipe, settings, parts) in [
        (
            "emoji.toml",
            &[][..],
            &["[train] of the recipe: kinds", "`cldr_keywords`", "without a recipe"][..],
        ),
        ("emoji.toml", &["train={}"], &["[queries] of the recipe: kinds", "no caption has a kind"]),
        (
            "emoji.toml",
            &sources,
            &["[train] of the recipe: sources", "`me`", "no caption has a source"],
        ),
        ("emoji.toml", &validation, &["[validation] of the recipe: kinds", "`x`"]),
        ("flickr8k_clip.toml", &[], &["[train]", "every item has one caption", "without a recipe"]),
        ("emoji_b.toml", &["queries={}"], &["[splits]", "splits.json", "without a recipe"]),
    ] {
        let error = refused(recipe, settings);
        for part in parts {
            assert!(error.contains(part), "{recipe} {settings:?}: {part}: {error}");
        }
    }
    let same = self::folder(4, 1, |_| 0);
    let error = any(same.path(), &[]).unwrap_err().to_string();
    assert!(error.contains("at least two whose rows differ"), "{error}");
}

#[test]
fn what_is_written_in_a_recipe_holds() {
    let folder = folder(30, 2, |item| item);
    let settings = ["training.epochs=7", "quantizer.coarse.k=3", "queries.ordinals=[0]"];
    let (recipe, _) = any(folder.path(), &settings).unwrap();
    assert_eq!((recipe.training.epochs, recipe.quantizer.coarse.k), (7, 3));
    assert!(!recipe.queries.held_out && recipe.train.except_held_out);
    assert!(!recipe.repairs_quantizer());
    assert!(any(folder.path(), &[]).unwrap().0.repairs_quantizer());
    let method = ["quantizer.fine={method=\"rq-kmeans\",sizes=[4,4]}"];
    assert_eq!(any(folder.path(), &method).unwrap().0.quantizer.fine.sizes(), [4, 4]);
    assert!(any(folder.path(), &["quantizer.fine.sices=[4]"]).is_err());
    let data = DataFolder::open(folder.path()).unwrap();
    let settings = Settings::default().with_encoder(Path::new("minilm"));
    let encoder = settings.recipe(&data).unwrap().with_seed(9);
    assert_eq!((encoder.seed, encoder.training.batch_size), (9, 30));
    assert!(encoder.space.is_some() && encoder.alignment.is_some());
}
