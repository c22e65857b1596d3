//! Token states on disk, mapped into memory.

use std::{collections::HashMap, fs::File, path::Path, sync::Arc};

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::{TokenSpace, TokenStates};
use crate::{
    error::{Error, Result},
    storage::{Array, map},
};

/// Version of the file.
const FORMAT: &str = "1";
/// What the file is, in errors.
const SUBJECT: &str = "token states";

impl TokenStates {
    /// All of it as a safetensors file.
    ///
    /// # Errors
    /// [`Error::Index`] when it cannot be written as one.
    pub(crate) fn to_safetensors(&self) -> Result<Vec<u8>> {
        let floats =
            |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
        let space = &self.space;
        let (mean, basis, weights) =
            (floats(&space.mean), floats(&space.basis), floats(&space.weights));
        let starts: Vec<u8> = self.starts.iter().flat_map(|start| start.to_le_bytes()).collect();
        let scales = floats(&self.scales);
        let (dim, d_model) = (space.dim(), space.d_model());
        let broken = |e: safetensors::SafeTensorError| {
            Error::index(SUBJECT).expected("tensors").found(e.to_string()).fix("report this")
        };
        let view = |dtype, shape: &[usize], bytes| {
            TensorView::new(dtype, shape.to_vec(), bytes).map_err(broken)
        };
        let tokens = self.tokens();
        let views = [
            ("mean", view(Dtype::F32, &[d_model], &mean)?),
            ("basis", view(Dtype::F32, &[dim, d_model], &basis)?),
            ("weights", view(Dtype::F32, &[space.weights.len()], &weights)?),
            ("starts", view(Dtype::U32, &[self.starts.len()], &starts)?),
            ("scales", view(Dtype::F32, &[tokens], &scales)?),
            ("states", view(Dtype::I8, &[tokens, dim], bytemuck::cast_slice(&self.states))?),
        ];
        let metadata = [
            ("tokens", FORMAT.to_string()),
            ("most", self.most.to_string()),
            ("absent", self.absent.to_string()),
        ];
        let metadata: HashMap<String, String> =
            metadata.map(|(key, value)| (key.to_string(), value)).into();
        safetensors::serialize(views, Some(metadata)).map_err(broken)
    }

    /// Maps what [`TokenStates::to_safetensors`] wrote.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read, [`Error::Index`] for one that is not that.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let map =
            File::open(path).and_then(|file| map(&file)).map_err(|e| Error::io("read", path, e))?;
        let shown = path.display().to_string();
        Self::of(&Arc::new(map)).map_err(|found| {
            Error::index(shown)
                .expected(format!("token states of format {FORMAT}"))
                .found(found)
                .fix("restore the file, or save the index again")
        })
    }

    fn of(map: &Arc<Mmap>) -> std::result::Result<Self, String> {
        let (length, header) = SafeTensors::read_metadata(map).map_err(|e| e.to_string())?;
        let file = Tensors { map, start: 8 + length, header: &header };
        let facts = header.metadata().clone().unwrap_or_default();
        let fact = |key: &str| facts.get(key).ok_or(format!("no {key:?} in its metadata"));
        if fact("tokens")? != FORMAT {
            return Err(format!("format {:?}", fact("tokens")?));
        }
        let most: usize = fact("most")?.parse().map_err(|e| format!("most: {e}"))?;
        let absent: f32 = fact("absent")?.parse().map_err(|e| format!("absent: {e}"))?;
        let (mean, basis) =
            (file.numbers::<f32>("mean", Dtype::F32)?, file.numbers::<f32>("basis", Dtype::F32)?);
        let weights = file.numbers::<f32>("weights", Dtype::F32)?;
        let starts = file.numbers::<u32>("starts", Dtype::U32)?;
        let scales = file.numbers::<f32>("scales", Dtype::F32)?;
        let states = file.numbers::<i8>("states", Dtype::I8)?;
        let dim = basis.len().checked_div(mean.len()).unwrap_or(0);
        let whole = dim > 0
            && basis.len() == dim * mean.len()
            && starts.first() == Some(&0)
            && starts.is_sorted()
            && starts.last().is_some_and(|&last| last as usize == scales.len())
            && states.len() == scales.len() * dim
            && absent.is_finite();
        if !whole {
            return Err("tensors that do not fit each other".into());
        }
        let space =
            TokenSpace { mean: mean.to_vec(), basis: basis.to_vec(), weights: weights.to_vec() };
        Ok(Self { space: Arc::new(space), starts, states, scales, most, absent })
    }
}

/// The tensors of a mapped file.
struct Tensors<'a> {
    map: &'a Arc<Mmap>,
    start: usize,
    header: &'a safetensors::tensor::Metadata,
}

impl Tensors<'_> {
    /// A tensor's numbers, in place where they lie so.
    fn numbers<T: bytemuck::Pod>(
        &self,
        name: &str,
        dtype: Dtype,
    ) -> std::result::Result<Array<T>, String> {
        let info = self.header.info(name).ok_or(format!("no tensor {name:?}"))?;
        if info.dtype != dtype {
            return Err(format!("tensor {name:?} of {:?}", info.dtype));
        }
        let (start, end) = (self.start + info.data_offsets.0, self.start + info.data_offsets.1);
        if let Some(numbers) = Array::mapped(self.map, start, end) {
            return Ok(numbers);
        }
        let bytes = self.map.get(start..end).ok_or(format!("a tensor {name:?} beyond its end"))?;
        let whole = bytes.len() % size_of::<T>() == 0 && cfg!(target_endian = "little");
        let numbers = || bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned);
        if whole {
            Ok(numbers().collect::<Vec<T>>().into())
        } else {
            Err(format!("a tensor {name:?} that is cut"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::tokens::{
        ItemTokens,
        states::tests::{space, text},
    };

    #[test]
    fn a_file_gives_back_what_was_saved_and_a_damaged_one_is_refused() {
        let space = space(16);
        let items: Vec<ItemTokens> =
            (0..5).map(|at| space.item([&text(&space, at, 3 * at)], 6)).collect();
        let states = TokenStates::new(space, &items, 6).unwrap().with_absent(0.125);
        let bytes = states.to_safetensors().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let found = TokenStates::open(file.path()).unwrap();
        assert_eq!(found, states);
        assert!(found.states.is_mapped());
        for cut in [0, 8, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(file.path(), &bytes[..cut]).unwrap();
            let error = TokenStates::open(file.path()).unwrap_err().to_string();
            assert!(error.contains("token states") || error.contains("read"), "{error}");
        }
        // Starts that point behind the last token.
        let mut other = states.clone();
        other.starts = vec![0u32, 9].into();
        std::fs::write(file.path(), other.to_safetensors().unwrap()).unwrap();
        assert!(TokenStates::open(file.path()).unwrap_err().to_string().contains("fit each other"));
    }
}
