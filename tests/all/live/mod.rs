//! An index that grows, shrinks, crashes and is shared.

mod crash;
mod embeddings;
mod faults;
mod programs;
mod read_only;
mod small;
mod stress;

use std::{fs, path::Path};

use burn::backend::Flex;
use cart_retrieval::{
    Result,
    data::ItemCaption,
    decode::BeamConfig,
    expert::{FORMAT_VERSION, Manifest},
    features::Features,
    members::hex,
    metadata::{Condition, Fields},
    quantizer::Quantizer,
    retrieve::{DriftThresholds, LiveRetriever, NewCandidates, Retriever, verify},
};
use serde_json::json;
use small::{DIM, fields, items, names, retriever, several};

fn saved(guided: bool) -> (tempfile::TempDir, Retriever<Flex>) {
    let folder = tempfile::tempdir().unwrap();
    let retriever = retriever(guided);
    retriever.save(folder.path()).unwrap();
    (folder, retriever)
}

fn open(folder: &Path) -> LiveRetriever<Flex> {
    LiveRetriever::open(folder, &Default::default()).unwrap()
}

fn load(folder: &Path) -> Retriever<Flex> {
    Retriever::load(folder, &Default::default()).unwrap()
}

/// Everything that can be asked of an index, in the order of its rows.
fn contents(retriever: &Retriever<Flex>) -> Vec<(String, Vec<u16>, Fields, Vec<f32>)> {
    let index = retriever.index();
    let vectors = index.prefix_stats().map(|geometry| geometry.vectors());
    (0..index.ids().len())
        .map(|item| {
            let identifier = index.trie().identifier_of(item as u32).unwrap();
            let known = index.metadata().unwrap().get(item).unwrap();
            let vector = vectors.map_or(Vec::new(), |vectors| vectors.row(item).to_vec());
            (index.ids().get(item).to_string(), identifier.tokens().to_vec(), known, vector)
        })
        .collect()
}

fn answers(retriever: &Retriever<Flex>) -> Vec<(String, u32)> {
    let top = retriever.index().ids().len();
    let hits = retriever.query("two red dogs").top(top).run().unwrap();
    hits.iter().map(|hit| (hit.id.clone(), hit.score.to_bits())).collect()
}

/// Adds 40, replaces 5, removes 20, describes 2.
fn change(live: &LiveRetriever<Flex>) {
    let new = items(&names("new-", 0..40));
    let about: Vec<Fields> = (0..40).map(|n| fields(json!({ "n": 100 + n }))).collect();
    live.add(&NewCandidates::new(&new).with_metadata(&about)).unwrap();
    let again: Vec<String> = names("old-", 50..53).into_iter().chain(names("new-", 0..2)).collect();
    live.update(&NewCandidates::new(&items(&again))).unwrap();
    let gone: Vec<String> = names("old-", 0..15).into_iter().chain(names("new-", 30..35)).collect();
    live.remove(&gone).unwrap();
    let described = ["old-20", "new-20"].map(|id| (id.to_string(), fields(json!({"n": "two"}))));
    live.describe(described.to_vec()).unwrap();
}

#[test]
fn what_comes_is_found_at_once_and_what_goes_is_not() {
    for guided in [false, true] {
        let (folder, before) = saved(guided);
        let live = open(folder.path());
        let old = live.snapshot();
        change(&live);
        let now = live.snapshot();
        assert_eq!((old.index().ids().len(), now.index().ids().len()), (60, 80));
        assert_eq!(contents(&old), contents(&before));
        let found = answers(&now);
        assert_eq!(found.len(), 80);
        assert!(found.iter().any(|(id, _)| id == "new-39"));
        assert!(!found.iter().any(|(id, _)| id == "old-3" || id == "new-31"));
        // What stayed is called what it was called.
        for (id, tokens, _, vector) in contents(&before).iter().skip(15).take(30) {
            assert_eq!(now.index().identifier(id).unwrap().tokens(), tokens);
            let row = now.index().ids().index_of(id).unwrap();
            if let Some(geometry) = now.index().prefix_stats() {
                assert_eq!(geometry.vectors().row(row), vector);
            }
        }
        let two = now.index().filter_where(&Condition::parse(r#"{"n": "two"}"#).unwrap()).unwrap();
        let hits = now.query("cats").filter(&two).run().unwrap();
        let mut ids: Vec<&str> = hits.iter().map(|hit| hit.id.as_str()).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["new-20", "old-20"]);
        assert_eq!(hits[0].metadata.as_ref().unwrap()["n"], "two");
    }
}

/// The quantizer's tokens lead every identifier, and the index is the one that would be made of the
/// same parts at once.
#[test]
fn one_change_after_the_other_is_all_of_them_at_once() {
    let (folder, _) = saved(true);
    let live = open(folder.path());
    change(&live);
    let step_by_step = live.snapshot();
    drop(live);
    let at_once = load(folder.path());
    assert_eq!(contents(&at_once), contents(&step_by_step));
    assert_eq!(answers(&at_once), answers(&step_by_step));
    assert_eq!(at_once.change_stats(), step_by_step.change_stats());
    let vectors = at_once.index().prefix_stats().unwrap().vectors();
    let codes = at_once.quantizer().encode(vectors.as_slice()).unwrap();
    for (item, row) in codes.rows().enumerate() {
        let identifier = at_once.index().trie().identifier_of(item as u32).unwrap();
        assert_eq!(&identifier.tokens()[..3], row);
    }
    let live = open(folder.path());
    assert_eq!(contents(&live.snapshot()), contents(&at_once));
    live.compact().unwrap();
    assert_eq!(live.pending().0, 0);
    let compacted = load(folder.path());
    assert_eq!(contents(&compacted), contents(&at_once));
    assert_eq!(answers(&compacted), answers(&at_once));
    assert_eq!(compacted.change_stats(), at_once.change_stats());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 12);
    assert_eq!(verify(folder.path()).unwrap().candidates, 80);
}

/// A candidate goes with all of its identifiers, and is answered once.
#[test]
fn candidates_with_several_identifiers_stay_whole() {
    let folder = tempfile::tempdir().unwrap();
    let before = several(true, 2);
    before.save(folder.path()).unwrap();
    assert_eq!(answers(&load(folder.path())), answers(&before));
    let live = open(folder.path());
    change(&live);
    let now = live.snapshot();
    // Three of the old ones were replaced and 15 removed; what came has one identifier each.
    assert_eq!((now.index().ids().len(), now.index().trie().len()), (80, 80 + 60 - 18));
    let found = answers(&now);
    let mut ids: Vec<&str> = found.iter().map(|(id, _)| id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((found.len(), ids.len()), (80, 80));
    for entry in 0..now.index().trie().len() as u32 {
        let item = now.index().identifier_map().of(entry) as usize;
        let id = now.index().ids().get(item);
        let known = now.index().trie().identifier_of(entry).unwrap();
        assert_eq!(now.index().id(known.tokens()).unwrap(), id);
        // What stayed has the identifiers that it had.
        if let Some(row) = before.index().ids().index_of(id).filter(|&row| row < 50) {
            let entries = before.index().identifier_map().rows_of(&[row as u32]);
            let before = |entry: u32| before.index().trie().identifier_of(entry).unwrap();
            assert!(entries.into_iter().any(|entry| before(entry) == known), "{id}");
        }
    }
    live.compact().unwrap();
    assert_eq!(answers(&load(folder.path())), found);
    let hits = now.query(&items(&names("old-", 20..24))).top(80).run().unwrap();
    assert!(hits.iter().all(|hits| hits.len() == 80));
}

#[test]
fn a_change_that_cannot_be_made_changes_nothing() {
    let (folder, _) = saved(true);
    let live = open(folder.path());
    let before = contents(&live.snapshot());
    let message = |result: Result<()>, words: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(words), "{error}: {words}");
    };
    let new = items(&names("new-", 0..2));
    message(live.add(&NewCandidates::new(&items(&names("old-", 3..5)))), "\"old-3\"");
    message(live.update(&NewCandidates::new(&new)), "\"new-0\"");
    message(live.remove(&["old-1", "nobody"]), "\"nobody\"");
    message(live.remove(&["old-1", "old-1"]), "\"old-1\"");
    message(live.remove(&names("old-", 0..60)), "at least one");
    message(live.describe(vec![("nobody".into(), Fields::new())]), "\"nobody\"");
    message(
        live.add(&NewCandidates::new(&new).with_metadata(&[Fields::new()])),
        "an object for each of 2",
    );
    message(live.add(&NewCandidates::new(&new).with_groups(&["a".into(), "b".into()])), "groups");
    message(
        live.add(&NewCandidates::new(&Features::from_rows(vec![1.0; DIM], DIM).unwrap())),
        "names",
    );
    let named = |rows: Vec<f32>, dim| {
        Features::from_rows(rows, dim).unwrap().with_id_list(vec!["x".into()]).unwrap()
    };
    message(live.add(&NewCandidates::new(&named(vec![1.0; 3], 3))), "8 numbers");
    message(live.add(&NewCandidates::new(&named(vec![f32::NAN; DIM], DIM))), "NaN");
    // One vector so large that no score would be a number any more.
    message(live.add(&NewCandidates::new(&named(vec![1e30; DIM], DIM))), "1e15");
    let caption = ItemCaption { item: 0, text: "a dog".into(), weight: 1.0 };
    message(live.add(&NewCandidates::new(&new).with_captions(&[caption])), "captions");
    // What JSON can be written in a request, but not be read again from within a change.
    let deep = (0..124).fold(json!(1), |inner, _| json!([inner]));
    let deep = fields(json!({ "deep": deep }));
    message(live.describe(vec![("old-1".into(), deep.clone())]), "64 nested objects");
    message(live.add(&NewCandidates::new(&new).with_metadata(&[deep, Fields::new()])), "64 nested");
    assert_eq!(contents(&live.snapshot()), before);
    assert_eq!(live.pending().0, 0);
    assert_eq!(contents(&load(folder.path())), before);
}

/// Twenty items in one place, where eight unique tokens are.
#[test]
fn what_finds_no_unique_token_takes_the_nearest_code_that_has_one() {
    let (folder, before) = saved(true);
    let live = open(folder.path());
    let row = items(&names("old-", 7..8)).as_slice().to_vec();
    let crowd = Features::from_rows(row.repeat(20), DIM).unwrap();
    let crowd = crowd.with_id_list(names("crowd-", 0..20)).unwrap();
    live.add(&NewCandidates::new(&crowd)).unwrap();
    let now = live.snapshot();
    let growth = now.change_stats();
    assert_eq!(growth.added, 20);
    assert!((12..20).contains(&growth.spilled), "{growth:?}");
    let own = before.index().identifier("old-7").unwrap().tokens()[..2].to_vec();
    for id in crowd.ids().iter() {
        assert_eq!(now.index().identifier(id).unwrap().tokens()[..2], own);
    }
    // Four last codes have room for 32: of more, some take another fine token, and of still more
    // another coarse one.
    let more = Features::from_rows(row.repeat(140), DIM).unwrap();
    let more = more.with_id_list(names("more-", 0..140)).unwrap();
    live.add(&NewCandidates::new(&more)).unwrap();
    let last = live.snapshot();
    let starts = |levels: usize| {
        let own = &own[..levels];
        let tokens = |id: &str| last.index().identifier(id).unwrap().tokens().to_vec();
        more.ids().iter().filter(|id| tokens(id).starts_with(own)).count()
    };
    assert!((1..=32).contains(&starts(2)), "{}", starts(2));
    assert!((80..=128).contains(&starts(1)), "{}", starts(1));
    assert_eq!(answers(&last).len(), 220);
    // Four coarse codes of 128 each.
    let flood = Features::from_rows(row.repeat(300), DIM).unwrap();
    let flood = flood.with_id_list(names("flood-", 0..300)).unwrap();
    let error = live.add(&NewCandidates::new(&flood)).unwrap_err().to_string();
    assert!(error.contains("a free identifier"), "{error}");
    assert_eq!(live.snapshot().index().ids().len(), 220);
    let report = now.drift(&DriftThresholds { min_added: 20, ..Default::default() }).unwrap();
    assert!(
        report.reasons.iter().any(|reason| reason.contains("no free unique token")),
        "{report}"
    );
    assert!(now.drift(&DriftThresholds::default()).unwrap().reasons.is_empty());
}

#[test]
fn the_drift_report_tells_others_from_the_like() {
    let (folder, _) = saved(false);
    let live = open(folder.path());
    // Codes of two levels of four fit 60 items more closely than others like them.
    let thresholds = DriftThresholds {
        max_error_ratio: 3.0,
        max_added: 1.0,
        max_more_shared: 1.0,
        ..Default::default()
    };
    live.add(&NewCandidates::new(&items(&names("like-", 0..50)))).unwrap();
    let report = live.snapshot().drift(&thresholds).unwrap();
    assert!(report.reasons.is_empty(), "{report}");
    let far: Vec<f32> = items(&names("far-", 0..50)).as_slice().iter().map(|v| 9.0 - v).collect();
    let far = Features::from_rows(far, DIM).unwrap().with_id_list(names("far-", 0..50)).unwrap();
    live.add(&NewCandidates::new(&far)).unwrap();
    let report = live.snapshot().drift(&thresholds).unwrap();
    assert!(report.to_string().contains("reconstruction error of added candidates"), "{report}");
    let bad = DriftThresholds { max_spilled: f64::NAN, ..Default::default() };
    assert!(live.snapshot().drift(&bad).is_err());
}

#[test]
fn one_at_a_time_changes_a_folder() {
    let (folder, retriever) = saved(false);
    let live = open(folder.path());
    let second = LiveRetriever::<Flex>::open(folder.path(), &Default::default());
    assert!(second.unwrap_err().to_string().contains("open for changes"));
    assert!(retriever.save(folder.path()).unwrap_err().to_string().contains("open for changes"));
    assert_eq!(load(folder.path()).index().ids().len(), 60);
    drop(live);
    retriever.save(folder.path()).unwrap();
    let empty = tempfile::tempdir().unwrap();
    assert!(LiveRetriever::<Flex>::open(empty.path(), &Default::default()).is_err());
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
}

/// The file of changes of a folder.
fn log_of(folder: &Path) -> std::path::PathBuf {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let log = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "log");
    entries.into_iter().find(log).unwrap()
}

#[test]
fn a_change_that_was_cut_short_is_none_and_a_flipped_byte_is_told() {
    let (folder, before) = saved(true);
    let live = open(folder.path());
    live.remove(&["old-1"]).unwrap();
    let start = fs::metadata(log_of(folder.path())).unwrap().len() as usize;
    let new = items(&names("new-", 0..2));
    live.add(&NewCandidates::new(&new)).unwrap();
    drop(live);
    let path = log_of(folder.path());
    let whole = fs::read(&path).unwrap();
    let step = (whole.len() - start) / 40;
    for cut in (start..whole.len()).step_by(step.max(1)) {
        fs::write(&path, &whole[..cut]).unwrap();
        let found = verify(folder.path()).unwrap();
        assert_eq!((found.changes, found.torn), (1, (cut - start) as u64));
        assert_eq!(load(folder.path()).index().ids().len(), 59);
    }
    // After a power failure, the file may be as long as it should be, with zeros for what was not
    // written.
    for kept in
        (start..whole.len() - 32).step_by(step.max(1)).chain(whole.len() - 32..whole.len() - 4)
    {
        let mut bytes = whole.clone();
        bytes[kept..].fill(0);
        fs::write(&path, &bytes).unwrap();
        let found = verify(folder.path()).unwrap();
        assert_eq!((found.changes, found.torn), (1, (whole.len() - start) as u64), "{kept}");
    }
    // The next change takes the place of the one that was cut short.
    let live = open(folder.path());
    live.add(&NewCandidates::new(&new)).unwrap();
    drop(live);
    assert_eq!(fs::read(&path).unwrap(), whole);
    for at in (0..whole.len()).step_by(7) {
        let mut bad = whole.clone();
        bad[at] ^= 0x20;
        fs::write(&path, &bad).unwrap();
        assert!(verify(folder.path()).is_err(), "byte {at}");
        let opened = LiveRetriever::<Flex>::open(folder.path(), &Default::default());
        assert!(opened.is_err(), "byte {at}");
    }
    // Changes of another index are not taken for this one's, and saving removes them: damaged ones
    // too, and those of the very same index.
    before.save(folder.path()).unwrap();
    assert!(!path.exists());
    fs::write(&path, &whole).unwrap();
    assert_eq!(load(folder.path()).index().ids().len(), 61);
    before.save(folder.path()).unwrap();
    assert_eq!(load(folder.path()).index().ids().len(), 60);
    fs::write(&path, &whole).unwrap();
    before
        .clone()
        .with_beam(BeamConfig { width: 7, ..Default::default() })
        .save(folder.path())
        .unwrap();
    assert!(!path.exists());
    assert_eq!(load(folder.path()).index().ids().len(), 60);
}

#[test]
fn every_flipped_byte_of_the_folder_is_found() {
    let (folder, _) = saved(true);
    let live = open(folder.path());
    change(&live);
    drop(live);
    verify(folder.path()).unwrap();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let whole = fs::read(&path).unwrap();
        let step = (whole.len() / 25).max(1);
        for at in (0..whole.len()).step_by(step) {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert!(verify(folder.path()).is_err(), "{} at {at}", path.display());
        }
        fs::write(&path, &whole).unwrap();
    }
}

/// An index as the version before wrote it: ids without their order, vectors without their sums.
#[test]
fn the_format_before_is_read_and_others_are_refused_by_name() {
    let (folder, retriever) = saved(true);
    let path = folder.path().join("manifest.json");
    let rewrite = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut json: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut json);
        json["checksum"] = "0".repeat(64).into();
        let text = serde_json::to_string_pretty(&json).unwrap();
        let sum = hex(&<sha2::Sha256 as sha2::Digest>::digest(&text));
        fs::write(&path, text.replace(&"0".repeat(64), &sum)).unwrap();
    };
    rewrite(&|json| {
        json["format"] = 2.into();
        json.as_object_mut().unwrap().remove("growth");
        for role in ["order", "geometry", "metadata"] {
            json["files"].as_object_mut().unwrap().remove(role);
        }
    });
    let loaded = load(folder.path());
    assert_eq!(answers(&loaded), answers(&retriever));
    let live = open(folder.path());
    live.remove(&["old-1"]).unwrap();
    live.compact().unwrap();
    assert_eq!(Manifest::read(folder.path()).unwrap().format, FORMAT_VERSION);
    drop(live);
    for format in [1, FORMAT_VERSION + 1] {
        rewrite(&|json| json["format"] = format.into());
        let error = Retriever::<Flex>::load(folder.path(), &Default::default()).unwrap_err();
        let words = format!("format {format}");
        assert!(error.to_string().contains(&words), "{error}");
    }
}

/// Folders that earlier versions wrote: format 2, and format 3 with changes in its log.
#[test]
fn folders_of_earlier_formats_answer_as_when_they_were_written() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/index");
    for (name, candidates) in [("format-2", 60), ("format-3", 64)] {
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(fixtures.join(name)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        verify(folder.path()).unwrap();
        let retriever = load(folder.path());
        assert_eq!(retriever.index().ids().len(), candidates);
        let written = fs::read(fixtures.join(format!("{name}.json"))).unwrap();
        let written: serde_json::Value = serde_json::from_slice(&written).unwrap();
        for asked in written.as_array().unwrap() {
            let query = asked["query"].as_str().unwrap();
            let hits = retriever.query(query).top(10).run().unwrap();
            let expected = asked["hits"].as_array().unwrap();
            assert_eq!(hits.len(), expected.len());
            for (hit, expected) in hits.iter().zip(expected) {
                assert_eq!(hit.id, expected["id"].as_str().unwrap(), "{name}, {query}");
                let score = expected["score"].as_f64().unwrap();
                assert!((f64::from(hit.score) - score).abs() < 1e-4, "{name}, {query}");
            }
        }
    }
}

#[test]
fn a_retriever_is_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Retriever<Flex>>();
    shared::<LiveRetriever<Flex>>();
}

/// `docs/index.md` lists every field, and a field that is not known is refused by name.
#[test]
fn the_fields_of_the_manifest_are_documented_and_no_other_is_read() {
    let (folder, _) = saved(true);
    let path = folder.path().join("manifest.json");
    let mut manifest: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/index.md");
    let page = fs::read_to_string(page).unwrap();
    for field in manifest.keys() {
        assert!(page.contains(&format!("`{field}`")), "{field} is not in docs/index.md");
    }
    manifest["health"].as_object_mut().unwrap().insert("mood".into(), 1.into());
    fs::write(&path, serde_json::to_vec(&manifest).unwrap()).unwrap();
    let error = Manifest::read(folder.path()).unwrap_err().to_string();
    assert!(error.contains("mood"), "{error}");
}
