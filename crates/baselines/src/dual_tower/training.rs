//! The training of both towers, by a number of steps or by time.

use std::time::Instant;

use burn::{
    lr_scheduler::LrScheduler,
    module::{AutodiffModule, Module, Param},
    optim::{GradientsParams, Optimizer},
    tensor::{Int, Tensor, TensorData, activation::log_softmax, backend::AutodiffBackend},
};
use cart_retrieval::{
    Error, Result,
    cancel::StopFlag,
    expert::{CartOptimizer, EncoderRates, QueryBatch, WarmupCosine, WeightInit},
    members::drop_words,
    nn::TextEncoder,
};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    config::{DualTowerConfig, TowerData},
    network::{Network, Trained, centred_units, select_rows, vectors},
};

/// Candidates that compete at a step, unless there are fewer.
pub const COMPETITORS: usize = 4096;

/// Steps that show how long one takes, if a tenth of a pass has no more.
const TIMED_STEPS: usize = 20;

/// What every step of a training reads.
pub struct Training<'a, B: AutodiffBackend> {
    config: &'a DualTowerConfig,
    data: &'a TowerData<'a>,
    stop: &'a StopFlag,
    device: B::Device,
    /// Tokens of the captions.
    tokens: Vec<Vec<u32>>,
    /// Mean of the candidates' features.
    mean: Vec<f32>,
    /// Features of the candidates, centred and of unit length, `[N, D]`.
    features: Vec<f32>,
}

impl<'a, B: AutodiffBackend> Training<'a, B> {
    /// Checks captions and brings texts and features into the form that steps read.
    pub fn new(
        config: &'a DualTowerConfig,
        data: &'a TowerData<'a>,
        stop: &'a StopFlag,
        device: B::Device,
    ) -> Result<Self> {
        let TowerData { tokenizer, captions, items } = *data;
        let known = captions.iter().all(|caption| (caption.item as usize) < items.len());
        if captions.is_empty() || !known {
            return Err(Error::captions("training captions")
                .expected(format!("at least one, all of the {} candidates", items.len()))
                .found(if known { "none" } else { "a caption of another item" })
                .fix("resolve captions against these candidates"));
        }
        let tokens = captions
            .iter()
            .map(|caption| tokenizer.encode(&caption.text))
            .collect::<Result<Vec<_>>>()?;
        let mean = items.mean();
        let features = centred_units(items, &mean);
        Ok(Self { config, data, stop, device, tokens, mean, features })
    }

    /// Both towers before the first step.
    pub fn network(&self, encoder: TextEncoder<B>) -> Network<B> {
        let Self { config, data, device, .. } = self;
        let mut init = WeightInit::new(config.seed.wrapping_add(1));
        let d_query = encoder.d_model();
        let network = Network {
            encoder,
            query: init.linear(d_query, config.projection, device),
            item: init.linear(data.items.dim(), config.projection, device),
            log_scale: Param::from_tensor(Tensor::from_floats([(1.0f32 / 0.07).ln()], device)),
        };
        network.num_params();
        network
    }

    /// Steps of a pass over the captions.
    pub fn steps_per_pass(&self) -> usize {
        self.tokens.len().div_ceil(self.config.batch_size)
    }

    /// Steps that fit into `seconds`, as measured on a copy of the network.
    pub fn steps_within(&self, seconds: f64, network: &Network<B>) -> Result<usize> {
        let finish = || {
            B::sync(&self.device).map_err(|error| {
                Error::device("time of a step of the dual tower")
                    .expected("a device that finishes its work")
                    .found(format!("{error:?}"))
                    .fix("check the device, or train for a number of epochs")
            })
        };
        let (mut started, mut timed) = (None, 0);
        // The first step, which starts threads and compiles kernels, is not timed.
        let mut clock = || {
            let Some(started) = started else {
                finish()?;
                started = Some(Instant::now());
                return Ok(true);
            };
            timed += 1;
            Ok(started.elapsed().as_secs_f64() < 0.1 * seconds)
        };
        let most = 1 + TIMED_STEPS.max(self.steps_per_pass() / 10);
        self.run(network.clone(), most, &mut clock)?;
        finish()?;
        let elapsed = started.map_or(0.0, |started| started.elapsed().as_secs_f64());
        Ok(steps_that_fit(seconds, elapsed, timed))
    }

    /// Trains for `steps` steps, or until `go_on`, asked after each step, says no.
    ///
    /// The learning rate rises and falls over `steps`.
    pub fn run(
        &self,
        mut network: Network<B>,
        steps: usize,
        go_on: &mut dyn FnMut() -> Result<bool>,
    ) -> Result<Network<B>> {
        let config = self.config;
        let mut schedule = schedule(config.learning_rate, steps);
        let mut optimizer = CartOptimizer::<Network<B>, B>::new(config.weight_decay, 1.0)
            .with_encoder_rates(EncoderRates {
                encoder_lr: config.encoder_lr,
                layer_decay: 1.0,
                layers: network.encoder.n_layers(),
            });
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        let mut order: Vec<usize> = (0..self.tokens.len()).collect();
        let mut left = steps;
        while left > 0 {
            order.shuffle(&mut rng);
            for chunk in order.chunks(config.batch_size).take(left) {
                if self.stop.is_raised() {
                    return Err(Error::interrupted("dual tower")
                        .expected(format!("{steps} steps"))
                        .found("a stop before the last")
                        .fix("start it again; nothing was written"));
                }
                let loss = self.loss(&network, chunk, &mut rng)?;
                let grads = GradientsParams::from_grads(loss.backward(), &network);
                network = optimizer.step(schedule.step(), network, grads);
                left -= 1;
                if !go_on()? {
                    return Ok(network);
                }
            }
        }
        Ok(network)
    }

    /// Mean loss of some captions, `[1]`.
    fn loss(
        &self,
        network: &Network<B>,
        chunk: &[usize],
        rng: &mut ChaCha8Rng,
    ) -> Result<Tensor<B, 1>> {
        let Self { config, data, device, .. } = self;
        B::seed(device, rng.random());
        let rows: Vec<Vec<u32>> = chunk
            .iter()
            .map(|&index| drop_words(&self.tokens[index], config.word_dropout, rng))
            .collect();
        let own: Vec<u32> = chunk.iter().map(|&index| data.captions[index].item).collect();
        let competitors = competitors(data.items.len(), &own, rng);
        let targets: Vec<i64> = own
            .iter()
            .map(|item| competitors.binary_search(item).map_or(0, |at| at as i64))
            .collect();
        let queries = network.queries(QueryBatch::new(&rows, data.tokenizer.padding(), device)?);
        let rows = select_rows::<B>(&self.features, data.items.dim(), &competitors, device);
        let vectors = network.items(rows);
        let scale = network.log_scale.val().clamp_max(100f32.ln()).exp();
        let logits = queries.matmul(vectors.transpose()) * scale.unsqueeze();
        let targets = TensorData::new(targets, [chunk.len(), 1]);
        let targets = Tensor::<B, 2, Int>::from_data(targets, device);
        Ok(log_softmax(logits, 1).gather(1, targets).neg().mean())
    }

    /// The trained towers over the candidates of the training.
    pub fn trained(self, network: Network<B>) -> Trained<B::InnerBackend> {
        let Self { data, device, mean, features, .. } = self;
        let network = network.valid();
        let candidates = vectors(&network, &features, data.items.dim(), &device);
        Trained { network, tokenizer: data.tokenizer.clone(), candidates, mean, device }
    }
}

/// The learning rates of a training of `steps` steps.
pub fn schedule(peak: f64, steps: usize) -> WarmupCosine {
    WarmupCosine::new(peak, steps.div_ceil(20), steps, 0.02)
}

/// Steps that fit into `seconds` where `timed` of them took `elapsed` seconds; at least one.
pub fn steps_that_fit(seconds: f64, elapsed: f64, timed: usize) -> usize {
    // A clock that is too coarse must not make a training endless.
    let step = elapsed.max(1e-6) / timed.max(1) as f64;
    ((seconds / step) as usize).max(1)
}

/// Items that compete at a step, ascending: all of them, or the batch's own and random others.
pub fn competitors(n: usize, own: &[u32], rng: &mut ChaCha8Rng) -> Vec<u32> {
    if n <= COMPETITORS {
        return (0..n as u32).collect();
    }
    let mut chosen: Vec<u32> = (0..COMPETITORS)
        .map(|_| rng.random_range(0..n as u32))
        .chain(own.iter().copied())
        .collect();
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}
