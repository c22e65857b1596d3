//! Going on with a network that was loaded.

use std::path::PathBuf;

use burn::module::AutodiffModule;
use cart_retrieval::{
    expert::trainable, model::Cart, nn::TextEncoder, pretrained::PretrainedText, train::Freeze,
};

use super::*;

#[test]
fn a_network_of_an_index_learns_on_and_one_of_constants_is_refused() {
    let _turn = turn();
    let setup = setup();
    let device = Default::default();
    let trained = fit(&setup, Trainer::new(settings())).unwrap();
    let retriever = Retriever::new(RetrieverParts {
        model: trained.model,
        config: setup.config.clone(),
        tokenizer: setup.tokenizer.clone(),
        quantizer: setup.quantizer.clone(),
        index: setup.index.clone(),
    })
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    retriever.save(folder.path()).unwrap();
    let loaded = Retriever::<Flex>::load(folder.path(), &device).unwrap();
    let before = weights(loaded.model());

    let constants = Cart::<A>::from_inner(loaded.model().clone());
    let error = Trainer::new(settings()).fit(constants, &setup.data, &device).unwrap_err();
    assert!(error.to_string().contains("train::trainable"), "{error}");

    for (freeze, least) in [(Freeze::Nothing, 0.9), (Freeze::Encoder, 0.2)] {
        let network = trainable::<A, Cart<_>>(loaded.model().clone());
        let config = TrainConfig { freeze, ..settings() };
        let after = Trainer::new(config).fit(network, &setup.data, &device).unwrap();
        let changed = weights(&after.model).iter().zip(&before).filter(|(a, b)| a != b).count();
        let share = changed as f64 / before.len() as f64;
        assert!(share > least, "{freeze:?}: {share}");
        // The weights of a frozen encoder are those that were loaded.
        let same = weights(after.model.encoder()) == weights(loaded.model().encoder());
        assert_eq!(same, freeze == Freeze::Encoder);
    }
}

/// As the recipes do: a pretrained encoder that was read without gradients is trained where nothing
/// freezes it.
#[test]
fn a_pretrained_encoder_learns_wherever_it_was_read() {
    let _turn = turn();
    let mut setup = setup();
    let device = Default::default();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text/bert");
    let pretrained = PretrainedText::open(folder).unwrap();
    let (encoder, tokenizer, _) = pretrained.load::<Flex>(&device).unwrap();
    setup.data = TrainingData::new(
        &tokenizer,
        TrainingCaptions { train: &setup.train, valid: &[] },
        &setup.index,
    )
    .unwrap();
    let vocabulary = setup.index.vocabulary().clone();
    let config = CartConfig::for_encoder(pretrained.config().clone(), vocabulary)
        .with_width(16, 32, 2)
        .with_decoder_layers(1);
    let network = config.init_around(trainable::<A, TextEncoder<_>>(encoder.clone()), &device);
    let config = TrainConfig { epochs: 1, validations: 1, ..settings() };
    let trained = Trainer::new(config).fit(network.unwrap(), &setup.data, &device).unwrap();
    assert_ne!(weights(trained.model.encoder()), weights(&encoder));
}
