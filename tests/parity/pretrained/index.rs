//! Pretrained encoders inside the network: training, freezing, saving.

use burn::{
    backend::{Autodiff, Flex},
    module::Module,
};
use burn_store::ModuleSnapshot;
use cart_retrieval::{
    expert::QueryBatch,
    model::Cart,
    prelude::*,
    pretrained::PretrainedText,
    quantizer::RqKMeansConfig,
    train::{Freeze, FrozenCache, Trained},
};

use super::{MODELS, fixture};
use crate::turn;

type A = Autodiff<Flex>;

const WORDS: [&str; 8] = ["ant", "bird", "cat", "dog", "eel", "fish", "hen", "owl"];

struct Setup {
    quantizer: CoarseToFine<Flex>,
    index: CandidateIndex,
    tokenizer: TextTokenizer,
    data: TrainingData,
    config: CartConfig,
    cart: Cart<A>,
}

/// Eight candidates and a network around a pretrained encoder, with a decoder of another width.
fn setup(model: &str) -> Setup {
    let rows: Vec<f32> = (0..64).map(|i| if i % 9 == 0 { 1.0 } else { 0.01 * i as f32 }).collect();
    let items = Features::from_rows(rows, 8).unwrap();
    let quantizer = CoarseToFineConfig::new(3, RqKMeansConfig::new(vec![3]))
        .fit::<Flex>(&items, &Default::default())
        .unwrap();
    let index = quantizer.assign(&items).run().unwrap();
    let captions: Vec<ItemCaption> = (0..8u32)
        .flat_map(|item| {
            ["a", "one red", "the"].map(|frame| ItemCaption {
                item,
                text: format!("{frame} {}", WORDS[item as usize]),
                weight: 1.0,
            })
        })
        .collect();
    let device = Default::default();
    let pretrained = PretrainedText::open(fixture(model)).unwrap().with_max_tokens(24).unwrap();
    let (encoder, tokenizer, _) = pretrained.load::<A>(&device).unwrap();
    let data = TrainingData::new(
        &tokenizer,
        TrainingCaptions { train: &captions, valid: &captions[..8] },
        &index,
    )
    .unwrap();
    let config = CartConfig::for_encoder(pretrained.config().clone(), index.vocabulary().clone())
        .with_width(12, 24, 3)
        .with_decoder_layers(1)
        .with_max_tokens(tokenizer.max_tokens());
    let cart = config.init_around(encoder, &device).unwrap();
    Setup { quantizer, index, tokenizer, data, config, cart }
}

fn settings() -> TrainConfig {
    TrainConfig {
        epochs: 4,
        batch_size: 8,
        learning_rate: 3e-3,
        validations: 2,
        ..TrainConfig::default()
    }
}

fn run(setup: &Setup, config: &TrainConfig) -> Trained<Flex> {
    let trainer = Trainer::new(config.clone());
    trainer.fit(setup.cart.clone(), &setup.data, &Default::default()).unwrap()
}

fn tensors<M: ModuleSnapshot<Flex>>(module: &M) -> Vec<(String, Vec<f32>)> {
    let snapshots = module.collect(None, None, true);
    snapshots.iter().map(|s| (s.full_path(), s.to_data().unwrap().to_vec().unwrap())).collect()
}

fn inner(cart: &Cart<A>) -> Cart<Flex> {
    use burn::module::AutodiffModule;
    cart.valid()
}

#[test]
fn a_saved_index_has_the_encoder_in_it() {
    let _turn = turn();
    for model in MODELS {
        let setup = setup(model);
        assert_eq!(setup.cart.num_params(), setup.config.num_params().total(), "{model}");
        let cart = inner(&setup.cart);
        let device = Default::default();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index");
        let retriever = Retriever::new(RetrieverParts {
            model: cart.clone(),
            config: setup.config.clone(),
            tokenizer: setup.tokenizer.clone(),
            quantizer: setup.quantizer.clone(),
            index: setup.index.clone(),
        })
        .unwrap();
        retriever.save(&path).unwrap();
        let loaded = Retriever::<Flex>::load(&path, &device).unwrap();
        assert_eq!(loaded.config(), &setup.config);
        assert_eq!(loaded.tokenizer().padding(), setup.tokenizer.padding());
        assert_eq!(tensors(loaded.model()), tensors(&cart), "{model}");
        assert_eq!(loaded.model().architecture(), cart.architecture());
        let architecture = cart.architecture();
        assert!(architecture.contains(" encoder of 64 text tokens, width 16"), "{architecture}");
        assert!(architecture.contains("decoder of width 12, inner width 24"), "{architecture}");
        let texts = ["a red dog", "the owl"];
        let rows: Vec<Vec<u32>> =
            texts.iter().map(|text| loaded.tokenizer().encode(text).unwrap()).collect();
        let batch =
            || QueryBatch::<Flex>::new(&rows, loaded.tokenizer().padding(), &device).unwrap();
        let layers = |cart: &Cart<Flex>| {
            let output = cart.encode_layers(batch().tokens, batch().padding);
            let pooled = output.pooled().into_data();
            (output.layers.into_iter().map(|l| l.into_data()).collect::<Vec<_>>(), pooled)
        };
        assert_eq!(layers(loaded.model()), layers(&cart), "{model}");
        for text in texts {
            let hits = retriever.query(text).top(8).run().unwrap();
            assert_eq!(hits.len(), 8);
            assert_eq!(hits, loaded.query(text).top(8).run().unwrap());
        }
    }
}

#[test]
fn every_family_learns_and_what_is_frozen_stays() {
    let _turn = turn();
    for model in MODELS {
        let setup = setup(model);
        let start = tensors(&inner(&setup.cart));
        for (freeze, frozen) in [
            (Freeze::Nothing, vec![]),
            (Freeze::TokenEmbeddings, vec!["encoder.tokens."]),
            (
                Freeze::Layers(1),
                vec![
                    "encoder.tokens.",
                    "encoder.positions.",
                    "encoder.token_types.",
                    "encoder.distances.",
                    "encoder.norm.",
                    "encoder.final_norm.",
                    "encoder.layers.0.",
                ],
            ),
            (Freeze::Encoder, vec!["encoder."]),
        ] {
            let config = TrainConfig { freeze, encoder_lr: 0.3, epochs: 16, ..settings() };
            let trained = run(&setup, &config);
            for ((path, before), (_, after)) in start.iter().zip(tensors(&trained.model)) {
                let kept = frozen.iter().any(|prefix| path.starts_with(prefix));
                // Keys' biases may have no gradient at all.
                let same = *before == after;
                assert!(same == kept || path.ends_with("key.bias"), "{model} {freeze:?}: {path}");
            }
            let losses: Vec<f64> = trained.history.iter().map(|r| r.loss.unwrap()).collect();
            assert!(losses.last() < losses.first(), "{model} {freeze:?}: {losses:?}");
        }
    }
}

#[test]
fn keeping_the_outputs_of_frozen_layers_changes_rounding_only() {
    let _turn = turn();
    for model in MODELS {
        let setup = setup(model);
        for freeze in [Freeze::Layers(1), Freeze::Encoder] {
            let plain = TrainConfig { freeze, learning_rate: 1e-3, ..settings() };
            let frozen_cache = FrozenCache { mebibytes: 8, half: false };
            let kept = run(&setup, &TrainConfig { frozen_cache, ..plain.clone() });
            let plain = run(&setup, &plain);
            for ((path, a), (_, b)) in tensors(&kept.model).iter().zip(tensors(&plain.model)) {
                let off = a.iter().zip(&b).fold(0f32, |top, (a, b)| top.max((a - b).abs()));
                assert!(
                    off < 2e-4 || path.ends_with("key.bias"),
                    "{model} {freeze:?}: {path} {off}"
                );
            }
        }
    }
}

#[test]
fn sizes_that_contradict_the_encoder_are_refused() {
    let setup = setup("bert");
    let device = Default::default();
    let message = |config: CartConfig| config.init::<Flex>(&device).unwrap_err().to_string();
    let config = || setup.config.clone();
    assert!(message(config().with_layers(2, 1)).contains("encoder_layers"));
    assert!(message(config().with_max_tokens(41)).contains("max_tokens"));
    assert!(message(config().with_width(12, 24, 5)).contains("n_heads"));
    assert!(message(CartConfig { text_vocabulary: 9, ..config() }).contains("text_vocabulary"));
    let other = PretrainedText::open(fixture("clip_gelu")).unwrap();
    let (other, ..) = other.load::<Flex>(&device).unwrap();
    let error = config().init_around(other, &device).unwrap_err().to_string();
    assert!(error.contains("text encoder"), "{error}");
    let json = serde_json::to_string(&setup.config).unwrap();
    assert_eq!(serde_json::from_str::<CartConfig>(&json).unwrap(), setup.config);
    assert!(serde_json::from_str::<CartConfig>(&json.replacen("d_ff", "d_fff", 2)).is_err());
}
