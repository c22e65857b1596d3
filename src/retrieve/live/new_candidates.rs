//! New candidates, with metadata and captions.

use burn::tensor::backend::Backend;

use super::{Change, Retriever, identify::identify};
use crate::{
    data::ItemCaption,
    error::{Error, Result},
    features::{Features, ItemIds},
    metadata::Fields,
};

/// Candidates to add: features of the encoder that the index was made with, and what else is known.
///
/// # Example
/// ```
/// use cart_retrieval::{features::Features, retrieve::NewCandidates};
/// let new = Features::from_rows(vec![0.1, 0.7, 0.2, 0.4], 2)?.with_id_list(vec!["a".into(), "b".into()])?;
/// let about = ["{\"year\": 2019}", "{}"].map(|text| serde_json::from_str(text).unwrap());
/// let candidates = NewCandidates::new(&new).with_metadata(&about);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct NewCandidates<'a> {
    items: &'a Features,
    metadata: &'a [Fields],
    groups: Option<&'a [String]>,
    captions: &'a [ItemCaption],
}

impl<'a> NewCandidates<'a> {
    /// Candidates with their features and ids.
    pub fn new(items: &'a Features) -> Self {
        Self { items, metadata: &[], groups: None, captions: &[] }
    }

    /// What is known about them: an object for each.
    pub fn with_metadata(self, metadata: &'a [Fields]) -> Self {
        Self { metadata, ..self }
    }

    /// The group of each, for an index with groups.
    pub fn with_groups(self, groups: &'a [String]) -> Self {
        Self { groups: Some(groups), ..self }
    }

    /// Captions of some of the candidates, by row of the features. Together with the features they
    /// determine the candidates' vectors in an index that was made in the space of its text
    /// encoder. Another index cannot use them.
    pub fn with_captions(self, captions: &'a [ItemCaption]) -> Self {
        Self { captions, ..self }
    }

    pub(super) fn ids(&self) -> &ItemIds {
        self.items.ids()
    }

    /// The change that adds them, after removing others.
    pub(super) fn change<B: Backend>(
        &self,
        to: &Retriever<B>,
        removed: Vec<String>,
    ) -> Result<Change> {
        Error::ids("candidates to add")
            .expected("features with ids")
            .found("rows without names")
            .fix_if(!self.items.has_given_ids(), "name them (Features::with_ids or with_id_list)")?;
        self.items.check()?;
        let remedy = "use an empty object for candidates without metadata";
        Error::metadata("metadata of the candidates to add")
            .expected(format!("an object for each of {}, or none at all", self.items.len()))
            .found(self.metadata.len().to_string())
            .fix_if(!self.metadata.is_empty() && self.metadata.len() != self.items.len(), remedy)?;
        let embedded;
        let rows = match to.space() {
            Some(space) => {
                let texts = match self.captions {
                    [] => None,
                    captions => Some(to.embed_here(captions)?),
                };
                embedded = space.embed(self.items, texts.as_ref())?;
                &embedded
            }
            None if !self.captions.is_empty() => {
                return Err(Error::captions("captions of the candidates to add")
                    .expected(
                        "none, for an index that was not made in the space of its text encoder",
                    )
                    .found(self.captions.len().to_string())
                    .fix("leave them out, or train with them"));
            }
            None => self.items,
        };
        let wanted = crate::quantizer::Quantizer::dim(to.quantizer());
        let remedy = "use features of the encoder that the index was made with";
        Error::features("candidates to add")
            .expected(format!("{wanted} numbers each"))
            .found(rows.dim().to_string())
            .fix_if(rows.dim() != wanted, remedy)?;
        let (identifiers, mut stats) =
            identify(to.index(), to.quantizer(), rows.as_slice(), self.groups, &removed)?;
        stats.removed = removed.len() as u64;
        let vectors = match to.index().prefix_stats() {
            Some(_) => rows.as_slice().to_vec(),
            None => Vec::new(),
        };
        Ok(Change {
            removed,
            ids: self.ids().iter().map(str::to_string).collect(),
            identifiers,
            vectors,
            tokens: to.tokens_of(self.captions, self.items.len())?,
            metadata: self.metadata.to_vec(),
            described: Vec::new(),
            stats,
        })
    }
}
