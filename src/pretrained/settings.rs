//! `config.json`: the shape of a text encoder.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{
    clap::{ClapConfig, ClapSounds},
    clip::ClipConfig,
};
use crate::{
    error::{Error, Result},
    nn::{
        Activation, BertConfig, ClipTextConfig, ClipVisionConfig, HtsatConfig, Pooling, T5Config,
        TextEncoderConfig,
    },
    storage::read_limited,
};

/// Values of `model_type` that can be read.
const SUPPORTED: &str = "bert, roberta, xlm-roberta, t5, mt5, clip, clip_text_model";

/// Most bytes of a settings file.
const LIMIT: u64 = 16 << 20;

/// A JSON file of settings.
pub(super) struct Settings {
    path: PathBuf,
    value: Value,
}

impl Settings {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let bytes = read_limited(path, LIMIT)?;
        let value = serde_json::from_slice(&bytes).map_err(|e| {
            Error::model(
                path.display().to_string(),
                "a file of settings in JSON",
                e.to_string(),
                "fetch the file again",
            )
        })?;
        Ok(Self { path: path.to_path_buf(), value })
    }

    /// The value of a key, unless it is absent or null.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    /// The settings under a key; those of the file where there are none.
    fn within(self, key: &str) -> Self {
        match self.get(key).filter(|value| value.is_object()).cloned() {
            Some(value) => Self { value, ..self },
            None => self,
        }
    }

    fn problem(&self, key: &str, expected: &str, found: impl ToString) -> Error {
        Error::model(
            format!("{}: {key}", self.path.display()),
            expected,
            found.to_string(),
            "name the folder of a model of a family that is supported, or fetch the file again",
        )
    }

    fn size(&self, key: &str) -> Result<usize> {
        match self.get(key) {
            Some(value) => self.as_size(key, value),
            None => Err(self.problem(key, "a size", "nothing")),
        }
    }

    pub(super) fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        self.get(key).map_or(Ok(default), |value| self.as_size(key, value))
    }

    fn as_size(&self, key: &str, value: &Value) -> Result<usize> {
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        // What no table is: keeps products of sizes from overflowing.
        let size = size.filter(|&size| size < 1 << 31);
        size.ok_or_else(|| self.problem(key, "a size", value))
    }

    /// A list of sizes.
    fn sizes_or(&self, key: &str, default: &[usize]) -> Result<Vec<usize>> {
        match self.get(key) {
            None => Ok(default.to_vec()),
            Some(value) => match value.as_array() {
                Some(values) => values.iter().map(|value| self.as_size(key, value)).collect(),
                None => Err(self.problem(key, "a list of sizes", value)),
            },
        }
    }

    /// A size, or the same one twice: of height and width.
    fn sides_or(&self, key: &str, default: usize) -> Result<usize> {
        match self.get(key) {
            Some(value) if value.is_array() => match self.sizes_or(key, &[])?[..] {
                [height, width] if height == width => Ok(height),
                _ => Err(self.problem(key, "the same height and width", value)),
            },
            _ => self.size_or(key, default),
        }
    }

    /// Sets a key that is absent.
    fn default(&mut self, key: &str, value: usize) {
        if self.get(key).is_none()
            && let Value::Object(settings) = &mut self.value
        {
            settings.insert(key.into(), value.into());
        }
    }

    fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        match self.get(key) {
            Some(value) => value.as_f64().ok_or_else(|| self.problem(key, "a number", value)),
            None => Ok(default),
        }
    }

    fn text_or<'a>(&'a self, key: &str, default: &'a str) -> Result<&'a str> {
        match self.get(key) {
            Some(value) => value.as_str().ok_or_else(|| self.problem(key, "a text", value)),
            None => Ok(default),
        }
    }

    fn activation(&self, key: &str, default: &str) -> Result<Activation> {
        let name = self.text_or(key, default)?;
        activation(name).ok_or_else(|| {
            self.problem(key, "relu, gelu, gelu_new, gelu_pytorch_tanh or quick_gelu", name)
        })
    }

    fn must_be(&self, key: &str, expected: &str, found: Option<String>) -> Result<()> {
        match found.filter(|found| found != expected) {
            Some(found) => Err(self.problem(key, expected, found)),
            None => Ok(()),
        }
    }
}

fn activation(name: &str) -> Option<Activation> {
    Some(match name {
        "relu" => Activation::Relu,
        "gelu" => Activation::Gelu,
        "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
        "quick_gelu" => Activation::QuickGelu,
        _ => return None,
    })
}

/// The shape of the text encoder in a folder.
pub(super) fn encoder(folder: &Path) -> Result<TextEncoderConfig> {
    let settings = Settings::read(&folder.join("config.json"))?;
    let config = match settings.text_or("model_type", "none")? {
        "bert" => bert(&settings, 0)?,
        "roberta" | "xlm-roberta" => {
            let first = settings.size_or("pad_token_id", 1)? + 1;
            bert(&settings, first)?
        }
        "t5" | "mt5" => t5(&settings)?,
        "clip" => clip(&settings.within("text_config"))?.into(),
        "clip_text_model" => clip(&settings)?.into(),
        other => {
            let expected = format!("one of {SUPPORTED}");
            return Err(settings.problem("model_type", &expected, format!("{other:?}")));
        }
    };
    config.validate()?;
    Ok(match pooling(folder)? {
        Some(pooling) => config.with_pooling(pooling),
        None => config,
    })
}

fn bert(settings: &Settings, first_position: usize) -> Result<TextEncoderConfig> {
    Ok(bert_config(settings, first_position)?.into())
}

fn bert_config(settings: &Settings, first_position: usize) -> Result<BertConfig> {
    settings.must_be(
        "position_embedding_type",
        "absolute",
        Some(settings.text_or("position_embedding_type", "absolute")?.to_string()),
    )?;
    let decoder = settings.get("is_decoder").map(Value::to_string);
    settings.must_be("is_decoder", "false", decoder)?;
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
    let default =
        if settings.text_or("model_type", "t5")? == "mt5" { "gated-gelu" } else { "relu" };
    let blocks = settings.text_or(BLOCKS, default)?;
    // "gated-gelu" is the approximation by tanh, whatever its name.
    let (gated, name) = match blocks.strip_prefix("gated-") {
        Some("gelu") => (true, "gelu_new"),
        Some(name) => (true, name),
        None => (false, blocks),
    };
    let activation = activation(name).ok_or_else(|| {
        settings.problem(BLOCKS, "relu, gelu, gelu_new, gated-gelu or gated-relu", blocks)
    })?;
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

/// Settings of a part of a model leave out what has its usual value.
fn clip(settings: &Settings) -> Result<ClipTextConfig> {
    Ok(ClipTextConfig {
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
    })
}

/// The shape of both towers of CLIP in a folder, and its preparation of pictures.
pub(super) fn clip_pair(folder: &Path) -> Result<ClipConfig> {
    let whole = Settings::read(&folder.join("config.json"))?;
    let kind = whole.text_or("model_type", "none")?;
    whole.must_be("model_type", "clip", Some(kind.to_string()))?;
    let projection = whole.size_or("projection_dim", 512)?;
    let part = |key: &str| -> Result<Settings> {
        Ok(Settings::read(&folder.join("config.json"))?.within(key))
    };
    let text = clip(&part("text_config")?)?;
    let vision = part("vision_config")?;
    let vision = ClipVisionConfig {
        image_size: vision.size_or("image_size", 224)?,
        patch_size: vision.size_or("patch_size", 32)?,
        d_model: vision.size_or("hidden_size", 768)?,
        d_ff: vision.size_or("intermediate_size", 3072)?,
        n_heads: vision.size_or("num_attention_heads", 12)?,
        n_layers: vision.size_or("num_hidden_layers", 12)?,
        activation: vision.activation("hidden_act", "quick_gelu")?,
        norm_epsilon: vision.number_or("layer_norm_eps", 1e-5)?,
    };
    vision.validate()?;
    text.validate()?;
    let path = folder.join("preprocessor_config.json");
    let colours = |key: &str, default: [f32; 3]| -> Result<[f32; 3]> {
        if !path.exists() {
            return Ok(default);
        }
        let settings = Settings::read(&path)?;
        let Some(value) = settings.get(key) else { return Ok(default) };
        serde_json::from_value(value.clone())
            .map_err(|_| settings.problem(key, "three numbers, of red, green and blue", value))
    };
    Ok(ClipConfig {
        vision,
        text,
        projection,
        mean: colours("image_mean", [0.481_454_66, 0.457_827_5, 0.408_210_73])?,
        deviation: colours("image_std", [0.268_629_55, 0.261_302_6, 0.275_777_1])?,
    })
}

/// The shape of both towers of CLAP in a folder, and its preparation of sounds.
pub(super) fn clap_pair(folder: &Path) -> Result<ClapConfig> {
    let path = folder.join("config.json");
    let whole = Settings::read(&path)?;
    let kind = whole.text_or("model_type", "none")?;
    whole.must_be("model_type", "clap", Some(kind.to_string()))?;
    let projection = whole.size_or("projection_dim", 512)?;
    let activation = whole.activation("projection_hidden_act", "relu")?;
    let audio = Settings::read(&path)?.within("audio_config");
    for (key, expected) in
        [("enable_fusion", "false"), ("qkv_bias", "true"), ("enable_patch_layer_norm", "true")]
    {
        audio.must_be(key, expected, audio.get(key).map(Value::to_string))?;
    }
    let patch = audio.sides_or("patch_size", 4)?;
    let stride = audio.sides_or("patch_stride", 4)?;
    audio.must_be("patch_stride", &patch.to_string(), Some(stride.to_string()))?;
    let htsat = HtsatConfig {
        mels: audio.size_or("num_mel_bins", 64)?,
        side: audio.size_or("spec_size", 256)?,
        patch,
        d_model: audio.size_or("patch_embeds_hidden_size", 96)?,
        depths: audio.sizes_or("depths", &[2, 2, 6, 2])?,
        n_heads: audio.sizes_or("num_attention_heads", &[4, 8, 16, 32])?,
        window: audio.size_or("window_size", 8)?,
        ff_ratio: {
            let ratio = audio.number_or("mlp_ratio", 4.0)?;
            if ratio.fract() != 0.0 || !(1.0..=64.0).contains(&ratio) {
                return Err(audio.problem("mlp_ratio", "a whole number up to 64", ratio));
            }
            ratio as usize
        },
        activation: audio.activation("hidden_act", "gelu")?,
        norm_epsilon: audio.number_or("layer_norm_eps", 1e-5)?,
    };
    htsat.validate()?;
    // Settings of a part leave out what has its usual value.
    let part = Settings::read(&path)?.within("text_config");
    let first = part.size_or("pad_token_id", 1)? + 1;
    let mut text = part;
    for (key, usual) in [
        ("vocab_size", 50_265),
        ("max_position_embeddings", 514),
        ("hidden_size", 768),
        ("intermediate_size", 3072),
        ("num_attention_heads", 12),
        ("num_hidden_layers", 12),
        ("type_vocab_size", 1),
    ] {
        text.default(key, usual);
    }
    let text = BertConfig { pooling: Pooling::First, ..bert_config(&text, first)? };
    text.validate()?;
    let path = folder.join("preprocessor_config.json");
    let sounds = match path.exists() {
        false => ClapSounds::default(),
        true => {
            let settings = Settings::read(&path)?;
            let usual = ClapSounds::default();
            let bands = settings.size_or("feature_size", htsat.mels)?;
            settings.must_be("feature_size", &htsat.mels.to_string(), Some(bands.to_string()))?;
            let truncation = settings.text_or("truncation", "rand_trunc")?.to_string();
            settings.must_be("truncation", "rand_trunc", Some(truncation))?;
            let padding = settings.text_or("padding", "repeatpad")?.to_string();
            settings.must_be("padding", "repeatpad", Some(padding))?;
            ClapSounds {
                rate: settings.size_or("sampling_rate", usual.rate)?,
                frame: settings.size_or("fft_window_size", usual.frame)?,
                hop: settings.size_or("hop_length", usual.hop)?,
                seconds: settings.size_or("max_length_s", usual.seconds)?,
                low: settings.number_or("frequency_min", usual.low)?,
                high: settings.number_or("frequency_max", usual.high)?,
            }
        }
    };
    let frames = (sounds.rate * sounds.seconds) / sounds.hop.max(1) + 1;
    if sounds.hop == 0 || frames > htsat.frames() {
        return Err(Error::model(
            path.display().to_string(),
            format!("sounds of at most {} frames", htsat.frames()),
            format!("{frames} frames, {} samples apart", sounds.hop),
            "take both files from one model",
        ));
    }
    Ok(ClapConfig { audio: htsat, text, projection, activation, sounds })
}

/// What the files of sentence-transformers say about pooling, if they are there.
fn pooling(folder: &Path) -> Result<Option<Pooling>> {
    let path = folder.join("1_Pooling").join("config.json");
    if !path.exists() {
        return Ok(None);
    }
    let settings = Settings::read(&path)?;
    let is_on = |key: &str| settings.get(key).and_then(Value::as_bool).unwrap_or(false);
    let ways = [
        ("pooling_mode_mean_tokens", Pooling::Mean),
        ("pooling_mode_cls_token", Pooling::First),
        ("pooling_mode_lasttoken", Pooling::Last),
    ];
    Ok(ways.into_iter().find(|(key, _)| is_on(key)).map(|(_, pooling)| pooling))
}
