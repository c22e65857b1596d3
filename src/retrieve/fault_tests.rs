//! An index whose writes fail.

#[allow(dead_code)] // The integration tests use more of it.
#[path = "../../tests/all/live/small.rs"]
mod small;

use std::{fs, path::Path};

use burn::backend::Flex;
use small::{items, names};

use crate::{
    error::Result,
    retrieve::{LiveRetriever, NewCandidates, Retriever, verify},
    storage::faults::{Fault, inject},
};

fn saved() -> (tempfile::TempDir, Retriever<Flex>) {
    let folder = tempfile::tempdir().unwrap();
    let retriever = small::retriever(true);
    retriever.save(folder.path()).unwrap();
    (folder, retriever)
}

fn open(folder: &Path) -> LiveRetriever<Flex> {
    LiveRetriever::open(folder, &Default::default()).unwrap()
}

fn load(folder: &Path) -> Retriever<Flex> {
    Retriever::load(folder, &Default::default()).unwrap()
}

/// Another index in a folder of its own, for a test to change.
fn copied(saved: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(saved).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

fn ids(retriever: &Retriever<Flex>) -> Vec<String> {
    retriever.index().ids().iter().map(str::to_string).collect()
}

/// Whatever write fails and wherever the process dies: the folder holds what it held before or all
/// of the change, and the same change succeeds afterwards.
#[test]
fn whatever_fails_an_index_is_the_old_one_or_the_new_one() {
    let (base, retriever) = saved();
    let live = open(base.path());
    live.remove(&["old-1"]).unwrap();
    let other = live.snapshot();
    drop(live);
    let old = ids(&load(base.path()));
    let added = items(&names("new-", 0..3));
    let add = |folder: &Path| {
        let live = LiveRetriever::<Flex>::open(folder, &Default::default())?;
        if live.snapshot().index().ids().index_of("new-0").is_some() {
            return Ok(());
        }
        live.add(&NewCandidates::new(&added))
    };
    let save = |folder: &Path| retriever.save(folder);
    let save_changed = |folder: &Path| other.save(folder);
    let compact =
        |folder: &Path| LiveRetriever::<Flex>::open(folder, &Default::default())?.compact();
    let fresh = |folder: &Path| retriever.save(folder.join("fresh"));
    type Change<'a> = &'a dyn Fn(&Path) -> Result<()>;
    let changes: [(&str, Change<'_>); 5] = [
        ("add", &add),
        ("save", &save),
        ("save changed", &save_changed),
        ("compact", &compact),
        ("fresh", &fresh),
    ];
    for (name, change) in changes {
        let result = |folder: &Path| {
            let folder = if name == "fresh" { folder.join("fresh") } else { folder.to_path_buf() };
            Retriever::<Flex>::load(folder, &Default::default()).map(|found| ids(&found))
        };
        let whole = copied(base.path());
        change(whole.path()).unwrap();
        let new = result(whole.path()).unwrap();
        for fault in [Fault::Once, Fault::Full, Fault::Killed] {
            for at in 0.. {
                let folder = copied(base.path());
                let injected = inject(folder.path(), at, fault);
                let first = change(folder.path());
                let happened = injected.happened();
                drop(injected);
                let context = format!("{name}, {fault:?} {at}: {first:?}");
                assert!(happened || first.is_ok(), "{context}");
                match result(folder.path()) {
                    Ok(found) => {
                        let whole = found == new || first.is_err() && found == old;
                        assert!(whole, "{context}: {found:?}");
                        verify(if name == "fresh" {
                            folder.path().join("fresh")
                        } else {
                            folder.path().into()
                        })
                        .unwrap();
                    }
                    // A new folder that holds no index yet.
                    Err(_) => assert!(name == "fresh" && first.is_err(), "{context}"),
                }
                change(folder.path()).unwrap_or_else(|e| panic!("{context}, again: {e}"));
                assert_eq!(result(folder.path()).unwrap(), new, "{context}");
                if !happened {
                    assert!(at >= 2, "{context}");
                    break;
                }
            }
        }
    }
}
