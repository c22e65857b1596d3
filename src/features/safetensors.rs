//! The `.safetensors` format: a JSON header and raw tensors.
//!
//! Format: <https://huggingface.co/docs/safetensors>.

use std::sync::Arc;

use ::safetensors::{Dtype, SafeTensors, tensor::TensorInfo};
use memmap2::Mmap;

use super::{
    element::{Element, Kind},
    layout::{Description, Layout, choose},
    placed::Placed,
};
use crate::error::{Error, Result};

/// Bytes before the JSON: its length.
const LENGTH: usize = 8;

/// Finds the chosen tensor of a mapped file.
pub(super) fn place(subject: &str, map: Arc<Mmap>, wanted: Option<&str>) -> Result<Placed> {
    let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|source| {
        Error::features(subject)
            .expected("a .safetensors file whose header agrees with its length")
            .found(format!("{} bytes with a faulty header ({source})", map.len()))
            .fix("the file is truncated or damaged; make or fetch it again")
    })?;
    let arrays =
        metadata.tensors().into_iter().map(|(name, info)| (name, describe(info))).collect();
    let (name, description) = choose(subject, arrays, wanted)?;
    let subject = format!("{subject}: tensor \"{name}\"");
    // `read_metadata` has checked that the tensors cover the file exactly.
    let (from, to) = metadata.info(&name).map_or((0, 0), |info| info.data_offsets);
    let layout = Layout::new(&subject, &description, (to - from) as u64)?;
    let (start, end) = (LENGTH + header + from, LENGTH + header + to);
    Ok(Placed { subject, map, layout, start, end })
}

fn describe(info: &TensorInfo) -> Description {
    let kind = match info.dtype {
        Dtype::F16 => Some(Kind::F16),
        Dtype::BF16 => Some(Kind::BF16),
        Dtype::F32 => Some(Kind::F32),
        Dtype::F64 => Some(Kind::F64),
        _ => None,
    };
    Description {
        shape: info.shape.iter().map(|&size| size as u64).collect(),
        element: kind.map(Element::little),
        type_name: info.dtype.to_string(),
        fortran: false,
    }
}
