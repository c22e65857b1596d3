//! A small index whose network has learned nothing.

use burn::backend::Flex;
use cart_retrieval::{
    data::{TextTokenizer, TokenizerConfig},
    features::Features,
    metadata::{Fields, ItemMetadata},
    model::CartConfig,
    nn::AlignmentConfig,
    quantizer::{CoarseToFineConfig, FineConfig, IdentifierConfig, RqKMeansConfig},
    retrieve::{Retriever, RetrieverParts},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

pub const DIM: usize = 8;

/// Named rows in clusters; the same numbers for the same name whatever the others.
pub fn items(names: &[String]) -> Features {
    let row = |name: &String| {
        let seed = name.bytes().fold(7u64, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into()));
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let centre = (seed % 5) as f32;
        (0..DIM).map(move |d| (centre * (d + 1) as f32).sin() + 0.2 * rng.random::<f32>())
    };
    let rows = names.iter().flat_map(|name| row(name).collect::<Vec<_>>()).collect();
    Features::from_rows(rows, DIM).unwrap().with_id_list(names.to_vec()).unwrap()
}

pub fn names(prefix: &str, range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("{prefix}{n}")).collect()
}

pub fn fields(value: serde_json::Value) -> Fields {
    value.as_object().unwrap().clone()
}

/// An index over 60 items whose network has learned nothing.
pub fn retriever(guided: bool) -> Retriever<Flex> {
    several(guided, 1)
}

/// The same with an identifier for each of so many clusters near an item.
pub fn several(guided: bool, clusters: usize) -> Retriever<Flex> {
    named_by(FineConfig::RqKmeans(RqKMeansConfig::new(vec![4, 4])), guided, clusters)
}

/// The same with fine tokens of some quantizer.
pub fn named_by(fine: FineConfig, guided: bool, clusters: usize) -> Retriever<Flex> {
    let items = items(&names("old-", 0..60));
    let config = CoarseToFineConfig::new(4, fine);
    let quantizer = config.fit::<Flex>(&items, &Default::default()).unwrap();
    let config = IdentifierConfig { clusters, codes: 1 };
    let index = quantizer.assign(&items).several(config).run().unwrap();
    let index = index.with_unique_capacity(8).unwrap();
    let about: Vec<Fields> = (0..60).map(|n| fields(json!({ "n": n }))).collect();
    let mut index = index.with_metadata(ItemMetadata::new(&about).unwrap()).unwrap();
    let texts = ["a red dog", "two cats", "the blue sea at night"];
    let tokenizer = TextTokenizer::train(texts, &TokenizerConfig::default(), 12).unwrap();
    let mut model = CartConfig::new(tokenizer.vocabulary(), index.vocabulary().clone())
        .with_width(16, 32, 2)
        .with_max_tokens(12);
    if guided {
        index = index.with_vectors(items).unwrap();
        model = model.with_alignment(AlignmentConfig { guided: true, ..AlignmentConfig::new(DIM) });
    }
    let network = model.init(&Default::default()).unwrap();
    Retriever::new(RetrieverParts { model: network, config: model, tokenizer, quantizer, index })
        .unwrap()
}
