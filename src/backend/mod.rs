//! Choosing a backend and a device while the program runs.
//!
//! Cargo features decide which backends a build contains ([`BackendKind::compiled`]); this module
//! turns a choice among them into a type. It is the only place that does: a program writes its work
//! once, as a [`BackendTask`], and [`run_on`] calls it with the backend and the device.
//!
//! Models, quantizers and indexes are saved without a trace of the backend, so what was trained on
//! one is served on another.
//!
//! # Example
//! ```
//! use burn::tensor::Tensor;
//! use cart_retrieval::backend::{
//!     BackendKind, BackendTask, DeviceChoice, LocalBackend, run_on,
//! };
//!
//! struct Sum;
//!
//! impl BackendTask for Sum {
//!     type Output = f32;
//!
//!     fn run<B: LocalBackend>(self, device: B::Device) -> f32 {
//!         println!("on {}", B::describe(&device));
//!         Tensor::<B, 1>::from_floats([1.0, 2.0], &device).sum().into_data().as_slice().unwrap()[0]
//!     }
//! }
//!
//! # #[cfg(feature = "flex")] {
//! let sum = run_on(BackendKind::Flex, &DeviceChoice::Default, Sum)?;
//! assert_eq!(sum, 3.0);
//! # }
//! # Ok::<(), cart_retrieval::Error>(())
//! ```

mod choice;
mod local;
pub(crate) mod run;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

pub use choice::DeviceChoice;
pub use run::run_on;

use crate::{
    error::{Error, Result},
    recipe::Trainable,
};

/// A backend of burn that this library was tried on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum BackendKind {
    /// CUDA through CubeCL; needs an NVIDIA driver and CUDA toolkit.
    Cuda,
    /// LibTorch, on the CPU, CUDA or Apple's MPS.
    Tch,
    /// Any GPU with a Vulkan, Metal or DirectX driver, through wgpu.
    Wgpu,
    /// The CPU, in Rust, on ndarray.
    NdArray,
    /// The CPU, in Rust.
    Flex,
}

impl BackendKind {
    /// All of them, the one that is preferred where several are compiled in first.
    pub const ALL: [Self; 5] = [Self::Cuda, Self::Tch, Self::Wgpu, Self::NdArray, Self::Flex];

    /// Those that cargo features put into this build, the preferred one first.
    pub fn compiled() -> Vec<Self> {
        Self::ALL.into_iter().filter(|kind| kind.is_compiled()).collect()
    }

    /// The first of [`compiled`](Self::compiled).
    ///
    /// # Errors
    /// [`Error::Device`] when the build has no backend.
    pub fn preferred() -> Result<Self> {
        Self::compiled().first().copied().ok_or_else(|| {
            Error::device("backends of this build").expected("at least one").found("none").fix(
                "build with a backend feature: --features flex, ndarray, tch, wgpu, vulkan, metal \
                 or cuda",
            )
        })
    }

    /// Whether a cargo feature put it into this build.
    pub fn is_compiled(self) -> bool {
        match self {
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Tch => cfg!(feature = "tch"),
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::NdArray => cfg!(feature = "ndarray"),
            Self::Flex => cfg!(feature = "flex"),
        }
    }

    /// Its cargo feature and its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Tch => "tch",
            Self::Wgpu => "wgpu",
            Self::NdArray => "ndarray",
            Self::Flex => "flex",
        }
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for BackendKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
            Error::device("backend")
                .expected(format!("one of {}", names.join(", ")))
                .found(format!("{text:?}"))
                .fix("use one of those; vulkan and metal are wgpu built with that feature")
        })
    }
}

/// A backend whose devices are on this machine.
pub trait LocalBackend: Trainable {
    /// Which one it is.
    const KIND: BackendKind;

    /// The device of a choice, which exists and computes when this returns.
    ///
    /// # Errors
    /// [`Error::Device`] when the machine has no such device, or when its driver or library is
    /// missing. Where a driver can only be tried, its panic is caught; the panic's own message
    /// still goes to the standard error.
    fn device(choice: &DeviceChoice) -> Result<Self::Device>;

    /// All devices of this backend on this machine, for training on several.
    ///
    /// # Errors
    /// As [`device`](Self::device).
    fn devices() -> Result<Vec<Self::Device>> {
        Ok(vec![Self::device(&DeviceChoice::Default)?])
    }

    /// Backend and device in words, for reports.
    fn describe(device: &Self::Device) -> String;
}

/// Work that runs on any backend.
pub trait BackendTask {
    /// What it gives.
    type Output;

    /// Does the work on a device.
    fn run<B: LocalBackend>(self, device: B::Device) -> Self::Output;
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Describe;

    impl BackendTask for Describe {
        type Output = String;

        fn run<B: LocalBackend>(self, device: B::Device) -> String {
            B::describe(&device)
        }
    }

    #[test]
    fn names_are_read_back_and_unknown_ones_refused() {
        for kind in BackendKind::ALL {
            assert_eq!(kind.name().parse::<BackendKind>().unwrap(), kind);
        }
        let error = "cudaa".parse::<BackendKind>().unwrap_err().to_string();
        assert!(error.contains("one of cuda, tch, wgpu, ndarray, flex"), "{error}");
    }

    #[test]
    fn a_backend_that_is_not_in_the_build_is_an_error_that_names_the_feature() {
        for kind in BackendKind::ALL.into_iter().filter(|kind| !kind.is_compiled()) {
            let error = run_on(kind, &DeviceChoice::Default, Describe).unwrap_err().to_string();
            assert!(error.contains(&format!("--features {kind}")), "{error}");
        }
    }

    #[test]
    #[cfg(feature = "flex")]
    fn flex_has_one_device_and_says_so() {
        let run = |choice: &str| run_on(BackendKind::Flex, &choice.parse().unwrap(), Describe);
        assert!(run("default").unwrap().contains("flex"));
        assert!(run("cpu").unwrap().contains("flex"));
        let error = run("gpu:0").unwrap_err().to_string();
        assert!(error.contains("--device cpu"), "{error}");
    }
}
