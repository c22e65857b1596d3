//! Late interaction: from a recipe over the index folder to candidates that come later.

use std::path::Path;

use burn::backend::Flex;
use cart_retrieval::{
    Result,
    data::{Caption, Captions, DataFolder, ItemCaption},
    features::Features,
    recipe::{Fit, Part, Settings, Task},
    retrieve::{LiveRetriever, NewCandidates, Retriever},
};

const COLOURS: [&str; 8] = ["red", "green", "blue", "white", "black", "brown", "pink", "grey"];
const THINGS: [&str; 6] = ["dog", "boat", "house", "tree", "car", "bird"];

/// Things of colours, three captions each but for the last five, which have none.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let ids: Vec<String> = (0..48).map(|item| format!("{item}.png")).collect();
    let row = |item: usize| (0..8).map(move |c| ((item * 31 + c * 17 + 3) as f32 * 0.37).sin());
    let features = Features::from_rows((0..48).flat_map(row).collect(), 8).unwrap();
    let features = features.with_id_list(ids.clone()).unwrap();
    features.save_npy(path("features.npy")).unwrap();
    features.save_ids(path("ids.txt")).unwrap();
    let mut captions = Captions::new();
    for (item, id) in ids.iter().enumerate().take(43) {
        let (colour, thing) = (COLOURS[item / 6], THINGS[item % 6]);
        for text in [
            format!("a {colour} {thing}"),
            format!("the {thing} is {colour}"),
            format!("one {thing}, {colour}"),
        ] {
            captions.push(Caption::new(id, text)).unwrap();
        }
    }
    captions.to_jsonl(path("captions.jsonl")).unwrap();
    folder
}

/// An index with a text encoder from scratch, in whose space the candidates lie.
fn fitted(folder: &Path, more: &[&str]) -> Result<(Retriever<Flex>, Vec<String>)> {
    let data = DataFolder::open(folder)?;
    let settings = [
        "model={ d_model=16, d_ff=16, n_heads=2, encoder_layers=2 }",
        "space={}",
        "space_tuning={ epochs=4, learning_rate=0.003, shares=[1.0], validation_share=0.0 }",
        "alignment={ guided=true }",
        "beam={ rerank=20.0 }",
        "training.epochs=0",
    ];
    let recipe = Settings::default().with_all([&settings, more].concat())?.recipe(&data)?;
    let task = Task::new(&recipe, &data, Part::Test)?;
    let notes = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let said = notes.clone();
    let fit = Fit::new(&recipe, &task)
        .with_ignore_health(true)
        .with_progress(move |event| said.lock().unwrap().push(event.to_string()));
    let retriever = fit.run(&[Default::default()])?.retriever;
    let notes = notes.lock().unwrap().clone();
    Ok((retriever, notes))
}

fn answers(retriever: &Retriever<Flex>) -> Vec<(String, u32)> {
    let hits = retriever.query("a blue boat").top(20).run().unwrap();
    hits.into_iter().map(|hit| (hit.id, hit.score.to_bits())).collect()
}

#[test]
fn token_states_take_part_in_the_score_and_live_on_the_disk() {
    let _turn = crate::turn();
    let folder = folder();
    let weighted = ["late_interaction={ bytes=200, dim=8, weight=0.5 }"];
    let (retriever, notes) = fitted(folder.path(), &weighted).unwrap();
    assert!(notes.iter().any(|note| note.contains("late interaction")), "{notes:?}");
    let states = retriever.index().token_states().unwrap().clone();
    // 200 bytes hold 16 tokens of 8 numbers and a factor.
    assert_eq!((states.len(), states.described(), states.most()), (48, 43, 16));
    // Half of the cosine's factor: 10 in the network, 20 in the rerank.
    assert_eq!(retriever.beam().late_interaction, 15.0);

    let all = retriever.query("a blue boat").scores().unwrap();
    let explained = |id: &str| retriever.query("a blue boat").explain(id, 0).unwrap();
    let mut without = retriever.beam().clone();
    without.late_interaction = 0.0;
    let plain = retriever.clone().with_beam(without).query("a blue boat").scores().unwrap();
    for hit in &all {
        let explanation = explained(&hit.id);
        let before = plain.iter().find(|other| other.id == hit.id).unwrap();
        assert!((hit.score - before.score - explanation.late_interaction).abs() < 1e-4);
        assert!((explanation.score - hit.score).abs() < 1e-4);
        assert!(explanation.late_interaction.abs() <= 15.0);
    }
    assert!(all.iter().any(|hit| explained(&hit.id).late_interaction != 0.0));
    // The last five have no captions: all get what is usual.
    let usual: Vec<u32> =
        (43..48).map(|n| explained(&format!("{n}.png")).late_interaction.to_bits()).collect();
    assert!(usual.windows(2).all(|pair| pair[0] == pair[1]), "{usual:?}");

    let exact = retriever.query("a blue boat").top(5).exact(48).unwrap();
    assert!(exact.proven);
    for (found, expected) in exact.hits.iter().zip(&all) {
        assert!((found.score - expected.score).abs() < 1e-4);
    }

    let saved = tempfile::tempdir().unwrap();
    retriever.save(saved.path()).unwrap();
    let loaded = Retriever::<Flex>::load(saved.path(), &Default::default()).unwrap();
    assert_eq!(answers(&loaded), answers(&retriever));
    assert_eq!(**loaded.index().token_states().unwrap(), *states);
}

#[test]
fn candidates_that_come_later_bring_token_states_and_others_leave() {
    let _turn = crate::turn();
    let folder = folder();
    let weighted = ["late_interaction={ bytes=200, dim=8, weight=0.5 }"];
    let (retriever, _) = fitted(folder.path(), &weighted).unwrap();
    let saved = tempfile::tempdir().unwrap();
    retriever.save(saved.path()).unwrap();
    let live = LiveRetriever::<Flex>::open(saved.path(), &Default::default()).unwrap();
    let rows: Vec<f32> = (0..16).map(|i| (i as f32 * 0.9).cos()).collect();
    let ids = ["new-1.png", "new-2.png"].map(String::from).to_vec();
    let new = Features::from_rows(rows, 8).unwrap().with_id_list(ids).unwrap();
    let caption = |text: &str| ItemCaption { item: 0, text: text.into(), weight: 1.0 };
    live.add(&NewCandidates::new(&new).with_captions(&[caption("a blue boat")])).unwrap();
    live.remove(&["7.png", "47.png"]).unwrap();
    let index = live.snapshot();
    let states = index.index().token_states().unwrap();
    assert_eq!((states.len(), states.described()), (48, 43));
    let explained = |id: &str| index.query("a blue boat").explain(id, 0).unwrap().late_interaction;
    // Its own caption, but for rounding; the other new one has none.
    assert!(explained("new-1.png") > 14.0, "{}", explained("new-1.png"));
    assert_eq!(explained("new-2.png"), explained("46.png"));
    let loaded = Retriever::<Flex>::load(saved.path(), &Default::default()).unwrap();
    assert_eq!(answers(&loaded), answers(&index));
    live.compact().unwrap();
    let loaded = Retriever::<Flex>::load(saved.path(), &Default::default()).unwrap();
    assert_eq!(answers(&loaded), answers(&index));
}

#[test]
fn where_it_cannot_be_it_is_off_or_said() {
    let _turn = crate::turn();
    let folder = folder();
    for bytes in [0, 11] {
        let none = format!("late_interaction={{ bytes={bytes}, dim=8 }}");
        let (retriever, notes) = fitted(folder.path(), &[&none]).unwrap();
        assert!(retriever.index().token_states().is_none());
        assert!(notes.iter().any(|note| note.contains("no late interaction")), "{notes:?}");
        let mut beam = retriever.beam().clone();
        beam.late_interaction = 1.0;
        let error = retriever.with_beam(beam).query("a blue boat").run().unwrap_err().to_string();
        assert!(error.contains("token states"), "{error}");
    }
    for wrong in ["late_interaction={ dim=0 }", "late_interaction={ weight=-1.0 }"] {
        let error = fitted(folder.path(), &[wrong]).unwrap_err().to_string();
        assert!(error.contains("late_interaction"), "{error}");
    }
}
