//! Small saved indexes that between them have a file in every role.

#[path = "../../tests/all/live/small.rs"]
mod small;

use std::path::Path;

use burn::backend::Flex;
use cart_retrieval::{expert::{ProjectionShape, QueryProjection, WeightInit, Manifest},
    retrieve::Retriever};

/// Indexes: guided by vectors; with two identifiers for each candidate; with a map from embeddings
/// to words.
pub fn indexes() -> [Retriever<Flex>; 3] {
    let mut init = WeightInit::new(1);
    let device = Default::default();
    let mean = [0.5; small::DIM];
    let shape = ProjectionShape { hidden: 4, tokens: 2, d_model: 16 };
    let projection = QueryProjection::new(&mean, shape, &mut init, &device);
    let projected = small::retriever(false).with_projection(projection).expect("a fitting map");
    [small::retriever(true), small::several(true, 2), projected]
}

/// The roles of an index's files, in order, with the names of their files.
pub fn roles(folder: &Path) -> Vec<(String, String)> {
    let manifest = Manifest::read(folder).expect("a saved index");
    manifest.files.into_iter().map(|(role, file)| (role, file.name)).collect()
}
