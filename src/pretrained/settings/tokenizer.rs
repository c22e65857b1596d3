//! The files next to `tokenizer.json`: what they say must be in it, since it alone makes tokens.

use std::path::Path;

use serde_json::Value;

use super::{
    fields::{Fields, Table, followed, harmless, only, refused},
    file::{Settings, brief},
};
use crate::{
    data::TextTokenizer,
    error::{Error, Result},
};

const CONFIG: &str = "tokenizer_config.json";
const SPECIAL: &str = "special_tokens_map.json";
const ADDED: &str = "added_tokens.json";

/// The files that are read here.
#[cfg(feature = "hub")]
pub(in crate::pretrained) const FILES: [&str; 3] = [CONFIG, SPECIAL, ADDED];

/// Special tokens with a name.
const NAMED: [&str; 7] =
    ["bos_token", "cls_token", "eos_token", "mask_token", "pad_token", "sep_token", "unk_token"];
/// Lists of special tokens.
const LISTS: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

const SPECIAL_FIELDS: &[Fields] = &[
    followed(
        &NAMED,
        "must be tokens of `tokenizer.json`; those of BERT and RoBERTa must frame a text",
    ),
    followed(&LISTS, "must be tokens of `tokenizer.json`"),
];

/// `special_tokens_map.json`.
pub(super) const SPECIAL_TOKENS: Table = &[SPECIAL_FIELDS];

/// `tokenizer_config.json`.
pub(super) const TOKENIZER: Table = &[
    SPECIAL_FIELDS,
    &[
        followed(
            &["added_tokens_decoder"],
            "must be tokens of `tokenizer.json`, with the same numbers",
        ),
        followed(&["model_max_length", "max_len"], "the longest text, unless set otherwise"),
        followed(
            &["do_lower_case", "strip_accents", "tokenize_chinese_chars"],
            "of BERT: must agree with `tokenizer.json`",
        ),
        followed(&["add_prefix_space"], "of RoBERTa: must agree with `tokenizer.json`"),
        followed(&["tokenizer_class"], "says which of the checks hold"),
        only(&["truncation_side"], &["\"right\""], "long texts lose their end"),
        only(&["split_special_tokens"], &["false"], "special tokens are kept whole"),
        only(&["never_split"], &["[]"], "words are split as `tokenizer.json` says"),
        refused(&["auto_map"], "the tokenizer runs code of its own"),
        harmless(
            &["pad_to_multiple_of", "pad_token_type_id", "padding", "padding_side"],
            "padding is masked",
        ),
        harmless(
            &["max_length", "stride", "truncation", "truncation_strategy"],
            "of the call that wrote the file",
        ),
        harmless(
            &["add_bos_token add_eos_token do_basic_tokenize extra_ids keep_accents legacy \
              sp_model_kwargs use_fast"],
            "of tokenizers without a `tokenizer.json`, which says it",
        ),
        harmless(
            &["backend from_slow is_local local_files_only name_or_path processor_class \
              special_tokens_map_file tokenizer_file transformers_version vocab_file \
              merges_file"],
            "says where the tokenizer is from",
        ),
        harmless(
            &["chat_template clean_up_tokenization_spaces errors model_input_names \
              model_specific_special_tokens return_offsets_mapping return_token_type_ids \
              spaces_between_special_tokens trim_offsets use_default_system_prompt verbose \
              wordpieces_prefix"],
            "does not change the tokens of a text",
        ),
    ],
];

/// Holds the files next to `tokenizer.json` against it; gives the longest text, if they name one.
pub(in crate::pretrained) fn check_tokenizer(
    folder: &Path,
    tokenizer: &TextTokenizer,
) -> Result<Option<usize>> {
    if let Some(settings) = Settings::read_if_there(&folder.join(SPECIAL))? {
        settings.check(SPECIAL_TOKENS)?;
        check_special(&settings, tokenizer)?;
    }
    if let Some(settings) = Settings::read_if_there(&folder.join(ADDED))? {
        for (token, number) in &settings.values {
            check_number(&settings, token, token, Some(number), tokenizer)?;
        }
    }
    let Some(settings) = Settings::read_if_there(&folder.join(CONFIG))? else { return Ok(None) };
    settings.check(TOKENIZER)?;
    check_special(&settings, tokenizer)?;
    for (number, token) in &settings.object_or_empty("added_tokens_decoder")?.values {
        let number = number.parse::<u32>().map_or(Value::Null, Value::from);
        let content = content(token).unwrap_or_default();
        check_number(&settings, "added_tokens_decoder", content, Some(&number), tokenizer)?;
    }
    check_class(&settings, tokenizer)?;
    // "No limit" is written as 1e30.
    let limit = ["model_max_length", "max_len"].iter().map(|key| settings.number_or(key, 1e30));
    let limit = limit.collect::<Result<Vec<f64>>>()?.into_iter().fold(1e30, f64::min);
    Ok((limit < 1e9).then_some(limit.max(0.0) as usize))
}

/// The text of a token, which may be an object.
fn content(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

/// Special tokens must be in `tokenizer.json`: transformers would give others new numbers.
fn check_special(settings: &Settings, tokenizer: &TextTokenizer) -> Result<()> {
    for key in NAMED {
        if let Some(token) = settings.get(key) {
            let text =
                content(token).ok_or_else(|| settings.problem(key, "a token", brief(token)))?;
            check_number(settings, key, text, None, tokenizer)?;
        }
    }
    for key in LISTS {
        let tokens: Vec<&Value> = match settings.get(key) {
            None => continue,
            Some(Value::Array(tokens)) => tokens.iter().collect(),
            Some(Value::Object(tokens)) => tokens.values().collect(),
            Some(other) => return Err(settings.problem(key, "a list of tokens", brief(other))),
        };
        for token in tokens {
            let text =
                content(token).ok_or_else(|| settings.problem(key, "tokens", brief(token)))?;
            check_number(settings, key, text, None, tokenizer)?;
        }
    }
    Ok(())
}

/// A token must be in `tokenizer.json`, with the number that is given.
fn check_number(
    settings: &Settings,
    key: &str,
    token: &str,
    number: Option<&Value>,
    tokenizer: &TextTokenizer,
) -> Result<()> {
    let found = tokenizer.token_id(token);
    let same = number.is_none_or(|number| found.map(u64::from) == number.as_u64());
    if found.is_some() && same {
        return Ok(());
    }
    let number = number.map_or(String::new(), |number| format!(" as number {number}"));
    Err(Error::tokenizer(settings.subject(key))
        .expected(format!("tokens of tokenizer.json: {token:?}{number}"))
        .found(found.map_or("no such token".into(), |found| format!("number {found}")))
        .fix("take all files from one model, or save the tokenizer again with transformers"))
}

/// What the classes of BERT and RoBERTa would change about `tokenizer.json`.
fn check_class(settings: &Settings, tokenizer: &TextTokenizer) -> Result<()> {
    let class = settings.text_or("tokenizer_class", "Bert")?.to_lowercase();
    let (normalizer, pre_tokenizer) = tokenizer.parts();
    let disagree = |key: &str, wanted: bool, found: bool| {
        Err(Error::tokenizer(settings.subject(key))
            .expected(format!("{found}, as tokenizer.json says"))
            .found(wanted.to_string())
            .fix("save the tokenizer again with transformers, so that both files agree"))
    };
    let flags = ["do_lower_case", "strip_accents", "tokenize_chinese_chars", "add_prefix_space"];
    let mut wanted = [None; 4];
    for (wanted, key) in wanted.iter_mut().zip(flags) {
        if settings.get(key).is_some() {
            *wanted = Some(settings.flag_or(key, false)?);
        }
    }
    if !class.contains("bert") {
        return Ok(());
    }
    if let Some(part) = find(&normalizer, "normalizers", "BertNormalizer") {
        let lower = part["lowercase"].as_bool().unwrap_or(true);
        let strip = part["strip_accents"].as_bool().unwrap_or(lower);
        let chinese = part["handle_chinese_chars"].as_bool().unwrap_or(true);
        for ((key, wanted), found) in flags.iter().zip(wanted).zip([lower, strip, chinese]) {
            if let Some(wanted) = wanted
                && wanted != found
            {
                return disagree(key, wanted, found);
            }
        }
    }
    if let Some(part) = find(&pre_tokenizer, "pretokenizers", "ByteLevel")
        && let Some(wanted) = wanted[3]
        && let found = part["add_prefix_space"].as_bool().unwrap_or(true)
        && wanted != found
    {
        return disagree(flags[3], wanted, found);
    }
    check_frame(settings, tokenizer)
}

/// The tokens around a text.
fn check_frame(settings: &Settings, tokenizer: &TextTokenizer) -> Result<()> {
    let Ok(tokens) = tokenizer.encode("a") else { return Ok(()) };
    for (key, found) in [("cls_token", tokens.first()), ("sep_token", tokens.last())] {
        let Some(token) = settings.get(key).and_then(content) else { continue };
        if tokenizer.token_id(token).as_ref() != found {
            return Err(Error::tokenizer(settings.subject(key))
                .expected("the token that tokenizer.json puts around a text")
                .found(format!("{token:?}"))
                .fix("save the tokenizer again with transformers, so that both files agree"));
        }
    }
    Ok(())
}

/// A part of a type, or one among the parts of a sequence.
fn find<'a>(value: &'a Value, list: &str, kind: &str) -> Option<&'a Value> {
    if let Some(parts) = value[list].as_array() {
        return parts.iter().find_map(|part| find(part, list, kind));
    }
    (value["type"] == kind).then_some(value)
}

/// The last token of a text must be the one whose vector stands for it.
pub(in crate::pretrained) fn check_end(
    folder: &Path,
    ends: &[u32],
    tokenizer: &TextTokenizer,
) -> Result<()> {
    /// What older files say, whatever the token: the highest number stands for the end.
    const OLDER: u32 = 2;
    let Some(last) = tokenizer.encode("a").ok().and_then(|tokens| tokens.last().copied()) else {
        return Ok(());
    };
    let fits = if ends == [OLDER] && last != OLDER {
        last as usize + 1 == tokenizer.token_limit()
    } else {
        ends.contains(&last)
    };
    if fits {
        return Ok(());
    }
    Err(Error::model(format!("{}: eos_token_id", folder.join("config.json").display()))
        .expected(format!("{last}, the token that tokenizer.json puts behind a text"))
        .found(format!("{ends:?}"))
        .fix("take all files from one model"))
}
