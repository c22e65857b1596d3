//! Data folders that no recipe was written for, through what the README's commands call.

use std::path::Path;

use anyhow::Result;
use burn::backend::Flex;
use cart_retrieval::{
    data::{Caption, Captions, DataFolder},
    features::Features,
    retrieve::{Arrivals, LiveRetriever, Retriever},
    train::StopFlag,
};

use crate::{
    common::{
        automatic::{Rows, attempts},
        early,
        judge::Judge,
        pipeline::{Run, Text},
        recipe::{Part, Recipe},
        task::Task,
    },
    named,
};

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
    let settings: Vec<String> = settings.iter().map(|setting| setting.to_string()).collect();
    Ok((Recipe::read_with(&named("any.toml"), &settings)?.for_data(&data)?, data))
}

/// `train`.
fn trained(recipe: &Recipe, task: &Task) -> Result<Retriever<Flex>> {
    let device = Default::default();
    let text = Text::<Flex>::new(recipe, &task.train, &device)?;
    let run = Run {
        recipe,
        task,
        text: &text,
        ignore_health: false,
        folder: None,
        resume: false,
        dashboard: false,
        devices: vec![device],
        stop: StopFlag::new(),
    };
    Ok(run.run()?.retriever)
}

#[test]
fn the_commands_of_the_readme_take_any_captions() {
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
        let task = Task::new(&recipe, folder.path(), &data, Part::Test).unwrap();
        task.check_leaks(&recipe).unwrap();
        let retriever = trained(&recipe, &task).unwrap_or_else(|e| panic!("{items}: {e:#}"));
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
            assert!(judge.in_beam(&rankings) > 0.0);
        }

        // `search` and `serve`, and growth.
        let hits = retriever.search("view 0 of the thing number 1").top(2).run().unwrap();
        assert_eq!(hits.len(), 2);
        let live = LiveRetriever::<Flex>::open(&index, &Default::default()).unwrap();
        let row: Vec<f32> = task.items.row(0).iter().map(|value| value + 0.1).collect();
        let new = Features::from_rows(row, 6).unwrap();
        let new = new.with_id_list(vec!["new.png".to_string()]).unwrap();
        live.add(&Arrivals::new(&new)).unwrap();
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
    let said = recipe.fitted().unwrap().reasons.join("\n");
    assert!(said.contains("3 candidates have no caption"), "{said}");
    let task = Task::new(&recipe, folder.path(), &data, Part::Test).unwrap();
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
        let settings: Vec<String> = settings.iter().map(|setting| setting.to_string()).collect();
        let recipe = Recipe::read_with(&named(recipe), &settings).unwrap();
        format!("{:#}", Task::new(&recipe, folder.path(), &data, Part::Test).err().unwrap())
    };
    let sources = ["train.kinds=[]", "queries.kinds=[]", "train.sources=[\"me\"]"];
    let validation = ["train={}", "queries={}", "validation.kinds=[\"x\"]"];
    for (recipe, settings, parts) in [
        ("emoji.toml", &[][..], &["[train]: captions: kinds", "`cldr_keywords`", "any.toml"][..]),
        ("emoji.toml", &["train={}"], &["[queries]: captions: kinds", "no caption has a kind"]),
        (
            "emoji.toml",
            &sources,
            &["[train]: captions: sources", "`me`", "no caption has a source"],
        ),
        ("emoji.toml", &validation, &["[validation]: captions: kinds", "`x`"]),
        ("flickr8k_clip.toml", &[], &["[train]", "every item has one caption", "any.toml"]),
        ("emoji_b.toml", &["queries={}"], &["[splits]", "splits.json", "any.toml"]),
    ] {
        let error = refused(recipe, settings);
        for part in parts {
            assert!(error.contains(part), "{recipe} {settings:?}: {part}: {error}");
        }
    }
    let same = self::folder(4, 1, |_| 0);
    let error = any(same.path(), &[]).unwrap_err().to_string();
    assert!(error.contains("at least two candidates whose rows differ"), "{error}");
}

#[test]
fn what_is_written_in_an_automatic_recipe_holds() {
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
    let open = Recipe::read(&named("any.toml")).unwrap();
    let error = Task::new(&open, folder.path(), &data, Part::Test).err().unwrap().to_string();
    assert!(error.contains("for_data"), "{error}");
    let encoder = open.with_encoder(Path::new("minilm")).with_seed(9).for_data(&data).unwrap();
    assert_eq!((encoder.seed, encoder.model.encoder_layers), (9, 0));
    assert!(encoder.space.is_some() && encoder.alignment.is_some());
}

/// Errors come before anything is fitted, and their advice is enough.
#[test]
fn sizes_are_checked_before_work_and_by_the_advice() {
    let checked = |items: usize, kind: fn(usize) -> usize, settings: &[&str]| {
        let folder = folder(items, 2, kind);
        let data = DataFolder::open(folder.path()).unwrap();
        let all = ["train={}", "queries={}"].iter().chain(settings);
        let settings: Vec<String> = all.map(|setting| setting.to_string()).collect();
        let recipe = Recipe::read_with(&named("emoji.toml"), &settings).unwrap();
        let task = Task::new(&recipe, folder.path(), &data, Part::Test).unwrap();
        early::check(&recipe, &task).map_err(|error| error.to_string())
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
    assert!(error.contains("100.0%, whatever the sizes: 30 candidates"), "{error}");
    assert!(error.contains("set max_shared_items to 1.00"), "{error}");
    let all = [few[0], few[1], "health.max_shared_items=1.0"];
    assert_eq!(checked(30, |item| item / 2, &all), Ok(()));
}

/// Rows of which most are nearly alike: what is tried first collapses, and what is tried last
/// separates them.
#[test]
fn attempts_end_with_one_that_suits() {
    for (items, near) in [(12, 1e-3_f32), (40, 1e-4), (150, 1e-4)] {
        let row = |item: usize| {
            [if item.is_multiple_of(5) { 3.0 } else { 1.0 }, near * (item * item) as f32]
        };
        let rows: Vec<f32> = (0..items).flat_map(row).collect();
        let features = Features::from_rows(rows.clone(), 2).unwrap();
        let healthy = attempts(&Rows::of(&rows, 2, None)).into_iter().rev().any(|attempt| {
            let fitted = attempt
                .quantizer
                .fit::<burn::backend::Autodiff<Flex>>(&features, &Default::default());
            let index = fitted.and_then(|fitted| fitted.assign(&features));
            let index = index.unwrap_or_else(|e| panic!("{items}: {}: {e}", attempt.why));
            index.health().shared_share < 0.1 && index.ensure_healthy(&attempt.health).is_ok()
        });
        assert!(healthy, "{items}");
    }
}
