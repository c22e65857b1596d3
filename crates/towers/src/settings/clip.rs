//! `config.json` of both towers of CLIP, and its preparation of pictures.

use std::path::Path;

use cart_media::Filter;
use cart_retrieval::{
    Result,
    members::settings::{
        CLIP, Fields, GENERAL, Settings, Table, brief, clip_text, followed, harmless, only,
        refused, tower,
    },
};

use super::preparation;
use crate::{
    ClipVisionConfig,
    config::{ClipConfig, ClipPictures, PictureSize},
};

/// Fields of CLIP's image tower.
pub(super) const CLIP_VISION: Table = &[
    &[
        only(&["model_type"], &["\"clip_vision_model\""], "another family"),
        followed(&["hidden_size", "intermediate_size"], "sizes"),
        followed(&["num_hidden_layers", "num_attention_heads"], "layers and heads"),
        followed(&["image_size", "patch_size"], "sides in pixels"),
        followed(
            &["hidden_act"],
            "activation: relu, gelu, gelu_new, gelu_pytorch_tanh or quick_gelu",
        ),
        followed(&["layer_norm_eps"], "epsilon of the norms"),
        only(&["num_channels"], &["3"], "pictures are red, green and blue"),
        harmless(&["projection_dim"], "that of the whole model counts"),
        harmless(&["attention_dropout", "dropout"], "the image tower is not trained"),
    ],
    GENERAL,
];

/// Fields around the settings of the preparation, in `processor_config.json`.
const PROCESSOR_FIELDS: &[Fields] = &[
    harmless(&["processor_class", "tokenizer"], "says which classes of transformers read them"),
    refused(&["auto_map"], "the preparation runs code of its own"),
];

/// `processor_config.json` of CLIP.
pub(super) const CLIP_PROCESSOR: Table =
    &[&[followed(&["image_processor"], "the preparation of pictures")], PROCESSOR_FIELDS];

/// `processor_config.json` of CLAP.
pub(super) const CLAP_PROCESSOR: Table = &[
    &[followed(&["feature_extractor", "audio_processor"], "the preparation of sounds")],
    PROCESSOR_FIELDS,
];

/// The preparation of pictures.
pub(super) const CLIP_PICTURES: Table = &[&[
    followed(&["do_resize"], "whether pictures are resized; true if absent"),
    followed(
        &["size"],
        "`{\"shortest_edge\": n}`, `{\"height\": h, \"width\": w}`, `[h, w]` or `n`; 224 if absent",
    ),
    followed(&["default_to_square"], "whether a `size` of `n` is a square or the shorter side"),
    followed(
        &["resample"],
        "Pillow's filter: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic (if absent), 4 box, 5 Hamming",
    ),
    followed(&["do_center_crop"], "whether the middle is cut out; true if absent"),
    followed(&["crop_size"], "`{\"height\": h, \"width\": w}`, `[h, w]` or `n`; 224 if absent"),
    followed(&["do_rescale", "rescale_factor"], "factor of the 8-bit values; 1/255 if absent"),
    followed(
        &["do_normalize", "image_mean", "image_std"],
        "mean and deviation, of each colour or of all; those of OpenAI if absent",
    ),
    only(
        &["image_processor_type", "feature_extractor_type"],
        &[
            "\"CLIPImageProcessor\"",
            "\"CLIPImageProcessorFast\"",
            "\"CLIPImageProcessorPil\"",
            "\"CLIPFeatureExtractor\"",
        ],
        "others prepare pictures in ways of their own",
    ),
    only(&["data_format"], &["\"channels_first\"", "\"first\""], "colours come first"),
    only(&["do_pad"], &["false"], "padding is not supported"),
    only(&["use_square_size"], &["false"], "say `size` instead"),
    harmless(&["do_convert_rgb"], "pictures are always read as red, green and blue"),
    harmless(&["pad_size"], "without `do_pad` it is not used"),
    harmless(
        &["_processor_class", "processor_class", "_valid_kwargs_names", "_valid_processor_keys"],
        "says which classes of transformers read them",
    ),
    harmless(
        &["device", "disable_grouping", "input_data_format", "return_tensors"],
        "how transformers computes, not what",
    ),
    refused(&["auto_map"], "the preparation runs code of its own"),
]];

/// The shape of both towers of CLIP in a folder, and its preparation of pictures.
pub(crate) fn clip_pair(folder: &Path) -> Result<ClipConfig> {
    let whole = Settings::read(&folder.join("config.json"))?;
    whole.must_be("model_type", "none", "clip")?;
    whole.check(CLIP)?;
    let projection = whole.size_or("projection_dim", 512)?;
    let (text, _) = clip_text(&tower(&whole, "text_config")?)?;
    let vision = tower(&whole, "vision_config")?;
    vision.check(CLIP_VISION)?;
    let vision = ClipVisionConfig {
        image_size: vision.sides_or("image_size", 224)?,
        patch_size: vision.sides_or("patch_size", 32)?,
        d_model: vision.size_or("hidden_size", 768)?,
        d_ff: vision.size_or("intermediate_size", 3072)?,
        n_heads: vision.size_or("num_attention_heads", 12)?,
        n_layers: vision.size_or("num_hidden_layers", 12)?,
        activation: vision.activation("hidden_act", "quick_gelu")?,
        norm_epsilon: vision.number_or("layer_norm_eps", 1e-5)?,
    };
    vision.validate()?;
    text.validate()?;
    let side = vision.image_size;
    let pictures = match preparation(folder, &["image_processor"], CLIP_PROCESSOR)? {
        Some(settings) => pictures(&settings, side)?,
        None => ClipPictures::of_size(side),
    };
    Ok(ClipConfig { vision, text, projection, pictures })
}

fn pictures(settings: &Settings, side: usize) -> Result<ClipPictures> {
    settings.check(CLIP_PICTURES)?;
    let usual = ClipPictures::of_size(224);
    let filter = filter(settings)?;
    let size = size(settings)?;
    let crop = crop(settings)?;
    let factor = settings.number_or("rescale_factor", usual.factor)?;
    let mean = colours(settings, "image_mean", usual.mean)?;
    let deviation = colours(settings, "image_std", usual.deviation)?;
    if let Some(zero) = deviation.iter().find(|deviation| **deviation == 0.0) {
        return Err(settings.problem("image_std", "deviations other than 0", zero));
    }
    let (rescale, normalise) =
        (settings.flag_or("do_rescale", true)?, settings.flag_or("do_normalize", true)?);
    let pictures = ClipPictures {
        size: settings.flag_or("do_resize", true)?.then_some(size),
        filter,
        crop: settings.flag_or("do_center_crop", true)?.then_some(crop),
        factor: if rescale { factor } else { 1.0 },
        mean: if normalise { mean } else { [0.0; 3] },
        deviation: if normalise { deviation } else { [1.0; 3] },
    };
    let (key, made) = match (pictures.crop, pictures.size) {
        (Some(crop), _) => ("crop_size", Some(crop)),
        (None, Some(PictureSize::Exact { height, width })) => ("size", Some([height, width])),
        (None, Some(PictureSize::Shorter(_))) => ("do_center_crop", None),
        (None, None) => ("do_resize", None),
    };
    if made == Some([side, side]) {
        return Ok(pictures);
    }
    let expected = format!("pictures of {side} x {side} for the tower");
    Err(match made {
        Some([height, width]) => {
            settings.problem(key, &expected, format!("height {height}, width {width}"))
        }
        None => settings.problem(key, &expected, "pictures that keep their proportions or size"),
    })
}

/// Pillow's numbers of its filters.
fn filter(settings: &Settings) -> Result<Filter> {
    const KEY: &str = "resample";
    const FILTERS: [Filter; 6] = [
        Filter::Nearest,
        Filter::Lanczos,
        Filter::Bilinear,
        Filter::Bicubic,
        Filter::Box,
        Filter::Hamming,
    ];
    let number = settings.size_or(KEY, 3)?;
    FILTERS
        .get(number)
        .copied()
        .ok_or_else(|| settings.problem(KEY, "0 to 5, a filter of Pillow", number))
}

/// Height and width under a key: an object, a list or one number; `None` for what is none of these.
fn height_and_width(settings: &Settings, key: &str) -> Result<Option<[usize; 2]>> {
    let Some(value) = settings.get(key) else { return Ok(None) };
    let sides = if value.is_object() {
        let object = settings.object_or_empty(key)?;
        if object.values.len() != 2 || object.get("height").is_none() {
            return Ok(None);
        }
        [object.size("height")?, object.size("width")?]
    } else if value.is_array() {
        match settings.sizes_or(key, &[])?[..] {
            [height, width] => [height, width],
            _ => return Ok(None),
        }
    } else {
        [settings.size_or(key, 0)?; 2]
    };
    if sides.contains(&0) || sides.iter().any(|&side| side > 1 << 15) {
        return Err(settings.problem(key, "sides of 1 to 32768 pixels", format!("{sides:?}")));
    }
    Ok(Some(sides))
}

fn size(settings: &Settings) -> Result<PictureSize> {
    const KEY: &str = "size";
    let square = settings.flag_or("default_to_square", false)?;
    let Some(value) = settings.get(KEY) else { return Ok(PictureSize::Shorter(224)) };
    let is_number = value.is_number();
    if let Some([height, width]) = height_and_width(settings, KEY)? {
        return Ok(match is_number && !square {
            true => PictureSize::Shorter(height),
            false => PictureSize::Exact { height, width },
        });
    }
    let object = settings.object_or_empty(KEY)?;
    match object.size_or("shortest_edge", 0)? {
        side @ 1..=32_768 if object.values.len() == 1 => Ok(PictureSize::Shorter(side)),
        _ => Err(settings.problem(
            KEY,
            "{\"shortest_edge\": n}, {\"height\": h, \"width\": w}, [h, w] or n",
            brief(&settings.values[KEY]),
        )),
    }
}

fn crop(settings: &Settings) -> Result<[usize; 2]> {
    const KEY: &str = "crop_size";
    let Some(value) = settings.get(KEY) else { return Ok([224; 2]) };
    height_and_width(settings, KEY)?.ok_or_else(|| {
        let expected = "{\"height\": h, \"width\": w}, [h, w] or n";
        settings.problem(KEY, expected, brief(value))
    })
}

/// A number of each colour, or one of all.
fn colours(settings: &Settings, key: &str, default: [f32; 3]) -> Result<[f32; 3]> {
    let Some(value) = settings.get(key) else { return Ok(default) };
    if let Some(number) = value.as_f64() {
        return Ok([number as f32; 3]);
    }
    serde_json::from_value(value.clone())
        .map_err(|_| settings.problem(key, "three numbers, of red, green and blue", brief(value)))
}
