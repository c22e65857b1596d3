//! Every hidden state against that of transformers, and the same tokens.

use std::{collections::HashMap, fs, path::Path};

use burn::{
    module::Module,
    tensor::{Bool, Int, Tensor, TensorData},
};
use cart_retrieval::{data::TextTokenizer, nn::TextEncoder, pretrained::PretrainedText};
use safetensors::{Dtype, SafeTensors};

use super::{B, fixture, load};

/// Largest difference allowed, relative to the largest number of the tensor.
const TOLERANCE: f32 = 1e-4;

/// What transformers makes of a model's sentences.
struct Expected {
    /// By name: shape and values.
    tensors: HashMap<String, (Vec<usize>, Vec<f32>)>,
    metadata: HashMap<String, String>,
}

impl Expected {
    fn read(name: &str) -> Self {
        let bytes = fs::read(fixture(name).join("outputs.safetensors")).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file
            .iter()
            .map(|(name, view)| {
                let data = view.data();
                let values = match view.dtype() {
                    Dtype::I64 => {
                        data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f32).collect()
                    }
                    Dtype::F32 => {
                        data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
                    }
                    other => panic!("{name}: {other:?}"),
                };
                (name.to_string(), (view.shape().to_vec(), values))
            })
            .collect();
        Self { tensors, metadata: header.metadata().clone().unwrap() }
    }

    fn json<T: serde::de::DeserializeOwned>(&self, key: &str) -> T {
        serde_json::from_str(&self.metadata[key]).unwrap()
    }

    /// Tokens of every sentence, without padding.
    fn rows(&self) -> Vec<Vec<u32>> {
        let (shape, ids) = &self.tensors["ids"];
        let (_, mask) = &self.tensors["mask"];
        let row = |row: usize| {
            let range = row * shape[1]..(row + 1) * shape[1];
            let there = range.filter(|&at| mask[at] == 1.0);
            there.map(|at| ids[at] as u32).collect()
        };
        (0..shape[0]).map(row).collect()
    }
}

/// Rows padded to the longest.
fn batch(rows: &[Vec<u32>], pad: u32) -> (Tensor<B, 2, Int>, Tensor<B, 2, Bool>) {
    let width = rows.iter().map(Vec::len).max().unwrap();
    let places = || rows.iter().flat_map(|row| (0..width).map(move |at| row.get(at)));
    let ids: Vec<i64> = places().map(|id| i64::from(*id.unwrap_or(&pad))).collect();
    let padding: Vec<bool> = places().map(|id| id.is_none()).collect();
    let (shape, device) = ([rows.len(), width], Default::default());
    (
        Tensor::from_data(TensorData::new(ids, shape), &device),
        Tensor::from_data(TensorData::new(padding, shape), &device),
    )
}

/// The numbers of the tokens that are there, row after row.
fn there(tensor: Tensor<B, 3>, rows: &[Vec<u32>]) -> Vec<f32> {
    let [_, width, d] = tensor.dims();
    let values: Vec<f32> = tensor.into_data().to_vec().unwrap();
    let part =
        |(row, tokens): (usize, &Vec<u32>)| values[row * width * d..][..tokens.len() * d].to_vec();
    rows.iter().enumerate().flat_map(part).collect()
}

/// The largest difference relative to the largest number.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let top = expected.iter().fold(0f32, |top, v| top.max(v.abs()));
    let off = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    off.fold(0f32, |top, v| if v.is_nan() { f32::INFINITY } else { top.max(v) }) / top
}

fn assert_close(what: &str, found: &[f32], expected: &[f32]) -> f32 {
    let off = difference(found, expected);
    assert!(off < TOLERANCE, "{what}: off by {off}");
    off
}

/// Compares every hidden state and the last layer, padded and alone.
fn assert_parity(name: &str, encoder: &TextEncoder<B>, expected: &Expected) {
    let rows = expected.rows();
    let state = |key: &str| {
        let (shape, values) = &expected.tensors[key];
        match shape.as_slice() {
            &[n, width, d] => {
                let data = TensorData::new(values.clone(), [n, width, d]);
                there(Tensor::from_data(data, &Default::default()), &rows)
            }
            _ => values.clone(),
        }
    };
    let (ids, padding) = batch(&rows, 0);
    let states = encoder.hidden_states(ids.clone(), padding.clone());
    assert_eq!(states.len(), encoder.n_layers());
    let mut worst = 0f32;
    for (layer, found) in states.into_iter().enumerate() {
        let key = format!("hidden.{layer}");
        let wanted = state(&key);
        worst = worst.max(assert_close(&key, &there(found, &rows), &wanted));
        // The same, a sentence at a time.
        let mut alone = Vec::new();
        for row in &rows {
            let (ids, padding) = batch(std::slice::from_ref(row), 0);
            let states = encoder.hidden_states(ids, padding);
            alone.extend(there(states[layer].clone(), std::slice::from_ref(row)));
        }
        worst = worst.max(assert_close(&format!("{key}, alone"), &alone, &wanted));
    }
    let output = encoder.forward(ids, padding);
    assert_eq!(output.layers.len(), encoder.n_layers());
    let last = if expected.tensors.contains_key("last") {
        "last".to_string()
    } else {
        format!("hidden.{}", encoder.n_layers() - 1)
    };
    let found = there(output.layers.last().unwrap().clone(), &rows);
    worst = worst.max(assert_close("last", &found, &state(&last)));
    if encoder.family() == "clip" {
        let pooled: Vec<f32> = output.pooled().into_data().to_vec().unwrap();
        worst = worst.max(assert_close("pooler", &pooled, &state("pooler")));
    }
    println!("{name}: off by at most {worst:.1e}");
}

fn assert_tokens(tokenizer: &TextTokenizer, expected: &Expected) {
    let sentences: Vec<String> = expected.json("sentences");
    for (sentence, row) in sentences.iter().zip(expected.rows()) {
        assert_eq!(tokenizer.encode(sentence).unwrap(), row, "{sentence:?}");
    }
}

/// Parity, tokens, and the tensors that are left over.
fn check(name: &str, unused: &[&str]) {
    let expected = Expected::read(name);
    let (encoder, tokenizer, report) = load(&fixture(name));
    assert_tokens(&tokenizer, &expected);
    assert_parity(name, &encoder, &expected);
    let config = PretrainedText::open(fixture(name)).unwrap();
    assert_eq!(encoder.num_params(), config.config().num_params());
    assert_eq!(report.parameters, encoder.num_params());
    let left: Vec<&String> =
        report.unused.iter().filter(|name| !unused.iter().any(|u| name.starts_with(u))).collect();
    assert!(left.is_empty(), "{name}: {left:?} not used");
    for start in unused {
        let found = report.unused.iter().any(|name| name.starts_with(start));
        assert!(found, "{name}: {start} is not among {:?}", report.unused);
    }
}

#[test]
fn bert_is_transformers() {
    check("bert", &["cls.predictions."]);
}

#[test]
fn roberta_in_two_files_is_transformers() {
    check("roberta", &["pooler.dense.bias", "pooler.dense.weight"]);
}

#[test]
fn t5_in_bf16_beside_its_decoder_is_transformers() {
    check("t5", &["decoder."]);
}

#[test]
fn t5_with_gated_blocks_is_transformers() {
    check("t5_gated", &[]);
}

#[test]
fn clip_in_f16_beside_its_vision_tower_is_transformers() {
    check("clip", &["vision_model.", "visual_projection.", "text_projection.", "logit_scale"]);
}

#[test]
fn clip_with_gelu_is_transformers() {
    check("clip_gelu", &[]);
}

/// Runs where the weights are: `CART_MINILM` names the folder of all-MiniLM-L6-v2.
#[test]
fn minilm_is_transformers() {
    let Some(folder) = std::env::var_os("CART_MINILM") else {
        println!("skipped: CART_MINILM does not name the folder of all-MiniLM-L6-v2");
        return;
    };
    let expected = Expected::read("minilm");
    let (encoder, tokenizer, report) = load(Path::new(&folder));
    assert_eq!(
        report.unused,
        ["embeddings.position_ids", "pooler.dense.bias", "pooler.dense.weight"]
    );
    assert_tokens(&tokenizer, &expected);
    let texts: Vec<String> = expected.json("texts");
    let tokens: Vec<Vec<u32>> = expected.json("tokens");
    let tokenizer = tokenizer.with_max_tokens(expected.json("limit")).unwrap();
    for (text, tokens) in texts.iter().zip(&tokens) {
        assert_eq!(&tokenizer.encode(text).unwrap(), tokens, "{text:?}");
    }
    assert_parity("minilm", &encoder, &expected);
    let (ids, padding) = batch(&expected.rows(), 0);
    let pooled = encoder.forward(ids, padding).pooled();
    let norms = pooled.clone().square().sum_dim(1).sqrt();
    let units: Vec<f32> = (pooled / norms).into_data().to_vec().unwrap();
    let off = assert_close("embeddings", &units, &expected.tensors["embeddings"].1);
    println!("minilm embeddings: off by at most {off:.1e}");
}
