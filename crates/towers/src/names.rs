//! Where the parameters of the towers are in their files.

use cart_retrieval::members::{
    BERT_EMBEDDINGS, BERT_LAYER, BERT_NORMS, CLIP_LAYER, CLIP_TEXT, Modules, Names, Parts,
};

/// Both towers of CLIP, with their projections.
const CLIP_PAIR: Parts = &[
    ("vision.", "vision_model.", CLIP_VISION),
    ("vision.layers.#.", "vision_model.encoder.layers.#.", CLIP_LAYER),
    ("text.", "text_model.", CLIP_TEXT),
    ("text.layers.#.", "text_model.encoder.layers.#.", CLIP_LAYER),
    ("", "", &[("visual_projection", "visual_projection"), ("text_projection", "text_projection")]),
];

const CLIP_VISION: Modules = &[
    ("class", "=embeddings.class_embedding"),
    ("patches", "embeddings.patch_embedding"),
    ("positions", "embeddings.position_embedding"),
    ("pre_norm", "pre_layrnorm"),
    ("post_norm", "post_layernorm"),
];

/// Both towers of CLAP, with what projects them.
const CLAP_PAIR: Parts = &[
    ("audio.", "audio_model.audio_encoder.", HTSAT),
    ("audio.stages.#.layers.#.", "audio_model.audio_encoder.layers.#.blocks.#.", BERT_LAYER),
    ("audio.stages.#.layers.#.", "audio_model.audio_encoder.layers.#.blocks.#.", HTSAT_LAYER),
    ("text.", "text_model.embeddings.", BERT_EMBEDDINGS),
    ("text.layers.#.", "text_model.encoder.layer.#.", BERT_LAYER),
    ("text.layers.#.", "text_model.encoder.layer.#.", BERT_NORMS),
    ("audio_projection.", "audio_projection.", CLAP_PROJECTION),
    ("text_projection.", "text_projection.", CLAP_PROJECTION),
    ("", "text_model.", &[("pooler", "pooler.dense")]),
];

const HTSAT: Modules = &[
    ("bands.gain", "=batch_norm.weight"),
    ("bands.bias", "=batch_norm.bias"),
    ("bands.mean", "=batch_norm.running_mean"),
    ("bands.variance", "=batch_norm.running_var"),
    ("patches", "patch_embed.proj"),
    ("patch_norm", "patch_embed.norm"),
    ("norm", "norm"),
    ("stages.#.merge.norm", "layers.#.downsample.norm"),
    ("stages.#.merge.reduction", "layers.#.downsample.reduction"),
];

const HTSAT_LAYER: Modules = &[
    ("distances", "=attention.self.relative_position_bias_table"),
    ("attention_norm", "layernorm_before"),
    ("feed_forward_norm", "layernorm_after"),
];

const CLAP_PROJECTION: Modules = &[("inner", "linear1"), ("outer", "linear2")];

/// The towers of ImageBind for pictures and videos, texts, and sounds.
const IMAGE_BIND: Parts = &[
    ("vision.", "modality_preprocessors.vision.", IMAGE_BIND_VISION),
    ("vision.", "modality_trunks.vision.", &[("pre_norm", "pre_transformer_layer.0")]),
    ("vision.", "modality_heads.vision.", IMAGE_BIND_HEAD),
    ("vision.layers.#.", "modality_trunks.vision.blocks.#.", IMAGE_BIND_LAYER),
    ("text.", "modality_preprocessors.text.", IMAGE_BIND_TEXT),
    ("text.", "modality_heads.text.", &[("norm", "proj.0"), ("projection", "proj.1")]),
    ("text.layers.#.", "modality_trunks.text.blocks.#.", IMAGE_BIND_LAYER),
    ("audio.", "modality_preprocessors.audio.", IMAGE_BIND_AUDIO),
    ("audio.", "modality_heads.audio.", IMAGE_BIND_HEAD),
    ("audio.layers.#.", "modality_trunks.audio.blocks.#.", IMAGE_BIND_LAYER),
];

const IMAGE_BIND_VISION: Modules = &[
    ("class", "=cls_token"),
    ("patches", "rgbt_stem.proj.1"),
    ("positions", "=pos_embedding_helper.pos_embed"),
];

const IMAGE_BIND_TEXT: Modules = &[("tokens", "token_embedding"), ("positions", "=pos_embed")];

const IMAGE_BIND_AUDIO: Modules = &[
    ("class", "=cls_token"),
    ("kernel", "=rgbt_stem.proj.weight"),
    ("patch_norm", "rgbt_stem.norm_layer"),
    ("positions", "=pos_embedding_helper.pos_embed"),
];

const IMAGE_BIND_HEAD: Modules = &[("norm", "0"), ("projection", "2")];

const IMAGE_BIND_LAYER: Modules = &[
    ("attention.query", "attn.in_proj_@0"),
    ("attention.key", "attn.in_proj_@1"),
    ("attention.value", "attn.in_proj_@2"),
    ("attention.output", "attn.out_proj"),
    ("attention_norm", "norm_1"),
    ("extra_key", "=attn.bias_k"),
    ("extra_value", "=attn.bias_v"),
    ("feed_forward.inner", "mlp.fc1"),
    ("feed_forward.outer", "mlp.fc2"),
    ("feed_forward_norm", "norm_2"),
];

/// The names of both towers of CLIP.
pub(super) fn clip() -> Names {
    Names { parts: CLIP_PAIR, anchor: "vision_model.embeddings.class_embedding" }
}

/// The names of both towers of CLAP.
pub(super) fn clap() -> Names {
    Names { parts: CLAP_PAIR, anchor: "audio_model.audio_encoder.batch_norm.running_mean" }
}

/// The names of ImageBind.
pub(super) fn image_bind() -> Names {
    Names { parts: IMAGE_BIND, anchor: "modality_preprocessors.vision.cls_token" }
}
