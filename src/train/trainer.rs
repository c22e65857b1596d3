//! The trainer: puts network, data and burn-train's learner together.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicBool, atomic::Ordering},
    time::Instant,
};

use burn::{
    module::Module,
    optim::Optimizer,
    record::{Record, Recorder},
    tensor::backend::{AutodiffBackend, Backend},
    train::{
        ExecutionStrategy, Interrupter, Learner, SupervisedTraining, logger::InMemoryMetricLogger,
    },
};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{
    AtomicRecorder, CartLearner, CartOptimizer, RoundSummary, StopFlag, StopReason, TrainConfig,
    TrainEvent, TrainingData, WarmupCosine,
    checkpoint::{TrainState, file},
    learner::Context,
    loader::{Position, TrainLoader, ValidLoader},
    metric::{EventRenderer, Listener, LossValue, MeanMetric, RecallValue},
    rounds::{KeepBest, Rounds, StopRule},
};
use crate::{
    error::{Error, Result},
    model::Cart,
    storage::{NamedTensors, hex},
};

/// Trains a network.
///
/// # Example
/// ```no_run
/// # use burn::backend::{Autodiff, Flex};
/// # use cart_retrieval::{model::Cart, train::{TrainConfig, Trainer, TrainingData}};
/// # fn run(model: Cart<Autodiff<Flex>>, data: TrainingData) -> cart_retrieval::Result<()> {
/// let trained = Trainer::new(TrainConfig { epochs: 20, ..TrainConfig::default() })
///     .with_folder("run")
///     .fit(model, &data, &Default::default())?;
/// println!("best round {:?}, {:.0} s", trained.best_round, trained.seconds);
/// # Ok(())
/// # }
/// ```
pub struct Trainer {
    config: TrainConfig,
    folder: Option<PathBuf>,
    resume: bool,
    stop: StopFlag,
    listener: Listener,
    dashboard: bool,
}

/// What a training gives.
#[derive(Debug)]
pub struct Trained<B: Backend> {
    /// The best model by validation Recall@1 (ties by MRR@10), or the last without validation.
    pub model: Cart<B>,
    /// The round that model is from, if there was validation.
    pub best_round: Option<usize>,
    /// All rounds, those before a resumption included.
    pub history: Vec<RoundSummary>,
    /// Why it ended.
    pub reason: StopReason,
    /// Seconds since this call started.
    pub seconds: f64,
}

impl Trainer {
    /// A trainer with these settings, which keeps nothing on disk.
    pub fn new(config: TrainConfig) -> Self {
        Self {
            config,
            folder: None,
            resume: false,
            stop: StopFlag::new(),
            listener: Arc::new(|_| ()),
            dashboard: false,
        }
    }

    /// Keeps checkpoints and logs in a folder, which is made if it does not exist.
    pub fn with_folder(self, folder: impl AsRef<Path>) -> Self {
        Self { folder: Some(folder.as_ref().to_path_buf()), ..self }
    }

    /// Goes on with the training in the folder, if there is one.
    pub fn with_resume(self, resume: bool) -> Self {
        Self { resume, ..self }
    }

    /// Stops when this flag is raised.
    pub fn with_stop(self, stop: StopFlag) -> Self {
        Self { stop, ..self }
    }

    /// Sends events somewhere. Step events come from another thread.
    pub fn with_listener(self, listener: impl Fn(TrainEvent) + Send + Sync + 'static) -> Self {
        Self { listener: Arc::new(listener), ..self }
    }

    /// Shows burn-train's terminal dashboard instead of sending step events (feature `tui`; without
    /// it, or without a terminal, burn-train prints a line for every step).
    pub fn with_dashboard(self, dashboard: bool) -> Self {
        Self { dashboard, ..self }
    }

    /// Trains.
    ///
    /// The same model, data, settings, backend and number of threads give the same result, provided
    /// no other thread draws from the backend's generator meanwhile.
    ///
    /// # Errors
    /// - [`Error::Config`] for settings out of range.
    /// - [`Error::Checkpoint`] when the folder holds another training, or one that was not to be
    ///   resumed, or when a checkpoint cannot be written or read.
    /// - [`Error::Training`] when the loss is no longer a number.
    pub fn fit<B: AutodiffBackend>(
        &self,
        model: Cart<B>,
        data: &TrainingData,
        device: &B::Device,
    ) -> Result<Trained<B::InnerBackend>> {
        let started = Instant::now();
        let config = Arc::new(self.config.clone());
        config.validate(data.trie().levels())?;
        let steps = config.epochs * data.steps_per_epoch(&config);
        let run = json!({
            "config": &*config, "pairs": data.pairs(), "validation": data.valid_pairs(),
            "candidates": data.trie().len(), "vocabulary": data.trie().vocabulary(),
            "parameters": model.num_params(), "data": data.digest(),
            "initial weights": digest::<B>(&model)?,
        });
        let state = self.prepare_folder(run)?;
        let resumed = match (&self.folder, &state) {
            (Some(folder), Some(state)) => state.newest(folder),
            _ => None,
        };
        let (round, step) = resumed.as_ref().map_or((0, 0), |(saved, _)| (saved.round, saved.step));
        let position = Position::new(step, steps, config.validations);
        let expected = data.valid_pairs().min(config.validation_queries);
        let rounds = Rounds::new(position.clone(), self.listener.clone(), expected);
        let rounds = Arc::new(Mutex::new(rounds));
        let diverged = Arc::new(AtomicBool::new(false));
        let context = Arc::new(Context {
            loss: config.loss.clone(),
            beam: config.validation_beam,
            trie: data.trie().clone(),
            rounds: rounds.clone(),
            diverged: diverged.clone(),
        });
        let learner = CartLearner::new(model, context);
        let optimizer =
            CartOptimizer::<CartLearner<B>, B>::new(config.weight_decay, config.clip_norm);
        if let (Some(folder), Some((saved, history))) = (&self.folder, resumed) {
            let best = state.as_ref().and_then(|state| state.best_round);
            check_readable::<B>(folder, saved.round, device)?;
            let best = match best.filter(|&best| best <= saved.round) {
                Some(best) => {
                    let path = file(folder, "model", best);
                    let record = AtomicRecorder::default().load(path, device).map_err(|e| {
                        Error::checkpoint(
                            format!("round {best}, the best so far"),
                            "a whole checkpoint",
                            e.to_string(),
                            "restore its files, or train again in another folder",
                        )
                    })?;
                    Some((best, learner.clone().load_record(record).into_cart()))
                }
                None => None,
            };
            rounds.lock().unwrap_or_else(|e| e.into_inner()).restore(history, best);
        }
        (self.listener)(TrainEvent::Started { step, steps });
        let warmup = config.warmup_steps(steps);
        let schedule = WarmupCosine::new(config.learning_rate, warmup, steps, config.final_rate);
        let train = TrainLoader::<B>::new(
            data.clone(),
            config.clone(),
            position.clone(),
            self.stop.clone(),
            diverged.clone(),
            device.clone(),
        );
        let valid = ValidLoader::<B::InnerBackend> {
            data: data.clone(),
            limit: config.validation_queries,
            stop: self.stop.clone(),
            device: device.clone(),
        };
        let interrupter = Interrupter::new();
        let failure = Arc::new(Mutex::new(Ok(())));
        let reason = Arc::new(Mutex::new(StopReason::Finished));
        let stop_rule = StopRule {
            rounds: rounds.clone(),
            stop: self.stop.clone(),
            diverged: diverged.clone(),
            failure: failure.clone(),
            patience: config.patience,
            reason: reason.clone(),
        };
        let folder = self.folder.clone().unwrap_or_default();
        let mut training = SupervisedTraining::new(&folder, Arc::new(train), Arc::new(valid))
            .metric_train_numeric(MeanMetric::<LossValue>::default())
            .metric_valid_numeric(MeanMetric::<LossValue>::default())
            .metric_valid_numeric(MeanMetric::<RecallValue>::default())
            .with_application_logger(None)
            .with_interrupter(interrupter.clone())
            .with_training_strategy(ExecutionStrategy::SingleDevice(device.clone()).into())
            .num_epochs(round + position.rounds_left())
            .early_stopping(stop_rule);
        training = match state {
            Some(mut state) => {
                if round == 0 {
                    state = TrainState::new(state.run);
                }
                // What burn-train finds is what was found whole.
                state.checkpoints.retain(|saved| saved.round <= round);
                let keep_best = KeepBest {
                    rounds: rounds.clone(),
                    position: position.clone(),
                    diverged: diverged.clone(),
                    folder,
                    state,
                    failure: failure.clone(),
                };
                let training = training
                    .with_file_checkpointer(AtomicRecorder::default())
                    .with_checkpointing_strategy(keep_best);
                if round > 0 { training.checkpoint(round) } else { training }
            }
            None => training.with_metric_logger(InMemoryMetricLogger::default()),
        };
        if !self.dashboard {
            training =
                training.renderer(EventRenderer::new(self.listener.clone(), position.clone()));
        }
        let last = if position.step() >= steps {
            // The training in the folder was finished: nothing is left to run.
            None
        } else {
            Some(training.launch(Learner::new(learner, optimizer, schedule)).model.cart)
        };

        std::mem::replace(&mut *failure.lock().unwrap_or_else(|e| e.into_inner()), Ok(()))?;
        if interrupter.should_stop() {
            // burn-train has one flag for a failed checkpoint and for the dashboard's quit key.
            let message = interrupter.get_message().unwrap_or_default();
            if ["I/O Error", "Recorder error", "Unknown error"].iter().any(|e| message.contains(e))
            {
                return Err(Error::checkpoint(
                    "saving a checkpoint",
                    "room and rights to write it",
                    message,
                    "make room, then resume: the last whole checkpoint is kept",
                ));
            }
            *reason.lock().unwrap_or_else(|e| e.into_inner()) = StopReason::Interrupted;
        }
        if diverged.load(Ordering::Relaxed) {
            return Err(Error::training(
                format!("step {}", position.step()),
                "a finite loss",
                "NaN or infinity",
                "lower the learning rate or raise the warm-up; the last checkpoint is kept",
            ));
        }
        let mut rounds = rounds.lock().unwrap_or_else(|e| e.into_inner());
        let best = rounds.take_best::<B::InnerBackend>();
        let best_round = best.as_ref().map(|(round, _)| *round);
        let Some(model) = best.map(|(_, model)| model).or(last) else {
            return Err(Error::checkpoint(
                "the best model",
                "its checkpoint in the folder",
                "none",
                "train again in another folder",
            ));
        };
        let reason = *reason.lock().unwrap_or_else(|e| e.into_inner());
        Ok(Trained {
            model,
            best_round,
            history: rounds.history().to_vec(),
            reason,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// Makes the folder, or finds the training in it that is to be resumed.
    fn prepare_folder(&self, run: serde_json::Value) -> Result<Option<TrainState>> {
        let Some(folder) = &self.folder else {
            return Ok(None);
        };
        std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
        if !TrainState::exists(folder) {
            let mut entries =
                std::fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))?;
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
            return Ok(Some(state));
        }
        if !self.resume {
            return Err(Error::checkpoint(
                folder.display().to_string(),
                "no training in it yet",
                "one",
                "resume it, or choose another folder",
            ));
        }
        let state = TrainState::read(folder)?;
        if let Some((key, then)) =
            state.run.as_object().and_then(|then| then.iter().find(|(key, v)| run[*key] != **v))
        {
            return Err(Error::checkpoint(
                format!("{}, {key}", folder.display()),
                format!("{} as when it began", then),
                run[key].to_string(),
                "resume with the same settings and data, or train in another folder",
            ));
        }
        Ok(Some(state))
    }
}

/// SHA-256 of all weights, in hexadecimal.
fn digest<B: Backend>(model: &Cart<B>) -> Result<String> {
    let mut tensors = NamedTensors::new();
    tensors.insert_module::<B, _>("", model)?;
    Ok(hex(&Sha256::digest(tensors.to_bytes(&[])?)))
}

/// Reads what the learner is about to read, which would panic where this is an error.
fn check_readable<B: AutodiffBackend>(
    folder: &Path,
    round: usize,
    device: &B::Device,
) -> Result<()> {
    type Optim<B> = <CartOptimizer<CartLearner<B>, B> as Optimizer<CartLearner<B>, B>>::Record;
    fn read<B: Backend, R: Record<B>>(path: PathBuf, device: &B::Device) -> Result<()> {
        let shown = path.with_extension("mpk").display().to_string();
        // A corrupt file can make the reader panic as well as fail.
        let read = std::panic::AssertUnwindSafe(|| {
            Recorder::<B>::load::<R>(&AtomicRecorder::default(), path, device).map(|_| ())
        });
        let found = match std::panic::catch_unwind(read) {
            Ok(Ok(())) => return Ok(()),
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
    read::<B, <CartLearner<B> as Module<B>>::Record>(file(folder, "model", round), device)?;
    read::<B, Optim<B>>(file(folder, "optim", round), device)?;
    read::<B, usize>(file(folder, "scheduler", round), device)
}
