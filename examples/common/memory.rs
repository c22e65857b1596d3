//! The allocator of examples and benches, tuned for training.

/// Training allocates and frees large tensors all the time; this allocator keeps their pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Keeps freed memory for the next step instead of giving it back to the system: a training step of
/// a MiniLM-sized network would request and clear some 140,000 pages again.
pub fn keep_freed_memory() {
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15; // mi_option_purge_delay, not exported.
    // SAFETY: sets an integer option of the allocator in use; -1 is a documented value of it.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) }
}
