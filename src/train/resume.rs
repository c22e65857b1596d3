//! What a resumed training must share with the one in the folder, and whether its files are whole.

use std::path::{Path, PathBuf};

use burn::{
    module::Module,
    optim::Optimizer,
    record::{Record, Recorder},
    tensor::backend::{AutodiffBackend, Backend},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    AtomicRecorder, CartLearner, CartOptimizer, TrainConfig, TrainingData,
    checkpoint::{TrainState, file},
};
use crate::{
    error::{Error, Result},
    model::Cart,
    storage::{NamedTensors, hex},
};

/// What makes a training the training it is.
pub(super) fn identity<B: Backend>(
    config: &TrainConfig,
    model: &Cart<B>,
    data: &TrainingData,
    devices: usize,
) -> Result<Value> {
    let mut tensors = NamedTensors::new();
    tensors.insert_module::<B, _>("", model)?;
    let weights = hex(&Sha256::digest(tensors.to_bytes(&[])?));
    Ok(json!({
        "config": config, "pairs": data.pairs(), "validation": data.valid_pairs(),
        "candidates": data.trie().len(), "vocabulary": data.trie().vocabulary(),
        "architecture": model.architecture(), "parameters": model.num_params(),
        "data": data.digest(), "initial weights": weights, "devices": devices,
    }))
}

/// The first thing in which a training differs from what it is to be resumed as: its name, what it
/// was and what it is. Settings that the older one does not know count as their defaults.
fn difference(then: &Value, now: &Value) -> Option<(String, String, String)> {
    let settings = |config: &Value| {
        let config: TrainConfig = serde_json::from_value(config.clone()).ok()?;
        serde_json::to_value(config).ok()
    };
    let differs = |(key, was): (&String, &Value), now: &Value, prefix: &str| {
        let is = &now[key.as_str()];
        (is != was).then(|| (format!("{prefix}{key}"), was.to_string(), is.to_string()))
    };
    let (then, now) = (then.as_object()?, now);
    // The architecture first: where it differs, so do sizes and weights.
    let first = then.get_key_value("architecture");
    let rest = then.iter().filter(|(key, _)| *key != "architecture");
    first.into_iter().chain(rest).find_map(|(key, was)| {
        if key == "config"
            && let (Some(was), Some(is)) = (settings(was), settings(&now["config"]))
        {
            let settings = was.as_object()?;
            return settings.iter().find_map(|entry| differs(entry, &is, "config, "));
        }
        differs((key, was), now, "")
    })
}

/// Makes the folder, or finds the training in it that is to be resumed.
pub(super) fn prepare(folder: &Path, run: Value, resume: bool) -> Result<TrainState> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
    if !TrainState::exists(folder) {
        let mut entries = std::fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))?;
        if let Some(Ok(entry)) = entries.next() {
            return Err(Error::checkpoint(
                folder.display().to_string(),
                "an empty folder or one with a training",
                format!("{:?} in it", entry.file_name()),
                "choose another folder",
            ));
        }
        let state = TrainState::new(run);
        state.write(folder)?;
        return Ok(state);
    }
    if !resume {
        return Err(Error::checkpoint(
            folder.display().to_string(),
            "no training in it yet",
            "one",
            "resume it, or choose another folder",
        ));
    }
    let state = TrainState::read(folder)?;
    if let Some((name, then, now)) = difference(&state.run, &run) {
        return Err(Error::checkpoint(
            format!("{}, {name}", folder.display()),
            format!("{then} as when it began"),
            now,
            "resume with the same model, settings and data, or train in another folder",
        ));
    }
    Ok(state)
}

/// Reads what the learner is about to read, which would panic where this is an error.
pub(super) fn check_readable<B: AutodiffBackend>(
    folder: &Path,
    round: usize,
    learner: &CartLearner<B>,
    device: &B::Device,
) -> Result<()> {
    type Optim<B> = <CartOptimizer<CartLearner<B>, B> as Optimizer<CartLearner<B>, B>>::Record;
    model(folder, round, learner, device)?;
    read::<B, Optim<B>>(file(folder, "optim", round), device)?;
    read::<B, usize>(file(folder, "scheduler", round), device).map(|_| ())
}

/// The model of a round.
pub(super) fn model<B: AutodiffBackend>(
    folder: &Path,
    round: usize,
    learner: &CartLearner<B>,
    device: &B::Device,
) -> Result<Cart<B>> {
    type Model<B> = <CartLearner<B> as Module<B>>::Record;
    let path = file(folder, "model", round);
    let shown = path.with_extension("mpk").display().to_string();
    let record = read::<B, Model<B>>(path, device)?;
    let expected = learner.cart.architecture();
    let foreign = |found: String| {
        Error::checkpoint(
            shown.clone(),
            format!("a network of {expected}"),
            found,
            "put the file of this training back, or train in another folder",
        )
    };
    let load = std::panic::AssertUnwindSafe(|| learner.clone().load_record(record).cart().clone());
    // Loading a record with another number of layers panics.
    let cart = std::panic::catch_unwind(load)
        .map_err(|_| foreign("one with other parts or another number of layers".into()))?;
    let found = cart.architecture();
    if found != expected {
        return Err(foreign(format!("one of {found}")));
    }
    Ok(cart)
}

fn read<B: Backend, R: Record<B>>(path: PathBuf, device: &B::Device) -> Result<R> {
    let shown = path.with_extension("mpk").display().to_string();
    // A corrupt file can make the reader panic as well as fail.
    let read = std::panic::AssertUnwindSafe(|| {
        Recorder::<B>::load::<R>(&AtomicRecorder::default(), path, device)
    });
    let found = match std::panic::catch_unwind(read) {
        Ok(Ok(record)) => return Ok(record),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "bytes that cannot be read".to_string(),
    };
    Err(Error::checkpoint(
        shown,
        "a whole checkpoint of this model",
        found,
        "delete that round's files to resume from the one before",
    ))
}
