//! Several identifiers for a candidate, from training to disk.

use std::collections::HashSet;

use super::*;
use cart_retrieval::{
    decode::{BeamConfig, Filters},
    quantizer::IdentifierConfig,
};

#[test]
fn candidates_with_several_identifiers_are_trained_found_once_and_saved() {
    let _turn = turn();
    let mut setup = setup();
    let several = IdentifierConfig { clusters: 2, codes: 1 };
    let index = setup.quantizer.assign(&setup.items).several(several).run().unwrap();
    let (items, entries) = (setup.scenes, 2 * setup.scenes);
    assert_eq!((index.ids().len(), index.trie().len()), (items, entries));
    let data = TrainingData::new(
        &setup.tokenizer,
        TrainingCaptions { train: &setup.train, valid: &setup.queries[..32] },
        &index,
    );
    let data = data.unwrap();
    assert_eq!(data.pairs(), setup.train.len());
    setup.data = data.with_all_identifiers();
    assert_eq!(setup.data.pairs(), 2 * setup.train.len());
    setup.config = CartConfig { vocabulary: index.vocabulary().clone(), ..setup.config };
    let config = TrainConfig { epochs: 30, validations: 2, validation_beam: entries, ..settings() };
    let trained = fit(&setup, Trainer::new(config)).unwrap();

    let device = Default::default();
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
    assert_eq!(retriever.index().identifier_map(), made.index().identifier_map());

    // Every candidate once, by the identifier that scores best; twin: all identifiers, scored one
    // by one.
    let texts: Vec<&str> = setup.queries.iter().map(|query| query.text.as_str()).collect();
    let hits = retriever.query(&texts[..8]).top(items).run().unwrap();
    let (mut second, owners) = (0, retriever.index().identifier_map());
    for (text, hits) in texts.iter().zip(&hits) {
        let distinct: HashSet<u32> = hits.iter().map(|hit| hit.item).collect();
        assert_eq!((hits.len(), distinct.len()), (items, items));
        assert!(hits.is_sorted_by(|a, b| a.score >= b.score));
        let all = retriever.query(text).scores().unwrap();
        assert_eq!(all.len(), items);
        for (hit, answer) in hits.iter().zip(&all) {
            assert!((hit.score - answer.score).abs() < 1e-3);
            let entry = retriever.index().trie().item_of(hit.identifier.tokens()).unwrap();
            assert_eq!(owners.of(entry), hit.item);
            assert_eq!(retriever.index().ids().get(hit.item as usize), hit.id);
            second += usize::from(entry as usize >= items);
        }
    }
    assert!(second > 0, "no candidate was found by its second identifier");

    // A beam that one candidate's entries could fill still gives as many candidates as asked for.
    for top in [1, 2, 5] {
        let narrow = retriever.query(&texts).top(top).beam(top).rankings().unwrap();
        for ranking in &narrow {
            let distinct: HashSet<&u32> = ranking.items.iter().collect();
            assert_eq!(distinct.len(), top);
        }
    }
    // Validations counted candidates, not entries: twin, a search with the model that was the best
    // of them.
    let found = retriever.query(&texts[..32]).top(1).beam(entries).rankings().unwrap();
    let right = setup.queries.iter().zip(&found).filter(|(q, found)| found.items[0] == q.item);
    let right = right.count() as f64 / 32.0;
    let best = trained.history.iter().filter_map(|round| round.recall_at_1).fold(0.0, f64::max);
    assert!(right > 0.1 && (right - best).abs() < 1e-9, "{right} {best}");

    // The explanation is that of the identifier that a search finds.
    let first = &hits[0][0];
    let explained = retriever.query(texts[0]).explain(&first.id, 2).unwrap();
    assert_eq!(explained.item, first.item);
    assert!((explained.score - first.score).abs() < 1e-3);
    let tokens: Vec<u16> = explained.levels.iter().map(|level| level.token).collect();
    assert_eq!(tokens, first.identifier.tokens());
    // So is the trace, whichever identifier it is.
    let traced = retriever.query(texts[0]).trace(&first.id).unwrap();
    assert_eq!((traced.rank, traced.item), (Some(0), first.item));
    assert_eq!(traced.hits[0], *first);
    let tokens: Vec<u16> = traced.levels.iter().map(|level| level.token).collect();
    assert!(first.identifier.tokens().starts_with(&tokens));

    let exact = retriever.query(texts[0]).top(5).exact(entries).unwrap();
    assert!(exact.proven);
    let items_of: Vec<u32> = exact.hits.iter().map(|hit| hit.item).collect();
    assert_eq!(items_of, hits[0][..5].iter().map(|hit| hit.item).collect::<Vec<_>>());

    // Filters speak of candidates: both entries are allowed, or none is.
    let ids: Vec<&str> = hits[0][..3].iter().map(|hit| hit.id.as_str()).collect();
    let allow = retriever.allow(&ids).unwrap();
    assert_eq!(allow.count(), 6);
    assert_eq!(retriever.deny(&ids).unwrap().count(), entries - 6);
    let found = retriever.query(texts[0]).top(10).filter(&allow).run().unwrap();
    assert_eq!(found.iter().map(|hit| hit.id.as_str()).collect::<Vec<_>>(), ids);
    let each = [Some(&allow), None];
    let found = retriever.query(&texts[..2]).top(10).filters(Filters::Each(&each));
    let found = found.run().unwrap();
    assert_eq!((found[0].len(), found[1].len()), (3, 10));
    assert!(retriever.query(&texts).filters(Filters::Each(&each)).run().is_err());

    // Settings are compared by candidates, too.
    let beams = [BeamConfig { width: 2 * entries, ..retriever.beam().clone() }];
    let relevant: Vec<[u32; 1]> = setup.queries.iter().map(|query| [query.item]).collect();
    let scores = retriever.compare_beams(&texts, &relevant, &beams).unwrap();
    // Chance is 12.5 %.
    assert!(scores[0].metrics.recall_at_10 > 0.5, "{}", scores[0].metrics);
}

/// Saving as one identifier a candidate leaves no file of owners behind, and such folders load as
/// before.
#[test]
fn an_index_with_one_identifier_a_candidate_has_no_owners_on_disk() {
    let _turn = turn();
    let setup = setup();
    let device = Default::default();
    let several = IdentifierConfig { clusters: 2, codes: 1 };
    let save = |index: CandidateIndex, folder: &std::path::Path| {
        let config = CartConfig { vocabulary: index.vocabulary().clone(), ..setup.config.clone() };
        let (tokenizer, quantizer) = (setup.tokenizer.clone(), setup.quantizer.clone());
        let model = config.init::<Flex>(&device).unwrap();
        let made =
            Retriever::new(RetrieverParts { model, config, tokenizer, quantizer, index }).unwrap();
        made.save(folder).unwrap();
        let names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.iter().filter(|name| name.starts_with("owners-")).count()
    };
    let folder = tempfile::tempdir().unwrap();
    let index = setup.quantizer.assign(&setup.items).several(several).run().unwrap();
    let vectors = index.with_vectors(setup.items.clone()).unwrap();
    assert_eq!(save(vectors, folder.path()), 1);
    let loaded = Retriever::<Flex>::load(folder.path(), &device).unwrap();
    let geometry = loaded.index().prefix_stats().unwrap();
    assert_eq!(geometry.vectors().len(), 2 * setup.scenes);
    assert_eq!(geometry.vectors().rows(0..setup.scenes), setup.items.as_slice());
    assert_eq!(save(setup.quantizer.assign(&setup.items).run().unwrap(), folder.path()), 0);
    let loaded = Retriever::<Flex>::load(folder.path(), &device).unwrap();
    assert!(loaded.index().identifier_map().are_single());
}
