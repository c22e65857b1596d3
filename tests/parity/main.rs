//! One network, every backend: forward passes, gradients, quantizers, training, beam search and
//! saved indexes of each backend in the build, against `flex`, from the same weights and inputs.
//!
//! `cargo test --release --features ndarray,tch,wgpu,fusion --test parity` compares all of these.
//! `CART_DEVICE` chooses the device (`cpu`, `gpu:1`, ...) where a backend has several.
#![recursion_limit = "256"]

mod cases;
mod frozen;
mod outcome;
mod portable;
mod pretrained;
mod towers;

use std::sync::{Mutex, MutexGuard};

use burn::backend::Flex;
use cart_retrieval::backend::{DeviceChoice, LocalBackend};

/// One case at a time: a GPU (or a CPU that stands in for one) has one queue, and generators of
/// random numbers belong to the process.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(|e| e.into_inner())
}

fn device<B: LocalBackend>() -> B::Device {
    let choice = std::env::var("CART_DEVICE").unwrap_or_else(|_| "default".into());
    let choice: DeviceChoice = choice.parse().unwrap_or_else(|error| panic!("{error}"));
    B::device(&choice).unwrap_or_else(|error| panic!("{error}"))
}

/// A test for each case, on one backend, whose device `$device` finds.
macro_rules! cases {
    ($backend:ty, $device:expr; $($case:ident),+ $(,)?) => {
        $(
            #[test]
            fn $case() {
                let _turn = turn();
                let expected = cases::$case::<Autodiff<Flex>>(&Default::default());
                let found = cases::$case::<Autodiff<$backend>>(&$device);
                found.assert_near(&expected);
            }
        )+

        #[test]
        fn half_precision_stays_near() {
            let _turn = turn();
            cases::half_precision_stays_near::<Autodiff<$backend>>(&$device);
        }

        #[test]
        fn dropout_keeps_the_mean() {
            let _turn = turn();
            cases::dropout_keeps_the_mean::<Autodiff<$backend>>(&$device);
        }
    };
}

/// The cases that every backend of burn runs.
macro_rules! compare {
    ($backend:ty, $device:expr) => {
        cases!($backend, $device;
            operations,
            attention,
            attention_to_a_narrower_context,
            cached_attention,
            text_encoder,
            encoders_of_other_families,
            media_towers,
            coarse_fusion,
            gated_attention,
            fine_fusion,
            network_without_fusion,
            network_with_coarse_fusion,
            network_with_fine_fusion,
            network_with_both_fusions,
            guided_network,
            loss_over_all_tokens,
            loss_over_legal_tokens_with_r_drop,
            optimizer_steps,
            gradients_with_frozen_parts,
            steps_with_frozen_parts,
            tuned_encoder,
            rq_vae_loss,
            rq_vae_with_gradient_codebooks,
            rq_vae_fit,
            nearest_codes,
            kmeans,
            training,
            training_on_two_devices_in_micro_batches,
            beam_search_over_legal_tokens,
            beam_search_over_all_tokens,
            scores_of_all_candidates,
        );
    };
}

/// All of that, and what the library compiles for its own backends only.
macro_rules! backends {
    ($($(#[$on:meta])* $name:ident: $backend:ty),+ $(,)?) => {
        $(
            $(#[$on])*
            mod $name {
                use burn::backend::Autodiff;

                use super::*;

                compare!($backend, crate::device::<$backend>());

                #[test]
                fn device() {
                    let device = crate::device::<$backend>();
                    println!("{}", <$backend as LocalBackend>::describe(&device));
                }

                #[test]
                fn dual_tower() {
                    let _turn = turn();
                    let expected = cases::dual_tower::<Autodiff<Flex>>(&Default::default());
                    let device = crate::device::<$backend>();
                    cases::dual_tower::<Autodiff<$backend>>(&device).assert_near(&expected);
                }

                #[test]
                fn an_index_trained_here_answers_the_same_on_flex_and_back() {
                    let _turn = turn();
                    portable::there_and_back::<$backend, Flex>(
                        &crate::device::<$backend>(),
                        &Default::default(),
                    );
                }
            }
        )+
    };
}

backends! {
    #[cfg(feature = "flex")]
    flex: Flex,
    #[cfg(feature = "ndarray")]
    ndarray: burn::backend::NdArray,
    #[cfg(feature = "tch")]
    tch: burn::backend::LibTorch,
    #[cfg(feature = "wgpu")]
    wgpu: burn::backend::Wgpu,
    #[cfg(feature = "cuda")]
    cuda: burn::backend::Cuda,
}

/// wgpu without fused kernels, where the feature `fusion` makes `Wgpu` the backend with them.
#[cfg(all(feature = "wgpu", feature = "fusion"))]
mod wgpu_unfused {
    use burn::backend::{
        Autodiff, Wgpu,
        wgpu::{CubeBackend, WgpuRuntime},
    };

    use super::*;

    compare!(CubeBackend<WgpuRuntime, f32, i32, u32>, crate::device::<Wgpu>());
}
