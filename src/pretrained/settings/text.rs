//! `config.json` of text encoders: BERT and its kin, T5, the text tower of CLIP.

use std::path::{Path, PathBuf};

use super::{
    fields::{Fields, GENERAL, Table, followed, harmless, only},
    file::{Settings, activation},
    sentence::sentence,
};
use crate::{
    error::{Error, Result},
    nn::{BertConfig, ClipTextConfig, Pooling, T5Config, TextEncoderConfig},
};

/// Values of `model_type` that can be read.
const SUPPORTED: &str = "bert, roberta, xlm-roberta, t5, mt5, clip, clip_text_model";

/// Fields of BERT, and of the text tower of CLAP.
pub const BERT_FIELDS: &[Fields] = &[
    followed(&["vocab_size", "hidden_size", "intermediate_size"], "sizes"),
    followed(&["num_hidden_layers", "num_attention_heads"], "layers and heads"),
    followed(
        &["max_position_embeddings", "type_vocab_size"],
        "rows of the tables of positions and of token types",
    ),
    followed(&["hidden_act"], "activation: relu, gelu, gelu_new, gelu_pytorch_tanh or quick_gelu"),
    followed(&["layer_norm_eps"], "epsilon of the norms"),
    followed(
        &["hidden_dropout_prob", "attention_probs_dropout_prob"],
        "dropout while training, unless set otherwise",
    ),
    only(&["position_embedding_type"], &["\"absolute\""], "relative positions are not supported"),
    harmless(
        &["directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers \
          pooler_size_per_head pooler_type"],
        "the pooler is not read",
    ),
];

/// `config.json` of BERT.
pub(super) const BERT: Table = &[BERT_FIELDS, GENERAL];

/// `config.json` of RoBERTa and XLM-RoBERTa.
pub(super) const ROBERTA: Table = &[ROBERTA_FIELDS, BERT_FIELDS, GENERAL];

/// Fields of RoBERTa in which it differs from BERT.
pub const ROBERTA_FIELDS: &[Fields] = &[followed(&["pad_token_id"], "positions start behind it")];

/// `config.json` of T5 and mT5.
pub(super) const T5: Table = &[
    &[
        followed(&["vocab_size", "d_model", "d_kv", "d_ff"], "sizes"),
        followed(&["num_layers", "num_heads"], "layers of the encoder, and heads"),
        followed(&["n_positions"], "the longest text; 512 if absent"),
        followed(
            &["relative_attention_num_buckets", "relative_attention_max_distance"],
            "classes of distances",
        ),
        followed(
            &["feed_forward_proj"],
            "activation and gate: relu, gelu, gelu_new, gated-gelu or gated-relu",
        ),
        followed(&["dense_act_fn", "is_gated_act"], "must agree with `feed_forward_proj`"),
        followed(&["layer_norm_epsilon"], "epsilon of the norms"),
        followed(&["dropout_rate"], "dropout while training, unless set otherwise"),
        harmless(&["num_decoder_layers", "scale_decoder_outputs"], "the decoder is not read"),
    ],
    GENERAL,
];

/// Fields of CLIP's text tower.
pub(super) const CLIP_TEXT: Table = &[
    &[
        only(&["model_type"], &["\"clip_text_model\""], "another family"),
        followed(&["vocab_size", "hidden_size", "intermediate_size"], "sizes"),
        followed(&["num_hidden_layers", "num_attention_heads"], "layers and heads"),
        followed(&["max_position_embeddings"], "rows of the table of positions"),
        followed(
            &["hidden_act"],
            "activation: relu, gelu, gelu_new, gelu_pytorch_tanh or quick_gelu",
        ),
        followed(&["layer_norm_eps"], "epsilon of the norms"),
        followed(&["attention_dropout"], "dropout while training, unless set otherwise"),
        followed(
            &["eos_token_id"],
            "the token whose vector stands for the text; the tokenizer must put it last",
        ),
        harmless(&["projection_dim"], "that of the whole model counts"),
        harmless(&["dropout"], "transformers does not use it either"),
    ],
    GENERAL,
];

/// `config.json` of CLIP: both towers.
pub const CLIP: Table = &[
    &[
        followed(&["text_config", "vision_config"], "the towers"),
        followed(
            &["text_config_dict", "vision_config_dict"],
            "older files have them; read instead of the towers' other settings, as in transformers",
        ),
        followed(&["projection_dim"], "width of the common space"),
        harmless(&["logit_scale_init_value"], "scale of the loss"),
    ],
    GENERAL,
];

/// What a folder says about its text encoder.
#[derive(Debug)]
pub(in crate::pretrained) struct TextSettings {
    /// Where `config.json`, the tokenizer and the weights are.
    pub folder: PathBuf,
    /// Shape of the encoder.
    pub config: TextEncoderConfig,
    /// The longest text, where sentence-transformers limits it.
    pub max_tokens: Option<usize>,
    /// Whether texts are put into lower case first.
    pub lower_case: bool,
    /// The token whose vector stands for a text, where the model names it.
    pub end: Option<Vec<u32>>,
}

/// The settings of the text encoder in a folder.
pub(in crate::pretrained) fn text(folder: &Path) -> Result<TextSettings> {
    let sentence = sentence(folder)?;
    let folder = folder.join(&sentence.encoder);
    let settings = Settings::read(&folder.join("config.json"))?;
    let mut end = None;
    let config = match settings.text_or("model_type", "none")? {
        "bert" => {
            settings.check(BERT)?;
            bert_config(&settings, 0)?.into()
        }
        "roberta" | "xlm-roberta" => {
            settings.check(ROBERTA)?;
            roberta_config(&settings)?.into()
        }
        "t5" | "mt5" => t5(&settings)?,
        "clip" => {
            settings.check(CLIP)?;
            let (config, ends) = clip_text(&tower(&settings, "text_config")?)?;
            end = Some(ends);
            config.into()
        }
        "clip_text_model" => {
            let (config, ends) = clip_text(&settings)?;
            end = Some(ends);
            config.into()
        }
        other => {
            let expected = format!("one of {SUPPORTED}");
            return Err(settings.problem("model_type", &expected, format!("{other:?}")));
        }
    };
    config.validate()?;
    if let Some((path, width)) = sentence.width
        && width != config.d_model()
    {
        return Err(Error::model(path.display().to_string())
            .expected(format!("width {} of the encoder", config.d_model()))
            .found(width.to_string())
            .fix("take all files from one model"));
    }
    let config = match sentence.pooling {
        Some(pooling) => config.with_pooling(pooling),
        None => config,
    };
    let (max_tokens, lower_case) = (sentence.max_tokens, sentence.lower_case);
    Ok(TextSettings { folder, config, max_tokens, lower_case, end })
}

/// The settings of a tower within those of CLIP.
pub fn tower(settings: &Settings, key: &str) -> Result<Settings> {
    match settings.object(&format!("{key}_dict"))? {
        Some(older) => {
            settings.object(key)?;
            Ok(older)
        }
        None => settings.object_or_empty(key),
    }
}

/// The shape of a RoBERTa.
///
/// # Errors
/// [`Error::Model`] for a setting that is missing or none.
pub fn roberta_config(settings: &Settings) -> Result<BertConfig> {
    let first = settings.size_or("pad_token_id", 1)? + 1;
    bert_config(settings, first)
}

fn bert_config(settings: &Settings, first_position: usize) -> Result<BertConfig> {
    Ok(BertConfig {
        vocabulary: settings.size("vocab_size")?,
        positions: settings.size("max_position_embeddings")?,
        first_position,
        token_types: settings.size_or("type_vocab_size", 2)?,
        d_model: settings.size("hidden_size")?,
        d_ff: settings.size("intermediate_size")?,
        n_heads: settings.size("num_attention_heads")?,
        n_layers: settings.size("num_hidden_layers")?,
        activation: settings.activation("hidden_act", "gelu")?,
        norm_epsilon: settings.number_or("layer_norm_eps", 1e-12)?,
        dropout: settings.number_or("hidden_dropout_prob", 0.1)?,
        attention_dropout: settings.number_or("attention_probs_dropout_prob", 0.1)?,
        pooling: Pooling::Mean,
    })
}

fn t5(settings: &Settings) -> Result<TextEncoderConfig> {
    const BLOCKS: &str = "feed_forward_proj";
    settings.check(T5)?;
    let is_mt5 = settings.text_or("model_type", "t5")? == "mt5";
    let blocks = settings.text_or(BLOCKS, if is_mt5 { "gated-gelu" } else { "relu" })?;
    // "gated-gelu" is the approximation by tanh, whatever its name.
    let (gated, name) = match blocks.strip_prefix("gated-") {
        Some("gelu") => (true, "gelu_new"),
        Some(name) => (true, name),
        None => (false, blocks),
    };
    let activation = activation(name).ok_or_else(|| {
        settings.problem(BLOCKS, "relu, gelu, gelu_new, gated-gelu or gated-relu", blocks)
    })?;
    settings.must_be("dense_act_fn", name, name)?;
    if settings.flag_or("is_gated_act", gated)? != gated {
        let expected = format!("{gated}, as {BLOCKS} {blocks:?} says");
        return Err(settings.problem("is_gated_act", &expected, !gated));
    }
    Ok(T5Config {
        vocabulary: settings.size("vocab_size")?,
        max_tokens: settings.size_or("n_positions", 512)?,
        d_model: settings.size("d_model")?,
        d_kv: settings.size("d_kv")?,
        d_ff: settings.size("d_ff")?,
        n_heads: settings.size("num_heads")?,
        n_layers: settings.size("num_layers")?,
        buckets: settings.size_or("relative_attention_num_buckets", 32)?,
        max_distance: settings.size_or("relative_attention_max_distance", 128)?,
        activation,
        gated,
        norm_epsilon: settings.number_or("layer_norm_epsilon", 1e-6)?,
        dropout: settings.number_or("dropout_rate", 0.1)?,
        pooling: Pooling::Mean,
    }
    .into())
}

/// The text tower of CLIP, and the tokens that may end a text. A field that is absent has its usual
/// value.
pub fn clip_text(settings: &Settings) -> Result<(ClipTextConfig, Vec<u32>)> {
    settings.check(CLIP_TEXT)?;
    let config = ClipTextConfig {
        vocabulary: settings.size_or("vocab_size", 49_408)?,
        max_tokens: settings.size_or("max_position_embeddings", 77)?,
        d_model: settings.size_or("hidden_size", 512)?,
        d_ff: settings.size_or("intermediate_size", 2048)?,
        n_heads: settings.size_or("num_attention_heads", 8)?,
        n_layers: settings.size_or("num_hidden_layers", 12)?,
        activation: settings.activation("hidden_act", "quick_gelu")?,
        norm_epsilon: settings.number_or("layer_norm_eps", 1e-5)?,
        dropout: 0.0,
        attention_dropout: settings.number_or("attention_dropout", 0.0)?,
        pooling: Pooling::Last,
    };
    const END: &str = "eos_token_id";
    let ends = match settings.get(END) {
        Some(value) if value.is_array() => settings.sizes_or(END, &[])?,
        _ => vec![settings.size_or(END, 49_407)?],
    };
    Ok((config, ends.into_iter().map(|end| end as u32).collect()))
}
