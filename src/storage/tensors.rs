//! Named tensors in the safetensors format, and modules from them.

use std::collections::{BTreeMap, HashMap};

use burn::{
    module::ParamId,
    tensor::{TensorData, backend::Backend},
};
use burn_store::{ModuleSnapshot, TensorSnapshot};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::error::{Error, Result};

/// Tensors by name, on the host.
#[derive(Debug, Default)]
pub struct NamedTensors {
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl NamedTensors {
    /// No tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds 32-bit floats.
    pub fn insert_f32(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensors.insert(name.to_string(), (Dtype::F32, shape.to_vec(), bytes));
    }

    /// Adds a vector of 32-bit integers.
    pub fn insert_u32(&mut self, name: &str, values: &[u32]) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensors.insert(name.to_string(), (Dtype::U32, vec![values.len()], bytes));
    }

    /// Adds 16-bit integers.
    pub fn insert_u16(&mut self, name: &str, shape: &[usize], values: &[u16]) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensors.insert(name.to_string(), (Dtype::U16, shape.to_vec(), bytes));
    }

    /// Adds 64-bit floats.
    pub fn insert_f64(&mut self, name: &str, shape: &[usize], values: &[f64]) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensors.insert(name.to_string(), (Dtype::F64, shape.to_vec(), bytes));
    }

    /// All parameters of a module by their paths, without the names of enum variants, after
    /// `prefix`.
    ///
    /// # Errors
    /// [`Error::Model`] when a tensor cannot be read back from its device.
    pub fn insert_module<B: Backend, M: ModuleSnapshot<B>>(
        &mut self,
        prefix: &str,
        module: &M,
    ) -> Result<()> {
        for snapshot in module.collect(None, None, true) {
            let path = snapshot.full_path();
            let data = snapshot.to_data().map_err(|e| {
                Error::model(&path)
                    .expected("a readable tensor")
                    .found(e.to_string())
                    .fix("check the device")
            })?;
            let values: Vec<f32> = data.iter::<f32>().collect();
            self.insert_f32(&format!("{prefix}{path}"), &snapshot.shape, &values);
        }
        Ok(())
    }

    /// The safetensors file of these tensors.
    ///
    /// # Errors
    /// [`Error::Index`] when a shape does not fit its values.
    pub fn to_bytes(&self, metadata: &[(&str, &str)]) -> Result<Vec<u8>> {
        let views = self
            .tensors
            .iter()
            .map(|(name, (dtype, shape, bytes))| {
                let view = TensorView::new(*dtype, shape.clone(), bytes);
                view.map(|view| (name, view)).map_err(|e| malformed(&e))
            })
            .collect::<Result<Vec<_>>>()?;
        let metadata: HashMap<String, String> =
            metadata.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        safetensors::serialize(views, Some(metadata)).map_err(|e| malformed(&e))
    }

    /// Reads a safetensors file, with its metadata.
    ///
    /// # Errors
    /// [`Error::Index`] when the bytes are no such file.
    pub fn from_bytes(bytes: &[u8]) -> Result<(Self, HashMap<String, String>)> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| malformed(&e))?;
        let file = SafeTensors::deserialize(bytes).map_err(|e| malformed(&e))?;
        let tensors = file
            .iter()
            .map(|(name, view)| {
                (name.to_string(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
            })
            .collect();
        Ok((Self { tensors }, header.metadata().clone().unwrap_or_default()))
    }

    /// Number of bytes of all tensors.
    pub(crate) fn bytes(&self) -> usize {
        self.tensors.values().map(|(_, _, bytes)| bytes.len()).sum()
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The shape of a tensor, if there is one of this name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|(_, shape, _)| shape.as_slice())
    }

    /// Takes 32-bit floats out, with their shape.
    ///
    /// # Errors
    /// [`Error::Model`] when there is no such tensor or it has another type.
    pub fn take_f32(&mut self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let (shape, bytes) = self.take(name, Dtype::F32)?;
        let values =
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        Ok((shape, values))
    }

    /// Takes 32-bit integers out.
    ///
    /// # Errors
    /// As [`NamedTensors::take_f32`].
    pub fn take_u32(&mut self, name: &str) -> Result<Vec<u32>> {
        let (_, bytes) = self.take(name, Dtype::U32)?;
        Ok(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    /// Takes 16-bit integers out, with their shape.
    ///
    /// # Errors
    /// As [`NamedTensors::take_f32`].
    pub fn take_u16(&mut self, name: &str) -> Result<(Vec<usize>, Vec<u16>)> {
        let (shape, bytes) = self.take(name, Dtype::U16)?;
        Ok((shape, bytes.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b)).collect()))
    }

    /// Takes 64-bit floats out, with their shape.
    ///
    /// # Errors
    /// As [`NamedTensors::take_f32`].
    pub fn take_f64(&mut self, name: &str) -> Result<(Vec<usize>, Vec<f64>)> {
        let (shape, bytes) = self.take(name, Dtype::F64)?;
        Ok((shape, bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect()))
    }

    /// Fails if unused tensors are left.
    ///
    /// # Errors
    /// [`Error::Model`] naming them.
    pub fn ensure_empty(&self, what: &str) -> Result<()> {
        if self.tensors.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = self.tensors.keys().map(String::as_str).collect();
        Err(Error::model(what)
            .expected("only tensors of the model")
            .found(names.join(", "))
            .fix("load the configuration that was saved with these weights"))
    }

    fn take(&mut self, name: &str, wanted: Dtype) -> Result<(Vec<usize>, Vec<u8>)> {
        match self.tensors.remove(name) {
            Some((dtype, shape, bytes)) if dtype == wanted => Ok((shape, bytes)),
            Some((dtype, ..)) => Err(Error::model(format!("tensor {name:?}"))
                .expected(format!("{wanted:?}"))
                .found(format!("{dtype:?}"))
                .fix("save the weights again")),
            None => Err(Error::model(format!("tensor {name:?}"))
                .expected("to be in the file")
                .found("no tensor of that name")
                .fix("load weights of this model and configuration")),
        }
    }
}

/// Fills all parameters of a module from the tensors whose names start with `prefix`, and takes
/// those out. The module is unchanged when that fails.
///
/// # Errors
/// [`Error::Model`] naming a tensor that is missing, misshapen or of another type.
pub fn load_module<B: Backend, M: ModuleSnapshot<B>>(
    module: &mut M,
    tensors: &mut NamedTensors,
    prefix: &str,
) -> Result<()> {
    let mut snapshots = Vec::new();
    for expected in module.collect(None, None, true) {
        let path = expected.full_path();
        let (shape, values) = tensors.take_f32(&format!("{prefix}{path}"))?;
        if shape != expected.shape.to_vec() {
            return Err(Error::model(format!("tensor {prefix}{path}"))
                .expected(format!("shape {:?}", expected.shape.to_vec()))
                .found(format!("{shape:?}"))
                .fix("load the configuration that was saved with these weights"));
        }
        snapshots.push(TensorSnapshot::from_data(
            TensorData::new(values, shape),
            path.split('.').map(str::to_string).collect(),
            Vec::new(),
            ParamId::new(),
        ));
    }
    let result = module.apply(snapshots, None, None, true);
    if !result.errors.is_empty() || !result.missing.is_empty() {
        return Err(Error::model("weights")
            .expected("every parameter to be filled")
            .found(format!("{:?} {:?}", result.errors, result.missing))
            .fix("load weights of this model and configuration"));
    }
    Ok(())
}

fn malformed(error: &dyn std::fmt::Display) -> Error {
    Error::index("weights")
        .expected("a complete safetensors file")
        .found(error.to_string())
        .fix("save it again, or restore it from a copy")
}

#[cfg(test)]
mod tests {
    use burn::{backend::Flex, module::Module};

    use super::*;
    use crate::{identifier::LevelSizes, model::CartConfig};

    fn config(seed: u64) -> CartConfig {
        CartConfig::new(9, LevelSizes::new(vec![3, 2]).unwrap()).with_width(8, 8, 2).with_seed(seed)
    }

    #[test]
    fn a_module_comes_back_as_it_was_and_nothing_is_left_over() {
        let device = Default::default();
        let saved = config(1).init::<Flex>(&device).unwrap();
        let mut tensors = NamedTensors::new();
        tensors.insert_module::<Flex, _>("model.", &saved).unwrap();
        let bytes = tensors.to_bytes(&[("a", "b")]).unwrap();
        let (mut tensors, metadata) = NamedTensors::from_bytes(&bytes).unwrap();
        assert_eq!(metadata["a"], "b");
        let mut loaded = config(2).init::<Flex>(&device).unwrap();
        load_module::<Flex, _>(&mut loaded, &mut tensors, "model.").unwrap();
        tensors.ensure_empty("model").unwrap();
        assert_eq!(loaded.num_params(), saved.num_params());
        for (a, b) in saved.collect(None, None, true).iter().zip(loaded.collect(None, None, false))
        {
            assert_eq!(a.to_data().unwrap(), b.to_data().unwrap(), "{}", a.full_path());
        }
    }

    #[test]
    fn missing_misshapen_and_surplus_tensors_are_named() {
        let device = Default::default();
        let saved = config(1).init::<Flex>(&device).unwrap();
        let fill = || {
            let mut tensors = NamedTensors::new();
            tensors.insert_module::<Flex, _>("", &saved).unwrap();
            tensors
        };
        let name = "decoder.positions";
        let mut module = config(2).init::<Flex>(&device).unwrap();
        let mut tensors = fill();
        tensors.tensors.remove(name).unwrap();
        let error = load_module::<Flex, _>(&mut module, &mut tensors, "").unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        let mut tensors = fill();
        tensors.insert_f32(name, &[1], &[0.0]);
        let error = load_module::<Flex, _>(&mut module, &mut tensors, "").unwrap_err();
        assert!(error.to_string().contains("shape"), "{error}");
        let mut tensors = fill();
        tensors.insert_f32("stray", &[1], &[0.0]);
        load_module::<Flex, _>(&mut module, &mut tensors, "").unwrap();
        assert!(tensors.ensure_empty("model").unwrap_err().to_string().contains("stray"));
    }
}
