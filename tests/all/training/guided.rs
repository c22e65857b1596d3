//! Networks that the candidates' vectors guide.

use burn::module::AutodiffModule;
use cart_retrieval::{
    align::TextSpaceConfig,
    decode::Filters,
    eval::{TruncatedTies, evaluate},
    expert::{Engine, IdfWeights, LeaveOneOut, TextEmbedder, TextVectors},
    model::Cart,
    nn::{AlignmentConfig, TextEncoder},
    train::Freeze,
};

use super::*;

/// Candidates in a space of their own: texts are the features of their items with some noise.
struct Guided {
    setup: Setup,
    space: cart_retrieval::expert::FittedTextSpace,
}

fn guided() -> Guided {
    let mut setup = setup();
    let dim = setup.items.dim();
    let noise = |i: usize| ((i * 7919 % 101) as f32 / 101.0 - 0.5) * 0.3;
    let values = setup
        .train
        .iter()
        .enumerate()
        .flat_map(|(text, caption)| {
            let row = setup.items.row(caption.item as usize).iter();
            row.enumerate().map(move |(d, v)| v + noise(text * 31 + d)).collect::<Vec<_>>()
        })
        .collect();
    let owners = setup.train.iter().map(|caption| caption.item).collect();
    let texts = TextVectors::new(dim, values, owners).unwrap();
    let space = TextSpaceConfig::default().fit(&setup.items, &texts).unwrap();
    setup.quantizer = CoarseToFineConfig::new(8, RqKMeansConfig::new(vec![8, 8]))
        .fit::<Flex>(&space.vectors, &Default::default())
        .unwrap();
    setup.index = setup
        .quantizer
        .assign(&space.vectors)
        .run()
        .unwrap()
        .with_unique_capacity(40)
        .unwrap()
        .with_vectors(space.vectors.clone())
        .unwrap();
    setup.data = TrainingData::new(
        &setup.tokenizer,
        TrainingCaptions { train: &setup.train, valid: &setup.queries[..32] },
        &setup.index,
    )
    .unwrap()
    .with_held_out(space.held_out.clone())
    .unwrap();
    let alignment = AlignmentConfig { learn_map: true, ..AlignmentConfig::new(dim) };
    let mut config = setup.config.clone().with_alignment(alignment);
    config.vocabulary = setup.index.vocabulary().clone();
    setup.config = config;
    Guided { setup, space }
}

fn retriever(guided: &Guided, trained: Trained<Flex>) -> Retriever<Flex> {
    let setup = &guided.setup;
    Retriever::new(RetrieverParts {
        model: trained.model,
        config: setup.config.clone(),
        tokenizer: setup.tokenizer.clone(),
        quantizer: setup.quantizer.clone(),
        index: setup.index.clone(),
    })
    .unwrap()
    .with_space(guided.space.space.clone())
}

#[test]
fn a_guided_index_learns_survives_the_disk_and_serves_other_candidates() {
    let _turn = turn();
    let guided = guided();
    let setup = &guided.setup;
    let loss = LossConfig { r_drop: 0.0, alignment: 1.0, ..LossConfig::default() };
    let config = TrainConfig { epochs: 30, validations: 3, loss, ..settings() };
    let trained = fit(setup, Trainer::new(config)).unwrap();
    let retriever = retriever(&guided, trained);
    let texts: Vec<&str> = setup.queries[32..].iter().map(|c| c.text.as_str()).collect();
    let relevant: Vec<[u32; 1]> = setup.queries[32..].iter().map(|c| [c.item]).collect();
    let rankings = retriever.query(&texts).top(10).rankings().unwrap();
    let metrics = evaluate(&rankings, &relevant, 80, TruncatedTies::Listed).unwrap().metrics();
    // Chance is 12.5 %.
    assert!(metrics.recall_at_10 > 0.5, "{metrics}");

    // A beam of all candidates is the search over all of them, whatever the weights.
    for (decoder_weight, rerank) in [(1.0, 0.0), (0.3, 4.0)] {
        let weighted = retriever.clone().with_beam(BeamConfig {
            decoder_weight,
            rerank,
            ..retriever.beam().clone()
        });
        let beam = weighted.query(texts[0]).top(80).run().unwrap();
        let exact = weighted.query(texts[0]).scores().unwrap();
        for (hit, answer) in beam.iter().zip(&exact) {
            assert!((hit.score - answer.score).abs() < 1e-4, "{hit:?} {answer:?}");
        }
    }

    // Settings of a search, best first.
    let beams: Vec<BeamConfig> = [1.0, 0.0, 0.5]
        .into_iter()
        .map(|decoder_weight| BeamConfig { decoder_weight, ..retriever.beam().clone() })
        .collect();
    let scores = retriever.compare_beams(&texts, &relevant, &beams).unwrap();
    let found: Vec<f64> = scores.iter().map(|score| score.metrics.mrr_at_10).collect();
    assert!(found[0] >= found[1] && found[1] >= found[2] && found[0] > found[2], "{found:?}");
    let full = scores.iter().find(|score| score.beam.decoder_weight == 1.0).unwrap();
    assert_eq!(full.metrics.recall_at_10, metrics.recall_at_10);
    assert!(retriever.compare_beams(&texts, &relevant, &[]).is_err());

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let reranking = BeamConfig { rerank: 3.0, ..retriever.beam().clone() };
    let retriever = retriever.with_beam(reranking.clone());
    retriever.save(&path).unwrap();
    let loaded = Retriever::<Flex>::load(&path, &Default::default()).unwrap();
    assert_eq!(loaded.beam(), &reranking);
    assert_eq!(loaded.space(), retriever.space());
    for text in &texts[..5] {
        let hits = retriever.query(text).run().unwrap();
        assert_eq!(hits, loaded.query(text).run().unwrap());
        assert!(hits.windows(2).all(|pair| pair[0].score >= pair[1].score));
    }

    // Filters take candidates away and leave the others' scores as they are.
    let plain = loaded.query(texts[0]).top(4).run().unwrap();
    let deny = loaded.deny(&[plain[0].id.as_str(), plain[2].id.as_str()]).unwrap();
    let rest = loaded.query(texts[0]).top(4).filter(&deny).run().unwrap();
    assert_eq!([&rest[0].id, &rest[1].id], [&plain[1].id, &plain[3].id]);
    approx::assert_abs_diff_eq!(rest[0].score, plain[1].score, epsilon = 1e-4);
    let few: Vec<&str> = loaded.index().ids().iter().step_by(40).collect();
    let allow = loaded.allow(&few).unwrap();
    let filters = [Some(&allow), None, Some(&deny)];
    let all = loaded.query(&texts[..3]).top(50).filters(Filters::Each(&filters));
    let lengths: Vec<usize> = all.run().unwrap().iter().map(Vec::len).collect();
    assert_eq!(lengths, [few.len(), 50, 50]);
    let unknown = loaded.allow(&["no such thing"]).unwrap_err().to_string();
    assert!(unknown.contains("no such thing"), "{unknown}");
    let short = loaded.query(&texts[..2]).filters(Filters::Each(&filters)).run();
    assert!(short.is_err());
    // At most so many of a cluster, none below a score; why the best is the best.
    let spread = loaded.query(texts[0]).top(20).beam(60).per_cluster(2).run().unwrap();
    let mut clusters: Vec<u16> = spread.iter().map(|hit| hit.identifier.tokens()[0]).collect();
    clusters.sort_unstable();
    assert!(clusters.windows(3).all(|three| three[0] != three[2]), "{clusters:?}");
    assert_eq!(spread[0], loaded.query(texts[0]).beam(60).run().unwrap()[0]);
    let above = loaded.query(texts[0]).top(4).min_score(plain[1].score).run().unwrap();
    assert_eq!(above, plain[..2]);
    assert!(loaded.query(texts[0]).per_cluster(0).run().is_err());
    assert!(loaded.query(texts[0]).min_score(f32::NAN).run().is_err());
    let why = loaded.query(texts[0]).explain(&plain[0].id, 3).unwrap();
    approx::assert_abs_diff_eq!(why.score, plain[0].score, epsilon = 1e-3);
    assert!(why.rerank > 0.0 && why.levels.len() == loaded.index().vocabulary().levels());
    assert!(loaded.query(texts[0]).explain("no such thing", 3).is_err());

    // Proven best under the model; the beam finds no better one.
    let exact = loaded.query(texts[0]).top(3).exact(loaded.index().trie().len()).unwrap();
    assert!(exact.proven && exact.hits.len() == 3);
    assert!(exact.hits[0].score >= plain[0].score - 1e-4);

    // Other candidates, by their features alone: every one can be found.
    let others = setup.items.select(&(0..30).collect::<Vec<_>>());
    let vectors = loaded.space().unwrap().embed(&others, None).unwrap();
    let index = loaded.quantizer().assign(&vectors).run().unwrap();
    let without = loaded.clone().with_candidates(index.clone()).unwrap_err().to_string();
    assert!(without.contains("vectors"), "{without}");
    let served = loaded.clone().with_candidates(index.with_vectors(vectors).unwrap()).unwrap();
    assert_eq!(served.query(texts[0]).top(30).run().unwrap().len(), 30);
    assert_eq!(served.beam(), &reranking);
    // One that is full of the same candidate has more of them than the network has unique tokens.
    let same = Features::from_rows(setup.items.row(0).repeat(50), setup.items.dim()).unwrap();
    let vectors = loaded.space().unwrap().embed(&same, None).unwrap();
    let index = loaded.quantizer().assign(&vectors).run().unwrap().with_vectors(vectors).unwrap();
    let error = loaded.with_candidates(index).unwrap_err().to_string();
    assert!(error.contains("unique"), "{error}");
}

#[test]
fn guidance_that_cannot_be_is_refused() {
    let _turn = turn();
    let guided = guided();
    let setup = &guided.setup;
    let dim = guided.space.space.dim();
    let short = LeaveOneOut::new(dim, vec![0.0; dim]).unwrap();
    assert!(setup.data.clone().with_held_out(short).is_err());
    let plain = setup.quantizer.assign(&guided.space.vectors).run().unwrap();
    let data = TrainingData::new(
        &setup.tokenizer,
        TrainingCaptions { train: &setup.train, valid: &[] },
        &plain,
    )
    .unwrap();
    let error = data.with_held_out(guided.space.held_out.clone()).unwrap_err().to_string();
    assert!(error.contains("held-out"), "{error}");
    assert!(plain.clone().with_vectors(setup.items.select(&[0, 1])).is_err());

    // Identifiers alone for a network that needs vectors.
    let all = TrainConfig {
        loss: LossConfig { scope: Scope::All, ..LossConfig::default() },
        ..settings()
    };
    let error = fit(setup, Trainer::new(all)).unwrap_err().to_string();
    assert!(error.contains("legal"), "{error}");
    let without = setup.index.clone();
    let without = CandidateIndex::new(
        without.ids().clone(),
        without.trie().clone(),
        without.health().clone(),
    )
    .unwrap();
    let data = TrainingData::new(
        &setup.tokenizer,
        TrainingCaptions { train: &setup.train, valid: &[] },
        &without,
    )
    .unwrap();
    let device = Default::default();
    let model = setup.config.init::<A>(&device).unwrap();
    let error = Trainer::new(settings()).fit(model, &data, &device).unwrap_err().to_string();
    assert!(error.contains("vectors"), "{error}");

    // A contrast or a rerank without an alignment.
    let mut config = setup.config.clone();
    config.alignment = None;
    let loss = LossConfig { alignment: 1.0, ..LossConfig::default() };
    let trainer = Trainer::new(TrainConfig { loss, ..settings() });
    let model = config.init::<A>(&device).unwrap();
    let error = trainer.fit(model, &setup.data, &device).unwrap_err().to_string();
    assert!(error.contains("alignment"), "{error}");
    // Settings of a guidance that is not there.
    for loss in [
        LossConfig { guide_factor: 3.0, ..LossConfig::default() },
        LossConfig { guide_dropout: 0.5, ..LossConfig::default() },
    ] {
        let trainer = Trainer::new(TrainConfig { loss, ..settings() });
        let model = config.init::<A>(&device).unwrap();
        let error = trainer.fit(model, &setup.data, &device).unwrap_err().to_string();
        assert!(error.contains("guide_factor"), "{error}");
    }
    let trained = Trainer::new(TrainConfig { epochs: 1, ..settings() })
        .fit(config.init::<A>(&device).unwrap(), &setup.data, &device)
        .unwrap();
    let retriever = Retriever::new(RetrieverParts {
        model: trained.model,
        config,
        tokenizer: setup.tokenizer.clone(),
        quantizer: setup.quantizer.clone(),
        index: setup.index.clone(),
    })
    .unwrap();
    let reranking = BeamConfig { rerank: 1.0, ..BeamConfig::default() };
    let error = retriever.clone().with_beam(reranking).query("red").run().unwrap_err();
    assert!(error.to_string().contains("alignment"), "{error}");
    let silent = BeamConfig { decoder_weight: 0.0, ..BeamConfig::default() };
    let error = retriever.clone().with_beam(silent).query("red").run().unwrap_err();
    assert!(error.to_string().contains("weight of the decoder"), "{error}");
    let wrong = BeamConfig { decoder_weight: f32::NAN, ..BeamConfig::default() };
    assert!(retriever.clone().with_beam(wrong).query("red").run().is_err());
    let wrong = BeamConfig { rerank: -1.0, ..BeamConfig::default() };
    assert!(retriever.with_beam(wrong).query("red").run().is_err());
}

/// Vectors that say what the words are too: learned, saved, loaded, and refused where they do not
/// fit.
#[test]
fn words_are_part_of_queries_and_of_the_saved_index() {
    let _turn = turn();
    let mut setup = setup();
    let device = Default::default();
    let encoder = setup.config.init::<Flex>(&device).unwrap().encoder().clone();
    let words = IdfWeights::fit(&encoder, &setup.tokenizer, &setup.train, 0.4).unwrap();
    let embedder = TextEmbedder {
        encoder: &encoder,
        tokenizer: &setup.tokenizer,
        lexical_head: Some(words.head(&device)),
    };
    let texts = embedder.embed(&setup.train, &device).unwrap();
    assert_eq!(texts.dim(), 2 * encoder.d_model());
    let space = TextSpaceConfig::default().fit(&setup.items, &texts).unwrap();
    setup.quantizer = CoarseToFineConfig::new(8, RqKMeansConfig::new(vec![8, 8]))
        .fit::<Flex>(&space.vectors, &device)
        .unwrap();
    setup.index = setup.quantizer.assign(&space.vectors).run().unwrap();
    setup.index = setup.index.clone().with_vectors(space.vectors.clone()).unwrap();
    let pairs = TrainingData::new(
        &setup.tokenizer,
        TrainingCaptions { train: &setup.train, valid: &[] },
        &setup.index,
    )
    .unwrap();
    setup.data = pairs.with_held_out(space.held_out.clone()).unwrap();
    let config = |words| AlignmentConfig { words, ..AlignmentConfig::new(texts.dim()) };
    setup.config.vocabulary = setup.index.vocabulary().clone();
    let plain = setup.config.clone().with_alignment(config(None)).init::<Flex>(&device).unwrap();
    let other = setup.config.clone().with_alignment(config(Some(0.3)));
    let other = other.init::<Flex>(&device).unwrap();
    for network in [plain, other] {
        let error = network.with_lexical_head(words.head(&device)).unwrap_err().to_string();
        assert!(error.contains("weight 0.4"), "{error}");
    }

    setup.config = setup.config.clone().with_alignment(config(Some(0.4)));
    let network = setup.config.init_around(TextEncoder::<A>::from_inner(encoder), &device);
    let network = network.unwrap().with_lexical_head(words.head(&device)).unwrap();
    let untrained = network.valid();
    let loss = LossConfig { r_drop: 0.0, ..LossConfig::default() };
    let freeze = Freeze::Encoder;
    let training =
        TrainConfig { epochs: 2, validations: 1, word_dropout: 0.0, freeze, loss, ..settings() };
    let trained = Trainer::new(training).fit(network, &setup.data, &device).unwrap();
    let guided = Guided { setup, space };
    let retriever = retriever(&guided, trained);
    // The encoder is frozen and the map of the query is fixed: only the decoder can have learned.
    let scores = |model: &Cart<Flex>, decoder_weight: f32| {
        let setup = &guided.setup;
        let tokens = setup.tokenizer.encode(&setup.queries[0].text).unwrap();
        let engine = Engine::new(model.clone());
        let encoded = engine.encode(&[tokens], setup.tokenizer.padding()).unwrap();
        let beam = BeamConfig { decoder_weight, ..Default::default() };
        engine.score_all(&encoded, &setup.index, &beam).unwrap()
    };
    assert_ne!(scores(&untrained, 1.0), scores(retriever.model(), 1.0));
    assert_eq!(scores(&untrained, 1.0), scores(retriever.model(), 0.0));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    retriever.save(&path).unwrap();
    let loaded = Retriever::<Flex>::load(&path, &device).unwrap();
    for caption in &guided.setup.queries[..5] {
        let hits = retriever.query(&caption.text).run().unwrap();
        assert_eq!(hits, loaded.query(&caption.text).run().unwrap());
    }
}
