//! Where the parameters of the towers are in their files.

use cart_retrieval::members::{Modules, Names};

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

/// The names of both towers of CLIP.
pub(super) fn clip() -> Names {
    Names { modules: CLIP_PAIR, anchor: "vision_model.embeddings.class_embedding" }
}

/// The names of both towers of CLAP.
pub(super) fn clap() -> Names {
    Names { modules: CLAP_PAIR, anchor: "audio_model.audio_encoder.batch_norm.running_mean" }
}

/// The names of ImageBind.
pub(super) fn image_bind() -> Names {
    Names { modules: IMAGE_BIND, anchor: "modality_preprocessors.vision.cls_token" }
}
