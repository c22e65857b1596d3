//! The file of changes beside an index, and metadata with conditions on it: bytes behind the start
//! of the file, as they are and as the head and body of a change with the right checksums, are
//! refused with an error or make an index that answers.
//!
//! `cargo +nightly fuzz run changes corpus/changes -- -rss_limit_mb=2048 -max_len=4096`
#![no_main]

#[path = "../../tests/all/live/small.rs"]
mod small;

use std::{fs, path::PathBuf, sync::OnceLock};

use burn::backend::Flex;
use cart_retrieval::{
    Error,
    features::ItemIds,
    metadata::{Condition, ItemMetadata},
    retrieve::{LiveRetriever, Retriever, verify},
};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};

struct Index {
    folder: tempfile::TempDir,
    log: PathBuf,
    start: Vec<u8>,
}

/// An index whose file of changes has none.
fn index() -> &'static Index {
    static INDEX: OnceLock<Index> = OnceLock::new();
    INDEX.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        small::retriever(true).save(folder.path()).expect("an index");
        LiveRetriever::<Flex>::open(folder.path(), &Default::default()).expect("an index");
        let mut entries = fs::read_dir(folder.path()).expect("a folder").flatten();
        let log = entries.find(|entry| entry.path().extension().is_some_and(|e| e == "log"));
        let log = log.expect("a file of changes").path();
        let start = fs::read(&log).expect("a file of changes");
        Index { folder, log, start }
    })
}

/// A change with the right checksums.
fn change(head: &[u8], body: &[u8], number: u64) -> Vec<u8> {
    let mut bytes = b"CHANGE\0\0".to_vec();
    bytes.extend((head.len() as u64).to_le_bytes());
    bytes.extend((body.len() as u64).to_le_bytes());
    let sum = Sha256::digest([&bytes[..], &number.to_le_bytes()].concat());
    bytes.extend(&sum[..8]);
    bytes.extend([head, body].concat());
    bytes.extend(Sha256::digest([head, body, &number.to_le_bytes()].concat()));
    bytes
}

fn read(index: &Index, changes: &[u8]) {
    fs::write(&index.log, [&index.start, changes].concat()).expect("a file");
    let loaded = Retriever::<Flex>::load(index.folder.path(), &Default::default());
    assert_eq!(loaded.is_ok(), verify(index.folder.path()).is_ok());
    if let Ok(loaded) = loaded {
        let hits = loaded.query("a red dog").run().expect("an answer");
        assert_eq!(hits.len(), loaded.index().ids().len().min(10));
    }
}

fuzz_target!(|bytes: &[u8]| {
    let index = index();
    read(index, bytes);
    // Of the first two bytes, the length of the head.
    if let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let (head, body) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
        read(index, &[change(head, body, 0), change(body, head, 1)].concat());
        read(index, &change(head, body, 0));
    }
    // Lines of metadata; the first may be a condition.
    let path = index.folder.path().join("metadata.jsonl");
    fs::write(&path, bytes).expect("a file");
    let ids = ItemIds::new(&["a", "b", "c"]).expect("ids");
    let first = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let condition = std::str::from_utf8(first).ok().and_then(|text| Condition::parse(text).ok());
    let condition = condition.unwrap_or(Condition::parse("{}").expect("a condition"));
    if let Ok(metadata) = ItemMetadata::from_jsonl(&path, &ids) {
        // A field that no candidate has, or values of another kind, are slips.
        match metadata.matching(&condition) {
            Ok(met) => assert_eq!(met.len(), 3),
            Err(error) => assert!(matches!(error, Error::Query(_)), "{error}"),
        }
    }
    let again = serde_json::to_string(&condition).expect("JSON");
    assert_eq!(Condition::parse(&again).expect("its own JSON"), condition);
});
