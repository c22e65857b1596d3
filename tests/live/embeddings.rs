//! A guided network answers embeddings by the geometry of its candidates.

use super::*;

#[test]
fn an_embedding_finds_the_candidates_that_are_most_like_it() {
    let index = retriever(true);
    let own = items(&names("old-", 0..60));
    let hits = index.search_embeddings(&own).top(8).beam(60).run().unwrap();
    let vectors = own.normalised();
    let cosine = |a: usize, b: usize| -> f32 {
        vectors.row(a).iter().zip(vectors.row(b)).map(|(a, b)| a * b).sum()
    };
    for (item, hits) in hits.iter().enumerate() {
        // The vectors of the index are as long as the features.
        let product = |other: usize| -> f32 {
            let length = |row: &[f32]| row.iter().map(|v| v * v).sum::<f32>().sqrt();
            cosine(item, other) * length(own.row(other))
        };
        let found: Vec<usize> = hits.iter().map(|hit| hit.item as usize).collect();
        assert!((0..60).all(|other| product(other) <= product(found[0]) + 1e-4), "item {item}");
        let least = found.iter().map(|&other| product(other)).fold(f32::INFINITY, f32::min);
        let better =
            (0..60).filter(|other| !found.contains(other) && product(*other) > least + 1e-4);
        assert_eq!(better.count(), 0, "item {item}");
    }
    assert!(index.search_embeddings(&items(&names("new-", 0..1))).run().is_ok());
    let error = retriever(false).search_embeddings(&own).run().unwrap_err().to_string();
    assert!(error.contains("projection"), "{error}");
    let narrow = Features::from_rows(vec![1.0; 3], 3).unwrap();
    assert!(index.search_embeddings(&narrow).run().unwrap_err().to_string().contains("8 numbers"));
}
