//! Sizes of the levels, and one identifier.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Number of tokens at each level of an identifier: `K, V_1, .., V_M, U`.
///
/// # Invariants
/// 1. There is at least one level.
/// 2. Every size is between 1 and 65,536, so a token fits 16 bits.
///
/// # Example
/// ```
/// use cart_retrieval::identifier::LevelSizes;
/// let vocabulary = LevelSizes::new(vec![64, 128, 128, 3])?;
/// assert_eq!(vocabulary.levels(), 4);
/// assert!(LevelSizes::new(vec![]).is_err());
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<usize>", into = "Vec<usize>")]
pub struct LevelSizes {
    sizes: Vec<usize>,
}

impl LevelSizes {
    /// Largest number of tokens a level can have.
    pub const MAX_LEVEL: usize = 1 << 16;

    /// A vocabulary with these sizes.
    ///
    /// # Errors
    /// [`Error::Identifier`] without levels, or with a level of size 0 or over 65,536.
    pub fn new(sizes: Vec<usize>) -> Result<Self> {
        if sizes.is_empty() {
            return Err(Error::identifier("vocabulary")
                .expected("at least one level")
                .found("none")
                .fix("give the number of tokens of every level"));
        }
        if let Some(level) = sizes.iter().position(|&size| size == 0 || size > Self::MAX_LEVEL) {
            return Err(Error::identifier(format!("vocabulary, level {level}"))
                .expected(format!("1 to {} tokens", Self::MAX_LEVEL))
                .found(sizes[level].to_string())
                .fix("choose another size for that level"));
        }
        Ok(Self { sizes })
    }

    /// Number of levels L.
    pub fn levels(&self) -> usize {
        self.sizes.len()
    }

    /// Number of tokens at `level`.
    ///
    /// # Panics
    /// When `level` is out of range.
    pub fn size(&self, level: usize) -> usize {
        self.sizes[level]
    }

    /// All sizes in order.
    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    /// Checks that a row of tokens is an identifier of this vocabulary.
    ///
    /// # Errors
    /// [`Error::Identifier`] naming the level that does not fit.
    pub fn check(&self, tokens: &[u16]) -> Result<()> {
        if tokens.len() != self.sizes.len() {
            return Err(Error::identifier("identifier")
                .expected(format!("{} tokens", self.sizes.len()))
                .found(tokens.len().to_string())
                .fix("give one token per level"));
        }
        for (level, (&token, &size)) in tokens.iter().zip(&self.sizes).enumerate() {
            if usize::from(token) >= size {
                return Err(Error::identifier(format!("identifier, level {level}"))
                    .expected(format!("a token below {size}"))
                    .found(token.to_string())
                    .fix("use identifiers of this index only"));
            }
        }
        Ok(())
    }
}

impl TryFrom<Vec<usize>> for LevelSizes {
    type Error = Error;

    fn try_from(sizes: Vec<usize>) -> Result<Self> {
        Self::new(sizes)
    }
}

impl From<LevelSizes> for Vec<usize> {
    fn from(vocabulary: LevelSizes) -> Self {
        vocabulary.sizes
    }
}

/// One candidate's identifier, printed as `12-40-7-0`.
///
/// # Example
/// ```
/// use cart_retrieval::identifier::Identifier;
/// let identifier: Identifier = "12-40-7-0".parse()?;
/// assert_eq!(identifier.tokens(), &[12, 40, 7, 0]);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identifier(Vec<u16>);

impl Identifier {
    /// An identifier of these tokens.
    pub fn new(tokens: Vec<u16>) -> Self {
        Self(tokens)
    }

    /// The tokens, coarse first.
    pub fn tokens(&self) -> &[u16] {
        &self.0
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens: Vec<String> = self.0.iter().map(u16::to_string).collect();
        f.write_str(&tokens.join("-"))
    }
}

impl FromStr for Identifier {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.split('-')
            .map(|token| {
                token.parse().map_err(|_| {
                    Error::identifier(format!("identifier {text:?}"))
                        .expected("tokens from 0 to 65535 joined by '-'")
                        .found(format!("{token:?}"))
                        .fix("write it like 12-40-7-0")
                })
            })
            .collect::<Result<_>>()
            .map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_outside_its_level_is_named() {
        let vocabulary = LevelSizes::new(vec![4, 2]).unwrap();
        assert!(vocabulary.check(&[3, 1]).is_ok());
        let error = vocabulary.check(&[3, 2]).unwrap_err().to_string();
        assert!(error.contains("level 1") && error.contains("below 2"), "{error}");
        assert!(vocabulary.check(&[3]).is_err());
    }

    #[test]
    fn text_form_round_trips_and_refuses_garbage() {
        let identifier = Identifier::new(vec![0, 65535, 7]);
        assert_eq!(identifier.to_string().parse::<Identifier>().unwrap(), identifier);
        for bad in ["", "1--2", "a", "65536", "1-"] {
            assert!(bad.parse::<Identifier>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_level_of_no_size_is_refused_even_in_json() {
        assert!(serde_json::from_str::<LevelSizes>("[4,0]").is_err());
        assert!(serde_json::from_str::<LevelSizes>("[65537]").is_err());
        assert_eq!(serde_json::to_string(&LevelSizes::new(vec![4, 2]).unwrap()).unwrap(), "[4,2]");
    }
}
