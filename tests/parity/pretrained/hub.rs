//! The Hugging Face Hub, as far as it goes without a network.

use std::{fs, path::Path};

use cart_retrieval::{
    Error,
    pretrained::{HubOptions, PretrainedText},
};
use cart_towers::{PretrainedClap, PretrainedClip};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A cache with the tiny BERT, as the hub's clients lay it out.
fn cache() -> tempfile::TempDir {
    let cache = tempfile::tempdir().unwrap();
    let model = cache.path().join("models--someone--tiny-bert");
    let snapshot = model.join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(model.join("refs")).unwrap();
    fs::write(model.join("refs/main"), COMMIT).unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/text/bert");
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::copy(fixture.join(name), snapshot.join(name)).unwrap();
    }
    cache
}

#[test]
fn a_filled_cache_needs_no_network() {
    let cache = cache();
    let options = HubOptions::default().with_cache(cache.path()).with_offline(true);
    for revision in ["main", COMMIT] {
        let pretrained = PretrainedText::from_hub("someone/tiny-bert", revision, &options).unwrap();
        let (encoder, ..) = pretrained.load::<burn::backend::Flex>(&Default::default()).unwrap();
        assert_eq!(encoder.n_layers(), 3);
    }
}

#[test]
fn clip_and_clap_come_out_of_the_cache_too() {
    let cache = tempfile::tempdir().unwrap();
    for (name, fixture) in [("clip", "vision/clip"), ("clap", "sound/clap")] {
        let model = cache.path().join(format!("models--someone--{name}"));
        let snapshot = model.join("snapshots").join(COMMIT);
        fs::create_dir_all(&snapshot).unwrap();
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(fixture);
        for name in ["config.json", "model.safetensors", "preprocessor_config.json"] {
            fs::copy(fixture.join(name), snapshot.join(name)).unwrap();
        }
    }
    let options = HubOptions::default().with_cache(cache.path()).with_offline(true);
    let device = Default::default();
    let clip = PretrainedClip::open(options.fetch("someone/clip", COMMIT).unwrap()).unwrap();
    clip.load::<burn::backend::Flex>(&device).unwrap();
    let clap = PretrainedClap::open(options.fetch("someone/clap", COMMIT).unwrap()).unwrap();
    clap.load::<burn::backend::Flex>(&device).unwrap();
    assert!(PretrainedClap::open(options.fetch("someone/clip", COMMIT).unwrap()).is_err());
}

#[test]
fn what_the_cache_does_not_hold_is_named_with_a_remedy() {
    let cache = cache();
    let options = HubOptions::default().with_cache(cache.path()).with_offline(true);
    for (repo, revision) in [("someone/other", "main"), ("someone/tiny-bert", "v2")] {
        let message = PretrainedText::from_hub(repo, revision, &options).unwrap_err().to_string();
        assert!(message.contains(repo) && message.contains("call open on a folder"), "{message}");
    }
    let snapshot = cache.path().join("models--someone--tiny-bert/snapshots").join(COMMIT);
    fs::remove_file(snapshot.join("tokenizer.json")).unwrap();
    let error = PretrainedText::from_hub("someone/tiny-bert", "main", &options).unwrap_err();
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
}

#[test]
fn names_do_not_lead_out_of_the_cache() {
    let options = HubOptions::default().with_offline(true);
    for (repo, revision) in [
        ("../x", "main"),
        ("a/b/c", "main"),
        ("/etc", "main"),
        ("", "main"),
        ("a/b", "../../x"),
        ("a/b", ""),
        ("a b", "main"),
    ] {
        let error = PretrainedText::from_hub(repo, revision, &options).unwrap_err();
        assert!(matches!(error, Error::Config(_)), "{repo} {revision}: {error}");
    }
    let cache = cache();
    let reference = cache.path().join("models--someone--tiny-bert/refs/main");
    fs::write(reference, "../../elsewhere").unwrap();
    let options = HubOptions::default().with_cache(cache.path()).with_offline(true);
    assert!(PretrainedText::from_hub("someone/tiny-bert", "main", &options).is_err());
}

/// A port that nothing listens on.
#[test]
fn without_a_network_the_error_says_what_to_do() {
    let cache = cache();
    let options =
        HubOptions::default().with_cache(cache.path()).with_endpoint("http://127.0.0.1:1/");
    let error = PretrainedText::from_hub("someone/tiny-bert", "main", &options).unwrap_err();
    let message = error.to_string();
    for part in ["someone/tiny-bert", "call open on a folder", "offline"] {
        assert!(message.contains(part), "{message}");
    }
}
