//! Both towers of CLIP against transformers, from pixels and from files.

use std::{fs, path::PathBuf};

use burn::tensor::{Tensor, TensorData};
use cart_media::{
    Extractor, MediaItem, Modality, Picture,
    extract::{ExtractConfig, Extraction},
};
use cart_retrieval::{cancel::Monitor, pretrained::LoadReport};

use super::{
    B,
    reference::{Reference, assert_values},
};
use cart_towers::{Clip, ClipExtractor, PretrainedClip};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/vision/clip")
}

fn load() -> (PretrainedClip, Clip<B>, LoadReport) {
    let pretrained = PretrainedClip::open(folder()).unwrap();
    let (clip, report) = pretrained.load(&Default::default()).unwrap();
    (pretrained, clip, report)
}

#[test]
fn every_hidden_state_and_both_projections_are_those_of_transformers() {
    let (pretrained, clip, report) = load();
    assert_eq!(report.unused, ["logit_scale"]);
    assert_eq!(report.parameters, pretrained.config().num_params());
    assert_eq!(pretrained.config().projection, 10);
    let reference = Reference::open(&folder());
    let device = Default::default();
    let pixels = || reference.tensor::<4>("pixels");
    let states = clip.vision().hidden_states(pixels());
    assert_eq!(states.len(), 4);
    for (at, state) in states.into_iter().enumerate() {
        reference.assert_close(&format!("hidden.{at}"), state);
    }
    reference.assert_close("pooled", clip.vision().forward(pixels()));
    reference.assert_close("images", clip.embed_pixels(pixels()));
    // Alone as in company.
    let one = clip.embed_pixels(pixels().narrow(0, 1, 1)).into_data().to_vec().unwrap();
    assert_values("second image", &one, &reference.values("images")[10..]);

    let ids = TensorData::new(vec![0i64, 5, 9, 17, 1, 0, 30, 1, 1, 1], [2, 5]);
    let padding = vec![false, false, false, false, false, false, false, false, true, true];
    let (ids, padding) = (
        Tensor::from_data(ids, &device),
        Tensor::from_data(TensorData::new(padding, [2, 5]), &device),
    );
    reference.assert_close("texts", clip.embed_tokens(ids, padding));
}

/// The picture of `make_media.py`.
pub fn picture(width: usize, height: usize) -> Picture {
    let mut rgb = Vec::new();
    for at in 0..width * height * 3 {
        let (x, y, c) = (at / 3 % width, at / 3 / width, at % 3);
        let (wide, high) = (0.21 * x as f64 + 0.5 * c as f64, 0.17 * y as f64 - 0.3 * c as f64);
        let noise = (x * 131 + y * 57 + c * 29) % 61;
        let value = 127.0 + 100.0 * wide.sin() * high.cos() + noise as f64 - 30.0;
        rgb.push(value.round_ties_even().clamp(0.0, 255.0) as u8);
    }
    Picture::new(width, height, rgb).unwrap()
}

#[test]
fn pictures_are_embedded_as_transformers_would() {
    let (pretrained, clip, _) = load();
    let reference = Reference::open(&folder());
    let pictures = [picture(61, 47), picture(30, 80)];
    let pixels = reference.values("pixels");
    for (picture, expected) in pictures.iter().zip(pixels.chunks(3 * 24 * 24)) {
        let found = pretrained.config().pixels(picture).unwrap();
        // A step of eight bits, over the smallest deviation of a channel.
        let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1.01 / 255.0 / 0.2, "{worst}");
    }
    let device = Default::default();
    let found = clip.embed_pictures(&pictures, pretrained.config(), &device).unwrap();
    let found: Vec<f32> = found.into_data().to_vec().unwrap();
    let images = reference.values("images");
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    for (a, b) in found.chunks(10).zip(images.chunks(10)) {
        let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
        assert!(cosine > 0.9995, "{cosine}");
    }
    assert!(clip.embed_pictures(&[], pretrained.config(), &device).is_err());
}

#[test]
fn files_become_a_data_folder() {
    let (pretrained, clip, _) = load();
    let (folder, device) = (tempfile::tempdir().unwrap(), Default::default());
    let mut items = Vec::new();
    for (number, size) in [(0, 61), (1, 30), (2, 40)] {
        let id = format!("{number}.png");
        fs::write(folder.path().join(&id), picture(size, 47).to_png().unwrap()).unwrap();
        items.push(MediaItem {
            path: id.clone().into(),
            id,
            modality: Modality::Image,
            span: None,
        });
    }
    fs::write(folder.path().join("1.png"), "broken").unwrap();
    let extractor = ClipExtractor::new(
        clip.clone(),
        pretrained.config().clone(),
        "tiny",
        2,
        Default::default(),
    );
    assert!(extractor.name().contains("tiny"));
    let (config, out) = (ExtractConfig::default(), folder.path().join("data"));
    let extraction = Extraction::new(&items, folder.path(), &out);
    let made = extraction.run(&extractor, &config, &Monitor::new()).unwrap();
    assert_eq!((made.items, made.failed[0].id.as_str()), (2, "1.png"));
    let rows = cart_retrieval::features::Features::open(out.join("features.npy")).unwrap();
    for (row, size) in [(0, 61), (1, 40)] {
        let alone =
            clip.embed_pictures(&[picture(size, 47)], pretrained.config(), &device).unwrap();
        let alone: Vec<f32> = alone.into_data().to_vec().unwrap();
        let length = alone.iter().map(|value| value * value).sum::<f32>().sqrt();
        for (found, expected) in rows.row(row).iter().zip(&alone) {
            assert!((found - expected / length).abs() < 1e-5);
        }
    }
    // Of a video the mean of its frames; a sound is refused.
    let gif = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/media");
    let item = |path: &str, modality| MediaItem {
        id: path.into(),
        path: path.into(),
        modality,
        span: None,
    };
    let video = extractor.extract(&gif, &[item("frames.gif", Modality::Video)]).remove(0).unwrap();
    let length: f32 = video.iter().map(|value| value * value).sum();
    assert!((length - 1.0).abs() < 1e-5);
    let sound = extractor.extract(&gif, &[item("stereo.wav", Modality::Audio)]).remove(0);
    assert!(sound.unwrap_err().to_string().contains("does not hear"));
}

#[test]
fn what_is_no_clip_is_refused_by_name() {
    let copy = || {
        let to = tempfile::tempdir().unwrap();
        for name in ["config.json", "model.safetensors", "preprocessor_config.json"] {
            fs::copy(folder().join(name), to.path().join(name)).unwrap();
        }
        to
    };
    let edit = |from: &str, to: &str| {
        let folder = copy();
        let path = folder.path().join("config.json");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from));
        fs::write(&path, text.replace(from, to)).unwrap();
        let error = PretrainedClip::open(folder.path())
            .and_then(|clip| clip.load::<B>(&Default::default()).map(|_| ()));
        error.unwrap_err().to_string()
    };
    assert!(edit("\"model_type\": \"clip\"", "\"model_type\": \"bert\"").contains("model_type"));
    assert!(edit("\"patch_size\": 8", "\"patch_size\": 7").contains("patch_size"));
    let error = edit("\"patch_size\": 8", "\"patch_size\": 12");
    assert!(error.contains("vision_model.embeddings"), "{error}");
    assert!(edit("\"hidden_size\": 16", "\"hidden_size\": 18").contains("vision_model"));
    assert!(edit("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4").contains("layers.3"));
    let folder = copy();
    fs::write(folder.path().join("preprocessor_config.json"), r#"{"image_mean": [0.5]}"#).unwrap();
    assert!(PretrainedClip::open(folder.path()).unwrap_err().to_string().contains("image_mean"));
    fs::remove_file(folder.path().join("config.json")).unwrap();
    assert!(PretrainedClip::open(folder.path()).is_err());
}
