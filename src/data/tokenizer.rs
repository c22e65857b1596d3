//! Text to tokens, through the `tokenizers` crate: trained on captions or loaded from a file.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokenizers::{
    AddedToken, Tokenizer,
    models::{TrainerWrapper as Trainer, bpe::BpeTrainer},
    normalizers::{NormalizerWrapper, Sequence, utils::Lowercase},
};

use crate::{
    error::{Error, Result},
    storage::write_bytes,
};

/// Special tokens of a trained tokenizer, in the order of their numbers.
const SPECIAL: [&str; 4] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"];

/// How words are cut into pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum TokenizerModel {
    /// WordPiece, as BERT's.
    #[default]
    WordPiece,
    /// Byte-pair encoding.
    Bpe,
}

/// Settings of a tokenizer to train.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenizerConfig {
    /// How words are cut.
    pub model: TokenizerModel,
    /// Most tokens, special ones included.
    pub vocabulary: usize,
    /// Times a piece of several characters must occur to become a token.
    pub min_frequency: u64,
    /// Whether case and accents are dropped.
    pub lowercase: bool,
}

impl Default for TokenizerConfig {
    fn default() -> Self {
        Self {
            model: TokenizerModel::WordPiece,
            vocabulary: 4000,
            min_frequency: 2,
            lowercase: true,
        }
    }
}

/// A text tokenizer with a length limit.
///
/// # Example
/// ```
/// use cart_retrieval::data::{TextTokenizer, TokenizerConfig};
/// let config = TokenizerConfig { vocabulary: 100, min_frequency: 1, ..Default::default() };
/// let tokenizer = TextTokenizer::train(["a red circle", "a blue star"], &config, 16)?;
/// assert_eq!(tokenizer.encode("A red star")?.len(), 5); // [CLS] a red star [SEP]
/// assert!(tokenizer.encode("  ").is_err());
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Clone)]
pub struct TextTokenizer {
    pub(super) inner: Tokenizer,
    padding: u32,
    max_tokens: usize,
}

impl std::fmt::Debug for TextTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextTokenizer")
            .field("vocabulary", &self.vocabulary())
            .field("max_tokens", &self.max_tokens)
            .finish_non_exhaustive()
    }
}

impl TextTokenizer {
    /// Trains a tokenizer on texts. The same texts in the same order give the same tokenizer.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] without text, or with a vocabulary too small to hold more than the
    /// special tokens.
    pub fn train<'a>(
        texts: impl IntoIterator<Item = &'a str>,
        config: &TokenizerConfig,
        max_tokens: usize,
    ) -> Result<Self> {
        let texts: Vec<String> =
            texts.into_iter().filter(|t| !t.trim().is_empty()).map(String::from).collect();
        if texts.is_empty() {
            return Err(Error::tokenizer("training text")
                .expected("at least one caption")
                .found("none")
                .fix("check the captions file and its filter"));
        }
        if config.vocabulary <= SPECIAL.len() + 1 {
            return Err(Error::tokenizer("vocabulary")
                .expected(format!("more than {}", SPECIAL.len() + 1))
                .found(config.vocabulary.to_string())
                .fix("a few thousand tokens suit most caption sets"));
        }
        let mut inner = untrained(config)?;
        let special = SPECIAL.map(|token| AddedToken::from(token, true)).to_vec();
        let mut trainer: Trainer = Trainer::BpeTrainer(
            BpeTrainer::builder()
                .vocab_size(config.vocabulary)
                .min_frequency(config.min_frequency)
                .show_progress(false)
                .special_tokens(special)
                .build(),
        );
        inner.train(&mut trainer, texts.iter()).map_err(|e| refused("training", &*e))?;
        if config.model == TokenizerModel::WordPiece {
            let vocabulary = word_pieces(&inner, &texts, config.vocabulary)?;
            let model = json!({
                "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": vocabulary
            });
            inner = assembled(config, model)?;
        }
        Self::new(inner, max_tokens)
    }

    /// Reads a `tokenizer.json` of the `tokenizers` library.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Tokenizer`] when it is no tokenizer.
    pub fn from_file(path: impl AsRef<Path>, max_tokens: usize) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
        Self::parse(&bytes, &path.display().to_string(), max_tokens)
    }

    /// Reads the contents of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when they are no tokenizer.
    pub fn from_bytes(bytes: &[u8], max_tokens: usize) -> Result<Self> {
        Self::parse(bytes, "tokenizer", max_tokens)
    }

    fn parse(bytes: &[u8], subject: &str, max_tokens: usize) -> Result<Self> {
        let wrong = |found: String| {
            Error::tokenizer(subject)
                .expected("a tokenizer.json of the tokenizers library")
                .found(found)
                .fix("save it again with that library, or train a new one")
        };
        // A byte order mark of UTF-8 says nothing.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        // That library panics at what is no JSON within a decoder, and at some parts that are not
        // what they should be.
        let json: serde_json::Value =
            serde_json::from_slice(bytes).map_err(|e| wrong(e.to_string()))?;
        if let Some(error) = bad_normalizer(&json["normalizer"]) {
            return Err(wrong(format!("an invalid normalizer of type Precompiled: {error}")));
        }
        let inner = Tokenizer::from_bytes(bytes).map_err(|e| wrong(e.to_string()))?;
        // At the first text that it is given, otherwise.
        if let Some(token) = undefined_token(&json["post_processor"]) {
            return Err(Error::tokenizer(subject)
                .expected("a post_processor whose templates use its special_tokens")
                .found(format!("{token:?}, which is none of them"))
                .fix("save it again with that library, or train a new one"));
        }
        Self::new(inner, max_tokens)
    }

    fn new(mut inner: Tokenizer, max_tokens: usize) -> Result<Self> {
        if max_tokens < 3 {
            return Err(Error::tokenizer("max_tokens")
                .expected("at least 3 (two special tokens and a word)")
                .found(max_tokens.to_string())
                .fix("32 to 77 are usual"));
        }
        let stated = inner.get_padding().map(|padding| padding.pad_id);
        inner.with_padding(None);
        inner
            .with_truncation(Some(tokenizers::TruncationParams {
                max_length: max_tokens,
                ..Default::default()
            }))
            .map_err(|e| refused("truncation", &*e))?;
        let padding = stated.unwrap_or_else(|| usual_padding(&inner));
        Ok(Self { inner, padding, max_tokens })
    }

    /// Sets the most tokens of a text, special ones included.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for fewer than 3.
    pub fn with_max_tokens(self, max_tokens: usize) -> Result<Self> {
        let padding = self.padding;
        Ok(Self { padding, ..Self::new(self.inner, max_tokens)? })
    }

    /// Sets the number of the padding token.
    pub fn with_padding(self, padding: u32) -> Self {
        Self { padding, ..self }
    }

    /// Writes the tokenizer as `tokenizer.json`, atomically.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        write_bytes(path, self.to_json()?.as_bytes())
    }

    /// The text of `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the tokenizer cannot be written down.
    pub fn to_json(&self) -> Result<String> {
        let mut inner = self.inner.clone();
        if self.padding != usual_padding(&inner) {
            let padding = tokenizers::PaddingParams { pad_id: self.padding, ..Default::default() };
            inner.with_padding(Some(padding));
        }
        inner.to_string(false).map_err(|e| refused("saving", &*e))
    }

    /// Tokens of one text, special tokens included, cut at the limit.
    ///
    /// # Errors
    /// [`Error::Query`] when the text is blank.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        ensure_words(text)?;
        let encoding = self.inner.encode_fast(text, true).map_err(|e| refused("encoding", &*e))?;
        let tokens = encoding.get_ids().to_vec();
        if tokens.is_empty() {
            return Err(Error::query(format!("text {text:?}"))
                .expected("at least one token")
                .found("none")
                .fix("write words that the tokenizer knows"));
        }
        Ok(tokens)
    }

    /// Number of tokens.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The highest number of a token, and 1: what a table of embeddings must cover. More than
    /// [`TextTokenizer::vocabulary`] where numbers are left out.
    pub fn token_limit(&self) -> usize {
        let highest = self.inner.get_vocab(true).into_values().max();
        highest.map_or(0, |highest| highest as usize + 1)
    }

    /// Number of a token, if there is one of that text.
    pub(crate) fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The normalizer and the pre-tokenizer as `tokenizer.json` has them; null where there is none.
    pub(crate) fn parts(&self) -> (serde_json::Value, serde_json::Value) {
        let normalizer = serde_json::to_value(self.inner.get_normalizer());
        let pre_tokenizer = serde_json::to_value(self.inner.get_pre_tokenizer());
        (normalizer.unwrap_or_default(), pre_tokenizer.unwrap_or_default())
    }

    /// Puts texts into lower case before all else.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the library refuses it.
    pub(crate) fn lowercased(mut self) -> Result<Self> {
        let mut parts: Vec<NormalizerWrapper> = vec![Lowercase.into()];
        parts.extend(self.inner.get_normalizer().cloned());
        let sequence = Sequence::new(parts);
        self.inner.with_normalizer(Some(sequence)).map_err(|e| refused("normalizer", &*e))?;
        Ok(self)
    }

    /// Number of the padding token.
    pub fn padding(&self) -> u32 {
        self.padding
    }

    /// Most tokens of a text.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }
}

/// The padding token by its usual names; token 0 where there is none.
fn usual_padding(inner: &Tokenizer) -> u32 {
    let names = ["[PAD]", "<pad>", "<|endoftext|>"];
    names.iter().find_map(|token| inner.token_to_id(token)).unwrap_or(0)
}

/// The WordPiece vocabulary of a trained BPE: its pieces as they occur at the start and inside of
/// words, all single characters, then the most frequent.
///
/// The library's own WordPiece trainer numbers pieces in the order of a randomly seeded hash map,
/// so two runs on the same text differ; its BPE trainer does not.
fn word_pieces(bpe: &Tokenizer, texts: &[String], limit: usize) -> Result<BTreeMap<String, usize>> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for text in texts {
        let encoding = bpe.encode(text.as_str(), false).map_err(|e| refused("training", &*e))?;
        let words = encoding.get_word_ids();
        for (at, piece) in encoding.get_tokens().iter().enumerate() {
            if SPECIAL.contains(&piece.as_str()) {
                continue;
            }
            let inside = at > 0 && words[at] == words[at - 1];
            let name = if inside { format!("##{piece}") } else { piece.clone() };
            *counts.entry(name).or_default() += 1;
            for (position, character) in piece.chars().enumerate() {
                let first = position == 0 && !inside;
                let name = if first { character.to_string() } else { format!("##{character}") };
                counts.entry(name).or_default();
            }
        }
    }
    let single = |name: &str| name.trim_start_matches("##").chars().count() <= 1;
    let mut names: Vec<(&String, u64)> = counts.iter().map(|(n, c)| (n, *c)).collect();
    names.sort_by(|a, b| {
        let singles_first = single(b.0).cmp(&single(a.0));
        singles_first.then(b.1.cmp(&a.1)).then(a.0.cmp(b.0))
    });
    let all = SPECIAL.iter().map(|s| s.to_string()).chain(names.into_iter().map(|n| n.0.clone()));
    Ok(all.take(limit).enumerate().map(|(number, name)| (name, number)).collect())
}

/// A BPE without vocabulary.
fn untrained(config: &TokenizerConfig) -> Result<Tokenizer> {
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": "[UNK]",
        "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
        "byte_fallback": false, "vocab": {"[UNK]": 0}, "merges": []
    });
    assembled(config, model)
}

/// A tokenizer around a model: BERT's normaliser and word boundaries, `[CLS] text [SEP]`.
fn assembled(config: &TokenizerConfig, model: serde_json::Value) -> Result<Tokenizer> {
    let special: Vec<_> = SPECIAL
        .iter()
        .enumerate()
        .map(|(id, token)| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true
            })
        })
        .collect();
    let known = model["type"] == "WordPiece";
    let template = json!({
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "[SEP]", "type_id": 0}}
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            "[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
            "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}
        }
    });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": if known { special } else { vec![] },
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": config.lowercase, "lowercase": config.lowercase
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": template, "decoder": null, "model": model
    });
    Tokenizer::from_bytes(tokenizer.to_string()).map_err(|e| refused("settings", &*e))
}

/// Refuses a blank text.
pub(super) fn ensure_words(text: &str) -> Result<()> {
    if text.trim().is_empty() {
        return Err(Error::query("text")
            .expected("some words")
            .found("none")
            .fix("write what to look for"));
    }
    Ok(())
}

pub(super) fn refused(what: &str, error: &(dyn std::error::Error + Send + Sync)) -> Error {
    Error::tokenizer(what)
        .expected("the tokenizers library to accept it")
        .found(error.to_string())
        .fix("check the text and the settings")
}

/// What is wrong with a normalizer of a kind whose faults `tokenizers` panics at.
fn bad_normalizer(normalizer: &serde_json::Value) -> Option<serde_json::Error> {
    if let Some(parts) = normalizer["normalizers"].as_array() {
        return parts.iter().find_map(bad_normalizer);
    }
    match normalizer["type"].as_str() {
        Some("Precompiled") => {
            let text = normalizer.to_string();
            serde_json::from_str::<tokenizers::normalizers::Precompiled>(&text).err()
        }
        _ => None,
    }
}

/// A special token in a template of a post-processor that does not define it.
fn undefined_token(processor: &serde_json::Value) -> Option<&str> {
    if let Some(parts) = processor["processors"].as_array() {
        return parts.iter().find_map(undefined_token);
    }
    let templates = ["single", "pair"].into_iter().filter_map(|key| processor[key].as_array());
    let mut used = templates.flatten().filter_map(|piece| piece["SpecialToken"]["id"].as_str());
    used.find(|token| processor["special_tokens"].get(*token).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 4] =
        ["a red circle", "two blue stars above", "a redder circle", "circles and stars"];

    fn config(model: TokenizerModel) -> TokenizerConfig {
        TokenizerConfig { model, vocabulary: 80, min_frequency: 1, lowercase: true }
    }

    #[test]
    fn what_the_library_would_panic_at_is_refused() {
        let tokenizer = TextTokenizer::train(TEXTS, &config(TokenizerModel::WordPiece), 8).unwrap();
        let text = tokenizer.to_json().unwrap();
        let refused = |text: &str, words: &str| {
            let error = TextTokenizer::from_bytes(text.as_bytes(), 8).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
        for charsmap in [serde_json::json!("AAA"), serde_json::json!(3), serde_json::Value::Null] {
            let part = serde_json::json!({"type": "Precompiled", "precompiled_charsmap": charsmap});
            json["normalizer"] = part.clone();
            refused(&json.to_string(), "Precompiled");
            json["normalizer"] = serde_json::json!({"type": "Sequence", "normalizers": [part]});
            refused(&json.to_string(), "Precompiled");
        }
        // No JSON, from within the decoder on.
        let decoder = text.find("\"decoder\"").unwrap();
        refused(&format!("{}\"decoder\": {{\"type\": x", &text[..decoder]), "expected value");
    }

    #[test]
    fn a_template_with_a_token_that_nobody_defines_is_refused() {
        let tokenizer = TextTokenizer::train(TEXTS, &config(TokenizerModel::WordPiece), 8).unwrap();
        let mut json: serde_json::Value =
            serde_json::from_str(&tokenizer.to_json().unwrap()).unwrap();
        let read = |json: &serde_json::Value| {
            TextTokenizer::from_bytes(json.to_string().as_bytes(), 8).map(|_| ())
        };
        read(&json).unwrap();
        json["post_processor"]["single"][0]["SpecialToken"]["id"] = "[NONE]".into();
        assert!(read(&json).unwrap_err().to_string().contains("\"[NONE]\""));
        let template = json["post_processor"].take();
        json["post_processor"] = serde_json::json!({"type": "Sequence", "processors": [template]});
        assert!(read(&json).is_err());
    }

    #[test]
    fn training_is_deterministic_and_saving_round_trips() {
        for model in [TokenizerModel::WordPiece, TokenizerModel::Bpe] {
            let a = TextTokenizer::train(TEXTS, &config(model), 16).unwrap();
            let b = TextTokenizer::train(TEXTS, &config(model), 16).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("tokenizer.json");
            a.save(&path).unwrap();
            let loaded = TextTokenizer::from_file(&path, 16).unwrap();
            for text in TEXTS.iter().chain(&["Unseen: zebra, çircle!"]) {
                let tokens = a.encode(text).unwrap();
                assert_eq!(tokens, b.encode(text).unwrap());
                assert_eq!(tokens, loaded.encode(text).unwrap());
                assert!(tokens.iter().all(|&t| (t as usize) < a.vocabulary()));
            }
            assert_eq!(loaded.padding(), 0);
            assert_eq!(loaded.vocabulary(), a.vocabulary());
        }
    }

    #[test]
    fn specials_frame_the_text_and_long_texts_are_cut() {
        let tokenizer = TextTokenizer::train(TEXTS, &config(TokenizerModel::WordPiece), 6).unwrap();
        let tokens = tokenizer.encode("a red circle and two blue stars").unwrap();
        assert_eq!(tokens.len(), 6);
        assert_eq!((tokens[0], tokens[5]), (2, 3));
    }

    #[test]
    fn empty_text_and_broken_files_are_errors() {
        let config = config(TokenizerModel::WordPiece);
        assert!(TextTokenizer::train([" "], &config, 16).is_err());
        let small = TokenizerConfig { vocabulary: 5, ..config.clone() };
        assert!(TextTokenizer::train(TEXTS, &small, 16).is_err());
        assert!(TextTokenizer::train(TEXTS, &config, 2).is_err());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        let missing = TextTokenizer::from_file(&path, 16).unwrap_err();
        assert!(matches!(missing, Error::Io { .. }));
        std::fs::write(&path, "{\"version\":").unwrap();
        assert!(matches!(TextTokenizer::from_file(&path, 16).unwrap_err(), Error::Tokenizer(_)));
    }
}
