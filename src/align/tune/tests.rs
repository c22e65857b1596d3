use burn::{
    backend::{Autodiff, Flex},
    module::{Module, ModuleMapper, Param},
    tensor::Tensor,
};

use super::{choice::mixed, *};
use crate::{
    align::{TextEmbedder, TextSpaceConfig, TextVectors},
    data::{TextTokenizer, TokenizerConfig},
    error::Error,
    features::Features,
    kernels::dot,
    nn::{Activation, BertConfig, Pooling, ScratchEncoderConfig, TextEncoderConfig, WeightInit},
    storage::NamedTensors,
};

type A = Autodiff<Flex>;

/// Items of two properties; features and texts show both.
fn fixture() -> (Features, Vec<ItemCaption>) {
    let (colours, shapes) =
        (["red", "blue", "green", "black"], ["ball", "cube", "cone", "ring", "star"]);
    let (mut rows, mut captions) = (vec![], vec![]);
    for (c, colour) in colours.iter().enumerate() {
        for (s, shape) in shapes.iter().enumerate() {
            let item = (c * shapes.len() + s) as u32;
            let hot = |at: usize, of: usize| (0..of).map(move |i| f32::from(u8::from(i == at)));
            rows.extend(hot(c, 4).chain(hot(s, 5)));
            for text in [format!("a {colour} {shape}"), format!("the {shape} is {colour}")] {
                captions.push(ItemCaption { item, text, weight: 1.0 });
            }
        }
    }
    (Features::from_rows(rows, 9).unwrap(), captions)
}

fn encoder(tokenizer: &TextTokenizer) -> TextEncoder<A> {
    let config = TextEncoderConfig::from(ScratchEncoderConfig {
        vocabulary: tokenizer.vocabulary(),
        max_tokens: 16,
        d_model: 16,
        d_ff: 32,
        n_heads: 2,
        n_layers: 1,
        dropout: 0.0,
    });
    config.init(&mut WeightInit::new(3), &Default::default())
}

fn bert_config(tokenizer: &TextTokenizer) -> BertConfig {
    BertConfig {
        vocabulary: tokenizer.vocabulary(),
        positions: 16,
        first_position: 0,
        token_types: 1,
        d_model: 16,
        d_ff: 32,
        n_heads: 2,
        n_layers: 1,
        activation: Activation::Gelu,
        norm_epsilon: 1e-12,
        dropout: 0.0,
        attention_dropout: 0.0,
        pooling: Pooling::Mean,
    }
}

/// Share of texts that lie nearest to their own candidate as made without them.
fn found(texts: &TextVectors, items: &Features, space: &TextSpaceConfig) -> f64 {
    let fitted = space.fit(items, texts).unwrap();
    let hits = (0..texts.len()).filter(|&text| {
        let own = dot(texts.row(text), fitted.held_out.row(text));
        let item = texts.items()[text] as usize;
        let others = (0..items.len()).filter(|&other| other != item);
        others.into_iter().all(|other| dot(texts.row(text), fitted.vectors.row(other)) < own)
    });
    hits.count() as f64 / texts.len() as f64
}

#[test]
fn texts_move_to_their_candidates() {
    let (items, captions) = fixture();
    let device = Default::default();
    let texts = captions.iter().map(|caption| caption.text.as_str());
    let tokenizer = TextTokenizer::train(texts, &TokenizerConfig::default(), 16).unwrap();
    let space = TextSpaceConfig { penalties: vec![0.1, 1.0], ..Default::default() };
    let data = TuningData {
        tokenizer: &tokenizer,
        captions: &captions,
        items: &items,
        space: &space,
        idf_weights: None,
    };
    let embed = |encoder: &TextEncoder<Flex>| {
        TextEmbedder { encoder, tokenizer: &tokenizer, lexical_head: None }
            .embed(&captions, &device)
            .unwrap()
    };
    let untuned = encoder(&tokenizer);
    let before = found(&embed(&untuned.valid()), &items, &space);
    let tuning = EncoderTuning {
        epochs: 30,
        batch_size: 8,
        learning_rate: 3e-3,
        validation_share: 0.0,
        ..EncoderTuning::default()
    };
    let fit = |tuning: &EncoderTuning| {
        let stop = StopFlag::new();
        tuning.fit(encoder(&tokenizer), &data, &stop, &device)
    };
    let whole = fit(&tuning).unwrap();
    assert_eq!((whole.share, whole.validation_mrr.len()), (1.0, 0));
    let tuned = whole.encoder;
    let after = found(&embed(&tuned), &items, &space);
    assert!(after > before + 0.2 && after > 0.8, "{before} to {after}");
    let words = |encoder: &TextEncoder<Flex>| {
        let mut tensors = NamedTensors::new();
        tensors.insert_module::<Flex, _>("", encoder).unwrap();
        tensors.take_f32("tokens.weight").unwrap()
    };
    // An encoder from scratch learns its token embeddings; a pretrained one keeps them.
    assert_ne!(words(&tuned), words(&untuned.valid()));
    let bert = || -> TextEncoder<A> {
        let config = TextEncoderConfig::from(bert_config(&tokenizer));
        config.init(&mut WeightInit::new(3), &device)
    };
    let short = EncoderTuning { epochs: 2, ..tuning.clone() };
    let kept = short.fit(bert(), &data, &StopFlag::new(), &device).unwrap().encoder;
    assert_eq!(words(&kept), words(&bert().valid()));
    assert_ne!(embed(&kept), embed(&bert().valid()));
    assert_eq!(embed(&tuned), embed(&fit(&tuning).unwrap().encoder));
    let none = fit(&EncoderTuning { epochs: 0, ..tuning.clone() }).unwrap().encoder;
    assert_eq!(embed(&none), embed(&untuned.valid()));

    let stop = StopFlag::new();
    stop.raise();
    let stopped = tuning.fit(untuned, &data, &stop, &device).unwrap_err();
    assert!(matches!(stopped, Error::Interrupted(_)), "{stopped}");
    for bad in [
        EncoderTuning { batch_size: 1, ..tuning.clone() },
        EncoderTuning { learning_rate: 0.0, ..tuning.clone() },
        EncoderTuning { map_learning_rate: 2.0, ..tuning.clone() },
        EncoderTuning { temperature: f64::NAN, ..tuning.clone() },
        EncoderTuning { word_dropout: 1.0, ..tuning.clone() },
        EncoderTuning { weight_decay: -1.0, ..tuning.clone() },
        EncoderTuning { validation_share: 0.9, ..tuning.clone() },
        EncoderTuning { shares: vec![], ..tuning.clone() },
        EncoderTuning { shares: vec![0.0, 1.5], ..tuning.clone() },
    ] {
        assert!(bad.validate().is_err(), "{bad:?}");
    }
}

#[test]
fn captions_kept_out_choose_how_far_to_go() {
    let (items, captions) = fixture();
    let device = Default::default();
    let texts = captions.iter().map(|caption| caption.text.as_str());
    let tokenizer = TextTokenizer::train(texts, &TokenizerConfig::default(), 16).unwrap();
    for texts in [1.0, 0.0] {
        let space = TextSpaceConfig { penalties: vec![0.3], texts, ..Default::default() };
        let data = TuningData {
            tokenizer: &tokenizer,
            captions: &captions,
            items: &items,
            space: &space,
            idf_weights: None,
        };
        let fit = |shares: &[f64], on_all: bool| {
            let tuning = EncoderTuning {
                on_all,
                epochs: 12,
                seed: 2,
                batch_size: 8,
                learning_rate: 3e-3,
                shares: shares.to_vec(),
                validation_share: 0.5,
                ..EncoderTuning::default()
            };
            let encoder = encoder(&tokenizer);
            let stop = StopFlag::new();
            tuning.fit(encoder, &data, &stop, &device).unwrap()
        };
        let embed = |encoder: &TextEncoder<Flex>| {
            TextEmbedder { encoder, tokenizer: &tokenizer, lexical_head: None }
                .embed(&captions, &device)
                .unwrap()
        };
        let tuned = fit(&[0.0, 0.5, 1.0], false);
        let mrr = &tuned.validation_mrr;
        assert!(tuned.share > 0.0 && mrr.iter().skip(1).any(|&m| m > mrr[0]), "{mrr:?}");
        for share in [0.0, 0.5, 1.0] {
            let alone = fit(&[share], false);
            assert_eq!(alone.validation_mrr[0], mrr[(share * 2.0) as usize]);
            if share == tuned.share {
                assert_eq!(embed(&alone.encoder), embed(&tuned.encoder));
            }
        }
        // The same choice, then what a training on all captions gives.
        let on_all = fit(&[0.0, 0.5, 1.0], true);
        assert_eq!((on_all.share, &on_all.validation_mrr), (tuned.share, mrr));
        assert_ne!(embed(&on_all.encoder), embed(&tuned.encoder));
        let again = |seed| EncoderTuning {
            seed,
            epochs: 12,
            batch_size: 8,
            learning_rate: 3e-3,
            shares: vec![tuned.share],
            validation_share: 0.0,
            ..EncoderTuning::default()
        };
        let stop = StopFlag::new();
        let all = again(1).fit(encoder(&tokenizer), &data, &stop, &device).unwrap();
        assert_eq!(all.share, tuned.share);
        // Orders differ, since the generator of the one has made a choice; what is learned does
        // not.
        let near = |a: &TextVectors, b: &TextVectors| -> f64 {
            let cosines = (0..a.len()).map(|t| f64::from(dot(a.row(t), b.row(t))));
            cosines.sum::<f64>() / a.len() as f64
        };
        let (of_all, again) = (embed(&on_all.encoder), embed(&all.encoder));
        assert!(near(&of_all, &again) > near(&of_all, &embed(&encoder(&tokenizer).valid())));
    }
}

#[test]
fn weights_half_way() {
    let captions = ["a red ball", "the blue cube"];
    let tokenizer = TextTokenizer::train(captions, &TokenizerConfig::default(), 16).unwrap();
    let from = encoder(&tokenizer).valid();
    let to = mixed(&from, from.clone(), 1.0);
    struct Shift;
    impl ModuleMapper<Flex> for Shift {
        fn map_float<const D: usize>(
            &mut self,
            param: Param<Tensor<Flex, D>>,
        ) -> Param<Tensor<Flex, D>> {
            let (id, value, mapper) = param.consume();
            Param::from_mapped_value(id, value.add_scalar(2.0), mapper)
        }
    }
    let to = to.map(&mut Shift);
    let values = |encoder: &TextEncoder<Flex>| {
        let mut tensors = NamedTensors::new();
        tensors.insert_module::<Flex, _>("", encoder).unwrap();
        tensors.take_f32("tokens.weight").unwrap().1
    };
    let half = mixed(&from, to, 0.25);
    for (a, b) in values(&from).iter().zip(values(&half)) {
        approx::assert_abs_diff_eq!(a + 0.5, b, epsilon = 1e-6);
    }
}

#[test]
fn captions_kept_out_leave_a_caption_or_are_all_of_an_item() {
    let (items, captions) = fixture();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let tuning = EncoderTuning { validation_share: 0.3, ..EncoderTuning::default() };
    let (rest, out, whole) = tuning.split(&captions, items.len(), true, &mut rng);
    assert_eq!((rest.len(), out.len(), whole), (28, 12, false));
    assert!((0..items.len() as u32).all(|item| rest.iter().any(|c| c.item == item)));
    let (rest, out, whole) = tuning.split(&captions, items.len(), false, &mut rng);
    assert_eq!((rest.len(), out.len(), whole), (28, 12, true));
    assert!(out.iter().all(|kept| rest.iter().all(|c| c.item != kept.item)));
    // One caption each: none can be spared, so some items lose theirs.
    let single: Vec<ItemCaption> = captions.iter().step_by(2).cloned().collect();
    let (rest, out, whole) = tuning.split(&single, items.len(), true, &mut rng);
    assert_eq!((rest.len(), out.len(), whole), (14, 6, true));
    // Too few to tell anything by.
    let (rest, out, _) = tuning.split(&single[..12], items.len(), true, &mut rng);
    assert_eq!((rest.len(), out.len()), (12, 0));
}
