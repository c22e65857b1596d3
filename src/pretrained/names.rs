//! Where a parameter of ours is in the files of a family.

use crate::nn::TextEncoderConfig;

/// Modules of a family: ours, and theirs in the order in which they are looked for. `#` stands for
/// the number of a layer, `^` for the outermost level of the file, `=` for the whole name of a tensor.
type Modules = &'static [(&'static str, &'static [&'static str])];

const BERT: Modules = &[
    ("tokens", &["embeddings.word_embeddings"]),
    ("positions", &["embeddings.position_embeddings"]),
    ("token_types", &["embeddings.token_type_embeddings"]),
    ("norm", &["embeddings.LayerNorm"]),
    ("layers.#.attention.query", &["encoder.layer.#.attention.self.query"]),
    ("layers.#.attention.key", &["encoder.layer.#.attention.self.key"]),
    ("layers.#.attention.value", &["encoder.layer.#.attention.self.value"]),
    ("layers.#.attention.output", &["encoder.layer.#.attention.output.dense"]),
    ("layers.#.attention_norm", &["encoder.layer.#.attention.output.LayerNorm"]),
    ("layers.#.feed_forward.inner", &["encoder.layer.#.intermediate.dense"]),
    ("layers.#.feed_forward.outer", &["encoder.layer.#.output.dense"]),
    ("layers.#.feed_forward_norm", &["encoder.layer.#.output.LayerNorm"]),
];

const T5: Modules = &[
    ("tokens", &["embed_tokens", "^shared"]),
    ("distances", &["block.0.layer.0.SelfAttention.relative_attention_bias"]),
    ("final_norm", &["final_layer_norm"]),
    ("layers.#.attention.query", &["block.#.layer.0.SelfAttention.q"]),
    ("layers.#.attention.key", &["block.#.layer.0.SelfAttention.k"]),
    ("layers.#.attention.value", &["block.#.layer.0.SelfAttention.v"]),
    ("layers.#.attention.output", &["block.#.layer.0.SelfAttention.o"]),
    ("layers.#.attention_norm", &["block.#.layer.0.layer_norm"]),
    (
        "layers.#.feed_forward.inner",
        &["block.#.layer.1.DenseReluDense.wi", "block.#.layer.1.DenseReluDense.wi_0"],
    ),
    ("layers.#.feed_forward.gated", &["block.#.layer.1.DenseReluDense.wi_1"]),
    ("layers.#.feed_forward.outer", &["block.#.layer.1.DenseReluDense.wo"]),
    ("layers.#.feed_forward_norm", &["block.#.layer.1.layer_norm"]),
];

const CLIP: Modules = &[
    ("tokens", &["embeddings.token_embedding"]),
    ("positions", &["embeddings.position_embedding"]),
    ("final_norm", &["final_layer_norm"]),
    ("layers.#.attention.query", &["encoder.layers.#.self_attn.q_proj"]),
    ("layers.#.attention.key", &["encoder.layers.#.self_attn.k_proj"]),
    ("layers.#.attention.value", &["encoder.layers.#.self_attn.v_proj"]),
    ("layers.#.attention.output", &["encoder.layers.#.self_attn.out_proj"]),
    ("layers.#.attention_norm", &["encoder.layers.#.layer_norm1"]),
    ("layers.#.feed_forward.inner", &["encoder.layers.#.mlp.fc1"]),
    ("layers.#.feed_forward.outer", &["encoder.layers.#.mlp.fc2"]),
    ("layers.#.feed_forward_norm", &["encoder.layers.#.layer_norm2"]),
];

/// Both towers of CLIP, with their projections.
const CLIP_PAIR: Modules = &[
    ("vision.class", &["=vision_model.embeddings.class_embedding"]),
    ("vision.patches", &["vision_model.embeddings.patch_embedding"]),
    ("vision.positions", &["vision_model.embeddings.position_embedding"]),
    ("vision.pre_norm", &["vision_model.pre_layrnorm"]),
    ("vision.post_norm", &["vision_model.post_layernorm"]),
    ("vision.layers.#.attention.query", &["vision_model.encoder.layers.#.self_attn.q_proj"]),
    ("vision.layers.#.attention.key", &["vision_model.encoder.layers.#.self_attn.k_proj"]),
    ("vision.layers.#.attention.value", &["vision_model.encoder.layers.#.self_attn.v_proj"]),
    ("vision.layers.#.attention.output", &["vision_model.encoder.layers.#.self_attn.out_proj"]),
    ("vision.layers.#.attention_norm", &["vision_model.encoder.layers.#.layer_norm1"]),
    ("vision.layers.#.feed_forward.inner", &["vision_model.encoder.layers.#.mlp.fc1"]),
    ("vision.layers.#.feed_forward.outer", &["vision_model.encoder.layers.#.mlp.fc2"]),
    ("vision.layers.#.feed_forward_norm", &["vision_model.encoder.layers.#.layer_norm2"]),
    ("text.tokens", &["text_model.embeddings.token_embedding"]),
    ("text.positions", &["text_model.embeddings.position_embedding"]),
    ("text.final_norm", &["text_model.final_layer_norm"]),
    ("text.layers.#.attention.query", &["text_model.encoder.layers.#.self_attn.q_proj"]),
    ("text.layers.#.attention.key", &["text_model.encoder.layers.#.self_attn.k_proj"]),
    ("text.layers.#.attention.value", &["text_model.encoder.layers.#.self_attn.v_proj"]),
    ("text.layers.#.attention.output", &["text_model.encoder.layers.#.self_attn.out_proj"]),
    ("text.layers.#.attention_norm", &["text_model.encoder.layers.#.layer_norm1"]),
    ("text.layers.#.feed_forward.inner", &["text_model.encoder.layers.#.mlp.fc1"]),
    ("text.layers.#.feed_forward.outer", &["text_model.encoder.layers.#.mlp.fc2"]),
    ("text.layers.#.feed_forward_norm", &["text_model.encoder.layers.#.layer_norm2"]),
    ("visual_projection", &["visual_projection"]),
    ("text_projection", &["text_projection"]),
];

/// The names of a family's parameters.
pub(super) struct Names {
    modules: Modules,
    /// A tensor that every file of the family has.
    anchor: &'static str,
}

/// A parameter in a file.
pub(super) struct Source {
    /// Its names without the prefix, in the order in which they are looked for.
    pub(super) names: Vec<String>,
    /// Whether it is stored as `[d_output, d_input]`.
    pub(super) transposed: bool,
    /// Whether it may have other dimensions there: the weights of a convolution, a vector for a table of one row.
    pub(super) flat: bool,
}

impl Names {
    /// The names of an encoder's family; none for the encoder that is ours.
    pub(super) fn of(config: &TextEncoderConfig) -> Option<Self> {
        Some(match config {
            TextEncoderConfig::Scratch(_) => return None,
            TextEncoderConfig::Bert(_) => {
                Self { modules: BERT, anchor: "embeddings.word_embeddings.weight" }
            }
            TextEncoderConfig::T5(_) => Self {
                modules: T5,
                anchor: "block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            },
            TextEncoderConfig::Clip(_) => {
                Self { modules: CLIP, anchor: "embeddings.token_embedding.weight" }
            }
        })
    }

    /// The names of both towers of CLIP.
    pub(super) fn clip_pair() -> Self {
        Self { modules: CLIP_PAIR, anchor: "vision_model.embeddings.class_embedding" }
    }

    /// What stands before the names in a file, by the tensor that every file of the family has.
    /// Absent where that tensor is not there.
    pub(super) fn prefix<'a>(&self, tensors: impl Iterator<Item = &'a str>) -> Option<String> {
        tensors
            .filter_map(|name| name.strip_suffix(self.anchor))
            .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))
            // The decoder of an encoder-decoder has tensors of the same names.
            .filter(|prefix| !prefix.ends_with("decoder."))
            .min_by_key(|prefix| (prefix.len(), prefix.to_string()))
            .map(String::from)
    }

    /// The tensor by which a file of the family is known.
    pub(super) fn anchor(&self) -> &'static str {
        self.anchor
    }

    /// Where a parameter is, by its path in our module.
    pub(super) fn source(&self, path: &str) -> Option<Source> {
        let (module, leaf) = path.rsplit_once('.')?;
        let number = module.split('.').find(|part| part.bytes().all(|b| b.is_ascii_digit()));
        let general: Vec<&str> =
            module.split('.').map(|part| if Some(part) == number { "#" } else { part }).collect();
        let general = general.join(".");
        let (_, theirs) = self.modules.iter().find(|(ours, _)| *ours == general)?;
        // Files made from TensorFlow have the norms' parameters under their names there.
        let leaves: &[&str] = match leaf {
            "gamma" => &["weight", "gamma"],
            "beta" => &["bias", "beta"],
            "weight" => &["weight"],
            "bias" => &["bias"],
            _ => return None,
        };
        let names = theirs
            .iter()
            .flat_map(|module| match module.strip_prefix('=') {
                Some(tensor) => vec![tensor.to_string()],
                None => leaves.iter().map(|leaf| format!("{module}.{leaf}")).collect(),
            })
            .map(|name| name.replace('#', number.unwrap_or("#")))
            .collect();
        let last = module.rsplit('.').next().unwrap_or(module);
        let table = ["tokens", "positions", "token_types", "distances", "class"].contains(&last);
        let flat = ["class", "patches"].contains(&last);
        Some(Source { names, transposed: leaf == "weight" && !table, flat })
    }
}
