//! Both towers of CLAP against transformers, from spectrograms, from samples and from files.

use std::{fs, path::PathBuf};

use burn::tensor::{Tensor, TensorData};
use cart_media::{Extractor, MediaItem, Modality, Sound};
use cart_retrieval::pretrained::LoadReport;
use cart_towers::{Clap, ClapExtractor, PretrainedClap};

use super::{
    B,
    reference::{Reference, assert_values},
};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/sound/clap")
}

fn load() -> (PretrainedClap, Clap<B>, LoadReport) {
    let pretrained = PretrainedClap::open(folder()).unwrap();
    let (clap, report) = pretrained.load(&Default::default()).unwrap();
    (pretrained, clap, report)
}

#[test]
fn every_stage_and_both_projections_are_those_of_transformers() {
    let (pretrained, clap, report) = load();
    assert_eq!(report.parameters, pretrained.config().num_params());
    // Scales of the loss, counters and tables that follow from the sizes: nothing that was learnt
    // for an embedding.
    for name in &report.unused {
        let known = ["logit_scale", "relative_position_index", "num_batches_tracked", "_ids"];
        assert!(known.iter().any(|known| name.contains(known)), "{name}");
    }
    let reference = Reference::open(&folder());
    let mel = || reference.tensor::<3>("mel");
    let states = clap.audio().hidden_states(mel());
    assert_eq!(states.len(), 3);
    for (at, state) in states.into_iter().enumerate() {
        reference.assert_close(&format!("hidden.{at}"), state);
    }
    reference.assert_close("pooled", clap.audio().forward(mel()));
    reference.assert_close("sounds", clap.embed_mel(mel()));
    // Alone as in company.
    let one: Vec<f32> = clap.embed_mel(mel().narrow(0, 1, 1)).into_data().to_vec().unwrap();
    assert_values("second sound", &one, &reference.values("sounds")[10..]);

    let device = Default::default();
    let ids = TensorData::new(vec![0i64, 5, 9, 17, 2, 0, 30, 2, 1, 1], [2, 5]);
    let padding = vec![false, false, false, false, false, false, false, false, true, true];
    let padding = Tensor::from_data(TensorData::new(padding, [2, 5]), &device);
    reference.assert_close("texts", clap.embed_tokens(Tensor::from_data(ids, &device), padding));
}

#[test]
fn sounds_are_heard_as_transformers_hears_them() {
    let (pretrained, clap, _) = load();
    let (config, reference) = (pretrained.config(), Reference::open(&folder()));
    let bank = config.mel_bank().unwrap();
    let (mels, sounds) = (reference.values("mel"), reference.values("sounds"));
    let mut items = Vec::new();
    let files = tempfile::tempdir().unwrap();
    for at in 0..2 {
        let samples = reference.values(&format!("samples.{at}"));
        let sound = Sound::new(8000, samples.to_vec()).unwrap();
        let heard = config.spectrograms(&bank, &sound, 3).unwrap();
        assert_eq!(heard.len(), 1);
        // In decibels.
        for (a, b) in heard[0].iter().zip(&mels[at * 808..(at + 1) * 808]) {
            assert!((a - b).abs() < 1e-2, "{a} where {b} is expected");
        }
        fs::write(files.path().join(format!("{at}.wav")), wav(samples)).unwrap();
        let (id, path) = (at.to_string(), format!("{at}.wav").into());
        items.push(MediaItem { id, path, modality: Modality::Audio, span: None });
    }
    let extractor =
        ClapExtractor::new(clap.clone(), config.clone(), "tiny", 3, Default::default()).unwrap();
    let found = extractor.extract(files.path(), &items);
    for (found, expected) in found.into_iter().zip(sounds.chunks(10)) {
        let cosine: f32 = found.unwrap().iter().zip(expected).map(|(a, b)| a * b).sum();
        assert!(cosine > 0.9999, "{cosine}");
    }

    // A longer sound is heard in stretches, the last one to its end.
    let long: Vec<f32> = (0..20_000).map(|at| (at as f32 * 0.4).sin()).collect();
    let long = Sound::new(8000, long).unwrap();
    assert_eq!(config.spectrograms(&bank, &long, 1).unwrap().len(), 1);
    let stretches = config.spectrograms(&bank, &long, 10).unwrap();
    assert_eq!(stretches.len(), 3);
    let end = Sound::new(8000, long.samples()[12_000..].to_vec()).unwrap();
    assert_eq!(stretches[2], config.spectrograms(&bank, &end, 1).unwrap()[0]);

    let picture = MediaItem { modality: Modality::Image, ..items[0].clone() };
    let refused = extractor.extract(files.path(), &[picture]).remove(0).unwrap_err();
    assert!(refused.to_string().contains("only hears"));
}

/// A WAV file of 32-bit numbers at 8 kHz.
fn wav(samples: &[f32]) -> Vec<u8> {
    let length = samples.len() as u32 * 4;
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + length).to_le_bytes());
    bytes.extend(b"WAVEfmt ");
    bytes.extend(16u32.to_le_bytes());
    for (value, size) in [(3u32, 2), (1, 2), (8000, 4), (32_000, 4), (4, 2), (32, 2)] {
        bytes.extend(&value.to_le_bytes()[..size]);
    }
    bytes.extend(b"data");
    bytes.extend(length.to_le_bytes());
    samples.iter().for_each(|sample| bytes.extend(sample.to_le_bytes()));
    bytes
}

#[test]
fn what_is_no_clap_is_refused_by_name() {
    let edit = |file: &str, from: &str, to: &str| {
        let copy = tempfile::tempdir().unwrap();
        for name in ["config.json", "model.safetensors", "preprocessor_config.json"] {
            fs::copy(folder().join(name), copy.path().join(name)).unwrap();
        }
        let text = fs::read_to_string(copy.path().join(file)).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(copy.path().join(file), text.replace(from, to)).unwrap();
        let error = PretrainedClap::open(copy.path())
            .and_then(|clap| clap.load::<B>(&Default::default()).map(|_| ()));
        error.unwrap_err().to_string()
    };
    let config = |from: &str, to: &str| edit("config.json", from, to);
    assert!(config("\"model_type\": \"clap\"", "\"model_type\": \"clip\"").contains("model_type"));
    let error = config("\"enable_fusion\": false", "\"enable_fusion\": true");
    assert!(error.contains("enable_fusion"), "{error}");
    assert!(config("\"window_size\": 4", "\"window_size\": 3").contains("window"));
    assert!(config("\"mlp_ratio\": 2.0", "\"mlp_ratio\": 2.5").contains("mlp_ratio"));
    assert!(config("\"mlp_ratio\": 2.0", "\"mlp_ratio\": 4.0").contains("intermediate.dense"));
    let sounds = |from: &str, to: &str| edit("preprocessor_config.json", from, to);
    assert!(sounds("\"feature_size\": 8", "\"feature_size\": 16").contains("feature_size"));
    assert!(sounds("rand_trunc", "fusion").contains("truncation"));
    assert!(sounds("\"max_length_s\": 1", "\"max_length_s\": 10").contains("frames"));
    assert!(sounds("\"truncation\"", "\"truncated\"").contains("truncated"));
}
