//! Training steps of the network and of the RQ-VAE, on every backend of the build:
//! `cargo bench -p cart-benches --bench steps --features tch`.
//!
//! The network is that of `benches/peers`: d = 384, 6 + 4 layers, batch 64, 32 tokens.
//! `CART_DEVICE` chooses the device (`cpu`, `gpu:1`, ..) where a backend has several;
//! `CART_BENCH_SMALL=1` takes d = 128 with 2 + 2 layers instead.
#![recursion_limit = "256"]

use std::time::{Duration, Instant};

use burn::backend::Autodiff;
use cart_examples::{inputs, memory};
use cart_retrieval::{
    backend::{BackendKind, BackendTask, DeviceChoice, LocalBackend, run_on},
    cancel::Monitor,
    expert::Stepper,
    model::{CartConfig, LossConfig, Preset},
    quantizer::{Codebooks, RqVaeConfig},
    train::TrainConfig,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const BATCH: usize = 64;
const TOKENS: usize = 32;
const WORDS: usize = 30_522;

/// Benches of one backend.
struct Steps<'a>(&'a mut Criterion);

impl BackendTask for Steps<'_> {
    type Output = ();

    fn run<B: LocalBackend>(self, device: B::Device) {
        training::<B>(self.0, &device);
        rqvae::<B>(self.0, &device);
    }
}

fn training<B: LocalBackend>(c: &mut Criterion, device: &B::Device) {
    let small = std::env::var_os("CART_BENCH_SMALL").is_some();
    let candidates = inputs::candidates(10_000, &[32, 64, 64, 64], 0).expect("sizes in range");
    let config = CartConfig::new(WORDS, candidates.unique.vocabulary.clone())
        .with_max_tokens(TOKENS)
        .with_preset(if small { Preset::Tiny } else { Preset::Small });
    let heads = if small { 4 } else { 6 };
    let config = config.clone().with_width(config.d_model, config.d_ff, heads);
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let rows = inputs::token_rows(BATCH, TOKENS, TOKENS, WORDS, &mut rng);
    let mut group = c.benchmark_group(format!("training step, d = {}, 64 x 32", config.d_model));
    group.sample_size(10).warm_up_time(Duration::from_millis(1));
    group.throughput(Throughput::Elements(BATCH as u64));
    for r_drop in [0.0, 1.0] {
        let batch =
            inputs::train_batch::<Autodiff<B>>(&rows, &candidates, &mut rng, device).expect("rows");
        let train = TrainConfig {
            loss: LossConfig { r_drop, ..LossConfig::default() },
            ..TrainConfig::default()
        };
        let cart = config.init::<Autodiff<B>>(device).expect("a valid shape");
        let mut stepper =
            Stepper::new(cart, candidates.trie.clone(), &train, 1000).expect("valid settings");
        let name = if r_drop > 0.0 { "R-Drop" } else { "one pass" };
        group.bench_function(format!("{}, {name}", B::describe(device)), |b| {
            b.iter(|| {
                stepper.step(batch.clone());
                B::sync(device).expect("a device that works");
            });
        });
    }
    group.finish();
}

/// An epoch is timed between two events of the fit, so seeding and standardising are left out.
fn rqvae<B: LocalBackend>(c: &mut Criterion, device: &B::Device) {
    const STEPS: usize = 8;
    let data = inputs::rows(None, 1024 * STEPS, 512, 64, 0).expect("rows");
    let mut group = c.benchmark_group("RQ-VAE step, 1024 x 512, 512-256-128, 3 x 256");
    group.sample_size(10).warm_up_time(Duration::from_millis(1));
    group.throughput(Throughput::Elements(1024));
    for (name, codebooks) in
        [("moving averages", Codebooks::Ema { decay: 0.99 }), ("gradient", Codebooks::Gradient)]
    {
        group.bench_function(format!("{}, {name}", B::describe(device)), |b| {
            b.iter_custom(|iterations| {
                let epochs = (iterations as usize).div_ceil(STEPS) + 1;
                let mut config = RqVaeConfig {
                    hidden: vec![256],
                    latent: 128,
                    batch: 1024,
                    codebooks,
                    restart_every: 0,
                    epochs,
                    ..RqVaeConfig::new(vec![256; 3])
                };
                config.init_sample = 1024;
                let mut ends = Vec::with_capacity(epochs);
                let monitor = Monitor::new().with_progress(|_| ends.push(Instant::now()));
                config
                    .fit_with_progress::<B>(data.as_slice(), 512, device, &monitor)
                    .expect("finite rows");
                drop(monitor);
                let steps = ((epochs - 1) * STEPS) as f64;
                let one = (ends[epochs - 1] - ends[0]).as_secs_f64() / steps;
                Duration::from_secs_f64(one * iterations as f64)
            });
        });
    }
    group.finish();
}

fn steps(c: &mut Criterion) {
    memory::keep_freed_memory();
    let device = std::env::var("CART_DEVICE").unwrap_or_else(|_| "default".into());
    let device: DeviceChoice = device.parse().unwrap_or_else(|error| panic!("{error}"));
    for kind in BackendKind::compiled() {
        if let Err(error) = run_on(kind, &device, Steps(c)) {
            eprintln!("{kind} is left out: {error}");
        }
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);
