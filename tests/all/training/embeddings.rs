//! Queries that are embeddings: through a projection to words, or by the geometry.

use super::*;
use cart_retrieval::{cancel::StopFlag, expert::ProjectionConfig};

#[test]
fn a_projection_finds_candidates_by_embeddings_near_theirs() {
    let _turn = turn();
    let setup = setup();
    let trained =
        fit(&setup, Trainer::new(TrainConfig { epochs: 40, validations: 1, ..settings() }))
            .unwrap();
    let device = Default::default();
    let Setup { items, config, tokenizer, quantizer, index, .. } = setup;
    let retriever = Retriever::new(RetrieverParts {
        model: trained.model,
        config,
        tokenizer,
        quantizer,
        index,
    })
    .unwrap();
    let error = retriever.query(&items).run().unwrap_err().to_string();
    assert!(error.contains("projection"), "{error}");

    let own: Vec<u32> = (0..items.len() as u32).collect();
    let fit = ProjectionConfig { epochs: 30, hidden: 64, tokens: 3, ..ProjectionConfig::default() };
    let stopped = StopFlag::new();
    stopped.raise();
    assert!(matches!(fit.fit::<A>(&retriever, &items, &own, &stopped), Err(Error::Interrupted(_))));
    let go_on = StopFlag::new();
    assert!(fit.fit::<A>(&retriever, &items, &own[1..], &go_on).is_err());
    assert!(fit.fit::<A>(&retriever, &items.select(&[0]), &[80], &go_on).is_err());
    let bad = ProjectionConfig { noise: f32::NAN, ..fit.clone() };
    assert!(bad.fit::<A>(&retriever, &items, &own, &go_on).is_err());
    let projection = fit.fit::<A>(&retriever, &items, &own, &go_on).unwrap();
    let again = fit.fit::<A>(&retriever, &items, &own, &go_on).unwrap();
    assert!(projection.to_safetensors().unwrap() == again.to_safetensors().unwrap());

    let folder = tempfile::tempdir().unwrap();
    let retriever = retriever.with_projection(projection).unwrap();
    retriever.save(folder.path()).unwrap();
    let loaded = Retriever::<Flex>::load(folder.path(), &device).unwrap();
    // Not quite the candidates' own embeddings.
    let other =
        items.as_slice().iter().enumerate().map(|(at, v)| v * (1.0 + 0.02 * (at % 3) as f32));
    let other = Features::from_rows(other.collect(), items.dim()).unwrap();
    let hits = loaded.query(&other).top(5).beam(20).run().unwrap();
    assert_eq!(hits, retriever.query(&other).top(5).beam(20).run().unwrap());
    let found = |top: usize| {
        let found =
            |(item, hits): (usize, &Vec<Hit>)| hits[..top].iter().any(|h| h.item == item as u32);
        hits.iter().enumerate().filter(|&each| found(each)).count()
    };
    // Chance is 1 and 5 of 80.
    assert!(found(1) > 30 && found(5) > 55, "{} and {} of 80", found(1), found(5));

    let few = loaded.allow(&["scene-000003"]).unwrap();
    let hits = loaded.query(&other).filter(&few).run().unwrap();
    assert!(hits.iter().all(|hits| hits.len() == 1 && hits[0].item == 3));
    let narrow = Features::from_rows(vec![1.0; 3], 3).unwrap();
    assert!(loaded.query(&narrow).run().unwrap_err().to_string().contains("numbers each"));
}
