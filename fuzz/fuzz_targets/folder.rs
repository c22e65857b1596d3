//! One file of an index folder, with the right checksum in the manifest: a load refuses it, or the
//! index answers.
//!
//! The first byte says which of three indexes, the second which of its files the rest takes the
//! place of.
#![no_main]

mod indexes;

use std::{fs, path::PathBuf, sync::OnceLock};

use burn::backend::Flex;
use cart_retrieval::{retrieve::{Retriever, verify}, members::hex};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sha2::{Digest, Sha256};

struct Saved {
    folder: PathBuf,
    manifest: Value,
    roles: Vec<(String, String)>,
}

fn saved() -> &'static [Saved] {
    static SAVED: OnceLock<Vec<Saved>> = OnceLock::new();
    SAVED.get_or_init(|| {
        let root = std::env::temp_dir().join(format!("cart-fuzz-{}", std::process::id()));
        let save = |(at, retriever): (usize, Retriever<Flex>)| {
            let folder = root.join(at.to_string());
            retriever.save(&folder).expect("space for an index");
            let manifest = fs::read(folder.join("manifest.json")).expect("a saved index");
            let manifest = serde_json::from_slice(&manifest).expect("JSON");
            let roles = indexes::roles(&folder);
            Saved { folder, manifest, roles }
        };
        indexes::indexes().into_iter().enumerate().map(save).collect()
    })
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&[which, role], bytes)) = bytes.split_first_chunk::<2>() else { return };
    let saved = saved();
    let index = &saved[usize::from(which) % saved.len()];
    let (role, _) = &index.roles[usize::from(role) % index.roles.len()];
    let name = format!("{role}-fuzzed");
    fs::write(index.folder.join(&name), bytes).expect("space for a file");
    let mut manifest = index.manifest.clone();
    manifest["files"][role.as_str()] = serde_json::json!({
        "name": name, "bytes": bytes.len(), "sha256": hex(&Sha256::digest(bytes)),
    });
    let zeros = "0".repeat(64);
    manifest["checksum"] = zeros.clone().into();
    let text = serde_json::to_string_pretty(&manifest).expect("JSON");
    let text = text.replacen(&zeros, &hex(&Sha256::digest(&text)), 1);
    fs::write(index.folder.join("manifest.json"), text).expect("space for a file");
    let loaded = Retriever::<Flex>::load(&index.folder, &Default::default());
    assert!(loaded.is_err() || verify(&index.folder).is_ok());
    if let Ok(retriever) = loaded {
        // Weights may be anything, so that scores are none; a panic is a fault.
        let _ = retriever.query("a red dog").run();
        if let Some(metadata) = retriever.index().metadata() {
            let _ = metadata.get(0);
        }
    }
});
