//! What is done with each field of a settings file: it is followed, ignored because it changes
//! nothing, or refused.
//!
//! The tables are those of `docs/encoders.md`; a test compares the two.

use serde_json::Value;

/// What is done with a field. Null counts as absent.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    /// It is read. The text says what it sets.
    Followed(&'static str),
    /// These values, in JSON, are accepted and others are refused. The text says what others would
    /// ask for.
    Only(&'static [&'static str], &'static str),
    /// It changes no embedding. The text says why.
    Harmless(&'static str),
    /// Every value is refused. The text says why.
    Refused(&'static str),
}

/// Fields that share a rule.
#[derive(Debug)]
pub struct Fields {
    /// A name each, or several that are separated by spaces.
    pub names: &'static [&'static str],
    /// The rule.
    pub rule: Rule,
}

impl Fields {
    /// The name of each field.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.names.iter().flat_map(|names| names.split(' '))
    }
}

/// The fields of a file or of a part of it. Of two rules for one field the first holds.
pub type Table = &'static [&'static [Fields]];

/// Fields that are read; the text says what they set.
pub const fn followed(names: &'static [&'static str], what: &'static str) -> Fields {
    Fields { names, rule: Rule::Followed(what) }
}

/// Fields that may have these values alone, in JSON; the text says what others would ask for.
pub const fn only(
    names: &'static [&'static str],
    values: &'static [&'static str],
    why: &'static str,
) -> Fields {
    Fields { names, rule: Rule::Only(values, why) }
}

/// Fields that change no embedding; the text says why.
pub const fn harmless(names: &'static [&'static str], why: &'static str) -> Fields {
    Fields { names, rule: Rule::Harmless(why) }
}

/// Fields that are refused; the text says why.
pub const fn refused(names: &'static [&'static str], why: &'static str) -> Fields {
    Fields { names, rule: Rule::Refused(why) }
}

/// The rule of a field, if there is one.
pub(super) fn rule(table: Table, name: &str) -> Option<Rule> {
    let all = table.iter().flat_map(|part| part.iter());
    all.into_iter()
        .find(|fields| fields.names().any(|known| known == name))
        .map(|fields| fields.rule)
}

/// Whether a value is one of those in JSON; 0 and 0.0 are the same.
pub(super) fn is_among(value: &Value, accepted: &[&str]) -> bool {
    accepted.iter().any(|text| {
        let wanted: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        *value == wanted || value.as_f64().is_some() && value.as_f64() == wanted.as_f64()
    })
}

/// Fields of transformers that a `config.json` of any family may have.
pub const GENERAL: &[Fields] = &[
    followed(&["model_type"], "the family"),
    harmless(
        &["_name_or_path", "name_or_path", "_commit_hash", "architectures", "transformers_version"],
        "says where the model is from",
    ),
    harmless(&["dtype", "torch_dtype", "use_bfloat16"], "weights are kept in `f32`"),
    harmless(
        &["_attn_implementation _attn_implementation_autoset attn_implementation \
          chunk_size_feed_forward gradient_checkpointing output_past torchscript use_cache"],
        "how transformers computes, not what",
    ),
    harmless(
        &["output_attentions", "output_hidden_states", "return_dict", "tf_legacy_loss"],
        "what transformers returns",
    ),
    harmless(&["initializer_factor", "initializer_range"], "every weight is read from the file"),
    harmless(
        &["_num_labels classifier_dropout classifier_dropout_prob finetuning_task id2label \
          label2id num_labels problem_type task_specific_params tie_encoder_decoder \
          tie_word_embeddings"],
        "heads and decoders are not read",
    ),
    harmless(
        &["bos_token_id cls_token_id decoder_start_token_id eos_token_id mask_token_id \
          pad_token_id sep_token_id tokenizer_class unk_token_id"],
        "`tokenizer.json` says which tokens a text gets; padding is masked",
    ),
    harmless(
        &["bad_words_ids begin_suppress_tokens cross_attention_hidden_size diversity_penalty \
          do_sample early_stopping encoder_no_repeat_ngram_size \
          exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id \
          is_encoder_decoder length_penalty max_length min_length no_repeat_ngram_size \
          num_beam_groups num_beams num_return_sequences output_scores prefix \
          remove_invalid_values repetition_penalty return_dict_in_generate suppress_tokens \
          temperature top_k top_p typical_p"],
        "settings of text generation",
    ),
    only(&["is_decoder"], &["false"], "a decoder hides the tokens to the right"),
    only(&["add_cross_attention"], &["false"], "cross-attention is not supported"),
    only(&["pruned_heads"], &["{}"], "layers with fewer heads are not supported"),
    refused(&["auto_map"], "the model runs code of its own"),
    refused(&["quantization_config"], "quantized weights are not supported"),
];
