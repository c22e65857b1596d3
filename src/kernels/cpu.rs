//! Which backends keep tensors in the host's memory.

use burn::tensor::backend::Backend;

/// Whether tensors live in the host's memory, so that making one there costs no transfer.
pub(crate) fn on_cpu<B: Backend>(device: &B::Device) -> bool {
    let name = B::name(device);
    name.contains("flex") || name.contains("ndarray")
}
