use burn::{backend::Flex, lr_scheduler::LrScheduler};
use cart_retrieval::{
    data::{ItemCaption, TextTokenizer, TokenizerConfig},
    expert::ScratchEncoderConfig,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{
    training::{COMPETITORS, competitors, schedule, steps_that_fit},
    *,
};

const WORDS: [&str; 8] = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen"];

/// Eight candidates, each with three captions that name it.
struct Setup {
    items: Features,
    captions: Vec<ItemCaption>,
    tokenizer: TextTokenizer,
    config: DualTowerConfig,
}

impl Setup {
    fn new() -> Self {
        let rows: Vec<f32> = (0..8 * 8).map(|i| if i % 9 == 0 { 1.0 } else { 0.0 }).collect();
        let items = Features::from_rows(rows, 8).unwrap();
        let captions: Vec<ItemCaption> = (0..8u32)
            .flat_map(|item| {
                ["a picture of a", "one small", "there is the"].map(|frame| ItemCaption {
                    item,
                    text: format!("{frame} {}", WORDS[item as usize]),
                    weight: 1.0,
                })
            })
            .collect();
        let config = TokenizerConfig { min_frequency: 1, ..TokenizerConfig::default() };
        let tokenizer =
            TextTokenizer::train(captions.iter().map(|c| c.text.as_str()), &config, 12).unwrap();
        let encoder = ScratchEncoderConfig {
            vocabulary: tokenizer.vocabulary(),
            max_tokens: 12,
            d_model: 16,
            d_ff: 32,
            n_heads: 2,
            n_layers: 1,
            dropout: 0.0,
        };
        let config = DualTowerConfig {
            epochs: 60,
            batch_size: 8,
            learning_rate: 1e-2,
            ..DualTowerConfig::new(encoder)
        };
        Self { items, captions, tokenizer, config }
    }

    fn data(&self) -> TowerData<'_> {
        TowerData { tokenizer: &self.tokenizer, captions: &self.captions, items: &self.items }
    }
}

fn start() -> TowerStart {
    TowerStart::scratch::<Flex>(&Default::default())
}

#[test]
fn learns_to_find_what_its_captions_name() {
    let setup = Setup::new();
    let stop = StopFlag::new();
    let fit = || setup.config.fit(start(), &setup.data(), &stop);
    let tower = fit().unwrap();
    assert_eq!(tower.passes(), 60.0);
    let queries: Vec<String> = WORDS.iter().map(|word| format!("a small {word}")).collect();
    let found = |tower: &DualTower| -> Vec<u32> {
        let rankings = tower.search_all(&queries, 3).unwrap();
        assert!(rankings.iter().all(|ranking| ranking.items.len() == 3));
        rankings.iter().map(|ranking| ranking.items[0]).collect()
    };
    assert_eq!(found(&tower), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert!(tower.search_all(&[" "], 3).is_err());
    // The same candidates in another order, and those of another width.
    let turned = tower.clone().over(&setup.items.select(&[7, 6, 5, 4, 3, 2, 1, 0])).unwrap();
    assert_eq!(found(&turned), [7, 6, 5, 4, 3, 2, 1, 0]);
    assert!(tower.over(&Features::from_rows(vec![1.0, 2.0], 2).unwrap()).is_err());
    stop.raise();
    assert!(matches!(fit().unwrap_err(), Error::Interrupted(_)));
}

#[test]
fn a_training_goes_on_from_the_weights_of_its_encoder() {
    let setup = Setup::new();
    let stop = StopFlag::new();
    let config = DualTowerConfig { epochs: 1, ..setup.config.clone() };
    let encoder: TextEncoder<Autodiff<Flex>> =
        config.encoder.init(&mut WeightInit::new(config.seed), &Default::default());
    let scores = |start| {
        let tower = config.fit(start, &setup.data(), &stop).unwrap();
        tower.search_all(&["a small cat"], 8).unwrap().remove(0).scores
    };
    let far = |a: &[f32], b: &[f32]| a.iter().zip(b).any(|(a, b)| (a - b).abs() > 1e-4);
    let scratch = scores(start());
    // From scratch is from the same weights by the same seed.
    assert!(!far(&scratch, &scores(TowerStart::encoder(encoder.clone()))));
    let frozen = encoder.freeze_layers(1);
    assert!(far(&scratch, &scores(TowerStart::encoder(frozen))));
}

#[test]
fn captions_and_settings_that_do_not_fit_are_refused() {
    let setup = Setup::new();
    let fit = |config: &DualTowerConfig, captions: &[ItemCaption]| {
        config.fit(start(), &TowerData { captions, ..setup.data() }, &StopFlag::new()).unwrap_err()
    };
    assert!(matches!(fit(&setup.config, &[]), Error::Captions(_)));
    let stray = [ItemCaption { item: 8, text: "a bear".into(), weight: 1.0 }];
    assert!(matches!(fit(&setup.config, &stray), Error::Captions(_)));
    let none = DualTowerConfig { epochs: 0, ..setup.config.clone() };
    assert!(matches!(fit(&none, &setup.captions), Error::Config(_)));
    for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let fitted = setup.config.fit_for(seconds, start(), &setup.data(), &StopFlag::new());
        assert!(matches!(fitted.unwrap_err(), Error::Config(_)), "{seconds}");
    }
}

#[test]
fn twice_the_time_gives_twice_the_steps() {
    // 16 steps in half a second are 32 a second.
    assert_eq!(steps_that_fit(10.0, 0.5, 16), 320);
    assert_eq!(steps_that_fit(20.0, 0.5, 16), 640);
    assert_eq!(steps_that_fit(1.0, 0.3, 1), 3);
    // One step at least, and a clock that has not moved gives a number, too.
    assert_eq!(steps_that_fit(0.01, 30.0, 1), 1);
    assert!(steps_that_fit(1.0, 0.0, 20) < 100_000_000);
}

#[test]
fn the_learning_rate_rises_and_falls_over_the_steps_whatever_their_number() {
    for steps in [20, 57, 400] {
        let mut schedule = schedule(1.0, steps);
        let rates: Vec<f64> = (0..steps).map(|_| schedule.step()).collect();
        let peak = rates.iter().position(|&rate| rate == 1.0).unwrap();
        assert!(peak <= steps / 20 && rates[..=peak].is_sorted(), "{steps}: {rates:?}");
        assert!(rates[peak..].is_sorted_by(|a, b| a >= b), "{steps}: {rates:?}");
        assert!(rates[steps - 1] < 0.05, "{steps}: {rates:?}");
        // Were there more steps, the last of these would not be the end.
        assert!(schedule.step() < rates[steps - 1]);
    }
    assert_eq!(schedule(1.0, 1).step(), 1.0);
}

#[test]
fn a_training_of_a_given_time_says_how_many_passes_it_made() {
    let setup = Setup::new();
    let fit = |seconds| setup.config.fit_for(seconds, start(), &setup.data(), &StopFlag::new());
    // No step is as short as this, so that there is one: a third of a pass.
    let tower = fit(1e-9).unwrap();
    assert_eq!(tower.passes(), 1.0 / 3.0);
    assert_eq!(tower.search_all(&["a cat"], 8).unwrap()[0].len(), 8);
    let stop = StopFlag::new();
    stop.raise();
    let stopped = setup.config.fit_for(1.0, start(), &setup.data(), &stop);
    assert!(matches!(stopped.unwrap_err(), Error::Interrupted(_)));
}

#[test]
fn timed_steps_leave_the_network_as_it_was() {
    let setup = Setup::new();
    let (data, stop) = (setup.data(), StopFlag::new());
    let device = Default::default();
    let training = Training::<Autodiff<Flex>>::new(&setup.config, &data, &stop, device).unwrap();
    let init = &mut WeightInit::new(setup.config.seed);
    let network = training.network(setup.config.encoder.init(init, &device));
    let weights = |steps| -> Vec<f32> {
        let trained = training.run(network.clone(), steps, &mut || Ok(true)).unwrap();
        trained.query.weight.val().into_data().to_vec().unwrap()
    };
    let far = |a: &[f32], b: &[f32]| a.iter().zip(b).any(|(a, b)| (a - b).abs() > 1e-5);
    let (before, plain) = (weights(0), weights(5));
    assert!(far(&before, &plain));
    training.steps_within(1e-9, &network).unwrap();
    assert!(!far(&before, &weights(0)) && !far(&plain, &weights(5)));
}

#[test]
fn many_candidates_compete_by_a_sample_that_holds_the_batchs_own() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let chosen = competitors(10_000, &[9_999, 3], &mut rng);
    assert!(chosen.is_sorted() && chosen.contains(&9_999) && chosen.contains(&3));
    assert!(chosen.len() > 3000 && chosen.len() <= COMPETITORS + 2);
    assert_eq!(competitors(5, &[1], &mut rng), [0, 1, 2, 3, 4]);
}
