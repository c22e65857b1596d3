//! A matrix inside a mapped file.

use memmap2::Mmap;

use super::{buffer::Buffer, layout::Layout};
use crate::error::Result;

/// A matrix inside a mapped file: its payload lies in `start..end` and agrees with `layout`.
#[derive(Debug)]
pub(super) struct Placed {
    /// What messages call it: the file, and the tensor where files have several.
    pub(super) subject: String,
    pub(super) map: Mmap,
    pub(super) layout: Layout,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Placed {
    /// The numbers, in place where possible, and their columns.
    pub(super) fn read(self) -> Result<(Buffer, usize)> {
        let Self { subject, map, layout, start, end } = self;
        let map = if layout.is_native() {
            match Buffer::from_map(map, start, end) {
                Ok(buffer) => return Ok((buffer, layout.dim)),
                Err(map) => map,
            }
        } else {
            map
        };
        let numbers = layout.read(&subject, &map[start..end])?;
        Ok((Buffer::Owned(numbers), layout.dim))
    }
}
