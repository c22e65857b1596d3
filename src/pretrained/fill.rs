//! The parameters of a module from the tensors of a file.

use std::collections::BTreeSet;

use burn::{
    module::ParamId,
    tensor::{TensorData, backend::Backend},
};
use burn_store::{ModuleSnapshot, TensorSnapshot};

use super::{LoadReport, names::Names, weights::Weights};
use crate::error::{Error, Result};

/// Fills all parameters of a module from the tensors of a file.
pub(super) fn fill<B: Backend, M: ModuleSnapshot<B>>(
    module: &mut M,
    names: &Names,
    weights: &Weights,
) -> Result<LoadReport> {
    let problem = |subject: String, expected: String, found: String| {
        let remedy = "take config.json and weights from one model, of a family that is supported";
        Error::model(subject, expected, found, remedy)
    };
    // Parameters exist once they are counted.
    module.num_params();
    let prefix = names.prefix(weights.names()).ok_or_else(|| {
        let some: Vec<&str> = weights.names().take(3).collect();
        problem(
            weights.subject(),
            format!("a tensor {:?}, whatever stands before it", names.anchor()),
            format!("tensors like {}", some.join(", ")),
        )
    })?;
    let full = |name: &str| match name.strip_prefix('^') {
        Some(name) => format!("{}{name}", prefix.strip_suffix("encoder.").unwrap_or(&prefix)),
        None => format!("{prefix}{name}"),
    };
    let mut used = BTreeSet::new();
    let mut snapshots = Vec::new();
    let mut parameters = 0;
    for expected in module.collect(None, None, true) {
        let path = expected.full_path();
        let source = names.source(&path).ok_or_else(|| {
            problem(format!("parameter {path}"), "a name in the file".into(), "none".into())
        })?;
        let mut found = None;
        for name in source.names.iter().map(|name| full(name)) {
            if let Some(tensor) = weights.get(&name)? {
                found = Some((name, tensor));
                break;
            }
        }
        let Some((name, (shape, values))) = found else {
            return Err(problem(
                format!("{}: tensor {:?}", weights.subject(), full(&source.names[0])),
                "to be in the file".into(),
                "no tensor of that name".into(),
            ));
        };
        let ours = expected.shape.to_vec();
        let theirs: Vec<usize> =
            if source.transposed { ours.iter().rev().copied().collect() } else { ours.clone() };
        // Of a file's table or convolution: the first dimension, and all others as one.
        let flat = [shape.first().copied().unwrap_or(1), shape.iter().skip(1).product()];
        let fits = match source.flat {
            false => shape == theirs,
            true => theirs == flat || theirs == [1, shape.iter().product()],
        };
        if !fits {
            return Err(problem(
                format!("{}: tensor {name:?}", weights.subject()),
                format!("shape {theirs:?}"),
                format!("{shape:?}"),
            ));
        }
        parameters += values.len();
        let values = match ours.as_slice() {
            &[rows, columns] if source.transposed => transposed(&values, rows, columns),
            _ => values,
        };
        used.insert(name);
        snapshots.push(TensorSnapshot::from_data(
            TensorData::new(values, ours),
            path.split('.').map(str::to_string).collect(),
            Vec::new(),
            ParamId::new(),
        ));
    }
    let result = module.apply(snapshots, None, None, true);
    if !result.errors.is_empty() || !result.missing.is_empty() {
        return Err(problem(
            "weights".into(),
            "every parameter to be filled".into(),
            format!("{:?} {:?}", result.errors, result.missing),
        ));
    }
    let unused = weights.names().filter(|name| !used.contains(*name)).map(String::from).collect();
    Ok(LoadReport { used: used.len(), parameters, unused })
}

/// The `[rows, columns]` matrix whose transpose is given.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    for (row, out) in out.chunks_exact_mut(columns.max(1)).enumerate() {
        for (column, out) in out.iter_mut().enumerate() {
            *out = values[column * rows + row];
        }
    }
    out
}
