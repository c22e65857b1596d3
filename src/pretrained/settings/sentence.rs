//! The files of sentence-transformers: which modules a model has, how it pools, how long its texts
//! are.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::{
    fields::{Table, followed, harmless, only, refused},
    file::{Settings, brief, read_json},
};
use crate::{
    error::{Error, Result},
    nn::Pooling,
};

const MODULES: &str = "modules.json";
const WHOLE: &str = "config_sentence_transformers.json";
/// Names of the encoder's file, the one of today first.
const ENCODERS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];
/// Where the settings of pooling are if there is no list of modules.
const POOLING_FILE: &str = "1_Pooling/config.json";

/// The files that are read here, as far as their names are fixed.
#[cfg(feature = "hub")]
pub(in crate::pretrained) const FILES: [&str; 5] =
    [MODULES, WHOLE, ENCODERS[0], ENCODERS[1], POOLING_FILE];

/// An entry of `modules.json`.
pub(super) const MODULE: Table = &[&[
    followed(
        &["type"],
        "`Transformer`, `Pooling`; `Normalize` and `Dropout` are passed over; others are refused",
    ),
    followed(&["path"], "the folder of the module"),
    harmless(&["idx", "name"], "the order of the list counts"),
    only(&["kwargs"], &["[]", "{}"], "arguments of each call are not supported"),
]];

/// `1_Pooling/config.json`.
pub(super) const POOLING: Table = &[&[
    followed(
        &["pooling_mode"],
        "`cls`, `mean`, `max` or `lasttoken`; one only; `mean` if nothing is said",
    ),
    followed(
        &[
            "pooling_mode_cls_token",
            "pooling_mode_mean_tokens",
            "pooling_mode_max_tokens",
            "pooling_mode_lasttoken",
        ],
        "the same before version 6; `pooling_mode` counts where both are there",
    ),
    followed(
        &["pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens"],
        "must be false: these ways of pooling are not supported",
    ),
    followed(
        &["embedding_dimension", "word_embedding_dimension"],
        "must be the width of the encoder",
    ),
    harmless(&["include_prompt"], "there are no prompts"),
]];

/// `sentence_bert_config.json`.
pub(super) const ENCODER: Table = &[&[
    followed(&["max_seq_length"], "the longest text, unless set otherwise"),
    followed(&["do_lower_case"], "whether texts are put into lower case first"),
    only(&["transformer_task"], &["\"feature-extraction\""], "other tasks give other vectors"),
    only(
        &["modality_config"],
        &["{\"text\": {\"method\": \"forward\", \"method_output_name\": \"last_hidden_state\"}}"],
        "texts through the encoder as a whole",
    ),
    only(&["module_output_name"], &["\"token_embeddings\""], "pooling reads them"),
    only(
        &["config_args config_kwargs model_args model_kwargs processing_kwargs \
          processor_kwargs tokenizer_args"],
        &["{}"],
        "arguments for transformers are not supported",
    ),
    harmless(&["unpad_inputs"], "how padding is left out, not what is computed"),
    refused(
        &["document_length", "query_expansion", "query_length"],
        "models of several vectors are not supported",
    ),
]];

/// `config_sentence_transformers.json`.
pub(super) const WHOLE_FIELDS: Table = &[&[
    followed(
        &["default_prompt_name"],
        "must be null or name an empty prompt: put prompts into captions and queries yourself",
    ),
    followed(&["prompts"], "read for `default_prompt_name` only"),
    only(&["model_type"], &["\"SentenceTransformer\""], "models of another kind"),
    refused(&["truncate_dim"], "vectors are not cut"),
    harmless(&["__version__"], "says what wrote the file"),
    harmless(&["similarity_fn_name"], "identifiers are compared, not vectors"),
]];

/// What the files of sentence-transformers say about a text encoder.
#[derive(Debug, Default)]
pub(super) struct Sentence {
    /// The folder of the encoder within that of the model.
    pub(super) encoder: PathBuf,
    pub(super) pooling: Option<Pooling>,
    /// The width that pooling expects, and the file that says so.
    pub(super) width: Option<(PathBuf, usize)>,
    pub(super) max_tokens: Option<usize>,
    pub(super) lower_case: bool,
}

/// Reads the files of sentence-transformers that are in a folder.
pub(super) fn sentence(folder: &Path) -> Result<Sentence> {
    let mut sentence = Sentence::default();
    let modules = folder.join(MODULES);
    let pooling = if modules.exists() {
        let (encoder, pooling) = read_modules(&modules)?;
        sentence.encoder = encoder;
        pooling.map(|path| folder.join(path).join("config.json"))
    } else {
        Some(folder.join(POOLING_FILE)).filter(|path| path.exists())
    };
    if let Some(path) = pooling {
        let settings = Settings::read(&path)?;
        sentence.pooling = Some(read_pooling(&settings)?);
        for key in ["embedding_dimension", "word_embedding_dimension"] {
            if settings.get(key).is_some() {
                sentence.width = Some((path.clone(), settings.size(key)?));
            }
        }
    }
    check_prompts(folder)?;
    let encoder = folder.join(&sentence.encoder);
    let file = ENCODERS.iter().map(|name| encoder.join(name)).find(|path| path.exists());
    if let Some(path) = file {
        let settings = Settings::read(&path)?;
        settings.check(ENCODER)?;
        if settings.get("max_seq_length").is_some() {
            sentence.max_tokens = Some(settings.size("max_seq_length")?);
        }
        sentence.lower_case = settings.flag_or("do_lower_case", false)?;
    }
    Ok(sentence)
}

/// The folders of the encoder and of pooling.
fn read_modules(path: &Path) -> Result<(PathBuf, Option<PathBuf>)> {
    let problem = |expected: &str, found: String| {
        Error::model(path.display().to_string()).expected(expected).found(found).fix("use a model whose vectors are pooled and at most normalised; to use the encoder of this one without \
             its other modules, remove them from the file")
    };
    let Value::Array(entries) = read_json(path)? else {
        return Err(problem("a list of modules", "something else".into()));
    };
    let (mut encoder, mut pooling) = (None, None);
    for (at, entry) in entries.into_iter().enumerate() {
        let Value::Object(values) = entry else {
            return Err(problem("modules that are objects in JSON", brief(&entry)));
        };
        let prefix = format!("[{at}].");
        let module = Settings { path: path.to_path_buf(), prefix, values };
        module.check(MODULE)?;
        let kind = module.text_or("type", "none")?;
        let inside = PathBuf::from(module.text_or("path", "")?);
        let shown = inside.display();
        if !inside.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(module.problem("path", "a folder within that of the model", shown));
        }
        let (library, name) = kind.rsplit_once('.').unwrap_or(("", kind));
        let known =
            library == "sentence_transformers" || library.starts_with("sentence_transformers.");
        match name {
            "Transformer" if known && at == 0 => encoder = Some(inside),
            "Pooling" if known && at == 1 => pooling = Some(inside),
            "Normalize" | "Dropout" if known && at > 0 => {}
            _ => {
                return Err(problem(
                    "a Transformer, then Pooling, then at most Normalize or Dropout",
                    format!("module {at} of type {kind}"),
                ));
            }
        }
    }
    let encoder = encoder.ok_or_else(|| problem("a Transformer", "no module".into()))?;
    Ok((encoder, pooling))
}

/// The one way of pooling.
fn read_pooling(settings: &Settings) -> Result<Pooling> {
    const KEY: &str = "pooling_mode";
    const OLDER: [(&str, &str); 6] = [
        ("pooling_mode_cls_token", "cls"),
        ("pooling_mode_max_tokens", "max"),
        ("pooling_mode_mean_tokens", "mean"),
        ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
        ("pooling_mode_weightedmean_tokens", "weightedmean"),
        ("pooling_mode_lasttoken", "lasttoken"),
    ];
    settings.check(POOLING)?;
    let mut older = Vec::new();
    for (key, way) in OLDER {
        if settings.flag_or(key, false)? {
            older.push(way.to_string());
        }
    }
    let expected = "one of cls, mean, max, lasttoken";
    let ways = match settings.get(KEY) {
        None => older,
        Some(Value::String(way)) => vec![way.clone()],
        Some(Value::Array(ways)) if ways.iter().all(Value::is_string) => {
            ways.iter().filter_map(Value::as_str).map(String::from).collect()
        }
        Some(other) => return Err(settings.problem(KEY, expected, brief(other))),
    };
    match ways.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["mean"] => Ok(Pooling::Mean),
        ["cls"] => Ok(Pooling::First),
        ["max"] => Ok(Pooling::Max),
        ["lasttoken"] => Ok(Pooling::Last),
        _ => Err(settings.problem(KEY, expected, ways.join(" and "))),
    }
}

/// Refuses a prompt that goes before every text.
fn check_prompts(folder: &Path) -> Result<()> {
    const KEY: &str = "default_prompt_name";
    let Some(settings) = Settings::read_if_there(&folder.join(WHOLE))? else { return Ok(()) };
    settings.check(WHOLE_FIELDS)?;
    let prompts = settings.object_or_empty("prompts")?;
    if settings.get(KEY).is_none() {
        return Ok(());
    }
    let name = settings.text_or(KEY, "")?;
    if prompts.text_or(name, "?")?.is_empty() {
        return Ok(());
    }
    Err(Error::model(settings.subject(KEY))
        .expected("no prompt before every text")
        .found(format!("{name:?}: {}", brief(prompts.get(name).unwrap_or(&Value::Null))))
        .fix("set it to null, and put the prompt into captions and queries yourself"))
}
