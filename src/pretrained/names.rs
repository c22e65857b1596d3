//! Where a parameter of ours is in the files of a family.

use crate::nn::TextEncoderConfig;

/// Modules (or single parameters) of a family: ours, and theirs in the order in which they are looked for. `#` stands for
/// the number of a stage or layer, `^` for the outermost level of the file, `=` for the whole name of a tensor, and
/// `@k` before the name of a parameter for part k of three that are stored as one.
pub type Modules = &'static [(&'static str, &'static [&'static str])];

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

/// Parameters that are stored as one where a name has `@k`.
pub(super) const PARTS: usize = 3;

/// The names of a family's parameters.
pub struct Names {
    /// Where its parameters are.
    pub modules: Modules,
    /// A tensor that every file of the family has.
    pub anchor: &'static str,
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
