//! The parameters of a module from the tensors of a file.

use std::{collections::BTreeSet, rc::Rc};

use burn::{
    module::ParamId,
    tensor::{DType, TensorData, backend::Backend},
};
use burn_store::{ModuleSnapshot, TensorSnapshot, TensorSnapshotError};

use super::{
    names::{Names, PARTS},
    report::LoadReport,
    weights::Weights,
};
use crate::error::{Error, Result};

/// Fills all parameters of a module from the tensors of a file, one after the other.
pub fn fill<B: Backend, M: ModuleSnapshot<B>>(
    module: &mut M,
    names: &Names,
    weights: Weights,
) -> Result<LoadReport> {
    let problem = |subject: String, expected: String, found: String| {
        let remedy = "use the settings and weights of one model of a supported family";
        Error::model(subject).expected(expected).found(found).fix(remedy)
    };
    let weights = Rc::new(weights);
    // Parameters exist once they are counted.
    module.num_params();
    let prefix = names.prefix(weights.names()).ok_or_else(|| {
        let some: Vec<&str> = weights.names().take(3).collect();
        problem(
            weights.subject(),
            format!("a tensor {:?}, with any prefix", names.anchor()),
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
        let mut names = source.names.iter().map(|name| full(name));
        let Some((shape, name)) = names.find_map(|name| Some((weights.shape(&name)?, name))) else {
            return Err(problem(
                format!("{}: tensor {:?}", weights.subject(), full(&source.names[0])),
                "to be in the file".into(),
                "no tensor of that name".into(),
            ));
        };
        weights.check(&name)?;
        let ours = expected.shape.to_vec();
        let mut theirs: Vec<usize> =
            if source.transposed { ours.iter().rev().copied().collect() } else { ours.clone() };
        if source.part.is_some() {
            theirs[0] *= PARTS;
        }
        let fits = shape == theirs || source.flat && folds(&shape, &theirs);
        if !fits {
            return Err(problem(
                format!("{}: tensor {name:?}", weights.subject()),
                format!("shape {theirs:?}"),
                format!("{shape:?}"),
            ));
        }
        parameters += ours.iter().product::<usize>();
        let read = {
            let (weights, name, ours) = (Rc::clone(&weights), name.clone(), ours.clone());
            let (part, turned) = (source.part, source.transposed);
            move || {
                let mut values = weights.values(&name).map_err(TensorSnapshotError::DataError)?;
                if let Some(part) = part {
                    let length = values.len() / PARTS;
                    values = values[part * length..(part + 1) * length].to_vec();
                }
                let values = match ours.as_slice() {
                    &[rows, columns] if turned => transposed(&values, rows, columns),
                    _ => values,
                };
                Ok(TensorData::new(values, ours.clone()))
            }
        };
        used.insert(name);
        snapshots.push(TensorSnapshot::from_closure(
            Rc::new(read),
            DType::F32,
            ours.into(),
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

/// Whether a tensor of another number of dimensions is the same in memory: the weights of a
/// convolution as a matrix, a vector as a table of one row, a table in a batch of one.
fn folds(shape: &[usize], wanted: &[usize]) -> bool {
    let rest: usize = shape.iter().skip(1).product();
    let first = shape.first().copied().unwrap_or(1);
    wanted == [first, rest] || wanted == [1, first * rest] || first == 1 && shape[1..] == *wanted
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
