//! What a search searches: the trie, and where its candidates lie.

use std::sync::Arc;

use burn::tensor::backend::Backend;

use super::{BeamConfig, Filters};
use crate::{
    error::{Error, Result},
    geometry::{Geometry, Guide},
    model::{Aligned, Cart, Scope},
    trie::Trie,
};

/// The candidates of a search. A trie alone will do for a network without guidance.
#[derive(Debug, Clone, Copy)]
pub struct SearchSpace<'a> {
    /// All identifiers.
    pub trie: &'a Trie,
    /// Where the candidates lie.
    pub geometry: Option<&'a Geometry>,
    /// What the queries may be answered with.
    pub filters: Filters<'a>,
}

impl<'a> From<&'a Trie> for SearchSpace<'a> {
    fn from(trie: &'a Trie) -> Self {
        Self { trie, geometry: None, filters: Filters::None }
    }
}

impl<'a> From<&'a Arc<Trie>> for SearchSpace<'a> {
    fn from(trie: &'a Arc<Trie>) -> Self {
        Self::from(&**trie)
    }
}

impl<'a> SearchSpace<'a> {
    /// Where the candidates lie.
    pub fn with_geometry(self, geometry: Option<&'a Geometry>) -> Self {
        Self { geometry, ..self }
    }

    /// What the queries may be answered with.
    pub fn with_filters(self, filters: Filters<'a>) -> Self {
        Self { filters, ..self }
    }

    /// Queries in the space of the candidates, where network and candidates both know it; `aligned` are their
    /// vectors and the factors of their cosines.
    ///
    /// # Errors
    /// [`Error::Model`] when the network needs a geometry that is not there, or another one;
    /// [`Error::Config`] for guidance over all tokens, most of which have no geometry, for a rerank
    /// without an alignment, and for a decoder without weight where there is nothing else.
    pub(super) fn guide<B: Backend>(
        &self,
        model: &Cart<B>,
        aligned: Option<Aligned>,
        config: &BeamConfig,
    ) -> Result<Option<Guide<'a>>> {
        let guided = model.alignment().is_some_and(|head| head.is_guided());
        if guided && config.scope == Scope::All {
            return Err(Error::config("scope of the search")
                .expected("the legal tokens, for a guided network")
                .found("all tokens")
                .fix("search with Scope::Legal"));
        }
        if config.decoder_weight == 0.0 && !guided {
            return Err(Error::config("weight of the decoder")
                .expected("more than 0, for an unguided network")
                .found("0")
                .fix("keep 1"));
        }
        match (aligned, self.geometry) {
            (Some(Aligned { queries, scales }), Some(geometry)) => {
                Guide::new(geometry, queries, scales).map(Some)
            }
            (Some(_), None) if guided => Err(Error::model("candidates")
                .expected("vectors of the candidates, for a guided network")
                .found("identifiers only")
                .fix("give the index the vectors it was made from (CandidateIndex::with_vectors)")),
            _ if config.rerank > 0.0 => Err(Error::config("weight of the rerank")
                .expected("0 without an alignment of queries and candidates")
                .found(config.rerank.to_string())
                .fix("train with CartConfig::with_alignment, on candidates with vectors")),
            _ => Ok(None),
        }
    }
}
