//! Numbers in a vector or in a mapped file.

use std::{ops::Deref, sync::Arc};

use memmap2::Mmap;

/// Numbers in a vector, or in a mapped file.
///
/// Invariant: the bytes of `Mapped` lie in the map, aligned, little-endian on a little-endian
/// machine.
#[derive(Debug, Clone)]
pub(crate) enum Array<T> {
    Owned(Vec<T>),
    Mapped { map: Arc<Mmap>, start: usize, end: usize, kind: std::marker::PhantomData<T> },
}

impl<T: bytemuck::Pod> Array<T> {
    /// A view of a map's bytes, where they can be used in place.
    pub(crate) fn mapped(map: &Arc<Mmap>, start: usize, end: usize) -> Option<Self> {
        let usable = cfg!(target_endian = "little")
            && map.get(start..end).is_some_and(|b| bytemuck::try_cast_slice::<u8, T>(b).is_ok());
        let kind = std::marker::PhantomData;
        usable.then(|| Self::Mapped { map: map.clone(), start, end, kind })
    }

    pub(crate) fn is_mapped(&self) -> bool {
        matches!(self, Self::Mapped { .. })
    }
}

impl<T: bytemuck::Pod> Deref for Array<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Owned(values) => values,
            // Cannot panic: `mapped` made the same cast.
            Self::Mapped { map, start, end, .. } => bytemuck::cast_slice(&map[*start..*end]),
        }
    }
}

impl<T: bytemuck::Pod + PartialEq> PartialEq for Array<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: bytemuck::Pod + Eq> Eq for Array<T> {}

impl<T> From<Vec<T>> for Array<T> {
    fn from(values: Vec<T>) -> Self {
        Self::Owned(values)
    }
}
