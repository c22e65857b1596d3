//! The trainer: puts network, data and burn-train's learner together.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use burn::{
    module::AutodiffModule,
    tensor::backend::{AutodiffBackend, Backend},
    train::{
        ExecutionStrategy, Interrupter, Learner, SupervisedTraining, logger::InMemoryMetricLogger,
    },
};

use super::{
    CartLearner, RoundSummary, StopReason, TrainConfig, TrainEvent, TrainingData,
    cache::LayerCache,
    folder::check_folder,
    freeze::learns,
    frozen::Frozen,
    guard::{Guard, LossScale},
    interpolate::{self, Siblings},
    learner::Context,
    ledger::Ledger,
    loader::{At, TrainLoader, ValidLoader},
    logs::MetricLogs,
    memory::or_first_fault,
    metric::{Listener, LossValue, MeanMetric, RecallValue, Reporter, SilentRenderer},
    placement::{Placement, Together},
    position::{Position, Share},
    recorder::AtomicRecorder,
    resume::{self, Resumed, identity, prepare},
    rounds::{KeepBest, Rounds, StopRule},
    state::TrainState,
    validation::validate,
};
use crate::{
    cancel::StopFlag,
    error::{Error, Result},
    model::Cart,
    optim::{CartOptimizer, WarmupCosine},
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
    pub(super) config: TrainConfig,
    folder: Option<PathBuf>,
    resume: bool,
    stop: StopFlag,
    listener: Listener,
    dashboard: bool,
    pub(super) placement: Placement,
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
            placement: Placement::Main,
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

    /// Checks that a training can keep its checkpoints in a folder, without changing anything: that
    /// the folder does not exist, is empty, or holds a training that is to be resumed. Call it
    /// before costly work.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] when something else is there, or a training that is not to be resumed;
    /// [`Error::Io`] when the folder cannot be read.
    pub fn check_folder(folder: impl AsRef<Path>, resume: bool) -> Result<()> {
        check_folder(folder.as_ref(), resume)
    }

    /// Trains; `main` is the first device of the strategy.
    pub(super) fn run<B: AutodiffBackend>(
        &self,
        model: Cart<B>,
        data: &TrainingData,
        main: &B::Device,
        strategy: ExecutionStrategy<B>,
        together: Together,
    ) -> Result<Trained<B::InnerBackend>> {
        let started = Instant::now();
        let config = Arc::new(self.config.clone());
        config.validate(data.trie().levels())?;
        data.check(&model, &config.loss)?;
        interpolate::check(&config, &model)?;
        config.precision.check::<B>(main)?;
        self.folder.iter().try_for_each(|folder| check_folder(folder, self.resume))?;
        let steps = config.epochs * data.steps_per_epoch(&config);
        let run = identity::<B>(&config, &model, data, together.devices)?;
        let model = config.freeze.apply(model)?;
        if !learns(&model) {
            return Err(Error::config(
                "network to train",
                "parameters that are trained",
                "constants alone, as of a network that was loaded",
                "pass it through train::trainable, or freeze less",
            ));
        }
        let position = Position::new(0, steps, config.validations);
        let expected = data.valid_pairs().min(config.validation_queries);
        let rounds = Rounds::new(position.clone(), self.listener.clone(), expected);
        let rounds = Arc::new(Mutex::new(rounds));
        let diverged = Arc::new(AtomicBool::new(false));
        let scale = config.precision.scales_loss().then(LossScale::default);
        let guard = Arc::new(Guard::new(
            config.max_bad_steps,
            scale,
            diverged.clone(),
            position.clone(),
            self.listener.clone(),
        ));
        let listener = (!self.dashboard).then(|| self.listener.clone());
        let encoder = model.encoder();
        let cache = |layers| {
            let train = data.captions();
            LayerCache::new(config.frozen_cache, train, data.padding, encoder, layers)
        };
        let frozen = Frozen::new(config.freeze, config.precision, &model, cache)?;
        let kept = frozen.as_ref().map_or(0, Frozen::kept);
        let reporter = Reporter::new(listener, position.clone());
        let context = Arc::new(Context::new(
            (&config, steps),
            (data.trie().clone(), data.geometry.clone(), data.owners.clone()),
            rounds.clone(),
            guard.clone(),
            reporter,
            frozen,
            together,
        ));
        let rates = config.encoder_rates(model.encoder().n_layers());
        let learner = CartLearner::new(model, context);
        let optimizer =
            CartOptimizer::<CartLearner<B>, B>::new(config.weight_decay, config.clip_norm)
                .with_encoder_rates(rates)
                .with_gate(guard.clone());
        // Held to the end: no other process may use the folder meanwhile.
        let (_folder, state) = match &self.folder {
            Some(folder) => {
                let (folder, state) = prepare(folder, run, self.resume, &self.listener)?;
                (Some(folder), Some(state))
            }
            None => (None, None),
        };
        let resumed = match (&self.folder, &state) {
            (Some(folder), Some(state)) => {
                resume::newest(folder, state, &learner, main, &self.listener)?
            }
            _ => None,
        };
        let valid = ValidLoader::<B::InnerBackend> {
            data: data.clone(),
            limit: config.validation_queries,
            stop: self.stop.clone(),
            diverged: diverged.clone(),
            device: main.clone(),
        };
        let round = resumed.as_ref().map_or(0, |resumed| resumed.saved.round);
        let mut last = None;
        if let Some(Resumed { saved, history, learner, best }) = resumed {
            position.resume(saved.step);
            guard.resume(saved.scale);
            let best = best.map(|(round, cart)| (round, cart.valid()));
            locked(&rounds).restore(history, best);
            if locked(&rounds).lacks_validation() {
                validate(&learner, &valid);
                locked(&rounds).close_again();
            }
            last = Some(learner.cart().valid());
        }
        let step = position.step();
        (self.listener)(TrainEvent::Started { step, steps });
        if config.frozen_cache.mebibytes > 0 {
            (self.listener)(TrainEvent::Cached { pairs: kept, of: data.captions().len() });
        }
        let warmup = config.warmup_steps(steps);
        let schedule = WarmupCosine::new(config.learning_rate, warmup, steps, config.final_rate)
            .with_calls(if together.distributed { together.devices } else { 1 });
        let interrupter = Interrupter::new();
        let train = TrainLoader::<B> {
            data: data.clone(),
            config: config.clone(),
            position: position.clone(),
            stop: self.stop.clone(),
            device: main.clone(),
            diverged: diverged.clone(),
            interrupter: interrupter.clone(),
            share: Share::first(together.devices, together.distributed),
            at: At::new(&position),
            order: Arc::default(),
            siblings: Arc::new(Siblings::new(&config, data)),
        };
        let failure = Arc::new(Mutex::new(Ok(())));
        let reason = Arc::new(Mutex::new(StopReason::Finished));
        let stop_rule = StopRule {
            rounds: rounds.clone(),
            stop: self.stop.clone(),
            diverged: diverged.clone(),
            failure: failure.clone(),
            patience: config.patience,
            reason: reason.clone(),
            interrupter: interrupter.clone(),
            verdict: Arc::default(),
        };
        let folder = self.folder.clone().unwrap_or_default();
        let mut training = SupervisedTraining::new(&folder, Arc::new(train), Arc::new(valid))
            .metric_train_numeric(MeanMetric::<LossValue>::default())
            .metric_valid_numeric(MeanMetric::<LossValue>::default())
            .metric_valid_numeric(MeanMetric::<RecallValue>::default())
            .with_application_logger(None)
            .with_interrupter(interrupter.clone())
            .with_training_strategy(strategy.into())
            .num_epochs(round + position.rounds_left())
            .early_stopping(stop_rule);
        training = match state {
            Some(mut state) => {
                if round == 0 {
                    state = TrainState::new(state.run);
                }
                // What burn-train finds is what was found whole.
                state.checkpoints.retain(|saved| saved.round <= round);
                let logs = MetricLogs::new(folder.clone(), self.listener.clone());
                let ledger = Arc::new(Ledger::new(folder, state, failure.clone()));
                let keep_best = KeepBest {
                    rounds: rounds.clone(),
                    position: position.clone(),
                    diverged: diverged.clone(),
                    guard: guard.clone(),
                    ledger: ledger.clone(),
                };
                let training = training
                    .with_metric_logger(logs)
                    .with_file_checkpointer(AtomicRecorder::entering(ledger))
                    .with_checkpointing_strategy(keep_best);
                if round > 0 { training.checkpoint(round) } else { training }
            }
            None => training.with_metric_logger(InMemoryMetricLogger::default()),
        };
        if !self.dashboard {
            training = training.renderer(SilentRenderer);
        }
        let patience = locked(&rounds).is_out_of_patience(config.patience);
        if position.is_finished() || patience {
            // The training in the folder was over: nothing is left to run.
            *locked(&reason) = match locked(&rounds) {
                rounds if rounds.lacks_validation() => StopReason::Interrupted,
                _ if patience => StopReason::EarlyStop,
                _ => StopReason::Finished,
            };
        } else {
            let learner = Learner::new(learner, optimizer, schedule);
            let trained = or_first_fault(&guard, || training.launch(learner));
            std::mem::replace(&mut *locked(&failure), Ok(()))?;
            last = Some(trained?.model.cart().clone());
        }
        if interrupter.should_stop() {
            // The dashboard's quit key.
            *locked(&reason) = StopReason::Interrupted;
        }
        if diverged.load(Ordering::Relaxed) {
            let found = match guard.in_a_row() {
                steps if steps >= config.max_bad_steps => {
                    format!("NaN or infinity in {steps} steps in a row, which were left out")
                }
                _ => "NaN or infinity in the validation".to_string(),
            };
            return Err(Error::training(
                format!("step {}", position.step()),
                "a finite loss and finite gradients",
                found,
                "lower the learning rate or raise the warm-up; the last good checkpoint is kept",
            ));
        }
        let mut rounds = locked(&rounds);
        let best = rounds.take_best::<B::InnerBackend>();
        let best_round = best.as_ref().map(|(round, _)| *round);
        let Some(model) = best.map(|(_, model)| model).or(last) else {
            return Err(Error::checkpoint(
                "the trained network",
                "a checkpoint of it in the folder",
                "none",
                "train again in another folder",
            ));
        };
        let reason = *locked(&reason);
        Ok(Trained {
            model,
            best_round,
            history: rounds.history().to_vec(),
            reason,
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
