//! ImageBind against a restatement of its architecture in PyTorch, from the same file of weights.

use std::{fs, path::PathBuf};

use burn::tensor::{Tensor, TensorData};
use cart_media::{Extractor, MediaItem, Modality, Picture};
use cart_towers::{
    ImageBind, ImageBindAudioConfig, ImageBindConfig, ImageBindExtractor, ImageBindTextConfig,
    ImageBindVisionConfig, PretrainedImageBind,
};

use super::{
    B,
    reference::{Reference, assert_values},
};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/imagebind")
}

/// The shape of `make_imagebind.py`.
fn config() -> ImageBindConfig {
    ImageBindConfig {
        vision: ImageBindVisionConfig {
            image_size: 12,
            patch_size: 4,
            d_model: 16,
            n_heads: 2,
            n_layers: 2,
        },
        text: ImageBindTextConfig {
            vocabulary: 32,
            max_tokens: 8,
            d_model: 12,
            n_heads: 3,
            n_layers: 2,
        },
        audio: ImageBindAudioConfig {
            mels: 16,
            frames: 24,
            patch_size: 6,
            stride: 4,
            d_model: 8,
            n_heads: 2,
            n_layers: 2,
        },
        d_output: 10,
    }
}

fn assert_is_the_reference(towers: &ImageBind<B>) {
    let reference = Reference::open(&folder());
    reference.assert_close("pictures", towers.embed_pixels(reference.tensor("in.pictures")));
    reference.assert_close("clips", towers.embed_frames(reference.tensor("in.clips")));
    reference.assert_close("sounds", towers.embed_mel(reference.tensor("in.mel")));
    let device = Default::default();
    let ids = vec![29i64, 4, 7, 30, 0, 0, 0, 0, 29, 3, 2, 1, 5, 6, 8, 30];
    let padding = (0..16).map(|at| (4..8).contains(&at)).collect::<Vec<_>>();
    let ids = Tensor::from_data(TensorData::new(ids, [2, 8]), &device);
    let padding = Tensor::from_data(TensorData::new(padding, [2, 8]), &device);
    reference.assert_close("texts", towers.embed_tokens(ids.clone(), padding.clone()));
    // What follows the mark of the end is not seen, so it may as well be left out.
    let short =
        towers.embed_tokens(ids.slice([0..1, 0..4]), padding.slice([0..1, 0..4])).into_data();
    assert_values("short text", &short.to_vec().unwrap(), &reference.values("texts")[..10]);
}

#[test]
fn all_towers_are_those_of_the_restatement() {
    let pretrained = PretrainedImageBind::open(folder(), config()).unwrap();
    let (towers, report) = pretrained.load(&Default::default()).unwrap();
    assert_is_the_reference(&towers);
    let depth = "modality_preprocessors.depth";
    let mut expected = [
        &format!("{depth}.cls_token"),
        &format!("{depth}.pos_embedding_helper.pos_embed"),
        &format!("{depth}.rgbt_stem.norm_layer.bias"),
        &format!("{depth}.rgbt_stem.norm_layer.weight"),
        &format!("{depth}.rgbt_stem.proj.weight"),
        "modality_postprocessors.audio.1.log_logit_scale",
        "modality_postprocessors.text.1.log_logit_scale",
        "modality_preprocessors.text.mask",
    ];
    expected.sort_unstable();
    assert_eq!(report.unused, expected);
    assert_eq!(report.parameters, pretrained.config().num_params());
}

#[cfg(feature = "pth")]
#[test]
fn the_published_format_is_read_and_a_damaged_file_refused() {
    let path = folder().join("published.pth");
    let pretrained = PretrainedImageBind::open(&path, config()).unwrap();
    let (towers, report) = pretrained.load(&Default::default()).unwrap();
    assert_is_the_reference(&towers);
    assert!(report.unused.iter().any(|name| name.contains("depth")));

    let folder = tempfile::tempdir().unwrap();
    let bytes = fs::read(&path).unwrap();
    let cut = folder.path().join("imagebind_huge.pth");
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let error = |path: &std::path::Path| {
        let pretrained = PretrainedImageBind::open(path, config()).unwrap();
        pretrained.load::<B>(&Default::default()).unwrap_err().to_string()
    };
    assert!(error(folder.path()).contains("imagebind_huge.pth"));
    fs::write(&cut, "no weights").unwrap();
    assert!(error(folder.path()).contains("fetch it again"));
    assert!(error(&folder.path().join("missing.pth")).contains("missing.pth"));
}

#[cfg(not(feature = "pth"))]
#[test]
fn the_published_format_names_the_feature_that_reads_it() {
    let pretrained = PretrainedImageBind::open(folder().join("published.pth"), config()).unwrap();
    let error = pretrained.load::<B>(&Default::default()).unwrap_err().to_string();
    assert!(error.contains("--features pth"), "{error}");
}

#[test]
fn pictures_sounds_and_videos_come_into_one_space() {
    let pretrained = PretrainedImageBind::open(folder(), config()).unwrap();
    let (towers, _) = pretrained.load::<B>(&Default::default()).unwrap();
    let media = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/media");
    let item = |path: &str, modality| MediaItem {
        id: path.into(),
        path: path.into(),
        modality,
        span: None,
    };
    let items = [
        item("picture.png", Modality::Image),
        item("frames.gif", Modality::Video),
        item("mono.ogg", Modality::Audio),
        item("picture.png", Modality::Audio),
        item("picture.jpg", Modality::Image),
    ];
    let extractor =
        ImageBindExtractor::new(towers.clone(), config(), "tiny", Default::default()).unwrap();
    let found = extractor.extract(&media, &items);
    for (at, vector) in found.iter().enumerate() {
        if at == 3 {
            assert!(vector.as_ref().unwrap_err().to_string().contains("picture.png"));
            continue;
        }
        let vector = vector.as_ref().unwrap();
        let length: f32 = vector.iter().map(|value| value * value).sum();
        assert!(vector.len() == 10 && (length - 1.0).abs() < 1e-5, "{at}: {length}");
    }
    // A picture by hand: prepared, embedded alone.
    let picture = Picture::open(media.join("picture.png")).unwrap();
    let pixels = config().pixels(&picture).unwrap();
    let pixels = Tensor::from_data(TensorData::new(pixels, [1, 3, 12, 12]), &Default::default());
    let alone = towers.embed_pixels(pixels).into_data().to_vec::<f32>().unwrap();
    assert_values("picture", found[0].as_ref().unwrap(), &alone);
}

#[test]
fn another_shape_is_refused_by_tensor() {
    let error = |edit: fn(&mut ImageBindConfig)| {
        let mut config = config();
        edit(&mut config);
        let pretrained = PretrainedImageBind::open(folder(), config).unwrap();
        pretrained.load::<B>(&Default::default()).unwrap_err().to_string()
    };
    assert!(error(|c| c.vision.n_layers = 3).contains("vision.blocks.2"));
    assert!(error(|c| c.vision.image_size = 16).contains("vision.pos_embedding_helper"));
    assert!(error(|c| c.audio.d_model = 6).contains("modality_preprocessors.audio"));
    assert!(error(|c| c.d_output = 11).contains("modality_heads"));
    let empty = tempfile::tempdir().unwrap();
    fs::write(empty.path().join("model.safetensors"), "").unwrap();
    let pretrained = PretrainedImageBind::open(empty.path(), config()).unwrap();
    assert!(pretrained.load::<B>(&Default::default()).is_err());
}
