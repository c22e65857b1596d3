//! A guided network answers embeddings by the geometry of its candidates.

use super::*;

#[test]
fn an_embedding_finds_candidates_like_it() {
    let index = retriever(true);
    let own = items(&names("old-", 0..60));
    let hits = index.query(&own).top(8).beam(60).run().unwrap();
    let vectors = own.normalised();
    let cosine = |a: usize, b: usize| -> f32 {
        vectors.row(a).iter().zip(vectors.row(b)).map(|(a, b)| a * b).sum()
    };
    // The vectors of the index are as long as the features.
    let length = |row: &[f32]| row.iter().map(|v| v * v).sum::<f32>().sqrt();
    let (mut first, mut shared) = (0, 0);
    for (item, hits) in hits.iter().enumerate() {
        let mut best: Vec<usize> = (0..60).collect();
        let product = |other: usize| cosine(item, other) * length(own.row(other));
        best.sort_by(|&a, &b| product(b).total_cmp(&product(a)));
        let found: Vec<usize> = hits.iter().map(|hit| hit.item as usize).collect();
        first += usize::from(found[0] == best[0]);
        shared += found.iter().filter(|item| best[..8].contains(item)).count();
    }
    // Sums over prefixes are not exact; chance is 1 and 64.
    assert!(first >= 50 && shared >= 400, "{first} of 60 first, {shared} of 480 shared");
    assert!(index.query(&items(&names("new-", 0..1))).run().is_ok());
    let error = retriever(false).query(&own).run().unwrap_err().to_string();
    assert!(error.contains("projection"), "{error}");
    let narrow = Features::from_rows(vec![1.0; 3], 3).unwrap();
    assert!(index.query(&narrow).run().unwrap_err().to_string().contains("8 numbers"));
}
