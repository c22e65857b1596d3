//! `config.json` of both towers of CLAP, and its preparation of sounds.

use std::path::Path;

use cart_retrieval::{
    Error, Result,
    expert::{BertConfig, Pooling},
    members::settings::{
        BERT_FIELDS, GENERAL, PREPROCESSOR, ROBERTA_FIELDS, Settings, Table, followed, harmless,
        only, refused, roberta_config,
    },
};

use super::{clip::CLAP_PROCESSOR, preparation};
use crate::{
    HtsatConfig,
    config::{ClapConfig, ClapSounds, SoundPadding},
};

/// `config.json` of CLAP: both towers.
pub(super) const CLAP: Table = &[
    &[
        followed(&["text_config", "audio_config"], "the towers"),
        followed(&["projection_dim"], "width of the common space"),
        followed(&["projection_hidden_act"], "activation between the layers of the projections"),
        harmless(&["logit_scale_init_value"], "scale of the loss"),
        harmless(&["hidden_size", "num_hidden_layers"], "follow from the towers"),
    ],
    GENERAL,
];

/// Fields of CLAP's text tower.
pub(super) const CLAP_TEXT: Table = &[
    &[only(&["model_type"], &["\"clap_text_model\""], "another family")],
    ROBERTA_FIELDS,
    BERT_FIELDS,
    &[
        harmless(
            &["projection_dim", "projection_hidden_act"],
            "those of the whole model count, as in transformers",
        ),
        harmless(
            &["fusion_hidden_size", "fusion_num_hidden_layers"],
            "transformers does not use them either",
        ),
    ],
    GENERAL,
];

/// Fields of CLAP's sound tower.
pub(super) const CLAP_AUDIO: Table = &[
    &[
        only(&["model_type"], &["\"clap_audio_model\""], "another family"),
        followed(&["num_mel_bins", "spec_size", "window_size"], "bands, sides, windows"),
        followed(&["patch_size", "patch_stride"], "patches, which must not overlap"),
        followed(&["patch_embeds_hidden_size", "mlp_ratio"], "widths"),
        followed(&["hidden_size"], "must be the width of the last stage"),
        followed(&["depths", "num_attention_heads"], "layers and heads of each stage"),
        followed(
            &["hidden_act"],
            "activation: relu, gelu, gelu_new, gelu_pytorch_tanh or quick_gelu",
        ),
        followed(&["layer_norm_eps"], "epsilon of the norms"),
        only(&["enable_fusion"], &["false"], "feature fusion is not supported"),
        only(&["qkv_bias"], &["true"], "attention without biases is not supported"),
        only(&["enable_patch_layer_norm"], &["true"], "patches without a norm are not supported"),
        only(&["flatten_patch_embeds"], &["true"], "patches in rows are not supported"),
        only(&["patch_embed_input_channels"], &["1"], "a spectrogram has one channel"),
        harmless(
            &["aff_block_r", "enable_patch_fusion", "fusion_num_hidden_layers", "fusion_type"],
            "nothing reads them without feature fusion",
        ),
        harmless(
            &["attention_probs_dropout_prob", "drop_path_rate", "hidden_dropout_prob"],
            "the sound tower is not trained",
        ),
        harmless(&["num_classes"], "heads are not read"),
        harmless(&["num_hidden_layers"], "`depths` says it"),
        harmless(
            &["projection_dim", "projection_hidden_act"],
            "those of the whole model count, as in transformers",
        ),
    ],
    GENERAL,
];

/// The preparation of sounds.
pub(super) const CLAP_SOUNDS: Table = &[&[
    followed(&["feature_size"], "bands: must be those of the tower; 64 if absent"),
    followed(&["sampling_rate"], "samples a second; 48000 if absent"),
    followed(&["fft_window_size"], "samples of a frame; 1024 if absent"),
    followed(&["hop_length"], "samples from frame to frame; 480 if absent"),
    followed(&["max_length_s"], "seconds that the tower hears at once; 10 if absent"),
    followed(&["frequency_min", "frequency_max"], "lowest and highest; 0 and 14000 Hz if absent"),
    followed(
        &["padding"],
        "what follows a short sound: `repeatpad` (if absent), `repeat` or `pad`",
    ),
    followed(
        &["truncation"],
        "must be `rand_trunc`; `fusion`, which transformers takes if absent, is not supported",
    ),
    only(
        &["feature_extractor_type"],
        &["\"ClapFeatureExtractor\""],
        "others prepare sounds in ways of their own",
    ),
    harmless(
        &["chunk_length_s", "n_fft", "nb_max_frames", "return_attention_mask", "top_db"],
        "transformers does not use it for CLAP either",
    ),
    harmless(&["nb_frequency_bins", "nb_max_samples"], "follow from the others"),
    harmless(
        &["padding_side", "padding_value"],
        "silence follows a short sound, as in transformers",
    ),
    harmless(
        &["_processor_class", "processor_class"],
        "says which classes of transformers read them",
    ),
    refused(&["auto_map"], "the preparation runs code of its own"),
]];

/// The shape of both towers of CLAP in a folder, and its preparation of sounds.
pub(crate) fn clap_pair(folder: &Path) -> Result<ClapConfig> {
    let whole = Settings::read(&folder.join("config.json"))?;
    whole.must_be("model_type", "none", "clap")?;
    whole.check(CLAP)?;
    let projection = whole.size_or("projection_dim", 512)?;
    let activation = whole.activation("projection_hidden_act", "relu")?;
    let audio = htsat(&whole.object_or_empty("audio_config")?)?;
    let text = text(whole.object_or_empty("text_config")?)?;
    let keys = ["feature_extractor", "audio_processor"];
    let sounds = match preparation(folder, &keys, CLAP_PROCESSOR)? {
        Some(settings) => sounds(&settings, audio.mels)?,
        None => ClapSounds::default(),
    };
    let samples = sounds.rate.checked_mul(sounds.seconds);
    let frames = samples.map_or(usize::MAX, |samples| samples / sounds.hop.max(1) + 1);
    if sounds.hop == 0 || frames > audio.frames() {
        return Err(Error::model(folder.join(PREPROCESSOR).display().to_string())
            .expected(format!("sounds of at most {} frames", audio.frames()))
            .found(format!("{frames} frames, {} samples apart", sounds.hop))
            .fix("take both files from one model"));
    }
    Ok(ClapConfig { audio, text, projection, activation, sounds })
}

fn htsat(audio: &Settings) -> Result<HtsatConfig> {
    audio.check(CLAP_AUDIO)?;
    let patch = audio.sides_or("patch_size", 4)?;
    let stride = audio.sides_or("patch_stride", 4)?;
    if patch != stride {
        return Err(audio.problem("patch_stride", &format!("{patch}, the patch size"), stride));
    }
    let ratio = audio.number_or("mlp_ratio", 4.0)?;
    if ratio.fract() != 0.0 || !(1.0..=64.0).contains(&ratio) {
        return Err(audio.problem("mlp_ratio", "a whole number up to 64", ratio));
    }
    let htsat = HtsatConfig {
        mels: audio.size_or("num_mel_bins", 64)?,
        side: audio.size_or("spec_size", 256)?,
        patch,
        d_model: audio.size_or("patch_embeds_hidden_size", 96)?,
        depths: audio.sizes_or("depths", &[2, 2, 6, 2])?,
        n_heads: audio.sizes_or("num_attention_heads", &[4, 8, 16, 32])?,
        window: audio.size_or("window_size", 8)?,
        ff_ratio: ratio as usize,
        activation: audio.activation("hidden_act", "gelu")?,
        norm_epsilon: audio.number_or("layer_norm_eps", 1e-5)?,
    };
    htsat.validate()?;
    let width = audio.size_or("hidden_size", 768)?;
    if width != htsat.d_output() {
        let expected = format!("{}, the width of the last stage", htsat.d_output());
        return Err(audio.problem("hidden_size", &expected, width));
    }
    Ok(htsat)
}

/// The text tower, a RoBERTa. A field that is absent has its usual value.
fn text(mut settings: Settings) -> Result<BertConfig> {
    settings.check(CLAP_TEXT)?;
    for (key, usual) in [
        ("vocab_size", 50_265),
        ("max_position_embeddings", 514),
        ("hidden_size", 768),
        ("intermediate_size", 3072),
        ("num_attention_heads", 12),
        ("num_hidden_layers", 12),
        ("type_vocab_size", 1),
    ] {
        if settings.get(key).is_none() {
            settings.values.insert(key.into(), usual.into());
        }
    }
    let text = BertConfig { pooling: Pooling::First, ..roberta_config(&settings)? };
    text.validate()?;
    Ok(text)
}

/// The preparation of sounds; a field that is absent has the value that transformers takes then.
fn sounds(settings: &Settings, mels: usize) -> Result<ClapSounds> {
    settings.check(CLAP_SOUNDS)?;
    let usual = ClapSounds::default();
    let bands = settings.size_or("feature_size", 64)?;
    if bands != mels {
        let expected = format!("{mels}, the bands of the tower");
        return Err(settings.problem("feature_size", &expected, bands));
    }
    settings.must_be("truncation", "fusion", "rand_trunc")?;
    let padding = match settings.text_or("padding", "repeatpad")? {
        "repeatpad" => SoundPadding::RepeatWhole,
        "repeat" => SoundPadding::Repeat,
        "pad" => SoundPadding::Silence,
        other => return Err(settings.problem("padding", "repeatpad, repeat or pad", other)),
    };
    Ok(ClapSounds {
        rate: settings.size_or("sampling_rate", usual.rate)?,
        frame: settings.size_or("fft_window_size", usual.frame)?,
        hop: settings.size_or("hop_length", usual.hop)?,
        seconds: settings.size_or("max_length_s", usual.seconds)?,
        low: settings.number_or("frequency_min", 0.0)?,
        high: settings.number_or("frequency_max", usual.high)?,
        padding,
    })
}
