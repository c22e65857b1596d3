//! Where a parameter of ours is in the files of a family.

use crate::nn::TextEncoderConfig;

/// Modules of a family: ours, and theirs in the order in which they are looked for. `#` stands for
/// the number of a layer, `^` for the outermost level of the file.
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
}

impl Names {
    /// The names of an encoder's family; none for the encoder that is ours.
    pub(super) fn of(config: &TextEncoderConfig) -> Option<Self> {
        Some(match config {
            TextEncoderConfig::Scratch(_) => return None,
            TextEncoderConfig::Bert(_) => {
                Self { modules: BERT, anchor: "embeddings.word_embeddings.weight" }
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
            .flat_map(|module| leaves.iter().map(move |leaf| format!("{module}.{leaf}")))
            .map(|name| name.replace('#', number.unwrap_or("#")))
            .collect();
        let table = ["tokens", "positions", "token_types", "distances"].contains(&module);
        Some(Source { names, transposed: leaf == "weight" && !table })
    }
}
