//! Where the candidates below every prefix of the trie lie, and what that says about a query.
//!
//! [`Geometry`] sums the candidates' vectors up along the trie; [`Guide`] scores the children of a
//! prefix by it; [`HeldOut`] keeps vectors for a training that must not see the text at hand.

mod guide;
mod held_out;
mod level;
mod nodes;
mod saved;
mod walk;

pub use guide::Guide;
pub use held_out::HeldOut;
pub use nodes::Geometry;
