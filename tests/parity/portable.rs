//! An index trained on one backend, saved, and loaded on another.

use burn::backend::Autodiff;
use cart_retrieval::{backend::LocalBackend, prelude::*};

use crate::cases::setup;

/// Trains on `A`, serves on `B`; then saves what `B` loaded and serves it on `A` again.
pub fn there_and_back<A: LocalBackend, B: LocalBackend>(a: &A::Device, b: &B::Device) {
    let setup = setup();
    let quantizer = setup.quantizer.fit::<A>(&setup.items, a).unwrap();
    let index = quantizer.assign(&setup.items).run().unwrap();
    let data = TrainingData::new(
        &setup.tokenizer,
        TrainingCaptions { train: &setup.captions, valid: &[] },
        &index,
    )
    .unwrap();
    let config = setup.config(&index);
    let trained = Trainer::new(TrainConfig { batch_size: 16, epochs: 2, ..TrainConfig::default() })
        .fit(config.init::<Autodiff<A>>(a).unwrap(), &data, a)
        .unwrap();
    let here = Retriever::new(RetrieverParts {
        model: trained.model,
        config,
        tokenizer: setup.tokenizer.clone(),
        quantizer,
        index,
    })
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    here.save(&first).unwrap();
    let there = Retriever::<B>::load(&first, b).unwrap();
    there.save(&second).unwrap();
    let back = Retriever::<A>::load(&second, a).unwrap();

    let queries: Vec<String> = setup.captions.iter().map(|c| c.text.clone()).take(24).collect();
    let answers = here.query(&queries).top(5).run().unwrap();
    same_answers(&answers, &there.query(&queries).top(5).run().unwrap());
    let again = back.query(&queries).top(5).run().unwrap();
    for (a, b) in answers.iter().flatten().zip(again.iter().flatten()) {
        assert_eq!(a.id, b.id, "what was saved twice is the same model");
        approx::assert_abs_diff_eq!(a.score, b.score, epsilon = 1e-5);
    }
    // New rows get the same codes on both.
    let codes = |index: CandidateIndex| index.trie().identifiers();
    assert_eq!(
        codes(here.quantizer().assign(&setup.items).run().unwrap()),
        codes(there.quantizer().assign(&setup.items).run().unwrap()),
    );
}

/// The same items in the same order, unless their scores are equal to float accuracy.
fn same_answers(a: &[Vec<Hit>], b: &[Vec<Hit>]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert_eq!(a.len(), b.len());
        for (x, y) in a.iter().zip(b) {
            approx::assert_abs_diff_eq!(x.score, y.score, epsilon = 2e-4);
            let tied = a.iter().filter(|hit| (hit.score - x.score).abs() < 4e-4).count() > 1;
            assert!(x.id == y.id || tied, "{} here, {} there", x.id, y.id);
        }
    }
}
