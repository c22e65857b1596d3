//! What a reference implementation made of the inputs beside it.

use std::{collections::HashMap, fs, path::Path};

use burn::tensor::{Tensor, TensorData};
use safetensors::SafeTensors;

use super::B;

/// Largest difference allowed, relative to the largest number of the tensor.
const TOLERANCE: f32 = 1e-4;

/// The tensors of `outputs.safetensors`.
pub struct Reference(HashMap<String, (Vec<usize>, Vec<f32>)>);

impl Reference {
    pub fn open(folder: &Path) -> Self {
        Self::read(&folder.join("outputs.safetensors"))
    }

    pub fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let values =
            |data: &[u8]| data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let tensors = file.iter();
        let tensors =
            tensors.map(|(name, view)| (name.into(), (view.shape().to_vec(), values(view.data()))));
        Self(tensors.collect())
    }

    pub fn values(&self, name: &str) -> &[f32] {
        &self.0[name].1
    }

    pub fn tensor<const D: usize>(&self, name: &str) -> Tensor<B, D> {
        let (shape, values) = &self.0[name];
        Tensor::from_data(TensorData::new(values.clone(), shape.clone()), &Default::default())
    }

    /// Asserts that a tensor is the reference's of that name.
    pub fn assert_close<const D: usize>(&self, name: &str, found: Tensor<B, D>) {
        let (shape, expected) = &self.0[name];
        assert_eq!(&found.dims().to_vec(), shape, "{name}");
        assert_values(name, &found.into_data().to_vec::<f32>().unwrap(), expected);
    }
}

/// Asserts that numbers are those expected.
pub fn assert_values(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let top = expected.iter().fold(0f32, |top, value| top.max(value.abs()));
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= TOLERANCE * top, "{what}: {a} where {b} is expected");
    }
}
