//! Identifiers: the short token sequences that stand for candidates.
//!
//! An identifier is `(c, v_1, .., v_M, u)`: a coarse token, M fine tokens and a unique token
//! (paper, section on coarse-to-fine identifiers). Every position has a vocabulary of its own, so
//! token 7 at position 1 and token 7 at position 2 are different symbols. A token of a group, such
//! as the modality, may stand before all of them ([`Groups`]). A candidate may have several
//! identifiers ([`IdentifierMap`](crate::index::IdentifierMap)).

pub(crate) mod codes;
mod groups;
mod level_sizes;
pub(crate) mod unique;

pub(crate) use codes::Codes;
pub use groups::Groups;
pub use level_sizes::{Identifier, LevelSizes};
pub(crate) use unique::assign_unique;
