//! Where a parameter of ours is in the files of a family.

use crate::nn::TextEncoderConfig;

/// Modules (or single parameters) of a part of a network: ours, and theirs in the order in which
/// they are looked for, separated by spaces. `#` stands for the number of a stage or layer, `^` for
/// the outermost level of the file, `=` for the whole name of a tensor, and `@k` before the name of
/// a parameter for part k of three that are stored as one.
pub type Modules = &'static [(&'static str, &'static str)];

/// Parts of a network: what is before our names, what is before theirs, and the modules.
pub type Parts = &'static [(&'static str, &'static str, Modules)];

const BERT: Parts = &[
    ("", "embeddings.", BERT_EMBEDDINGS),
    ("layers.#.", "encoder.layer.#.", BERT_LAYER),
    ("layers.#.", "encoder.layer.#.", BERT_NORMS),
];

/// The embeddings of BERT.
pub const BERT_EMBEDDINGS: Modules = &[
    ("tokens", "word_embeddings"),
    ("positions", "position_embeddings"),
    ("token_types", "token_type_embeddings"),
    ("norm", "LayerNorm"),
];

/// A layer of BERT, without its norms.
pub const BERT_LAYER: Modules = &[
    ("attention.query", "attention.self.query"),
    ("attention.key", "attention.self.key"),
    ("attention.value", "attention.self.value"),
    ("attention.output", "attention.output.dense"),
    ("feed_forward.inner", "intermediate.dense"),
    ("feed_forward.outer", "output.dense"),
];

/// The norms of a layer of BERT.
pub const BERT_NORMS: Modules =
    &[("attention_norm", "attention.output.LayerNorm"), ("feed_forward_norm", "output.LayerNorm")];

const T5: Parts = &[("", "", T5_WHOLE), ("layers.#.", "block.#.", T5_LAYER)];

const T5_WHOLE: Modules = &[
    ("tokens", "embed_tokens ^shared"),
    ("distances", "block.0.layer.0.SelfAttention.relative_attention_bias"),
    ("final_norm", "final_layer_norm"),
];

const T5_LAYER: Modules = &[
    ("attention.query", "layer.0.SelfAttention.q"),
    ("attention.key", "layer.0.SelfAttention.k"),
    ("attention.value", "layer.0.SelfAttention.v"),
    ("attention.output", "layer.0.SelfAttention.o"),
    ("attention_norm", "layer.0.layer_norm"),
    ("feed_forward.inner", "layer.1.DenseReluDense.wi layer.1.DenseReluDense.wi_0"),
    ("feed_forward.gated", "layer.1.DenseReluDense.wi_1"),
    ("feed_forward.outer", "layer.1.DenseReluDense.wo"),
    ("feed_forward_norm", "layer.1.layer_norm"),
];

const CLIP: Parts = &[("", "", CLIP_TEXT), ("layers.#.", "encoder.layers.#.", CLIP_LAYER)];

/// The text tower of CLIP, without its layers.
pub const CLIP_TEXT: Modules = &[
    ("tokens", "embeddings.token_embedding"),
    ("positions", "embeddings.position_embedding"),
    ("final_norm", "final_layer_norm"),
];

/// A layer of either tower of CLIP.
pub const CLIP_LAYER: Modules = &[
    ("attention.query", "self_attn.q_proj"),
    ("attention.key", "self_attn.k_proj"),
    ("attention.value", "self_attn.v_proj"),
    ("attention.output", "self_attn.out_proj"),
    ("attention_norm", "layer_norm1"),
    ("feed_forward.inner", "mlp.fc1"),
    ("feed_forward.outer", "mlp.fc2"),
    ("feed_forward_norm", "layer_norm2"),
];

/// Parameters that are stored as one where a name has `@k`.
pub(super) const PARTS: usize = 3;

/// The names of a family's parameters.
pub struct Names {
    /// Where the parameters of its parts are.
    pub parts: Parts,
    /// A tensor that every file of the family has.
    pub anchor: &'static str,
}

/// A parameter in a file.
pub(super) struct Source {
    /// Its names without the prefix, in the order in which they are looked for.
    pub(super) names: Vec<String>,
    /// Whether it is stored as `[d_output, d_input]`.
    pub(super) transposed: bool,
    /// Whether it may have other dimensions there: the weights of a convolution, a vector for a
    /// table of one row.
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
                Self { parts: BERT, anchor: "embeddings.word_embeddings.weight" }
            }
            TextEncoderConfig::T5(_) => Self {
                parts: T5,
                anchor: "block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            },
            TextEncoderConfig::Clip(_) => {
                Self { parts: CLIP, anchor: "embeddings.token_embedding.weight" }
            }
        })
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
        let is_number = |part: &&str| part.bytes().all(|b| b.is_ascii_digit());
        let numbers: Vec<&str> = path.split('.').filter(is_number).collect();
        let general = path.split('.').map(|part| if is_number(&part) { "#" } else { part });
        let general = general.collect::<Vec<_>>().join(".");
        let (module, leaf) = general.rsplit_once('.')?;
        let find = |name: &str| {
            self.parts.iter().find_map(|(ours, before, modules)| {
                let name = name.strip_prefix(ours)?;
                let (_, theirs) = modules.iter().find(|(ours, _)| *ours == name)?;
                Some((*before, *theirs))
            })
        };
        // A parameter of its own, or one of a module's.
        let single = find(&general).is_some();
        let (before, theirs) = find(&general).or_else(|| find(module))?;
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
        for name in theirs.split(' ') {
            match (name.strip_prefix('='), name.split_once('@')) {
                (Some(tensor), _) => names.push(format!("{before}{tensor}")),
                (None, Some((start, number))) => {
                    part = Some(number.parse().ok()?);
                    names.extend(leaves.iter().map(|leaf| format!("{before}{start}{leaf}")));
                }
                (None, None) => {
                    names.extend(leaves.iter().map(|leaf| format!("{before}{name}.{leaf}")));
                }
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
