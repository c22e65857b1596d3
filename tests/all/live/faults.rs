//! What goes wrong beside an index: damage, full folders, others that save meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};

use cart_retrieval::quantizer::{FineConfig, HierarchicalConfig};

use super::{small::named_by, *};

/// Objects and lists as deep as they may be are there again after a load.
#[test]
fn the_deepest_metadata_is_read_again() {
    let (folder, _) = saved(false);
    let deep = (0..63).fold(json!(1), |inner, _| json!([inner]));
    let deep = fields(json!({ "deep": deep }));
    let live = open(folder.path());
    live.describe(vec![("old-1".into(), deep.clone())]).unwrap();
    let known = |retriever: &Retriever<Flex>| retriever.index().metadata().unwrap().get(1).unwrap();
    assert_eq!(known(&load(folder.path())), deep);
    live.compact().unwrap();
    assert_eq!(known(&load(folder.path())), deep);
}

/// An update frees what it replaces before it looks for something new.
#[test]
fn an_update_with_the_same_features_keeps_every_identifier() {
    for clusters in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let before = several(true, clusters);
        before.save(folder.path()).unwrap();
        let live = open(folder.path());
        let same = items(&names("old-", 0..60));
        for _ in 0..3 {
            live.update(&NewCandidates::new(&same)).unwrap();
        }
        let now = live.snapshot();
        assert_eq!((now.change_stats().added, now.change_stats().removed), (180, 180));
        assert_eq!(now.change_stats().spilled, 0);
        // Those that share a code may swap their unique tokens.
        let semantic = |retriever: &Retriever<Flex>, id: &str| {
            retriever.index().identifier(id).unwrap().tokens()[..3].to_vec()
        };
        let all = |retriever: &Retriever<Flex>| {
            let ids = names("old-", 0..60).into_iter().map(|id| semantic(retriever, &id));
            ids.collect::<Vec<_>>()
        };
        assert_eq!(all(&now), all(&before));
        assert_eq!(now.index().trie().len(), 60);
    }
    // One after the other, each alone in its place: nobody is told to share it.
    let (folder, before) = saved(true);
    let live = open(folder.path());
    let alone = names("old-", 0..60).into_iter().find(|id| {
        let tokens = before.index().identifier(id).unwrap().tokens()[..3].to_vec();
        before.index().trie().find(&tokens).unwrap().count() == 1
    });
    let alone = items(&[alone.expect("an item with a code of its own")]);
    live.update(&NewCandidates::new(&alone)).unwrap();
    assert_eq!(
        (live.snapshot().change_stats().added, live.snapshot().change_stats().shared),
        (1, 0)
    );
}

/// Nodes of a tree of centres have fewer children than their level allows.
#[test]
fn a_full_code_of_a_tree_gives_way_to_a_neighbour() {
    let folder = tempfile::tempdir().unwrap();
    let fine = FineConfig::Hierarchical(HierarchicalConfig::new(vec![4, 40]));
    named_by(fine, true, 1).save(folder.path()).unwrap();
    let live = open(folder.path());
    let row = items(&names("old-", 7..8)).as_slice().to_vec();
    let crowd = |prefix: &str, n: usize| {
        let rows = Features::from_rows(row.repeat(n), DIM).unwrap();
        rows.with_id_list(names(prefix, 0..n)).unwrap()
    };
    live.add(&NewCandidates::new(&crowd("crowd-", 200))).unwrap();
    let now = live.snapshot();
    assert_eq!(answers(&now).len(), 260);
    assert!(now.change_stats().spilled >= 190, "{:?}", now.change_stats());
    // More than all leaves of the tree have room for.
    let error = live.add(&NewCandidates::new(&crowd("flood-", 5000))).unwrap_err().to_string();
    assert!(error.contains("a free identifier"), "{error}");
    assert_eq!(live.snapshot().index().ids().len(), 260);
}

/// Saving the index again, as messages advise, mends a file that was damaged.
#[test]
fn saving_again_mends_a_flipped_byte() {
    let (folder, retriever) = saved(true);
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        if name == "manifest.json" || name == ".lock" {
            continue;
        }
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(verify(folder.path()).is_err(), "{name}");
        retriever.save(folder.path()).unwrap();
        verify(folder.path()).unwrap();
    }
}

/// Where the file of changes of the new index cannot be opened, no change is taken that would be
/// lost.
#[test]
fn after_a_compaction_that_half_failed_no_change_is_lost() {
    let gone = ["old-1"];
    // What the new file of changes will be called.
    let (twin, _) = saved(true);
    let live = open(twin.path());
    live.remove(&gone).unwrap();
    live.compact().unwrap();
    let name = log_of(twin.path()).file_name().unwrap().to_owned();
    drop(live);

    let (folder, _) = saved(true);
    let live = open(folder.path());
    live.remove(&gone).unwrap();
    let obstacle = folder.path().join(name);
    fs::create_dir(&obstacle).unwrap();
    live.compact().unwrap_err();
    // The index was saved, so it is complete, and refuses what it could not keep.
    let error = live.remove(&["old-2"]).unwrap_err().to_string();
    assert!(error.contains("compact the index"), "{error}");
    assert_eq!(live.snapshot().index().ids().len(), 59);
    fs::remove_dir(&obstacle).unwrap();
    assert_eq!(load(folder.path()).index().ids().len(), 59);
    live.compact().unwrap();
    live.remove(&["old-2"]).unwrap();
    drop(live);
    assert_eq!(load(folder.path()).index().ids().len(), 58);
}

/// Says that it is over when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A load beside compactions sees the index at one moment: what was removed does not come back.
#[test]
fn what_was_removed_does_not_come_back_to_those_who_load_meanwhile() {
    let (folder, _) = saved(true);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|reader| {
                let (folder, over) = (folder.path(), &over);
                scope.spawn(move || {
                    let mut last = usize::MAX;
                    while !over.load(Ordering::Relaxed) {
                        let now = match reader {
                            0 => Retriever::<Flex>::load(folder, &Default::default())
                                .map(|index| index.index().ids().len()),
                            _ => verify(folder).map(|found| found.candidates),
                        };
                        match now {
                            Ok(now) => {
                                assert!(now <= last, "{now} candidates after {last}");
                                last = now;
                            }
                            // Saved too often to be read: that is told, and nothing else.
                            Err(error) => {
                                assert!(error.to_string().contains("try again"), "{error}")
                            }
                        }
                    }
                })
            })
            .collect();
        // Also where a change fails, so that the readers end.
        let _over = Over(&over);
        let live = open(folder.path());
        for n in 0..50 {
            live.remove(&[format!("old-{n}")]).unwrap();
            live.compact().unwrap();
        }
        over.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    assert_eq!(load(folder.path()).index().ids().len(), 10);
}

/// A vector that holds NaN, with the right checksum behind it: one such would leave every search
/// without answers.
#[test]
fn a_change_whose_vector_is_no_vector_is_refused() {
    let (folder, _) = saved(true);
    let live = open(folder.path());
    live.add(&NewCandidates::new(&items(&names("new-", 0..1)))).unwrap();
    drop(live);
    let path = log_of(folder.path());
    let mut bytes = fs::read(&path).unwrap();
    assert_eq!(load(folder.path()).index().ids().len(), 61);
    let (start, end) = (16 + 2 * 32 + 32, bytes.len() - 32);
    for bad in [f32::NAN, f32::INFINITY, 1e30] {
        bytes[end - 4..end].copy_from_slice(&bad.to_le_bytes());
        let content = [&bytes[start..end], &0u64.to_le_bytes()].concat();
        let sum = <sha2::Sha256 as sha2::Digest>::digest(content);
        bytes[end..].copy_from_slice(&sum);
        fs::write(&path, &bytes).unwrap();
        let error = Retriever::<Flex>::load(folder.path(), &Default::default()).unwrap_err();
        assert!(error.to_string().contains("1e15"), "{error}");
        assert!(verify(folder.path()).is_err());
    }
}
