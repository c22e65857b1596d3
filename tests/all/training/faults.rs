//! What can go wrong in the middle of a training, and what is left of it then.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
};

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::Tensor,
};
use cart_retrieval::{
    model::Cart,
    prelude::*,
    train::{StopReason, TrainEvent, Trained},
};

use super::{A, Setup, settings, setup, turn};

/// Makes a row of the word embeddings NaN.
struct Poison {
    path: Vec<String>,
    token: u32,
}

impl ModuleMapper<A> for Poison {
    fn enter_module(&mut self, name: &str, container: &str) {
        if !container.starts_with("Enum:") {
            self.path.push(name.to_string());
        }
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        if !container.starts_with("Enum:") {
            self.path.pop();
        }
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<A, D>>) -> Param<Tensor<A, D>> {
        if self.path.join(".") != "encoder.tokens.weight" {
            return param;
        }
        let (device, [rows, columns]) = (param.device(), [param.dims()[0], param.dims()[1]]);
        let mut data = param.val().into_data();
        let start = self.token as usize * columns;
        data.as_mut_slice::<f32>().unwrap()[start..start + columns].fill(f32::NAN);
        let id = param.id;
        let value = Tensor::<A, D>::from_data(data, &device).require_grad();
        assert!(rows > self.token as usize);
        Param::initialized(id, value)
    }
}

fn poisoned(setup: &Setup, token: u32) -> Cart<A> {
    let cart = setup.config.init::<A>(&Default::default()).unwrap();
    cart.map(&mut Poison { path: Vec::new(), token })
}

/// A token of the fewest training captions, and of none that is validated.
fn rare_token(setup: &Setup) -> (u32, usize) {
    let mut counts = BTreeMap::<u32, usize>::new();
    for caption in &setup.train {
        let mut tokens = setup.tokenizer.encode(&caption.text).unwrap();
        tokens.sort_unstable();
        tokens.dedup();
        tokens.into_iter().for_each(|token| *counts.entry(token).or_default() += 1);
    }
    for query in &setup.queries[..32] {
        for token in setup.tokenizer.encode(&query.text).unwrap() {
            counts.remove(&token);
        }
    }
    counts.into_iter().min_by_key(|(_, count)| *count).expect("a token that no query has")
}

type Events = Arc<Mutex<Vec<TrainEvent>>>;

fn listening(trainer: Trainer) -> (Trainer, Events) {
    let events = Events::default();
    let sink = events.clone();
    (trainer.with_progress(move |event| sink.lock().unwrap().push(event)), events)
}

fn skipped(events: &Events) -> Vec<(usize, usize)> {
    let events = events.lock().unwrap();
    let skipped = |event: &TrainEvent| match *event {
        TrainEvent::Skipped { step, in_a_row, .. } => Some((step, in_a_row)),
        _ => None,
    };
    events.iter().filter_map(skipped).collect()
}

fn calm() -> TrainConfig {
    TrainConfig { epochs: 1, validations: 5, word_dropout: 0.0, max_bad_steps: 100, ..settings() }
}

fn fit(
    setup: &Setup,
    trainer: &Trainer,
    token: u32,
) -> cart_retrieval::Result<Trained<burn::backend::Flex>> {
    trainer.fit(poisoned(setup, token), &setup.data, &Default::default())
}

#[test]
fn a_bad_step_is_left_out_and_training_goes_on() {
    let _turn = turn();
    let setup = setup();
    let (token, captions) = rare_token(&setup);
    for micro_batch in [0, 8] {
        let config = TrainConfig { micro_batch, ..calm() };
        let (trainer, events) = listening(Trainer::new(config));
        let trained = fit(&setup, &trainer, token).unwrap();
        assert_eq!(trained.reason, StopReason::Finished);
        let skipped = skipped(&events);
        assert!((1..=captions).contains(&skipped.len()), "{skipped:?}");
        let bad = super::weights(&trained.model).iter().filter(|w| !w.is_finite()).count();
        assert_eq!(bad, 32, "the row that was NaN from the start");
        let first = trained.history.first().unwrap().loss.unwrap();
        assert!(trained.history.last().unwrap().loss.unwrap() < first);
    }
}

#[test]
fn too_many_bad_steps_end_the_training_and_leave_the_last_good_checkpoint() {
    let _turn = turn();
    let setup = setup();
    let (token, _) = rare_token(&setup);
    // Where the first bad step is, and a seed that puts it behind the first round.
    let (seed, bad) = (0..)
        .find_map(|seed| {
            let (trainer, events) = listening(Trainer::new(TrainConfig { seed, ..calm() }));
            fit(&setup, &trainer, token).unwrap();
            let first = skipped(&events)[0].0;
            (first > 4).then_some((seed, first))
        })
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig { seed, max_bad_steps: 1, ..calm() };
    let trainer = |config: &TrainConfig| Trainer::new(config.clone()).with_folder(folder.path());
    let error = fit(&setup, &trainer(&config), token).unwrap_err();
    assert!(matches!(error, Error::Training(_)), "{error}");
    let message = error.to_string();
    assert!(
        message.contains(&format!("step {bad}")) && message.contains("learning rate"),
        "{message}"
    );
    // The checkpoints are those of the rounds before, and whole: resuming meets the same step.
    let files = checkpoints(folder.path());
    assert!(files.iter().any(|file| file.starts_with("model-")), "{files:?}");
    let (again, events) = listening(trainer(&config).with_resume(true));
    let error = fit(&setup, &again, token).unwrap_err();
    assert!(error.to_string().contains(&format!("step {bad}")), "{error}");
    let started = events.lock().unwrap()[0].clone();
    assert!(matches!(started, TrainEvent::Started { step, .. } if step > 0 && step < bad));
    assert_eq!(checkpoints(folder.path()), files);
}

#[test]
fn every_step_bad_ends_after_as_many_as_the_settings_say() {
    let _turn = turn();
    let setup = setup();
    let first = setup.tokenizer.encode("a star").unwrap()[0];
    let (trainer, events) =
        listening(Trainer::new(TrainConfig { max_bad_steps: 4, validations: 1, ..calm() }));
    let error = fit(&setup, &trainer, first).unwrap_err().to_string();
    assert!(error.contains("4 consecutive steps"), "{error}");
    assert_eq!(skipped(&events), [(1, 1), (2, 2), (3, 3), (4, 4)]);
}

fn checkpoints(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder.join("checkpoint"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_checkpoint_of_another_architecture_is_named_with_the_one_expected() {
    let _turn = turn();
    let setup = setup();
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig { epochs: 1, validations: 1, ..settings() };
    let run = |path: &Path, layers, resume| {
        let model = setup.config.clone().with_layers(layers, 1).init::<A>(&Default::default());
        Trainer::new(config.clone()).with_folder(path).with_resume(resume).fit(
            model.unwrap(),
            &setup.data,
            &Default::default(),
        )
    };
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    run(&one, 1, false).unwrap();
    run(&two, 2, false).unwrap();
    let before = checkpoints(&one);
    let error = run(&one, 2, true).unwrap_err();
    assert!(matches!(error, Error::Checkpoint(_)), "{error}");
    let message = error.to_string();
    assert!(message.contains("1 encoder and 1 decoder"), "{message}");
    assert!(message.contains("2 encoder and 1 decoder"), "{message}");
    assert_eq!(checkpoints(&one), before);
    // A file of the other training in its place.
    let model = |path: &Path| path.join("checkpoint/model-1.mpk");
    let good = std::fs::read(model(&one)).unwrap();
    std::fs::copy(model(&two), model(&one)).unwrap();
    let message = run(&one, 1, true).unwrap_err().to_string();
    assert!(message.contains("model-1.mpk") && message.contains("SHA-256"), "{message}");
    std::fs::write(model(&one), good).unwrap();
    assert_eq!(run(&one, 1, true).unwrap().reason, StopReason::Finished);
}

#[test]
fn an_interrupted_training_names_the_setting_that_changed() {
    let _turn = turn();
    let setup = setup();
    let folder = tempfile::tempdir().unwrap();
    let quick = TrainConfig { epochs: 1, validations: 1, ..settings() };
    let run = |config: &TrainConfig, resume| {
        let trainer = Trainer::new(config.clone()).with_folder(folder.path()).with_resume(resume);
        super::fit(&setup, trainer)
    };
    run(&quick, false).unwrap();
    let other = TrainConfig { micro_batch: 4, ..quick.clone() };
    let message = run(&other, true).unwrap_err().to_string();
    assert!(message.contains("config, micro_batch: expected 0"), "{message}");
    // A training from before a setting existed had its default.
    let state = folder.path().join("training.json");
    let text = std::fs::read_to_string(&state).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["run"]["config"].as_object_mut().unwrap().remove("micro_batch").unwrap();
    // Versions that old had no checksums.
    json["format"] = 2.into();
    json.as_object_mut().unwrap().remove("checksum").unwrap();
    json["checkpoints"][0].as_object_mut().unwrap().remove("sha256").unwrap();
    std::fs::write(&state, json.to_string()).unwrap();
    assert_eq!(run(&quick, true).unwrap().reason, StopReason::Finished);
    assert!(run(&other, true).is_err());
}
