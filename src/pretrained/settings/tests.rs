//! Every field of every table does what the table says, the documentation has the same tables, and
//! the settings of published models are read.

use std::path::Path;

use serde_json::json;

use super::{
    fields::{Fields, GENERAL, Rule, Table},
    sentence, text, tokenizer,
};
use crate::{error::Result, pretrained::PretrainedText};

#[path = "table_tests.rs"]
mod table_tests;
use table_tests::{File, check_fields, check_page, folder_of, with};

/// Where `tests` and `docs` are.
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read_text(folder: &Path) -> Result<()> {
    super::text(folder).map(drop)
}

/// With the tokenizer.
fn open_text(folder: &Path) -> Result<()> {
    PretrainedText::open(folder).map(drop)
}

fn files() -> Vec<File> {
    const CONFIG: &str = "config.json";
    let modules = json!([
        {"type": "sentence_transformers.models.Transformer", "path": ""},
        {"type": "sentence_transformers.models.Normalize"},
    ]);
    let prompts = json!({"prompts": {"query": ""}, "default_prompt_name": "query"});
    vec![
        File::of("`config.json` of BERT", text::BERT, "text/bert", CONFIG, "", read_text),
        File::of(
            "`config.json` of RoBERTa and XLM-RoBERTa",
            text::ROBERTA,
            "text/roberta",
            CONFIG,
            "",
            read_text,
        ),
        File::of("`config.json` of T5 and mT5", text::T5, "text/t5_gated", CONFIG, "", read_text),
        File::of(
            "CLIP: `text_config`, and `config.json` of the text tower alone",
            text::CLIP_TEXT,
            "vision/clip",
            CONFIG,
            "/text_config",
            read_text,
        ),
        File::added(
            "`modules.json` of sentence-transformers",
            sentence::MODULE,
            "text/bert",
            "modules.json",
            modules,
            "/0",
            read_text,
        ),
        File::added(
            "`1_Pooling/config.json`",
            sentence::POOLING,
            "text/bert",
            "1_Pooling/config.json",
            json!({}),
            "",
            read_text,
        ),
        File::added(
            "`sentence_bert_config.json`",
            sentence::ENCODER,
            "text/bert",
            "sentence_bert_config.json",
            json!({}),
            "",
            read_text,
        ),
        File::added(
            "`config_sentence_transformers.json`",
            sentence::WHOLE_FIELDS,
            "text/bert",
            "config_sentence_transformers.json",
            prompts,
            "",
            read_text,
        ),
        File::added(
            "`tokenizer_config.json`",
            tokenizer::TOKENIZER,
            "text/bert",
            "tokenizer_config.json",
            json!({}),
            "",
            open_text,
        ),
        File::added(
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

#[test]
fn every_field_of_every_file_is_treated_as_its_table_says() {
    check_fields(files());
}

#[test]
fn the_tables_of_the_documentation_are_those_of_the_code() {
    check_page("text encoders", true, &files());
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
