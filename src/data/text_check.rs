//! What a tokenizer knows of a text: words without a token, and what lies behind the limit.

use tokenizers::models::ModelWrapper;

use super::{
    TextTokenizer,
    tokenizer::{ensure_words, refused},
};
use crate::error::Result;

/// Unknown words that a warning names.
const MOST_SHOWN: usize = 5;

/// What a tokenizer knows of a text, made by [`TextTokenizer::check`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TextCheck {
    /// Tokens that are read, without special ones.
    pub tokens: usize,
    /// Parts of the text, among those that are read, that the tokenizer has no token for.
    pub unknown: Vec<String>,
    /// Tokens behind the limit, which are not read.
    pub cut: usize,
}

impl TextCheck {
    /// Whether all that is read is unknown, so that a search does not know what was asked.
    pub fn is_unknown(&self) -> bool {
        self.unknown.len() >= self.tokens
    }

    /// What to tell the author of a query; empty if all of it is read and known.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let quoted = self.unknown.iter().take(MOST_SHOWN).map(|word| format!("{word:?}"));
        let mut words = quoted.collect::<Vec<_>>().join(", ");
        if self.unknown.len() > MOST_SHOWN {
            words.push_str(", ...");
        }
        if self.is_unknown() {
            let found = if words.is_empty() { "no word at all" } else { words.as_str() };
            warnings.push(format!(
                "the tokenizer knows no word of this text ({found}): the answers do not depend on \
                 it"
            ));
        } else if !self.unknown.is_empty() {
            warnings.push(format!("the tokenizer does not know {words}"));
        }
        if self.cut > 0 {
            warnings.push(format!(
                "the text is cut after {} tokens; the last {} are ignored",
                self.tokens, self.cut
            ));
        }
        warnings
    }
}

impl TextTokenizer {
    /// Says how much of a text is known and read: a search answers any text, also one of which it
    /// knows nothing.
    ///
    /// # Errors
    /// As [`TextTokenizer::encode`].
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::data::{TextTokenizer, TokenizerConfig};
    /// let config = TokenizerConfig { vocabulary: 100, min_frequency: 1, ..Default::default() };
    /// let tokenizer = TextTokenizer::train(["a red circle", "a blue star"], &config, 5)?;
    /// let check = tokenizer.check("a ☃ star, a red circle")?;
    /// assert_eq!(check.unknown, ["☃"]);
    /// assert!(check.cut > 0 && !check.is_unknown());
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn check(&self, text: &str) -> Result<TextCheck> {
        ensure_words(text)?;
        let encoding = self.inner.encode(text, true).map_err(|e| refused("encoding", &*e))?;
        let special = encoding.get_special_tokens_mask();
        let own = |at: &usize| special[*at] == 0;
        let unknown = self.unknown_token();
        let is_unknown = |at: &usize| unknown.is_some_and(|token| encoding.get_ids()[*at] == token);
        let part = |at: usize| {
            let (start, end) = encoding.get_offsets()[at];
            text.get(start..end).unwrap_or_default().to_string()
        };
        let read = (0..encoding.len()).filter(own);
        let tokens = read.clone().count();
        let cut = if encoding.get_overflowing().is_empty() {
            0
        } else {
            self.count_all(text)?.saturating_sub(tokens)
        };
        Ok(TextCheck { tokens, unknown: read.filter(is_unknown).map(part).collect(), cut })
    }

    /// Number of tokens of a text without the limit and without special tokens.
    ///
    /// The tokenizer's own overflow does not tell: it stops soon after the limit.
    fn count_all(&self, text: &str) -> Result<usize> {
        let mut whole = self.inner.clone();
        whole.with_truncation(None).map_err(|e| refused("truncation", &*e))?;
        Ok(whole.encode_fast(text, false).map_err(|e| refused("encoding", &*e))?.len())
    }

    /// The token that stands for what has none, if there is one.
    fn unknown_token(&self) -> Option<u32> {
        let name = match self.inner.get_model() {
            ModelWrapper::WordPiece(model) => Some(model.unk_token.as_str()),
            ModelWrapper::WordLevel(model) => Some(model.unk_token.as_str()),
            ModelWrapper::BPE(model) => model.unk_token.as_deref(),
            ModelWrapper::Unigram(_) => Some("<unk>"),
        };
        self.inner.token_to_id(name?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{TokenizerConfig, tokenizer::TokenizerModel};

    #[test]
    fn unknown_and_cut_parts_are_told() {
        for model in [TokenizerModel::WordPiece, TokenizerModel::Bpe] {
            let config =
                TokenizerConfig { model, vocabulary: 80, min_frequency: 1, lowercase: true };
            let texts = ["a red circle", "two blue stars above"];
            let tokenizer = TextTokenizer::train(texts, &config, 6).unwrap();
            let check = tokenizer.check("a red circle").unwrap();
            assert_eq!((check.unknown.len(), check.cut), (0, 0), "{check:?}");
            assert!(check.warnings().is_empty());
            let check = tokenizer.check("Ωμ ☃").unwrap();
            assert!(check.is_unknown(), "{check:?}");
            assert!(check.warnings()[0].contains("knows no word"), "{check:?}");
            let check = tokenizer.check("a ☃ circle").unwrap();
            assert_eq!(check.unknown, ["☃"]);
            assert!(check.warnings()[0].contains("does not know \"☃\""));
            let long = tokenizer.check("two blue stars above a red circle").unwrap();
            assert_eq!((long.tokens, long.unknown.len()), (4, 0));
            assert!(long.cut >= 3 && long.warnings()[0].contains("after 4 tokens"), "{long:?}");
            assert!(tokenizer.check(" ").is_err());
        }
    }
}
