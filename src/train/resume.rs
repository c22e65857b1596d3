//! What a resumed training must share with the one in the folder, and whether its files are whole.

use std::{
    cmp::Ordering,
    path::{Path, PathBuf},
};

use burn::{
    module::Module,
    optim::Optimizer,
    record::{Record, Recorder},
    tensor::backend::{AutodiffBackend, Backend},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    CartLearner, IntervalSummary, TrainConfig, TrainEvent, TrainingData,
    checkpoint::{EXTENSION, FOLDER, Fault, PARTS, check, file},
    folder::RunFolder,
    metric::Listener,
    recorder::AtomicRecorder,
    rounds::quality,
    state::{SavedRound, TrainState},
};
use crate::{
    error::{Error, Result},
    model::Cart,
    optim::CartOptimizer,
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
        let mut config = config.clone();
        // A setting that older versions wrote, always 0 unless asked for.
        config.as_object_mut()?.retain(|key, value| key != "interpolation" || *value != 0.0);
        let config: TrainConfig = serde_json::from_value(config).ok()?;
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

/// Opens a training's folder: a new training, or the one in it that is to be resumed.
pub(super) fn prepare(
    folder: &Path,
    run: Value,
    resume: bool,
    listener: &Listener,
) -> Result<(RunFolder, TrainState)> {
    let folder = RunFolder::open(folder, resume)?;
    if !TrainState::exists(folder.path()) {
        let state = TrainState::new(run);
        state.write(folder.path())?;
        folder.clean(&state);
        return Ok((folder, state));
    }
    let (state, fault) = TrainState::read(folder.path())?;
    if let Some((name, then, now)) = difference(&state.run, &run) {
        return Err(Error::checkpoint(format!("{}, {name}", folder.path().display()))
            .expected(format!("{then}, as at its start"))
            .found(now)
            .fix("resume with the same model, settings and data, or train in another folder"));
    }
    if let Some(fault) = fault {
        listener(TrainEvent::Recovered { reason: format!("{fault}; its copy was read instead") });
    }
    folder.clean(&state);
    Ok((folder, state))
}

/// What a training goes on from.
pub(super) struct Resumed<B: AutodiffBackend> {
    pub(super) saved: SavedRound,
    /// Rounds up to it.
    pub(super) history: Vec<IntervalSummary>,
    /// The network and its average as they were then.
    pub(super) learner: CartLearner<B>,
    /// The best network up to then, with its round.
    pub(super) best: Option<(usize, Cart<B>)>,
}

/// Finds the newest checkpoint whose files are whole; `None` where a training begins from its
/// start. Those that are skipped are told of.
///
/// # Errors
/// [`Error::Checkpoint`] when files are damaged and no checkpoint is whole, when that of the best
/// network is damaged, or when a whole one does not belong to this network.
pub(super) fn newest<B: AutodiffBackend>(
    folder: &Path,
    state: &TrainState,
    learner: &CartLearner<B>,
    device: &B::Device,
    listener: &Listener,
) -> Result<Option<Resumed<B>>> {
    let mut damaged = Vec::new();
    for saved in state.checkpoints.iter().rev() {
        let checked =
            PARTS.iter().try_for_each(|part| check(folder, part, saved.round, &saved.sha256));
        let read = match checked {
            Ok(()) => read_all(folder, saved, learner, device),
            Err(fault) => {
                if let Fault::Damaged(reason) = &fault {
                    damaged.push(reason.clone());
                }
                skip(listener, saved.round, fault.reason());
                continue;
            }
        };
        match read {
            Ok(learner) => {
                let known = |summary: &&IntervalSummary| summary.interval <= saved.round;
                let history: Vec<_> = state.history.iter().filter(known).copied().collect();
                let best = best(folder, state, &history, &learner, device, listener)?;
                return Ok(Some(Resumed { saved: saved.clone(), history, learner, best }));
            }
            // Without checksums, only reading tells.
            Err(error) if saved.sha256.is_empty() && state.checkpoints.len() > 1 => {
                damaged.push(error.to_string());
                skip(listener, saved.round, error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    if damaged.is_empty() {
        return Ok(None);
    }
    Err(Error::checkpoint(folder.join(FOLDER).display().to_string())
        .expected("a checkpoint with intact files")
        .found(damaged.join("; "))
        .fix("restore the files, or delete them to start from the beginning"))
}

fn skip(listener: &Listener, round: usize, reason: String) {
    listener(TrainEvent::CheckpointSkipped { interval: round, reason });
}

/// The best network up to a round, among those that are there.
fn best<B: AutodiffBackend>(
    folder: &Path,
    state: &TrainState,
    history: &[IntervalSummary],
    learner: &CartLearner<B>,
    device: &B::Device,
    listener: &Listener,
) -> Result<Option<(usize, Cart<B>)>> {
    let kept = |round| state.checkpoints.iter().find(|saved| saved.round == round);
    let mut rounds: Vec<_> = history
        .iter()
        .filter_map(|summary| Some((quality(summary)?, kept(summary.interval)?)))
        .collect();
    // Of equal ones the first, as in a training that was not interrupted.
    rounds.sort_by(|(a, _), (b, _)| b.partial_cmp(a).unwrap_or(Ordering::Equal));
    for (_, saved) in rounds {
        let round = saved.round;
        match check(folder, PARTS[0], round, &saved.sha256) {
            Ok(()) => {
                let learner = model(folder, round, learner, device)?;
                return Ok(Some((round, learner.cart().clone())));
            }
            Err(Fault::Damaged(found)) if Some(round) == state.best_round => {
                let path = file(folder, PARTS[0], round).with_extension(EXTENSION);
                return Err(Error::checkpoint(path.display().to_string()).expected("an intact file of the best network so far").found(found).fix("restore the file, or delete it to continue with the best of the other rounds"));
            }
            Err(fault) => skip(listener, round, format!("{}, of the best network", fault.reason())),
        }
    }
    Ok(None)
}

/// Reads all parts of a checkpoint, which would panic in the learner where this is an error; gives
/// the network.
fn read_all<B: AutodiffBackend>(
    folder: &Path,
    saved: &SavedRound,
    learner: &CartLearner<B>,
    device: &B::Device,
) -> Result<CartLearner<B>> {
    type Optim<B> = <CartOptimizer<CartLearner<B>, B> as Optimizer<CartLearner<B>, B>>::Record;
    let learner = model(folder, saved.round, learner, device)?;
    read::<B, Optim<B>>(file(folder, "optim", saved.round), device)?;
    read::<B, usize>(file(folder, "scheduler", saved.round), device)?;
    Ok(learner)
}

/// The network of a round, and its average.
fn model<B: AutodiffBackend>(
    folder: &Path,
    round: usize,
    learner: &CartLearner<B>,
    device: &B::Device,
) -> Result<CartLearner<B>> {
    type Model<B> = <CartLearner<B> as Module<B>>::Record;
    let path = file(folder, "model", round);
    let shown = path.with_extension("mpk").display().to_string();
    let record = read::<B, Model<B>>(path, device)?;
    let expected = learner.cart.architecture();
    let foreign = |found: String| {
        Error::checkpoint(shown.clone())
            .expected(format!("a network of {expected}"))
            .found(found)
            .fix("restore the file of this training, or train in another folder")
    };
    let load = std::panic::AssertUnwindSafe(|| learner.clone().load_record(record));
    // Loading a record with another number of layers panics.
    let loaded = std::panic::catch_unwind(load)
        .map_err(|_| foreign("one with other parts or another number of layers".into()))?;
    let found = loaded.cart.architecture();
    if found != expected {
        return Err(foreign(format!("one of {found}")));
    }
    Ok(loaded)
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
        Err(_) => "unreadable bytes".to_string(),
    };
    Err(Error::checkpoint(shown)
        .expected("a complete checkpoint of this model")
        .found(found)
        .fix("delete that round's files to resume from the one before, if there is one"))
}
