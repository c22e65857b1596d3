//! A matrix inside a mapped file.

use std::sync::Arc;

use memmap2::Mmap;

use super::layout::Layout;
use crate::{error::Result, storage::Array};

/// A matrix inside a mapped file: its payload lies in `start..end` and agrees with `layout`.
#[derive(Debug)]
pub(super) struct Placed {
    /// What messages call it: the file, and the tensor where files have several.
    pub(super) subject: String,
    pub(super) map: Arc<Mmap>,
    pub(super) layout: Layout,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Placed {
    /// The numbers, in place where possible, and their columns.
    pub(super) fn read(self) -> Result<(Array<f32>, usize)> {
        let Self { subject, map, layout, start, end } = self;
        let in_place = layout.is_native().then(|| Array::mapped(&map, start, end)).flatten();
        let numbers = match in_place {
            Some(numbers) => numbers,
            None => layout.read(&subject, &map[start..end])?.into(),
        };
        Ok((numbers, layout.dim))
    }
}
