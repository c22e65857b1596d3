//! What a counterpart needs to check that it is the same network.

use std::path::{Path, PathBuf};

use anyhow::Result;
use burn::{
    module::{AutodiffModule, Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{
        Int, Tensor, TensorData,
        backend::{AutodiffBackend, Backend},
    },
};
use cart_retrieval::{
    decode::BeamConfig,
    expert::{Engine, QueryBatch, Stepper, TrainBatch, WeightInit},
    members::{NamedTensors, Outputs, write_bytes},
    model::{Cart, LossConfig},
};
use clap::Args;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use crate::{
    Common,
    inputs::{Candidates, rows, train_batch},
    quantizers::RqVaeArgs,
    train::TrainStepArgs,
};

/// Where to write, and for which network.
#[derive(Args, Clone)]
pub struct DumpArgs {
    #[command(flatten)]
    step: TrainStepArgs,
    /// Folder to write to; created if it does not exist.
    #[arg(long)]
    to: PathBuf,
    /// Training steps whose losses are written, all on the one batch.
    #[arg(long, default_value_t = 4)]
    trained: usize,
    /// Width of the beam whose answers are written.
    #[arg(long, default_value_t = 20)]
    beam: usize,
}

/// Writes `weights.safetensors` (initial weights by parameter path), `batch.safetensors` (the
/// batch, and logits of two passes to try the loss on), `search.safetensors` (all identifiers, and
/// the answers of a beam search) and `reference.json` (settings, loss and gradient norms without
/// dropout, and the losses of the first training steps).
pub fn dump<B: AutodiffBackend>(
    args: &DumpArgs,
    common: &Common,
    device: &B::Device,
) -> Result<Value> {
    prepare(&args.to)?;
    let network = &args.step.network;
    let (candidates, config) = network.config(common.seed)?;
    let cart = config.clone().with_dropout(0.0).init::<B>(device)?;

    let mut weights = NamedTensors::new();
    weights.insert_module::<B, _>("", &cart)?;
    write_bytes(args.to.join("weights.safetensors"), &weights.to_bytes(&[])?)?;

    let mut rng = ChaCha8Rng::seed_from_u64(common.seed);
    let batch = train_batch::<B>(&network.rows(&mut rng), &candidates, &mut rng, device)?;
    let train = args.step.train_config();
    let mut tensors = NamedTensors::new();
    insert_batch(&mut tensors, &batch);
    let example = loss_example(&mut tensors, &batch, &train.loss, device);
    write_bytes(args.to.join("batch.safetensors"), &tensors.to_bytes(&[])?)?;

    let scope = train.loss.scope;
    let beam = BeamConfig { width: args.beam, scope, ..BeamConfig::default() };
    let search = search::<B::InnerBackend>(&cart.valid(), &candidates, &batch, &beam)?;
    write_bytes(args.to.join("search.safetensors"), &search.to_bytes(&[])?)?;

    let mut stepper = Stepper::new(cart, candidates.trie.clone(), &train, args.trained)?;
    let first = stepper.gradients(batch.clone());
    let mut norms = Norms::<B>::new(first.grads);
    stepper.learner().cart().visit(&mut norms);
    let losses: Vec<Option<f64>> =
        (0..args.trained).map(|_| scalar(stepper.step(batch.clone()).loss())).collect();
    let [rows, width] = batch.queries.tokens.dims();
    let reference = json!({
        "config": config,
        "training": train,
        "batch": rows,
        "tokens": width,
        "beam": args.beam,
        "candidates": candidates.trie.len(),
        "loss": scalar(first.item.loss()),
        "gradient_norm": norms.total.sqrt(),
        "gradient_norms": norms.by_name,
        "losses": losses,
        "loss_example": example,
    });
    write_bytes(args.to.join("reference.json"), &serde_json::to_vec_pretty(&reference)?)?;
    Ok(json!({
        "measure": "dump", "folder": args.to, "loss": reference["loss"],
        "gradient_norm": reference["gradient_norm"], "losses": reference["losses"],
    }))
}

/// Identifiers, and the answers of a search for the batch's queries.
fn search<B: Backend>(
    cart: &Cart<B>,
    candidates: &Candidates,
    batch: &TrainBatch<impl AutodiffBackend<InnerBackend = B>>,
    beam: &BeamConfig,
) -> Result<NamedTensors> {
    let tokens = batch.queries.tokens.clone().inner();
    let padding = batch.queries.padding.clone().inner();
    let engine = Engine::new(cart.clone());
    let encoded = engine.encode_batch(QueryBatch { tokens, padding });
    let answers = engine.beam_search(&encoded, &candidates.trie, beam)?;
    let found = answers.iter().map(Vec::len).min().unwrap_or(0);
    let items: Vec<u32> = answers.iter().flatten().map(|answer| answer.item).collect();
    let scores: Vec<f32> = answers.iter().flatten().map(|answer| answer.score).collect();
    let codes = candidates.unique.identifiers.as_flat();
    let mut tensors = NamedTensors::new();
    tensors.insert_u32("identifiers", &codes.iter().map(|&c| c.into()).collect::<Vec<_>>());
    tensors.insert_u32("items", &items);
    tensors.insert_f32("scores", &[answers.len(), found], &scores);
    Ok(tensors)
}

fn scalar<B: Backend>(tensor: Tensor<B, 1>) -> Option<f64> {
    tensor.into_data().iter::<f64>().next()
}

/// Flat vectors; the shapes follow from the sizes in `reference.json`.
fn insert_batch<B: Backend>(tensors: &mut NamedTensors, batch: &TrainBatch<B>) {
    let ints = |tensor: Tensor<B, 2, Int>| -> Vec<u32> { tensor.into_data().iter().collect() };
    tensors.insert_u32("tokens", &ints(batch.queries.tokens.clone()));
    tensors.insert_u32("padding", &ints(batch.queries.padding.clone().int()));
    tensors.insert_u32("identifiers", &ints(batch.targets.identifiers.clone()));
    for (level, legal) in batch.targets.legal.iter().enumerate() {
        tensors.insert_u32(&format!("legal.{level}"), &ints(legal.clone().int()));
    }
}

/// Random logits of two passes, with what the loss makes of them: without dropout, the consistency
/// term of the batch itself is zero and shows nothing.
fn loss_example<B: Backend>(
    tensors: &mut NamedTensors,
    batch: &TrainBatch<B>,
    config: &LossConfig,
    device: &B::Device,
) -> Value {
    let targets = batch.targets.repeated();
    let mut init = WeightInit::new(5);
    let mut logits = Vec::new();
    for (level, legal) in targets.legal.iter().enumerate() {
        let table = init.normal::<B, 2>(legal.dims(), 1.0, device).val();
        let values: Vec<f32> = table.to_data().iter().collect();
        tensors.insert_f32(&format!("logits.{level}"), &legal.dims(), &values);
        logits.push(table);
    }
    let loss = config.forward(logits, targets.identifiers, &targets.legal, 2);
    json!({
        "cross_entropy": scalar(loss.cross_entropy),
        "consistency": scalar(loss.consistency),
    })
}

/// Checks and creates the folder of a dump.
fn prepare(folder: &Path) -> Result<()> {
    let names =
        ["weights.safetensors", "batch.safetensors", "search.safetensors", "reference.json"];
    let is_ours = |path: &Path| path.with_file_name("reference.json").is_file();
    let outputs = Outputs::new().fills([folder]);
    let files = names.map(|name| folder.join(name));
    Ok(outputs.replaces(files, "the files of an earlier dump", is_ours).prepare()?)
}

/// Where to write, and for which RQ-VAE.
#[derive(Args, Clone)]
pub struct DumpRqVaeArgs {
    #[command(flatten)]
    rqvae: RqVaeArgs,
    /// Folder to write to; created if it does not exist.
    #[arg(long)]
    to: PathBuf,
}

/// Writes `weights.safetensors`, `batch.safetensors` (scaled rows and their codes) and
/// `reference.json` (settings, loss terms and gradient norms) of an RQ-VAE.
pub fn dump_rqvae<B: AutodiffBackend>(
    args: &DumpRqVaeArgs,
    common: &Common,
    device: &B::Device,
) -> Result<Value> {
    prepare(&args.to)?;
    let rqvae = &args.rqvae;
    let config = rqvae.config(common.seed);
    let network = config.init_network::<B>(rqvae.d, device);
    let mut weights = NamedTensors::new();
    weights.insert_module::<B, _>("", &network)?;
    write_bytes(args.to.join("weights.safetensors"), &weights.to_bytes(&[])?)?;

    let batch = rows(None, rqvae.batch, rqvae.d, 64, common.seed)?;
    let shape = [rqvae.batch, rqvae.d];
    let data = TensorData::new(batch.as_slice().to_vec(), shape);
    let parts = network.loss(Tensor::from_data(data, device), &config);
    let codes = Tensor::<B, 1, Int>::cat(parts.quantised.codes.clone(), 0);
    let mut tensors = NamedTensors::new();
    tensors.insert_f32("rows", &shape, batch.as_slice());
    tensors.insert_u32("codes", &codes.into_data().iter::<u32>().collect::<Vec<_>>());
    write_bytes(args.to.join("batch.safetensors"), &tensors.to_bytes(&[])?)?;

    let grads = GradientsParams::from_grads(parts.total.backward(), &network);
    let mut norms = Norms::<B>::new(grads);
    network.visit(&mut norms);
    let reference = json!({
        "config": config,
        "rows": rqvae.batch,
        "d": rqvae.d,
        "loss": scalar(parts.total),
        "reconstruction": scalar(parts.reconstruction),
        "commitment": scalar(parts.quantised.commitment_loss),
        "gradient_norms": norms.by_name,
    });
    write_bytes(args.to.join("reference.json"), &serde_json::to_vec_pretty(&reference)?)?;
    Ok(json!({"measure": "dump-rqvae", "folder": args.to, "loss": reference["loss"]}))
}

/// Norms of the gradients by parameter path.
struct Norms<B: AutodiffBackend> {
    grads: GradientsParams,
    path: Vec<String>,
    by_name: Map<String, Value>,
    /// Sum of all squares.
    total: f64,
    backend: std::marker::PhantomData<B>,
}

impl<B: AutodiffBackend> Norms<B> {
    fn new(grads: GradientsParams) -> Self {
        Self {
            grads,
            path: Vec::new(),
            by_name: Map::new(),
            total: 0.0,
            backend: std::marker::PhantomData,
        }
    }
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Norms<B> {
    fn enter_module(&mut self, name: &str, container: &str) {
        // As in saved weights, names of enum variants are left out.
        if !container.starts_with("Enum:") {
            self.path.push(name.to_string());
        }
    }

    fn exit_module(&mut self, _: &str, container: &str) {
        if !container.starts_with("Enum:") {
            self.path.pop();
        }
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(grad) = self.grads.get::<B::InnerBackend, D>(param.id) {
            let squares: f64 =
                grad.into_data().iter::<f32>().map(|value| f64::from(value).powi(2)).sum();
            self.by_name.insert(self.path.join("."), json!(squares.sqrt()));
            self.total += squares;
        }
    }
}
