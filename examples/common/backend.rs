//! The one place where cargo features become a backend type.
//!
//! Without a backend feature the examples run on `flex`, burn's pure-Rust CPU backend.

use burn::backend::Autodiff;

#[cfg(feature = "cuda")]
mod chosen {
    pub type Inference = burn::backend::Cuda;
    pub const NAME: &str = "cuda";
}

#[cfg(all(feature = "tch", not(feature = "cuda")))]
mod chosen {
    pub type Inference = burn::backend::LibTorch;
    pub const NAME: &str = "tch";
}

#[cfg(all(
    any(feature = "wgpu", feature = "vulkan", feature = "metal"),
    not(any(feature = "cuda", feature = "tch"))
))]
mod chosen {
    pub type Inference = burn::backend::Wgpu;
    pub const NAME: &str = "wgpu";
}

#[cfg(all(
    feature = "ndarray",
    not(any(
        feature = "cuda",
        feature = "tch",
        feature = "wgpu",
        feature = "vulkan",
        feature = "metal"
    ))
))]
mod chosen {
    pub type Inference = burn::backend::NdArray;
    pub const NAME: &str = "ndarray";
}

#[cfg(not(any(
    feature = "cuda",
    feature = "tch",
    feature = "wgpu",
    feature = "vulkan",
    feature = "metal",
    feature = "ndarray"
)))]
mod chosen {
    pub type Inference = burn::backend::Flex;
    pub const NAME: &str = "flex";
}

pub use chosen::{Inference, NAME};

/// The backend that trains.
pub type Training = Autodiff<Inference>;

/// The device of that backend.
pub type Device = <Inference as burn::tensor::backend::BackendTypes>::Device;
