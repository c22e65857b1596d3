//! What an index is saved as, and the weights of others, by the first byte: the manifest, the
//! quantizer, the map of the candidates' space, a part of the codes, a pretrained text encoder (its
//! settings up to a zero byte, then its weights).
#![no_main]

mod scratch;

use std::fs;

use burn::backend::Flex;
use cart_retrieval::{expert::{TextSpaceMap, CodesPart, Manifest}, pretrained::PretrainedText,
    quantizer::CoarseToFine, retrieve::Retriever, members::hex};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};

const TOKENIZER: &[u8] = include_bytes!("../../tests/fixtures/text/bert/tokenizer.json");

/// The manifest with the right checksum, if it has a place for one.
fn signed(bytes: &[u8]) -> Option<Vec<u8>> {
    const KEY: &[u8] = b"\"checksum\": \"";
    let start = bytes.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let mut signed = bytes.to_vec();
    signed.get_mut(start..start + 64)?.fill(b'0');
    let checksum = hex(&Sha256::digest(&signed));
    signed[start..start + 64].copy_from_slice(checksum.as_bytes());
    Some(signed)
}

fn manifest(bytes: &[u8]) {
    let path = scratch::file("manifest.json", bytes);
    let folder = path.parent().expect("a file lies in a folder");
    if let Ok(manifest) = Manifest::read(folder) {
        // None of its files is there.
        assert!(manifest.files.is_empty() || manifest.verify(folder).is_err());
        assert!(Retriever::<Flex>::load(folder, &Default::default()).is_err());
    }
}

fn pretrained(bytes: &[u8]) {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let (config, weights) = bytes.split_at(end);
    let folder = scratch::path("pretrained");
    fs::create_dir_all(&folder).expect("a folder for files");
    let weights = weights.get(1..).unwrap_or_default();
    for (name, bytes) in
        [("config.json", config), ("tokenizer.json", TOKENIZER), ("model.safetensors", weights)]
    {
        scratch::file(&format!("pretrained/{name}"), bytes);
    }
    if let Ok(text) = PretrainedText::open(&folder) {
        let _ = text.load::<Flex>(&Default::default());
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    let device = Default::default();
    match kind % 5 {
        0 => {
            manifest(bytes);
            // The checksum stops nearly everything: once more with the right one.
            if let Some(signed) = signed(bytes) {
                manifest(&signed);
            }
        }
        1 => {
            if let Ok(quantizer) = CoarseToFine::<Flex>::from_safetensors(bytes, &device) {
                let again = quantizer.to_safetensors().expect("its tensors");
                let again = CoarseToFine::<Flex>::from_safetensors(&again, &device);
                let digest = quantizer.digest().expect("its tensors");
                assert_eq!(again.expect("its own bytes").digest().expect("its tensors"), digest);
            }
        }
        2 => {
            if let Ok(space) = TextSpaceMap::from_safetensors(bytes) {
                let again = space.to_safetensors().expect("its tensors");
                TextSpaceMap::from_safetensors(&again).expect("its own bytes");
            }
        }
        3 => drop(CodesPart::load(scratch::file("part.safetensors", bytes))),
        _ => pretrained(bytes),
    }
});
