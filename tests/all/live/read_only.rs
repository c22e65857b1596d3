//! An index that is only searched: no lock, no byte written, and the changes of others are
//! followed.

use std::{collections::BTreeMap, fs, path::Path, time::SystemTime};

use burn::backend::Flex;
use cart_retrieval::retrieve::{LiveRetriever, NewCandidates};
use serde_json::json;

use super::small::{fields, items, names};
use super::{answers, load, open, saved};

fn open_read_only(folder: &Path) -> LiveRetriever<Flex> {
    LiveRetriever::open_read_only(folder, &Default::default()).unwrap()
}

/// Names, lengths and dates of the files of a folder, and the folder's own date.
fn files(folder: &Path) -> (BTreeMap<String, (u64, SystemTime)>, SystemTime) {
    let entries = fs::read_dir(folder).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let file = entry.metadata().unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, (file.len(), file.modified().unwrap()))
    });
    (entries.collect(), fs::metadata(folder).unwrap().modified().unwrap())
}

#[test]
fn any_number_search_an_index_next_to_the_one_that_changes_it() {
    let (folder, _) = saved(true);
    let _ = fs::remove_file(folder.path().join(".lock"));
    let before = files(folder.path());
    let readers = [open_read_only(folder.path()), open_read_only(folder.path())];
    assert!(readers.iter().all(LiveRetriever::is_read_only));
    assert!(!readers[0].refresh().unwrap());
    let described = vec![("old-1".to_string(), fields(json!({"n": 3})))];
    for error in [
        readers[0].remove(&["old-1"]).unwrap_err(),
        readers[0].add(&NewCandidates::new(&items(&names("new-", 0..1)))).unwrap_err(),
        readers[0].describe(described).unwrap_err(),
        readers[0].compact().unwrap_err(),
    ] {
        assert!(error.to_string().contains("opened read-only"), "{error}");
    }
    assert_eq!(files(folder.path()), before, "no file was made or touched");

    let writer = open(folder.path());
    assert!(!writer.is_read_only() && !writer.refresh().unwrap());
    let late = open_read_only(folder.path());
    writer.add(&NewCandidates::new(&items(&names("new-", 0..5)))).unwrap();
    for reader in readers.iter().chain([&late]) {
        assert_eq!(reader.snapshot().index().ids().len(), 60, "a snapshot until it is refreshed");
        assert!(reader.refresh().unwrap() && !reader.refresh().unwrap());
        assert_eq!(answers(&reader.snapshot()), answers(&writer.snapshot()));
        assert_eq!(reader.pending(), writer.pending());
    }
    writer.remove(&["old-1", "new-2"]).unwrap();
    writer.compact().unwrap();
    assert!(late.refresh().unwrap());
    assert_eq!(answers(&late.snapshot()), answers(&load(folder.path())));
    assert_eq!(late.pending().0, 0);

    // What cannot be read leaves the index as it is.
    let manifest = folder.path().join("manifest.json");
    let bytes = fs::read(&manifest).unwrap();
    fs::write(&manifest, &bytes[..bytes.len() / 2]).unwrap();
    assert!(late.refresh().is_err());
    assert_eq!(late.snapshot().index().ids().len(), 63);
    fs::write(&manifest, &bytes).unwrap();
    assert!(!late.refresh().unwrap());
}

/// As on a read-only mount; only root can still write to such a folder.
#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_written_to_is_searched() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, _) = saved(false);
    let _ = fs::remove_file(folder.path().join(".lock"));
    let mode = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o555);
    let reader = open_read_only(folder.path());
    assert_eq!(answers(&reader.snapshot()).len(), 60);
    let made = fs::exists(folder.path().join(".lock")).unwrap();
    mode(0o755);
    assert!(!made);
}

#[test]
fn an_id_twice_in_one_change_is_told_as_such() {
    let (folder, _) = saved(true);
    let live = open(folder.path());
    let twice = live.remove(&["old-1", "old-2", "old-1"]).unwrap_err().to_string();
    assert!(twice.contains("\"old-1\" twice"), "{twice}");
    let described = ["old-1", "old-1"].map(|id| (id.to_string(), fields(json!({"n": 3}))));
    let twice = live.describe(described.to_vec()).unwrap_err().to_string();
    assert!(twice.contains("\"old-1\" twice"), "{twice}");
    let near = live.remove(&["old-1 "]).unwrap_err().to_string();
    assert!(near.contains("\"old-1\" exists and looks the same"), "{near}");
    assert_eq!((live.pending().0, live.snapshot().index().ids().len()), (0, 60));
}
