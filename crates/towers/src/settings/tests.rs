//! Every field of every table does what the table says, the documentation has the same tables, and
//! the settings of published models are read.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::{clap, clap_pair, clip, clip_pair};
use crate::{PretrainedClap, PretrainedClip};

#[path = "../../../../src/pretrained/settings/table_tests.rs"]
mod table_tests;
use cart_retrieval::{
    Result,
    members::settings::{CLIP, Fields, GENERAL, PREPROCESSOR, PROCESSOR, Rule, Table},
};
use table_tests::{File, check_fields, check_page, fixture, folder_of, with};

/// Where `tests` and `docs` are.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn open_clip(folder: &Path) -> Result<()> {
    PretrainedClip::open(folder).map(drop)
}

fn open_clap(folder: &Path) -> Result<()> {
    PretrainedClap::open(folder).map(drop)
}

fn files() -> Vec<File> {
    const CONFIG: &str = "config.json";
    let picture = json!({"image_processor": {"size": 24, "crop_size": 24}});
    let sound = fs::read_to_string(fixture("sound/clap").join(PREPROCESSOR)).unwrap();
    let sound: Value = serde_json::from_str(&sound).unwrap();
    let sound = json!({"feature_extractor": sound});
    vec![
        File::of("`config.json` of CLIP", CLIP, "vision/clip", CONFIG, "", open_clip),
        File::of(
            "CLIP: `vision_config`",
            clip::CLIP_VISION,
            "vision/clip",
            CONFIG,
            "/vision_config",
            open_clip,
        ),
        File::of("`config.json` of CLAP", clap::CLAP, "sound/clap", CONFIG, "", open_clap),
        File::of(
            "CLAP: `text_config`",
            clap::CLAP_TEXT,
            "sound/clap",
            CONFIG,
            "/text_config",
            open_clap,
        ),
        File::of(
            "CLAP: `audio_config`",
            clap::CLAP_AUDIO,
            "sound/clap",
            CONFIG,
            "/audio_config",
            open_clap,
        ),
        File::added(
            "`processor_config.json` of CLIP",
            clip::CLIP_PROCESSOR,
            "vision/clip",
            PROCESSOR,
            picture,
            "",
            open_clip,
        ),
        File::of(
            "Pictures for CLIP: `image_processor`, or `preprocessor_config.json`",
            clip::CLIP_PICTURES,
            "vision/clip",
            PREPROCESSOR,
            "",
            open_clip,
        ),
        File::added(
            "`processor_config.json` of CLAP",
            clip::CLAP_PROCESSOR,
            "sound/clap",
            PROCESSOR,
            sound,
            "",
            open_clap,
        ),
        File::of(
            "Sounds for CLAP: `feature_extractor`, or `preprocessor_config.json`",
            clap::CLAP_SOUNDS,
            "sound/clap",
            PREPROCESSOR,
            "",
            open_clap,
        ),
    ]
}

#[test]
fn every_field_of_every_file_is_treated_as_its_table_says() {
    check_fields(files());
}

#[test]
fn the_tables_of_the_documentation_are_those_of_the_code() {
    check_page("media encoders", false, &files());
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
