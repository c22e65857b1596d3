//! Token states of the candidates' texts, for late interaction.
//!
//! A vector says what a text is about as a whole; token states say what its words mean in their
//! places. Late interaction (ColBERT, Khattab and Zaharia 2020) compares every token of a query
//! with all tokens of a candidate and adds up the best matches:
//!
//! ```text
//! MS(q, i) = sum over tokens t of q of w_t max over tokens u of i of <e_t, e_u> / sum over t of w_t
//! e = unit(B (state - mean))       B: the first principal components; w: IDF
//! ```
//!
//! [`TokenSpace`] makes `e` and `w` of a text, [`TokenStates`] keeps those of all candidates: near
//! duplicates merged, a limited number for each, in numbers of 8 bits.

mod item;
mod merge;
mod saved;
mod space;
mod states;

pub use item::ItemTokens;
pub use space::{TextTokens, TokenSpace};
pub use states::TokenStates;
