//! One index over several groups of candidates, told apart by a leading token.

use std::collections::HashSet;

use super::*;
use cart_retrieval::identifier::Groups;

/// Every second candidate is a sketch and is described as one.
fn label(item: usize) -> &'static str {
    if item % 2 == 1 { "sketch" } else { "picture" }
}

fn described(captions: &[ItemCaption]) -> Vec<ItemCaption> {
    captions
        .iter()
        .map(|caption| ItemCaption {
            text: format!("{} of {}", label(caption.item as usize), caption.text),
            ..caption.clone()
        })
        .collect()
}

#[test]
fn a_leading_token_tells_groups_apart_in_training_search_and_on_disk() {
    let _turn = turn();
    let mut setup = setup();
    let groups = Groups::from_labels((0..setup.scenes).map(label)).unwrap();
    let alone = setup.index.vocabulary().sizes().to_vec();
    let index = setup.quantizer.assign(&setup.items).groups(&groups).run().unwrap();
    assert_eq!(index.vocabulary().sizes()[..4], [&[2], &alone[..3]].concat()[..]);
    let (train, queries) = (described(&setup.train), described(&setup.queries));
    // The words of the groups are in no caption that the first tokenizer has seen.
    let texts = train.iter().map(|caption| caption.text.as_str());
    let words = TokenizerConfig { vocabulary: 400, ..Default::default() };
    setup.tokenizer = TextTokenizer::train(texts, &words, 32).unwrap();
    setup.data = TrainingData::new(
        &setup.tokenizer,
        TrainingCaptions { train: &train, valid: &queries[..32] },
        &index,
    )
    .unwrap();
    setup.config = CartConfig {
        vocabulary: index.vocabulary().clone(),
        text_vocabulary: setup.tokenizer.vocabulary(),
        ..setup.config
    };
    let trained =
        fit(&setup, Trainer::new(TrainConfig { epochs: 40, validations: 2, ..settings() }))
            .unwrap();

    let device = Default::default();
    let ungrouped = setup.quantizer.assign(&setup.items).run().unwrap();
    let made = Retriever::new(RetrieverParts {
        model: trained.model,
        config: setup.config.clone(),
        tokenizer: setup.tokenizer.clone(),
        quantizer: setup.quantizer.clone(),
        index,
    })
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    made.save(folder.path()).unwrap();
    let retriever = Retriever::<Flex>::load(folder.path(), &device).unwrap();
    assert_eq!(retriever.index().groups().unwrap(), ["picture", "sketch"]);

    // The group is in the words, so the network finds it without a filter nearly always.
    let texts: Vec<&str> = queries.iter().map(|query| query.text.as_str()).collect();
    let hits = retriever.query(&texts).top(5).run().unwrap();
    let group = |item: u32| retriever.index().group_of(item).unwrap().unwrap();
    let right = queries
        .iter()
        .zip(&hits)
        .filter(|(query, hits)| group(hits[0].item) == label(query.item as usize));
    assert!(right.count() as f64 > 0.9 * queries.len() as f64);

    // With one, everything found is of that group, and everything of the group can be found.
    for name in ["picture", "sketch"] {
        let filter = retriever.index().group_filter(name).unwrap();
        assert_eq!(filter.count(), 40);
        let hits = retriever.query(texts[0]).top(80).beam(80).filter(&filter).run().unwrap();
        assert_eq!(hits.len(), 40);
        assert!(hits.iter().all(|hit| group(hit.item) == name));
    }
    let error = retriever.index().group_filter("video").unwrap_err().to_string();
    assert!(error.contains("picture, sketch"), "{error}");
    assert!(ungrouped.group_filter("sketch").unwrap_err().to_string().contains("with groups"));

    // A cluster is a coarse token within a group.
    let spread = retriever.query(texts[0]).top(20).beam(80).per_cluster(1).run().unwrap();
    let clusters: HashSet<Vec<u16>> = spread
        .iter()
        .map(|hit| retriever.index().trie().identifier_of(hit.item).unwrap().tokens()[..2].to_vec())
        .collect();
    assert!(clusters.len() == spread.len() && spread.len() > 2, "{}", spread.len());

    // Other candidates come with the same groups, or not at all.
    let error = retriever.clone().with_candidates(ungrouped).unwrap_err().to_string();
    assert!(error.contains("picture, sketch"), "{error}");
    let few = Features::from_rows(
        setup.items.as_slice()[..3 * setup.items.dim()].to_vec(),
        setup.items.dim(),
    )
    .unwrap();
    let sketches = |groups: Groups| setup.quantizer.assign(&few).groups(&groups).run().unwrap();
    let labels = ["sketch"; 3];
    let named = sketches(Groups::new(["picture", "sketch"], labels).unwrap());
    let served = retriever.clone().with_candidates(named).unwrap();
    assert_eq!(served.query(texts[0]).top(3).run().unwrap().len(), 3);
    let other = sketches(Groups::from_labels(labels).unwrap());
    assert!(retriever.with_candidates(other).is_err());
}
