//! Files of text, by the first byte: ids, captions, splits, tokenizers, and the annotations of the
//! published sets. Sets of several files have zero bytes between them.
#![no_main]

mod scratch;

use std::path::PathBuf;

use cart_media::formats::{ClipName, audio_caps, clotho, karpathy, msr_vtt, msr_vtt_1k_a, msvd};
use cart_retrieval::{data::{Captions, Splits, TextTokenizer}, features::ItemIds};
use libfuzzer_sys::fuzz_target;

/// Three files.
fn files(bytes: &[u8], extension: &str) -> [PathBuf; 3] {
    let mut parts = bytes.splitn(3, |&byte| byte == 0);
    [0, 1, 2]
        .map(|at| scratch::file(&format!("{at}.{extension}"), parts.next().unwrap_or_default()))
}

fn ids(bytes: &[u8]) {
    if let Ok(ids) = ItemIds::open(scratch::file("ids.txt", bytes)) {
        for (row, id) in ids.iter().enumerate() {
            assert_eq!(ids.index_of(id), Some(row));
        }
        let again = scratch::path("again.txt");
        ids.save(&again).expect("ids that a file can hold");
        assert!(ItemIds::open(&again).expect("its own file").iter().eq(ids.iter()));
    }
}

fn captions(bytes: &[u8]) {
    if let Ok(captions) = Captions::from_jsonl(scratch::file("captions.jsonl", bytes)) {
        let _ = captions.resolve(|id| Some(id.len()));
        let again = scratch::path("again.jsonl");
        captions.to_jsonl(&again).expect("captions that a file can hold");
        let again = Captions::from_jsonl(&again).expect("its own file");
        assert!(
            again.iter().map(|c| (&c.id, &c.text)).eq(captions.iter().map(|c| (&c.id, &c.text)))
        );
    }
}

fn splits(bytes: &[u8]) {
    if let Ok(splits) = Splits::from_json(scratch::file("splits.json", bytes)) {
        let again = scratch::path("again.json");
        splits.to_json(&again).expect("splits that a file can hold");
        let again = Splits::from_json(&again).expect("its own file");
        assert!(again.names().eq(splits.names()));
        for name in splits.names() {
            assert_eq!(again.ids(name).ok(), splits.ids(name).ok());
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    match kind % 11 {
        0 => ids(bytes),
        1 => captions(bytes),
        2 => splits(bytes),
        3 => {
            if let Ok(tokenizer) = TextTokenizer::from_bytes(bytes, 16) {
                for text in ["two dogs", "", "ÄÖ \u{1f600}"] {
                    if let Ok(tokens) = tokenizer.encode(text) {
                        assert!(!tokens.is_empty() && tokens.len() <= 16);
                        assert!(
                            tokens.iter().all(|&token| (token as usize) < tokenizer.token_limit())
                        );
                    }
                }
            }
        }
        4 => drop(karpathy(scratch::file("karpathy.json", bytes))),
        5 => drop(msr_vtt(&files(bytes, "json")[..1])),
        6 => {
            let [data, train, test] = files(bytes, "csv");
            drop(msr_vtt_1k_a(&[data], train, test));
        }
        7 | 8 => {
            let extension = if kind % 11 == 7 { "txt" } else { "csv" };
            let [captions, train, test] = files(bytes, extension);
            drop(msvd(captions, &[("train", train), ("test", test)]));
        }
        9 => {
            let [train, val, test] = files(bytes, "csv");
            drop(clotho(&[("train", "a", train), ("val", "b", val), ("test", "c", test)]));
        }
        _ => {
            let [train, val, test] = files(bytes, "csv");
            for names in [ClipName::IdAndStart, ClipName::YAndId, ClipName::Whole] {
                drop(audio_caps(&[("train", &train), ("val", &val), ("test", &test)], names));
            }
        }
    }
});
