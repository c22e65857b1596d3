//! Where a parameter of ours is in the files of a family.

use crate::nn::TextEncoderConfig;

/// Modules (or single parameters) of a family: ours, and theirs in the order in which they are looked for. `#` stands for
/// the number of a stage or layer, `^` for the outermost level of the file, `=` for the whole name of a tensor, and
/// `@k` before the name of a parameter for part k of three that are stored as one.
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

/// Both towers of CLAP, with what projects them.
const CLAP_PAIR: Modules = &[
    ("audio.bands.gain", &["=audio_model.audio_encoder.batch_norm.weight"]),
    ("audio.bands.bias", &["=audio_model.audio_encoder.batch_norm.bias"]),
    ("audio.bands.mean", &["=audio_model.audio_encoder.batch_norm.running_mean"]),
    ("audio.bands.variance", &["=audio_model.audio_encoder.batch_norm.running_var"]),
    ("audio.patches", &["audio_model.audio_encoder.patch_embed.proj"]),
    ("audio.patch_norm", &["audio_model.audio_encoder.patch_embed.norm"]),
    ("audio.norm", &["audio_model.audio_encoder.norm"]),
    (
        "audio.stages.#.layers.#.attention.query",
        &["audio_model.audio_encoder.layers.#.blocks.#.attention.self.query"],
    ),
    (
        "audio.stages.#.layers.#.attention.key",
        &["audio_model.audio_encoder.layers.#.blocks.#.attention.self.key"],
    ),
    (
        "audio.stages.#.layers.#.attention.value",
        &["audio_model.audio_encoder.layers.#.blocks.#.attention.self.value"],
    ),
    (
        "audio.stages.#.layers.#.attention.output",
        &["audio_model.audio_encoder.layers.#.blocks.#.attention.output.dense"],
    ),
    (
        "audio.stages.#.layers.#.distances",
        &[
            "=audio_model.audio_encoder.layers.#.blocks.#.attention.self.relative_position_bias_table",
        ],
    ),
    (
        "audio.stages.#.layers.#.attention_norm",
        &["audio_model.audio_encoder.layers.#.blocks.#.layernorm_before"],
    ),
    (
        "audio.stages.#.layers.#.feed_forward.inner",
        &["audio_model.audio_encoder.layers.#.blocks.#.intermediate.dense"],
    ),
    (
        "audio.stages.#.layers.#.feed_forward.outer",
        &["audio_model.audio_encoder.layers.#.blocks.#.output.dense"],
    ),
    (
        "audio.stages.#.layers.#.feed_forward_norm",
        &["audio_model.audio_encoder.layers.#.blocks.#.layernorm_after"],
    ),
    ("audio.stages.#.merge.norm", &["audio_model.audio_encoder.layers.#.downsample.norm"]),
    (
        "audio.stages.#.merge.reduction",
        &["audio_model.audio_encoder.layers.#.downsample.reduction"],
    ),
    ("audio_projection.inner", &["audio_projection.linear1"]),
    ("audio_projection.outer", &["audio_projection.linear2"]),
    ("text.tokens", &["text_model.embeddings.word_embeddings"]),
    ("text.positions", &["text_model.embeddings.position_embeddings"]),
    ("text.token_types", &["text_model.embeddings.token_type_embeddings"]),
    ("text.norm", &["text_model.embeddings.LayerNorm"]),
    ("text.layers.#.attention.query", &["text_model.encoder.layer.#.attention.self.query"]),
    ("text.layers.#.attention.key", &["text_model.encoder.layer.#.attention.self.key"]),
    ("text.layers.#.attention.value", &["text_model.encoder.layer.#.attention.self.value"]),
    ("text.layers.#.attention.output", &["text_model.encoder.layer.#.attention.output.dense"]),
    ("text.layers.#.attention_norm", &["text_model.encoder.layer.#.attention.output.LayerNorm"]),
    ("text.layers.#.feed_forward.inner", &["text_model.encoder.layer.#.intermediate.dense"]),
    ("text.layers.#.feed_forward.outer", &["text_model.encoder.layer.#.output.dense"]),
    ("text.layers.#.feed_forward_norm", &["text_model.encoder.layer.#.output.LayerNorm"]),
    ("pooler", &["text_model.pooler.dense"]),
    ("text_projection.inner", &["text_projection.linear1"]),
    ("text_projection.outer", &["text_projection.linear2"]),
];

/// The towers of ImageBind for pictures and videos, texts, and sounds.
const IMAGE_BIND: Modules = &[
    ("vision.class", &["=modality_preprocessors.vision.cls_token"]),
    ("vision.patches", &["modality_preprocessors.vision.rgbt_stem.proj.1"]),
    ("vision.positions", &["=modality_preprocessors.vision.pos_embedding_helper.pos_embed"]),
    ("vision.pre_norm", &["modality_trunks.vision.pre_transformer_layer.0"]),
    ("vision.norm", &["modality_heads.vision.0"]),
    ("vision.projection", &["modality_heads.vision.2"]),
    ("vision.layers.#.attention.query", &["modality_trunks.vision.blocks.#.attn.in_proj_@0"]),
    ("vision.layers.#.attention.key", &["modality_trunks.vision.blocks.#.attn.in_proj_@1"]),
    ("vision.layers.#.attention.value", &["modality_trunks.vision.blocks.#.attn.in_proj_@2"]),
    ("vision.layers.#.attention.output", &["modality_trunks.vision.blocks.#.attn.out_proj"]),
    ("vision.layers.#.attention_norm", &["modality_trunks.vision.blocks.#.norm_1"]),
    ("vision.layers.#.feed_forward.inner", &["modality_trunks.vision.blocks.#.mlp.fc1"]),
    ("vision.layers.#.feed_forward.outer", &["modality_trunks.vision.blocks.#.mlp.fc2"]),
    ("vision.layers.#.feed_forward_norm", &["modality_trunks.vision.blocks.#.norm_2"]),
    ("text.tokens", &["modality_preprocessors.text.token_embedding"]),
    ("text.positions", &["=modality_preprocessors.text.pos_embed"]),
    ("text.norm", &["modality_heads.text.proj.0"]),
    ("text.projection", &["modality_heads.text.proj.1"]),
    ("text.layers.#.attention.query", &["modality_trunks.text.blocks.#.attn.in_proj_@0"]),
    ("text.layers.#.attention.key", &["modality_trunks.text.blocks.#.attn.in_proj_@1"]),
    ("text.layers.#.attention.value", &["modality_trunks.text.blocks.#.attn.in_proj_@2"]),
    ("text.layers.#.attention.output", &["modality_trunks.text.blocks.#.attn.out_proj"]),
    ("text.layers.#.attention_norm", &["modality_trunks.text.blocks.#.norm_1"]),
    ("text.layers.#.feed_forward.inner", &["modality_trunks.text.blocks.#.mlp.fc1"]),
    ("text.layers.#.feed_forward.outer", &["modality_trunks.text.blocks.#.mlp.fc2"]),
    ("text.layers.#.feed_forward_norm", &["modality_trunks.text.blocks.#.norm_2"]),
    ("audio.class", &["=modality_preprocessors.audio.cls_token"]),
    ("audio.kernel", &["=modality_preprocessors.audio.rgbt_stem.proj.weight"]),
    ("audio.patch_norm", &["modality_preprocessors.audio.rgbt_stem.norm_layer"]),
    ("audio.positions", &["=modality_preprocessors.audio.pos_embedding_helper.pos_embed"]),
    ("audio.norm", &["modality_heads.audio.0"]),
    ("audio.projection", &["modality_heads.audio.2"]),
    ("audio.layers.#.attention.query", &["modality_trunks.audio.blocks.#.attn.in_proj_@0"]),
    ("audio.layers.#.attention.key", &["modality_trunks.audio.blocks.#.attn.in_proj_@1"]),
    ("audio.layers.#.attention.value", &["modality_trunks.audio.blocks.#.attn.in_proj_@2"]),
    ("audio.layers.#.attention.output", &["modality_trunks.audio.blocks.#.attn.out_proj"]),
    ("audio.layers.#.attention_norm", &["modality_trunks.audio.blocks.#.norm_1"]),
    ("audio.layers.#.extra_key", &["=modality_trunks.audio.blocks.#.attn.bias_k"]),
    ("audio.layers.#.extra_value", &["=modality_trunks.audio.blocks.#.attn.bias_v"]),
    ("audio.layers.#.feed_forward.inner", &["modality_trunks.audio.blocks.#.mlp.fc1"]),
    ("audio.layers.#.feed_forward.outer", &["modality_trunks.audio.blocks.#.mlp.fc2"]),
    ("audio.layers.#.feed_forward_norm", &["modality_trunks.audio.blocks.#.norm_2"]),
];

/// Parameters that are stored as one where a name has `@k`.
pub(super) const PARTS: usize = 3;

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
    /// Which part of the stored tensor it is, of three along the first dimension.
    pub(super) part: Option<usize>,
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

    /// The names of both towers of CLAP.
    pub(super) fn clap_pair() -> Self {
        Self { modules: CLAP_PAIR, anchor: "audio_model.audio_encoder.batch_norm.running_mean" }
    }

    /// The names of ImageBind.
    pub(super) fn image_bind() -> Self {
        Self { modules: IMAGE_BIND, anchor: "modality_preprocessors.vision.cls_token" }
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
        let numbers: Vec<&str> =
            path.split('.').filter(|part| part.bytes().all(|b| b.is_ascii_digit())).collect();
        let general: Vec<&str> = path
            .split('.')
            .map(|part| if part.bytes().all(|b| b.is_ascii_digit()) { "#" } else { part })
            .collect();
        let general = general.join(".");
        let (module, leaf) = general.rsplit_once('.')?;
        let find = |name: &str| self.modules.iter().find(|(ours, _)| *ours == name);
        // A parameter of its own, or one of a module's.
        let single = find(&general).is_some();
        let (_, theirs) = find(&general).or_else(|| find(module))?;
        // Files made from TensorFlow have the norms' parameters under their names there.
        let leaves: &[&str] = match leaf {
            _ if single => &[],
            "gamma" => &["weight", "gamma"],
            "beta" => &["bias", "beta"],
            "weight" => &["weight"],
            "bias" => &["bias"],
            _ => return None,
        };
        let mut part = None;
        let mut names = Vec::new();
        for module in *theirs {
            match (module.strip_prefix('='), module.split_once('@')) {
                (Some(tensor), _) => names.push(tensor.to_string()),
                (None, Some((start, number))) => {
                    part = Some(number.parse().ok()?);
                    names.extend(leaves.iter().map(|leaf| format!("{start}{leaf}")));
                }
                (None, None) => names.extend(leaves.iter().map(|leaf| format!("{module}.{leaf}"))),
            }
        }
        for name in &mut names {
            for number in &numbers {
                *name = name.replacen('#', number, 1);
            }
        }
        let last = module.rsplit('.').next().unwrap_or(module);
        let table = ["tokens", "positions", "token_types", "distances", "class"].contains(&last);
        let flat = single || table || last == "patches";
        Some(Source { names, transposed: leaf == "weight" && !table && !single, flat, part })
    }
}
