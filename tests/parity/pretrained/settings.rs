//! Settings are followed: pooling as sentence-transformers does it, pictures and sounds prepared as
//! transformers does; or they are refused.

use std::{
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::{Int, Tensor, TensorData};
use cart_media::{Picture, Sound};
use cart_retrieval::{expert::Pooling, pretrained::PretrainedText};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    B,
    clip::picture,
    fixture, load,
    reference::{Reference, assert_values},
};
use cart_towers::{PretrainedClap, PretrainedClip};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

fn copy(from: &Path) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy_into(from, folder.path());
    folder
}

fn copy_into(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let (from, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if from.is_dir() {
            fs::create_dir_all(to.join(&name)).unwrap();
            copy_into(&from, &to.join(name));
        } else {
            fs::copy(from, to.join(name)).unwrap();
        }
    }
}

fn write(folder: &TempDir, name: &str, text: &str) {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn refused(folder: &TempDir, parts: &[&str]) {
    let error = PretrainedText::open(folder.path()).unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

/// The sentences of `make_text_models.py`.
const SENTENCES: [&str; 5] = [
    "two dogs play in the snow",
    "a red circle",
    "a man in a blue shirt rides a small bicycle along the river while two children look on",
    "snow",
    "the dog and the man look at a red bicycle in the snow",
];

#[test]
fn texts_are_pooled_as_sentence_transformers_does() {
    let reference = Reference::open(&fixtures().join("sentence"));
    for (name, pooling) in [
        ("cls", Pooling::First),
        ("mean", Pooling::Mean),
        ("max", Pooling::Max),
        ("lasttoken", Pooling::Last),
    ] {
        let folder = copy(&fixture("bert"));
        copy_into(&fixtures().join("sentence").join(name), folder.path());
        for (limit, key) in [(None, name.to_string()), (Some(6), format!("{name}.6"))] {
            if let Some(limit) = limit {
                let config = format!("{{\"max_seq_length\": {limit}, \"do_lower_case\": false}}");
                write(&folder, "sentence_bert_config.json", &config);
            }
            let (encoder, tokenizer, _) = load(folder.path());
            assert_eq!((encoder.pooling(), tokenizer.max_tokens()), (pooling, limit.unwrap_or(40)));
            let rows: Vec<Vec<u32>> =
                SENTENCES.iter().map(|text| tokenizer.encode(text).unwrap()).collect();
            let width = rows.iter().map(Vec::len).max().unwrap();
            let (mut ids, mut padding) = (Vec::new(), Vec::new());
            for row in &rows {
                ids.extend((0..width).map(|at| i64::from(row.get(at).copied().unwrap_or(0))));
                padding.extend((0..width).map(|at| at >= row.len()));
            }
            let (device, shape) = (Default::default(), [rows.len(), width]);
            let ids = Tensor::<B, 2, Int>::from_data(TensorData::new(ids, shape), &device);
            let padding = Tensor::from_data(TensorData::new(padding, shape), &device);
            reference.assert_close(&key, encoder.forward(ids, padding).pooled());
        }
    }
}

#[test]
fn pooling_of_all_versions_is_followed_or_refused() {
    let open = |text: &str| {
        let folder = copy(&fixture("bert"));
        write(&folder, "1_Pooling/config.json", text);
        let opened = PretrainedText::open(folder.path()).map_err(|error| error.to_string())?;
        opened
            .load::<B>(&Default::default())
            .map(|(encoder, ..)| encoder.pooling())
            .map_err(|error| error.to_string())
    };
    for (text, pooling) in [
        ("{}", Pooling::Mean),
        ("\u{feff}{\"pooling_mode\": \"cls\"}", Pooling::First),
        ("{\"pooling_mode\": [\"max\"]}", Pooling::Max),
        ("{\"pooling_mode_max_tokens\": true, \"pooling_mode_mean_tokens\": false}", Pooling::Max),
        ("{\"pooling_mode_lasttoken\": true}", Pooling::Last),
        ("{\"pooling_mode\": \"cls\", \"pooling_mode_mean_tokens\": true}", Pooling::First),
        ("{\"word_embedding_dimension\": 16, \"include_prompt\": true}", Pooling::Mean),
    ] {
        assert_eq!(open(text).unwrap(), pooling, "{text}");
    }
    for (text, words) in [
        ("{\"pooling_mode\": [\"cls\", \"mean\"]}", "cls and mean"),
        ("{\"pooling_mode_cls_token\": true, \"pooling_mode_mean_tokens\": true}", "cls and mean"),
        ("{\"pooling_mode_weightedmean_tokens\": true}", "weightedmean"),
        ("{\"pooling_mode\": \"attention\"}", "attention"),
        ("{\"pooling_mode\": 3}", "pooling_mode"),
        ("{\"pooling_mode_cls_token\": \"yes\"}", "pooling_mode_cls_token"),
        ("{\"pooling_mode_first_token\": true}", "pooling_mode_first_token"),
        ("{\"embedding_dimension\": 32}", "32"),
        ("[]", "an object"),
        ("\"cls\"", "an object"),
        ("", "JSON"),
    ] {
        let error = open(text).unwrap_err();
        assert!(error.contains(words) && error.contains("1_Pooling"), "{text}: {error}");
    }
}

#[test]
fn modules_that_change_the_vectors_are_refused() {
    let module = |kind: &str, path: &str| {
        format!("{{\"idx\": 0, \"name\": \"0\", \"path\": \"{path}\", \"type\": \"{kind}\"}}")
    };
    let st = |kind: &str| format!("sentence_transformers.models.{kind}");
    let encoder = module(&st("Transformer"), "");
    let pooling = module(&st("Pooling"), "9_Pooling");
    let folder = copy(&fixture("bert"));
    write(&folder, "9_Pooling/config.json", "{\"pooling_mode\": \"max\"}");
    let list = |rest: &[&str]| write(&folder, "modules.json", &format!("[{}]", rest.join(", ")));
    list(&[&encoder, &pooling, &module(&st("Normalize"), "2_Normalize")]);
    let (found, ..) = load(folder.path());
    assert_eq!(found.pooling(), Pooling::Max);
    for (last, words) in [
        (module(&st("Dense"), "2_Dense"), "models.Dense"),
        (module(&st("CNN"), "2_CNN"), "models.CNN"),
        (module("custom_st.Normalize", "2"), "custom_st.Normalize"),
        (pooling.clone(), "models.Pooling"),
        (module(&st("Normalize"), "../2"), "../2"),
    ] {
        list(&[&encoder, &pooling, &last]);
        refused(&folder, &["modules.json", words]);
    }
    list(&[&pooling]);
    refused(&folder, &["modules.json", "Pooling"]);
    list(&[]);
    refused(&folder, &["modules.json", "a Transformer"]);
    write(&folder, "modules.json", "{}");
    refused(&folder, &["modules.json", "a list of modules"]);
    list(&[&encoder, &module(&st("Pooling"), "8_Pooling")]);
    refused(&folder, &["8_Pooling"]);
    // The encoder in a folder of its own.
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("0_Transformer")).unwrap();
    copy_into(&fixture("bert"), &folder.path().join("0_Transformer"));
    let modules = module(&st("Transformer"), "0_Transformer");
    write(&folder, "modules.json", &format!("[{modules}]"));
    assert_eq!(load(folder.path()).0.n_layers(), 3);
}

#[test]
fn prompts_case_and_the_longest_text_are_followed_or_refused() {
    let folder = copy(&fixture("roberta"));
    const WHOLE: &str = "config_sentence_transformers.json";
    let prompts = |name: &str| {
        format!(
            "{{\"prompts\": {{\"q\": \"query: \", \"e\": \"\"}}, \"default_prompt_name\": {name}}}"
        )
    };
    for name in ["null", "\"e\""] {
        write(&folder, WHOLE, &prompts(name));
        PretrainedText::open(folder.path()).unwrap();
    }
    for (name, words) in [("\"q\"", "query: "), ("\"z\"", "\"z\"")] {
        write(&folder, WHOLE, &prompts(name));
        refused(&folder, &["default_prompt_name", words]);
    }
    fs::remove_file(folder.path().join(WHOLE)).unwrap();

    let tokens = |folder: &TempDir, text: &str| {
        PretrainedText::open(folder.path()).unwrap().tokenizer().encode(text).unwrap()
    };
    assert_ne!(tokens(&folder, "A Red CIRCLE"), tokens(&folder, "a red circle"));
    write(&folder, "sentence_bert_config.json", "{\"do_lower_case\": true}");
    assert_eq!(tokens(&folder, "A Red CIRCLE"), tokens(&folder, "a red circle"));

    write(&folder, "tokenizer_config.json", "{\"model_max_length\": 5}");
    assert_eq!(tokens(&folder, "a red circle").len(), 5);
    // Another limit, chosen.
    let chosen = PretrainedText::open(folder.path()).unwrap().with_max_tokens(9).unwrap();
    assert!(chosen.tokenizer().encode("a red circle in the snow").unwrap().len() > 5);
    write(&folder, "tokenizer_config.json", "{\"model_max_length\": 1e30}");
    assert_eq!(PretrainedText::open(folder.path()).unwrap().tokenizer().max_tokens(), 64);
}

#[test]
fn files_next_to_the_tokenizer_must_agree_with_it() {
    const CONFIG: &str = "tokenizer_config.json";
    let folder = copy(&fixture("bert"));
    for fine in [
        "{\"do_lower_case\": true, \"tokenizer_class\": \"BertTokenizer\", \"strip_accents\": null}",
        "{\"do_lower_case\": false, \"tokenizer_class\": \"PreTrainedTokenizerFast\"}",
        "{\"cls_token\": \"[CLS]\", \"pad_token\": {\"content\": \"[PAD]\"}}",
        "{\"added_tokens_decoder\": {\"2\": {\"content\": \"[CLS]\", \"special\": true}}}",
    ] {
        write(&folder, CONFIG, fine);
        PretrainedText::open(folder.path()).unwrap_or_else(|error| panic!("{fine}: {error}"));
    }
    for (bad, words) in [
        ("{\"do_lower_case\": false}", "do_lower_case"),
        ("{\"strip_accents\": false, \"tokenizer_class\": \"BertTokenizerFast\"}", "strip_accents"),
        ("{\"tokenize_chinese_chars\": false}", "tokenize_chinese_chars"),
        ("{\"truncation_side\": \"left\"}", "truncation_side"),
        ("{\"cls_token\": \"<s>\"}", "<s>"),
        ("{\"cls_token\": \"[SEP]\", \"tokenizer_class\": \"BertTokenizer\"}", "cls_token"),
        ("{\"additional_special_tokens\": [\"<x>\"]}", "<x>"),
        ("{\"extra_special_tokens\": {\"image\": \"<x>\"}}", "<x>"),
        ("{\"added_tokens_decoder\": {\"70\": {\"content\": \"[CLS]\"}}}", "70"),
    ] {
        write(&folder, CONFIG, bad);
        refused(&folder, &[CONFIG, words]);
    }
    fs::remove_file(folder.path().join(CONFIG)).unwrap();
    write(&folder, "added_tokens.json", "{\"<x>\": 64}");
    refused(&folder, &["added_tokens.json", "<x>"]);
    write(&folder, "added_tokens.json", "{\"[CLS]\": 2}");
    write(&folder, "special_tokens_map.json", "{\"unk_token\": \"<unk>\"}");
    refused(&folder, &["special_tokens_map.json", "<unk>"]);
    let roberta = copy(&fixture("roberta"));
    write(
        &roberta,
        CONFIG,
        "{\"add_prefix_space\": true, \"tokenizer_class\": \"RobertaTokenizer\"}",
    );
    refused(&roberta, &["add_prefix_space"]);
    // The token whose vector CLIP takes.
    let clip = copy(&fixture("clip_gelu"));
    let config = fs::read_to_string(clip.path().join("config.json")).unwrap();
    write(&clip, "config.json", &config.replace("\"eos_token_id\": 1", "\"eos_token_id\": 7"));
    refused(&clip, &["eos_token_id", "7"]);
}

#[test]
fn byte_order_marks_are_passed_over() {
    let folder = copy(&fixture("bert"));
    for name in ["config.json", "tokenizer.json"] {
        let text = fs::read_to_string(folder.path().join(name)).unwrap();
        write(&folder, name, &format!("\u{feff}{text}"));
    }
    assert_eq!(load(folder.path()).0.n_layers(), 3);
    let text = fs::read_to_string(fixture("bert").join("config.json")).unwrap();
    let wide: Vec<u8> =
        [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    fs::write(folder.path().join("config.json"), wide).unwrap();
    refused(&folder, &["config.json", "UTF-16", "save the file in UTF-8"]);
}

/// The settings of CLIP's towers for pictures of 8 x 8, and files of the preparation.
fn clip_of(files: &Value) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = fs::read_to_string(fixtures().join("vision/clip/config.json")).unwrap();
    write(&folder, "config.json", &config.replace("\"image_size\": 24", "\"image_size\": 8"));
    for (name, content) in files.as_object().unwrap() {
        write(&folder, name, &content.to_string());
    }
    folder
}

#[test]
fn pictures_are_prepared_as_transformers_does() {
    let settings = fs::read_to_string(fixtures().join("vision/pictures.json")).unwrap();
    let settings: serde_json::Map<String, Value> = serde_json::from_str(&settings).unwrap();
    let reference = Reference::read(&fixtures().join("vision/pictures.safetensors"));
    assert_eq!(settings.len(), 19);
    for (name, files) in &settings {
        let folder = clip_of(files);
        let config = PretrainedClip::open(folder.path()).unwrap().config().clone();
        let pictures: [Picture; 2] = [picture(61, 47), picture(30, 80)];
        let found: Vec<f32> =
            pictures.iter().flat_map(|picture| config.pixels(picture).unwrap()).collect();
        let expected = reference.values(name);
        if config.pictures.size.is_none() {
            assert_values(name, &found, expected);
            continue;
        }
        // Resizing rounds in another place than Pillow does: a step of eight bits, over the
        // smallest deviation of a channel.
        let off = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
        let worst = off.fold(0.0, f32::max);
        assert!(worst < 1.01 / 255.0 / 0.2, "{name}: {worst}");
    }
}

#[test]
fn preparations_that_do_not_fit_are_refused() {
    let error = |key: &str, value: Value| {
        let settings = fs::read_to_string(fixtures().join("vision/pictures.json")).unwrap();
        let settings: Value = serde_json::from_str(&settings).unwrap();
        let mut files = settings["filter.3"].clone();
        files["preprocessor_config.json"][key] = value;
        let folder = clip_of(&files);
        PretrainedClip::open(folder.path()).unwrap_err().to_string()
    };
    use serde_json::json;
    for (key, value) in [
        ("crop_size", json!({"height": 8, "width": 9})),
        ("crop_size", json!({"shortest_edge": 8})),
        ("crop_size", json!([8])),
        ("crop_size", json!(0)),
        ("do_center_crop", json!(false)),
        ("do_center_crop", json!("yes")),
        ("size", json!({"longest_edge": 8})),
        ("size", json!({"shortest_edge": 8, "longest_edge": 9})),
        ("size", json!({"height": 8})),
        ("size", json!({"height": 0, "width": 8})),
        ("resample", json!(6)),
        ("resample", json!("bicubic")),
        ("image_mean", json!([0.5, 0.5])),
        ("image_std", json!([0.5, 0.0, 0.5])),
        ("data_format", json!("channels_last")),
        ("do_pad", json!(true)),
        ("image_processor_type", json!("SiglipImageProcessor")),
        ("do_sharpen", json!(true)),
    ] {
        let error = error(key, value.clone());
        assert!(error.contains(key) && error.contains("preprocessor_config"), "{value}: {error}");
    }
}

#[test]
fn short_sounds_are_padded_as_transformers_does() {
    let reference = Reference::read(&fixtures().join("sound/paddings.safetensors"));
    for padding in ["repeatpad", "repeat", "pad"] {
        let folder = copy(&fixtures().join("sound/clap"));
        let path = folder.path().join("preprocessor_config.json");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, text.replace("\"repeatpad\"", &format!("{padding:?}"))).unwrap();
        let config = PretrainedClap::open(folder.path()).unwrap().config().clone();
        let sound = Sound::new(8000, reference.values("samples").to_vec()).unwrap();
        let bank = config.mel_bank().unwrap();
        let heard = config.spectrograms(&bank, &sound, 1).unwrap().remove(0);
        assert_eq!(heard.len(), reference.values(padding).len());
        // In decibels.
        for (found, expected) in heard.iter().zip(reference.values(padding)) {
            assert!((found - expected).abs() < 1e-2, "{padding}: {found}, {expected}");
        }
    }
}
