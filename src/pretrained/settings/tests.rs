//! Every field of every table does what the table says, the documentation has the same tables, and
//! the settings of published models are read.

use std::{fs, path::Path};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    clap, clap_pair, clip, clip_pair,
    fields::{Fields, GENERAL, Rule, Table},
    file::{PREPROCESSOR, PROCESSOR},
    sentence, text, tokenizer,
};
use crate::{
    error::Result,
    pretrained::{PretrainedClap, PretrainedClip, PretrainedText},
};

type Load = fn(&Path) -> Result<()>;

/// A file, or a part of one, with a table.
struct File {
    title: &'static str,
    table: Table,
    /// The folder below `tests/fixtures` that the file is added to.
    fixture: &'static str,
    name: &'static str,
    /// What the file holds; where null, that of the fixture.
    base: Value,
    /// Where in the file the fields are, as a JSON pointer.
    part: &'static str,
    load: Load,
}

fn read_text(folder: &Path) -> Result<()> {
    super::text(folder).map(drop)
}

/// With the tokenizer.
fn open_text(folder: &Path) -> Result<()> {
    PretrainedText::open(folder).map(drop)
}

fn open_clip(folder: &Path) -> Result<()> {
    PretrainedClip::open(folder).map(drop)
}

fn open_clap(folder: &Path) -> Result<()> {
    PretrainedClap::open(folder).map(drop)
}

fn files() -> Vec<File> {
    let file = |title, table, fixture, name, part, load| {
        let base = Value::Null;
        File { title, table, fixture, name, base, part, load }
    };
    let added = |title, table, fixture, name, base, part, load| File {
        title,
        table,
        fixture,
        name,
        base,
        part,
        load,
    };
    const CONFIG: &str = "config.json";
    let modules = json!([
        {"type": "sentence_transformers.models.Transformer", "path": ""},
        {"type": "sentence_transformers.models.Normalize"},
    ]);
    let prompts = json!({"prompts": {"query": ""}, "default_prompt_name": "query"});
    let picture = json!({"image_processor": {"size": 24, "crop_size": 24}});
    let sound = fs::read_to_string(fixture("sound/clap").join(PREPROCESSOR)).unwrap();
    let sound: Value = serde_json::from_str(&sound).unwrap();
    let sound = json!({"feature_extractor": sound});
    vec![
        file("`config.json` of BERT", text::BERT, "text/bert", CONFIG, "", read_text),
        file(
            "`config.json` of RoBERTa and XLM-RoBERTa",
            text::ROBERTA,
            "text/roberta",
            CONFIG,
            "",
            read_text,
        ),
        file("`config.json` of T5 and mT5", text::T5, "text/t5_gated", CONFIG, "", read_text),
        file("`config.json` of CLIP", text::CLIP, "vision/clip", CONFIG, "", open_clip),
        file(
            "CLIP: `text_config`, and `config.json` of the text tower alone",
            text::CLIP_TEXT,
            "vision/clip",
            CONFIG,
            "/text_config",
            open_clip,
        ),
        file(
            "CLIP: `vision_config`",
            clip::CLIP_VISION,
            "vision/clip",
            CONFIG,
            "/vision_config",
            open_clip,
        ),
        file("`config.json` of CLAP", clap::CLAP, "sound/clap", CONFIG, "", open_clap),
        file(
            "CLAP: `text_config`",
            clap::CLAP_TEXT,
            "sound/clap",
            CONFIG,
            "/text_config",
            open_clap,
        ),
        file(
            "CLAP: `audio_config`",
            clap::CLAP_AUDIO,
            "sound/clap",
            CONFIG,
            "/audio_config",
            open_clap,
        ),
        added(
            "`processor_config.json` of CLIP",
            clip::CLIP_PROCESSOR,
            "vision/clip",
            PROCESSOR,
            picture,
            "",
            open_clip,
        ),
        file(
            "Pictures for CLIP: `image_processor`, or `preprocessor_config.json`",
            clip::CLIP_PICTURES,
            "vision/clip",
            PREPROCESSOR,
            "",
            open_clip,
        ),
        added(
            "`processor_config.json` of CLAP",
            clip::CLAP_PROCESSOR,
            "sound/clap",
            PROCESSOR,
            sound,
            "",
            open_clap,
        ),
        file(
            "Sounds for CLAP: `feature_extractor`, or `preprocessor_config.json`",
            clap::CLAP_SOUNDS,
            "sound/clap",
            PREPROCESSOR,
            "",
            open_clap,
        ),
        added(
            "`modules.json` of sentence-transformers",
            sentence::MODULE,
            "text/bert",
            "modules.json",
            modules,
            "/0",
            read_text,
        ),
        added(
            "`1_Pooling/config.json`",
            sentence::POOLING,
            "text/bert",
            "1_Pooling/config.json",
            json!({}),
            "",
            read_text,
        ),
        added(
            "`sentence_bert_config.json`",
            sentence::ENCODER,
            "text/bert",
            "sentence_bert_config.json",
            json!({}),
            "",
            read_text,
        ),
        added(
            "`config_sentence_transformers.json`",
            sentence::WHOLE_FIELDS,
            "text/bert",
            "config_sentence_transformers.json",
            prompts,
            "",
            read_text,
        ),
        added(
            "`tokenizer_config.json`",
            tokenizer::TOKENIZER,
            "text/bert",
            "tokenizer_config.json",
            json!({}),
            "",
            open_text,
        ),
        added(
            "`special_tokens_map.json`",
            tokenizer::SPECIAL_TOKENS,
            "text/bert",
            "special_tokens_map.json",
            json!({}),
            "",
            open_text,
        ),
    ]
}

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The settings of a fixture, without its weights.
fn copy(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(name)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    folder
}

/// Values that no field of any kind may have, all of another type.
fn odd() -> [Value; 4] {
    [json!({"?": 1}), json!([[]]), json!("?"), json!(-1)]
}

#[test]
fn every_field_of_every_file_is_treated_as_its_table_says() {
    for file in files() {
        let folder = copy(file.fixture);
        let path = folder.path().join(file.name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let base = match &file.base {
            Value::Null => serde_json::from_slice(&fs::read(&path).unwrap()).unwrap(),
            base => base.clone(),
        };
        let load = |name: &str, value: &Value| {
            let mut edited = base.clone();
            let part = edited.pointer_mut(file.part).unwrap().as_object_mut().unwrap();
            part.insert(name.into(), value.clone());
            fs::write(&path, edited.to_string()).unwrap();
            (file.load)(folder.path()).map_err(|error| error.to_string())
        };
        load("no_such_field", &Value::Null).unwrap();
        let unknown = load("no_such_field", &json!(1)).unwrap_err();
        assert!(unknown.contains("no_such_field") && unknown.contains("docs/encoders.md"));
        let mut seen = Vec::new();
        for fields in file.table.iter().flat_map(|part| part.iter()) {
            for name in fields.names() {
                if seen.contains(&name) {
                    continue;
                }
                seen.push(name);
                let context = format!("{}, {name}", file.title);
                let errors = odd().map(|value| load(name, &value).err());
                let named = |error: &String| error.contains(name);
                match fields.rule {
                    Rule::Followed(_) => {
                        assert!(errors.iter().flatten().any(named), "{context}: {errors:?}");
                    }
                    Rule::Harmless(_) => {
                        assert!(errors.iter().all(Option::is_none), "{context}: {errors:?}");
                    }
                    Rule::Refused(_) => {
                        assert!(errors.iter().flatten().filter(|e| named(e)).count() == 4);
                        load(name, &Value::Null).unwrap();
                    }
                    Rule::Only(accepted, _) => {
                        assert!(errors.iter().flatten().filter(|e| named(e)).count() == 4);
                        for value in accepted {
                            let value = serde_json::from_str(value).unwrap();
                            load(name, &value).unwrap_or_else(|e| panic!("{context}: {e}"));
                        }
                    }
                }
            }
        }
    }
}

/// The tables in Markdown.
fn markdown() -> String {
    let mut text = String::new();
    let mut add = |title: &str, parts: &mut dyn Iterator<Item = &'static Fields>| {
        text += &format!("\n### {title}\n| fields | what is done |\n|---|---|\n");
        for fields in parts {
            let names: Vec<String> = fields.names().map(|name| format!("`{name}`")).collect();
            let rule = match fields.rule {
                Rule::Followed(what) => format!("followed: {what}"),
                Rule::Only(values, why) => {
                    format!("only `{}`: {why}", values.join("`, `").replace('|', "\\|"))
                }
                Rule::Harmless(why) => format!("harmless: {why}"),
                Rule::Refused(why) => format!("refused: {why}"),
            };
            text += &format!("| {} | {rule} |\n", names.join(", "));
        }
    };
    // By content: a constant has no address of its own.
    let general = |part: &&'static [Fields]| {
        part.len() == GENERAL.len() && part[1].names().eq(GENERAL[1].names())
    };
    add("Fields of every `config.json`", &mut GENERAL.iter());
    for file in files() {
        let parts = file.table.iter().copied().filter(|part| !general(part));
        add(file.title, &mut parts.flat_map(|part| part.iter()));
    }
    text
}

/// `CART_WRITE_DOCS=1` writes the tables into the page.
#[test]
fn the_tables_of_the_documentation_are_those_of_the_code() {
    const START: &str = "<!-- fields -->\n";
    const END: &str = "<!-- end of fields -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/encoders.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(START).expect("where the tables start");
    let (found, after) = rest.split_once(END).expect("where the tables end");
    let wanted = markdown();
    if std::env::var_os("CART_WRITE_DOCS").is_some() {
        fs::write(&path, format!("{before}{START}{wanted}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(found, wanted, "run this test with CART_WRITE_DOCS=1");
}

/// What transformers 4 wrote for the part of a model.
fn dump(more: Value) -> Value {
    const GENERAL: &str = r#"{
        "_name_or_path": "", "add_cross_attention": false, "architectures": null, "bad_words_ids": null,
        "begin_suppress_tokens": null, "bos_token_id": 0, "chunk_size_feed_forward": 0,
        "cross_attention_hidden_size": null, "decoder_start_token_id": null, "diversity_penalty": 0.0,
        "do_sample": false, "early_stopping": false, "encoder_no_repeat_ngram_size": 0, "eos_token_id": 2,
        "exponential_decay_length_penalty": null, "finetuning_task": null, "forced_bos_token_id": null,
        "forced_eos_token_id": null, "id2label": {"0": "LABEL_0"}, "initializer_factor": 1.0,
        "is_decoder": false, "is_encoder_decoder": false, "label2id": {"LABEL_0": 0}, "length_penalty": 1.0,
        "max_length": 20, "min_length": 0, "no_repeat_ngram_size": 0, "num_beam_groups": 1, "num_beams": 1,
        "num_return_sequences": 1, "output_attentions": false, "output_hidden_states": false,
        "output_scores": false, "pad_token_id": 1, "prefix": null, "problem_type": null, "pruned_heads": {},
        "remove_invalid_values": false, "repetition_penalty": 1.0, "return_dict": true,
        "return_dict_in_generate": false, "sep_token_id": null, "suppress_tokens": null,
        "task_specific_params": null, "temperature": 1.0, "tf_legacy_loss": false,
        "tie_encoder_decoder": false, "tie_word_embeddings": true, "tokenizer_class": null, "top_k": 50,
        "top_p": 1.0, "torch_dtype": null, "torchscript": false, "transformers_version": "4.27.0",
        "typical_p": 1.0, "use_bfloat16": false
    }"#;
    let mut all: Value = serde_json::from_str(GENERAL).unwrap();
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

fn with(base: &Value, more: Value) -> Value {
    let mut all = base.clone();
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

/// A folder with a `config.json`.
fn folder_of(config: &Value) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

/// With the fields that the files of well-known models have.
#[test]
fn settings_of_published_text_models_are_read() {
    let bert = json!({
        "architectures": ["BertForMaskedLM"], "attention_probs_dropout_prob": 0.1, "gradient_checkpointing": false,
        "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 768, "initializer_range": 0.02,
        "intermediate_size": 3072, "layer_norm_eps": 1e-12, "max_position_embeddings": 512,
        "model_type": "bert", "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 0,
        "position_embedding_type": "absolute", "transformers_version": "4.6.0.dev0", "type_vocab_size": 2,
        "use_cache": true, "vocab_size": 30522
    });
    let multilingual = json!({
        "directionality": "bidi", "pooler_fc_size": 768, "pooler_num_attention_heads": 12,
        "pooler_num_fc_layers": 3, "pooler_size_per_head": 128, "pooler_type": "first_token_transform",
        "vocab_size": 119547
    });
    let bge = json!({
        "_name_or_path": "/root/.cache/", "classifier_dropout": null, "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0}, "torch_dtype": "float32", "hidden_size": 384, "intermediate_size": 1536
    });
    let roberta = json!({
        "architectures": ["RobertaForMaskedLM"], "attention_probs_dropout_prob": 0.1, "bos_token_id": 0,
        "eos_token_id": 2, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 768,
        "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-5,
        "max_position_embeddings": 514, "model_type": "roberta", "num_attention_heads": 12,
        "num_hidden_layers": 12, "pad_token_id": 1, "type_vocab_size": 1, "vocab_size": 50265
    });
    let xlm = json!({"model_type": "xlm-roberta", "output_past": true, "vocab_size": 250002});
    let t5 = json!({
        "architectures": ["T5ForConditionalGeneration"], "d_ff": 2048, "d_kv": 64, "d_model": 512,
        "decoder_start_token_id": 0, "dropout_rate": 0.1, "eos_token_id": 1, "initializer_factor": 1.0,
        "is_encoder_decoder": true, "layer_norm_epsilon": 1e-6, "model_type": "t5", "n_positions": 512,
        "num_heads": 8, "num_layers": 6, "output_past": true, "pad_token_id": 0,
        "relative_attention_num_buckets": 32, "vocab_size": 32128, "use_cache": true,
        "task_specific_params": {"summarization": {"num_beams": 4, "prefix": "summarize: "}}
    });
    let flan = json!({
        "feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new", "is_gated_act": true,
        "relative_attention_max_distance": 128, "tie_word_embeddings": false, "num_decoder_layers": 12,
        "transformers_version": "4.23.1", "gradient_checkpointing": false
    });
    let mt5 = json!({
        "model_type": "mt5", "feed_forward_proj": "gated-gelu", "tokenizer_class": "T5Tokenizer",
        "tie_word_embeddings": false, "vocab_size": 250112, "d_ff": 1024, "num_heads": 6, "num_layers": 8
    });
    let models = [
        (bert.clone(), 512),
        (with(&bert, multilingual), 512),
        (with(&bert, bge), 512),
        (roberta.clone(), 512),
        (with(&roberta, xlm), 512),
        (t5.clone(), 512),
        (with(&t5, flan), 512),
        (with(&t5, mt5), 512),
    ];
    for (config, tokens) in models {
        let folder = folder_of(&config);
        let found = super::text(folder.path()).unwrap();
        assert_eq!(found.config.max_tokens(), tokens, "{config}");
    }
}

#[test]
fn settings_of_published_clips_and_claps_are_read() {
    let old = dump(json!({
        "attention_dropout": 0.0, "dropout": 0.0, "hidden_act": "quick_gelu", "initializer_range": 0.02,
        "layer_norm_eps": 1e-5, "projection_dim": 512
    }));
    let text = with(
        &old,
        json!({
            "hidden_size": 512, "intermediate_size": 2048, "max_position_embeddings": 77,
            "model_type": "clip_text_model", "num_attention_heads": 8, "num_hidden_layers": 12, "vocab_size": 49408
        }),
    );
    let vision = with(
        &old,
        json!({
            "hidden_size": 768, "image_size": 224, "intermediate_size": 3072, "model_type": "clip_vision_model",
            "num_attention_heads": 12, "num_channels": 3, "num_hidden_layers": 12, "patch_size": 32
        }),
    );
    let openai = json!({
        "_commit_hash": null, "architectures": ["CLIPModel"], "initializer_factor": 1.0,
        "logit_scale_init_value": 2.6592, "model_type": "clip", "projection_dim": 512, "text_config": text,
        "text_config_dict": null, "torch_dtype": "float32", "transformers_version": null,
        "vision_config": vision, "vision_config_dict": null
    });
    let older = json!({
        "text_config_dict": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
            "num_hidden_layers": 12, "projection_dim": 768},
        "vision_config_dict": {"hidden_size": 1024, "image_size": 336, "intermediate_size": 4096,
            "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768},
        "projection_dim": 768
    });
    let picture = |side: u64| {
        json!({
            "crop_size": side, "do_center_crop": true, "do_normalize": true, "do_resize": true,
            "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": side
        })
    };
    for (config, side) in [(openai.clone(), 224), (with(&openai, older), 336)] {
        let folder = folder_of(&config);
        fs::write(folder.path().join(PREPROCESSOR), picture(side as u64).to_string()).unwrap();
        let found = clip_pair(folder.path()).unwrap();
        assert_eq!((found.vision.image_size, found.pictures.crop), (side, Some([side; 2])));
        assert_eq!(found.text.d_model, if side == 224 { 512 } else { 768 });
        // The other preparation does not fit the tower.
        let other = picture(560 - side as u64);
        fs::write(folder.path().join(PREPROCESSOR), other.to_string()).unwrap();
        assert!(clip_pair(folder.path()).unwrap_err().to_string().contains("crop_size"));
    }
    let audio = dump(json!({
        "model_type": "clap_audio_model", "window_size": 8, "num_mel_bins": 64, "spec_size": 256,
        "hidden_act": "gelu", "patch_size": 4, "patch_stride": [4, 4], "num_classes": 527, "hidden_size": 768,
        "projection_dim": 512, "depths": [2, 2, 6, 2], "num_attention_heads": [4, 8, 16, 32],
        "num_hidden_layers": 4, "enable_fusion": false, "enable_patch_fusion": false,
        "fusion_num_hidden_layers": 2, "hidden_dropout_prob": 0.1, "fusion_type": null,
        "patch_embed_input_channels": 1, "flatten_patch_embeds": true, "patch_embeds_hidden_size": 96,
        "enable_patch_layer_norm": true, "drop_path_rate": 0.0, "attention_probs_dropout_prob": 0.0,
        "qkv_bias": true, "mlp_ratio": 4.0, "aff_block_r": 4, "projection_hidden_act": "relu",
        "layer_norm_eps": 1e-5
    }));
    let text = dump(json!({
        "model_type": "clap_text_model", "vocab_size": 50265, "hidden_size": 768, "num_hidden_layers": 12,
        "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1, "max_position_embeddings": 514, "type_vocab_size": 1,
        "layer_norm_eps": 1e-12, "projection_dim": 512, "projection_hidden_act": "relu",
        "position_embedding_type": "absolute", "use_cache": true, "fusion_hidden_size": 768,
        "fusion_num_hidden_layers": 2, "classifier_dropout": null
    }));
    let laion = json!({
        "architectures": ["ClapModel"], "audio_config": audio, "text_config": text, "hidden_size": 768,
        "num_hidden_layers": 16, "projection_dim": 512, "projection_hidden_act": "relu", "model_type": "clap",
        "logit_scale_init_value": 14.285714285714285, "initializer_factor": 1.0, "torch_dtype": "float32"
    });
    let sound = json!({
        "chunk_length_s": 10, "feature_extractor_type": "ClapFeatureExtractor", "feature_size": 64,
        "fft_window_size": 1024, "frequency_max": 14000, "frequency_min": 50, "hop_length": 480,
        "max_length_s": 10, "n_fft": 1024, "nb_frequency_bins": 513, "nb_max_frames": 1000,
        "nb_max_samples": 480000, "padding": "repeatpad", "padding_side": "right", "padding_value": 0.0,
        "processor_class": "ClapProcessor", "return_attention_mask": false, "sampling_rate": 48000,
        "top_db": null, "truncation": "rand_trunc"
    });
    let folder = folder_of(&laion);
    fs::write(folder.path().join(PREPROCESSOR), sound.to_string()).unwrap();
    let found = clap_pair(folder.path()).unwrap();
    assert_eq!((found.audio.mels, found.sounds.low), (64, 50.0));
    // As transformers 5 writes it; it counts where both are there.
    let nested = json!({"feature_extractor": with(&sound, json!({"frequency_min": 60}))});
    fs::write(folder.path().join(PROCESSOR), nested.to_string()).unwrap();
    assert_eq!(clap_pair(folder.path()).unwrap().sounds.low, 60.0);
    let fused = with(&sound, json!({"truncation": null}));
    fs::write(folder.path().join(PROCESSOR), json!({"audio_processor": fused}).to_string())
        .unwrap();
    assert!(clap_pair(folder.path()).unwrap_err().to_string().contains("truncation"));
}
