//! Folders that are damaged, hostile or of other models.

use std::{collections::HashMap, fs, path::Path};

use cart_retrieval::{Error, pretrained::PretrainedText};
use cart_towers::{ImageBindConfig, PretrainedClap, PretrainedClip, PretrainedImageBind};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use tempfile::TempDir;

use super::{B, fixture};

fn copy(name: &str) -> TempDir {
    copy_of(&fixture(name))
}

fn copy_of(source: &Path) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(source).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

/// The error of opening and loading.
fn error(folder: &Path) -> Error {
    let loaded = PretrainedText::open(folder).and_then(|p| p.load::<B>(&Default::default()));
    loaded.map(|_| ()).expect_err("the folder is damaged")
}

fn assert_names(folder: &Path, parts: &[&str]) {
    let message = error(folder).to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

fn replace(folder: &Path, file: &str, from: &str, to: &str) {
    let path = folder.join(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from:?} is not in {file}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

type Tensors = HashMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn edit_weights(folder: &Path, edit: impl FnOnce(&mut Tensors)) {
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Tensors = file
        .iter()
        .map(|(name, view)| {
            (name.to_string(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        })
        .collect();
    edit(&mut tensors);
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn models_of_other_families_are_refused_with_a_list() {
    let folder = copy("bert");
    replace(folder.path(), "config.json", "\"model_type\": \"bert\"", "\"model_type\": \"gpt2\"");
    assert_names(folder.path(), &["gpt2", "bert, roberta, xlm-roberta, t5, mt5, clip"]);
    let folder = copy("bert");
    replace(folder.path(), "config.json", "\"model_type\": \"bert\",", "");
    assert_names(folder.path(), &["model_type", "bert, roberta"]);
}

#[test]
fn settings_that_are_not_understood_are_named() {
    for (from, to, parts) in [
        ("\"gelu\"", "\"silu\"", ["hidden_act", "silu"]),
        ("\"hidden_size\": 16", "\"hidden_size\": -16", ["hidden_size", "-16"]),
        ("\"hidden_size\": 16,", "", ["hidden_size", "nothing"]),
        ("\"hidden_size\": 16", "\"hidden_size\": 1e300", ["hidden_size", "1e+300"]),
        ("\"is_decoder\": false", "\"is_decoder\": true", ["is_decoder", "true"]),
        ("\"num_attention_heads\": 2", "\"num_attention_heads\": 3", ["n_heads", "3"]),
        (
            "\"is_decoder\"",
            "\"position_embedding_type\": \"relative_key\", \"is_decoder\"",
            ["position_embedding_type", "relative_key"],
        ),
    ] {
        let folder = copy("bert");
        replace(folder.path(), "config.json", from, to);
        assert_names(folder.path(), &parts);
    }
    let folder = copy("t5_gated");
    replace(folder.path(), "config.json", "\"gated-gelu\"", "\"gated-silu\"");
    assert_names(folder.path(), &["feed_forward_proj", "gated-silu"]);
    let folder = copy("bert");
    fs::write(folder.path().join("config.json"), "{").unwrap();
    assert_names(folder.path(), &["config.json", "JSON"]);
}

#[test]
fn files_that_are_missing_are_named() {
    for (model, file) in [
        ("bert", "config.json"),
        ("bert", "tokenizer.json"),
        ("bert", "model.safetensors"),
        ("roberta", "model-00002-of-00002.safetensors"),
    ] {
        let folder = copy(model);
        fs::remove_file(folder.path().join(file)).unwrap();
        assert_names(folder.path(), &[file]);
    }
}

#[test]
fn tensors_that_are_missing_or_misshapen_are_named() {
    let name = "bert.encoder.layer.1.output.dense.weight";
    let folder = copy("bert");
    edit_weights(folder.path(), |tensors| drop(tensors.remove(name).unwrap()));
    assert_names(folder.path(), &[name, "no tensor of that name"]);

    let folder = copy("bert");
    edit_weights(folder.path(), |tensors| tensors.get_mut(name).unwrap().1.reverse());
    assert_names(folder.path(), &[name, "[16, 24]", "[24, 16]"]);

    let folder = copy("bert");
    edit_weights(folder.path(), |tensors| tensors.get_mut(name).unwrap().0 = Dtype::I32);
    assert_names(folder.path(), &[name, "f32, f16 or bf16", "I32"]);

    // Weights of another model.
    let folder = copy("bert");
    let other = fixture("clip_gelu").join("model.safetensors");
    fs::copy(other, folder.path().join("model.safetensors")).unwrap();
    assert_names(folder.path(), &["embeddings.word_embeddings.weight"]);
}

#[test]
fn files_that_are_cut_are_refused() {
    for length in [0, 4, 7, 100, 3000, 38_000] {
        let folder = copy("bert");
        let path = folder.path().join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..length]).unwrap();
        assert_names(folder.path(), &["model.safetensors", "truncated"]);
    }
}

#[test]
fn an_index_leads_nowhere_else() {
    const INDEX: &str = "model.safetensors.index.json";
    let first = "\"model-00001-of-00002.safetensors\"";
    for hostile in ["\"../model.safetensors\"", "\"/etc/passwd\"", "\"..\"", "\"a\\\\b\"", "\"\""] {
        let folder = copy("roberta");
        replace(folder.path(), INDEX, first, hostile);
        assert_names(folder.path(), &[INDEX, "plain file names"]);
    }
    let folder = copy("roberta");
    replace(
        folder.path(),
        INDEX,
        "\"embeddings.LayerNorm.bias\"",
        "\"embeddings.LayerNorm.shift\"",
    );
    assert_names(folder.path(), &["embeddings.LayerNorm.shift", "no tensor of that name"]);
    let folder = copy("roberta");
    replace(folder.path(), INDEX, "weight_map", "weights");
    assert_names(folder.path(), &[INDEX, "weight_map"]);
}

#[test]
fn towers_larger_than_their_files_are_refused_before_they_are_made() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    type Load = fn(&Path) -> Result<(), Error>;
    let clip: Load = |folder| {
        PretrainedClip::open(folder)?.load::<B>(&Default::default())?;
        Ok(())
    };
    let clap: Load = |folder| {
        PretrainedClap::open(folder)?.load::<B>(&Default::default())?;
        Ok(())
    };
    for (name, load, from) in [
        ("vision/clip", clip, "\"num_hidden_layers\": 3"),
        ("vision/clip", clip, "\"num_hidden_layers\": 2"),
        ("sound/clap", clap, "\"vocab_size\": 40"),
    ] {
        let family = &name[name.len() - 4..].to_uppercase();
        for (size, found) in [(20_000, " parameters"), (1_000_000_000, "a size of 1000000000")] {
            let folder = copy_of(&fixtures.join(name));
            let (key, _) = from.split_once(": ").unwrap();
            replace(folder.path(), "config.json", from, &format!("{key}: {size}"));
            let message = load(folder.path()).unwrap_err().to_string();
            for part in [family.as_str(), found, "bytes"] {
                assert!(message.contains(part), "{part:?} is not in {message:?}");
            }
        }
    }
    let huge = PretrainedImageBind::open(fixtures.join("imagebind"), ImageBindConfig::huge());
    let message = huge.unwrap().load::<B>(&Default::default()).unwrap_err().to_string();
    assert!(message.contains("ImageBind") && message.contains(" parameters"), "{message}");
}

#[test]
fn tokens_without_an_embedding_are_refused() {
    let folder = copy("bert");
    replace(folder.path(), "config.json", "\"vocab_size\": 64", "\"vocab_size\": 60");
    assert_names(folder.path(), &["tokenizer.json", "below 60", "63"]);
    let other = copy("clip");
    fs::copy(other.path().join("config.json"), folder.path().join("tokenizer.json")).unwrap();
    assert!(matches!(error(folder.path()), Error::Tokenizer(_)));
}

#[test]
fn limits_of_tokens_are_the_models() {
    let open = || PretrainedText::open(fixture("roberta")).unwrap();
    // Two rows of the table are below the first position.
    assert_eq!(open().tokenizer().max_tokens(), 64);
    assert!(open().with_max_tokens(65).unwrap_err().to_string().contains("64"));
    assert!(open().with_max_tokens(2).is_err());
    let tokens = open().with_max_tokens(5).unwrap().tokenizer().encode("a red circle").unwrap();
    assert_eq!((tokens.len(), tokens[0], tokens[4]), (5, 0, 2));
    let tokens = PretrainedText::open(fixture("t5")).unwrap().with_max_tokens(4).unwrap();
    assert_eq!(tokens.tokenizer().encode("a red circle in the snow").unwrap()[3], 1);
    assert!(open().with_dropout(1.5).load::<B>(&Default::default()).is_err());
}

#[test]
fn the_pooling_of_sentence_transformers_is_taken() {
    let folder = copy("bert");
    fs::create_dir(folder.path().join("1_Pooling")).unwrap();
    let file = folder.path().join("1_Pooling/config.json");
    fs::write(file, "{\"pooling_mode_cls_token\": true, \"pooling_mode_mean_tokens\": false}")
        .unwrap();
    let (encoder, ..) =
        PretrainedText::open(folder.path()).unwrap().load::<B>(&Default::default()).unwrap();
    assert_eq!(encoder.pooling(), cart_retrieval::expert::Pooling::First);
}
