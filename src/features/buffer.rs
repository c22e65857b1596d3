//! Where the numbers live: in a vector or in a mapped file.

use memmap2::Mmap;

/// The numbers of a matrix, row-major.
///
/// Invariant: the byte range of `Mapped` lies inside the map, starts at a multiple of four and
/// holds a whole number of little-endian `f32` on a little-endian machine.
#[derive(Debug)]
pub(super) enum Buffer {
    Owned(Vec<f32>),
    Mapped { map: Mmap, start: usize, end: usize },
}

impl Buffer {
    /// A view of `map[start..end]`, or the map back when the bytes cannot be used in place.
    pub(super) fn from_map(map: Mmap, start: usize, end: usize) -> Result<Self, Mmap> {
        let usable = cfg!(target_endian = "little")
            && map
                .get(start..end)
                .is_some_and(|bytes| bytemuck::try_cast_slice::<u8, f32>(bytes).is_ok());
        if usable { Ok(Self::Mapped { map, start, end }) } else { Err(map) }
    }

    pub(super) fn as_slice(&self) -> &[f32] {
        match self {
            Self::Owned(data) => data,
            // Cannot panic: `from_map` made the same cast.
            Self::Mapped { map, start, end } => bytemuck::cast_slice(&map[*start..*end]),
        }
    }

    pub(super) fn is_mapped(&self) -> bool {
        matches!(self, Self::Mapped { .. })
    }
}
