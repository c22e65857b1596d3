//! Files as memory: all mapping is done here.
#![allow(unsafe_code)]

use std::{fs::File, io, ops::Range};

use memmap2::Mmap;

/// Maps a whole file, read-only.
///
/// The map stays valid after `file` is closed and after another file is renamed over its path, so
/// atomic writes ([`write_atomic`](crate::storage::write_atomic)) never disturb it. An empty file
/// cannot be mapped everywhere.
pub(crate) fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the map is read-only and owns its pages until it is dropped. What no code can rule
    // out is another process that writes into or cuts the file in place while it is mapped: values
    // would change, or the process would be stopped by a bus error. What maps a file of a user's
    // documents this; files of an index are replaced by renaming, never changed in place. Every
    // caller takes any bytes for valid, and checks what they say.
    unsafe { Mmap::map(file) }
}

/// Lets go of the memory that reading a range of bytes took; the bytes can be read again.
///
/// Without this, all pages ever read count as this process's memory until the system runs short.
pub(crate) fn forget(map: &Mmap, range: Range<usize>) {
    #[cfg(unix)]
    // SAFETY: the map is shared, read-only and backed by a file: pages that are dropped hold no
    // changes, and the next access brings them back from the file with the same content.
    let _ = unsafe {
        // Advice: the system may refuse it, and nothing is wrong then.
        map.unchecked_advise_range(
            memmap2::UncheckedAdvice::DontNeed,
            range.start,
            range.end - range.start,
        )
    };
    #[cfg(not(unix))]
    let _ = (map, range);
}
