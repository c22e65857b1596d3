//! A training from its checks to its result: puts network, data and burn-train's learner together.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use burn::{
    module::AutodiffModule,
    tensor::backend::AutodiffBackend,
    train::{
        ExecutionStrategy, Learner, LearningComponentsMarker, SupervisedTraining,
        logger::InMemoryMetricLogger,
    },
};

use super::{
    cache::LayerCache,
    data::TrainingData,
    event::TrainEvent,
    folder::{RunFolder, check_folder},
    freeze::learns,
    frozen::Frozen,
    learner::{CartLearner, Context},
    ledger::Ledger,
    loader::{At, TrainLoader, ValidLoader},
    logs::MetricLogs,
    memory::or_first_fault,
    metric::{MeanMetric, Reporter, SilentRenderer},
    placement::DeviceGroup,
    position::Share,
    recorder::AtomicRecorder,
    resume::{self, Resumed, identity, prepare},
    shared::Shared,
    state::TrainState,
    strategy::{KeepBest, StopRule},
    trainer::{Trained, Trainer},
    validation::validate,
};
use crate::{
    error::{Error, Result},
    model::Cart,
    optim::{CartOptimizer, WarmupCosine},
};

/// The parts of burn-train's learner.
type Components<B> =
    LearningComponentsMarker<B, WarmupCosine, CartLearner<B>, CartOptimizer<CartLearner<B>, B>>;

impl Trainer {
    /// Trains; `main` is the first device of the strategy.
    pub(super) fn run<B: AutodiffBackend>(
        &self,
        model: Cart<B>,
        data: &TrainingData,
        main: &B::Device,
        strategy: ExecutionStrategy<B>,
        together: DeviceGroup,
    ) -> Result<Trained<B::InnerBackend>> {
        let started = Instant::now();
        let config = &self.config;
        self.check(&model, data, main)?;
        let steps = config.epochs * data.steps_per_epoch(config);
        let run = identity::<B>(config, &model, data, together.devices)?;
        let model = config.freeze.apply(model)?;
        Error::config("network to train")
            .expected("trainable parameters")
            .found("none; a loaded network is frozen")
            .fix_if(!learns(&model), "pass it through train::trainable, or freeze less")?;
        let queries = data.valid_pairs().min(config.validation_queries);
        let shared = Shared::new(config, steps, queries, &self.stop, &self.listener);
        let (learner, kept) = self.learner(model, data, steps, &shared, together)?;
        // Held to the end: no other process may use the folder meanwhile.
        let (_folder, state) = self.opened(run)?.unzip();
        let limit = config.validation_queries;
        let valid =
            ValidLoader { data: data.clone(), limit, shared: shared.clone(), device: main.clone() };
        let resumed = match (&self.folder, &state) {
            (Some(folder), Some(state)) => {
                resume::newest(folder, state, &learner, main, &self.listener)?
            }
            _ => None,
        };
        let round = resumed.as_ref().map_or(0, |resumed| resumed.saved.round);
        let mut last = resumed.map(|resumed| go_on(resumed, &shared, &valid));
        (self.listener)(TrainEvent::Started { step: shared.position.step(), steps });
        if config.frozen_cache.mebibytes > 0 {
            (self.listener)(TrainEvent::Cached { pairs: kept, of: data.captions().len() });
        }
        let over = shared.is_over(config.patience);
        if over.is_none() {
            let train = self.train_loader(data, main, &shared, together);
            let training = self.supervised((train, valid), state, round, &shared);
            let training = training.with_training_strategy(strategy.into());
            let calls = if together.distributed { together.devices } else { 1 };
            let schedule = config.schedule(steps).with_calls(calls);
            let optimizer = learner.optimizer();
            let learner = Learner::new(learner, optimizer, schedule);
            let trained = or_first_fault(&shared.guard, || training.launch(learner));
            shared.ensure_written()?;
            last = Some(trained?.model.cart().clone());
        }
        shared.ensure_finite(config.max_bad_steps)?;
        let mut rounds = shared.rounds();
        let best = rounds.take_best::<B::InnerBackend>();
        let best_interval = best.as_ref().map(|(round, _)| *round);
        let model = best.map(|(_, model)| model).or(last).ok_or_else(|| {
            Error::checkpoint("the trained network")
                .expected("a checkpoint of it in the folder")
                .found("none")
                .fix("train again in another folder")
        })?;
        let history = rounds.history().to_vec();
        let seconds = started.elapsed().as_secs_f64();
        Ok(Trained { model, best_interval, history, reason: shared.reason(over), seconds })
    }

    /// Checks all that can be known before anything is computed.
    fn check<B: AutodiffBackend>(
        &self,
        model: &Cart<B>,
        data: &TrainingData,
        main: &B::Device,
    ) -> Result<()> {
        self.config.validate(data.trie().levels())?;
        data.check(model, &self.config.loss)?;
        self.config.precision.check::<B>(main)?;
        self.folder.iter().try_for_each(|folder| check_folder(folder, self.resume))
    }

    /// The network with what its steps need, and for how many captions the outputs of frozen layers
    /// will be kept.
    fn learner<B: AutodiffBackend>(
        &self,
        model: Cart<B>,
        data: &TrainingData,
        steps: usize,
        shared: &Shared,
        together: DeviceGroup,
    ) -> Result<(CartLearner<B>, usize)> {
        let config = &self.config;
        let encoder = model.encoder();
        let cache = |layers| {
            let train = data.captions();
            LayerCache::new(config.frozen_cache, train, data.padding, encoder, layers)
        };
        let frozen = Frozen::new(config.freeze, config.precision, &model, cache)?;
        let kept = frozen.as_ref().map_or(0, Frozen::kept);
        let listener = (!self.dashboard).then(|| self.listener.clone());
        let context = Context {
            config: config.clone(),
            frozen,
            decay: config.average_decay(steps),
            trie: data.trie().clone(),
            geometry: data.geometry.clone(),
            owners: data.owners.clone(),
            shared: shared.clone(),
            reporter: Arc::new(Reporter::new(listener, shared.position.clone())),
            together,
            shares: Mutex::default(),
        };
        Ok((CartLearner::new(model, Arc::new(context)), kept))
    }

    /// The folder and what is in it, where there is one.
    fn opened(&self, run: serde_json::Value) -> Result<Option<(RunFolder, TrainState)>> {
        let prepare = |folder| prepare(folder, run, self.resume, &self.listener);
        self.folder.as_deref().map(prepare).transpose()
    }

    fn train_loader<B: AutodiffBackend>(
        &self,
        data: &TrainingData,
        main: &B::Device,
        shared: &Shared,
        together: DeviceGroup,
    ) -> TrainLoader<B> {
        TrainLoader {
            data: data.clone(),
            config: Arc::new(self.config.clone()),
            shared: shared.clone(),
            device: main.clone(),
            share: Share::first(together.devices, together.distributed),
            at: At::new(&shared.position),
            order: Arc::<Mutex<_>>::default(),
        }
    }

    /// burn-train's loop with our parts; it goes on after `round` rounds.
    fn supervised<B: AutodiffBackend>(
        &self,
        (train, valid): (TrainLoader<B>, ValidLoader<B::InnerBackend>),
        state: Option<TrainState>,
        round: usize,
        shared: &Shared,
    ) -> SupervisedTraining<Components<B>> {
        let folder = self.folder.clone().unwrap_or_default();
        let mut training = SupervisedTraining::new(&folder, Arc::new(train), Arc::new(valid))
            .metric_train_numeric(MeanMetric::<true>::default())
            .metric_valid_numeric(MeanMetric::<true>::default())
            .metric_valid_numeric(MeanMetric::<false>::default())
            .with_application_logger(None)
            .with_interrupter(shared.interrupter.clone())
            .num_epochs(round + shared.position.rounds_left())
            .early_stopping(StopRule::new(shared.clone(), self.config.patience));
        training = match state {
            Some(mut state) => {
                if round == 0 {
                    state = TrainState::new(state.run);
                }
                // What burn-train finds is what was found whole.
                state.checkpoints.retain(|saved| saved.round <= round);
                let logs = MetricLogs::new(folder.clone(), self.listener.clone());
                let ledger = Arc::new(Ledger::new(folder, state, shared.failure.clone()));
                let keep_best = KeepBest { shared: shared.clone(), ledger: ledger.clone() };
                let training = training
                    .with_metric_logger(logs)
                    .with_file_checkpointer(AtomicRecorder::entering(ledger))
                    .with_checkpointing_strategy(keep_best);
                if round > 0 { training.checkpoint(round) } else { training }
            }
            None => training.with_metric_logger(InMemoryMetricLogger::default()),
        };
        if self.dashboard { training } else { training.renderer(SilentRenderer) }
    }
}

/// Takes up a training where its checkpoint left it, with the validation that a stop cut short;
/// gives the network.
fn go_on<B: AutodiffBackend>(
    resumed: Resumed<B>,
    shared: &Shared,
    valid: &ValidLoader<B::InnerBackend>,
) -> Cart<B::InnerBackend> {
    let Resumed { saved, history, learner, best } = resumed;
    shared.position.resume(saved.step);
    shared.guard.resume(saved.scale);
    shared.rounds().restore(history, best.map(|(round, cart)| (round, cart.valid())));
    let lacks_validation = shared.rounds().lacks_validation();
    if lacks_validation {
        validate(&learner, valid);
        shared.rounds().close_again();
    }
    learner.cart().valid()
}
