//! Arithmetic on plain slices: products, distances and activations that give the same bits whatever
//! the number of threads. Nothing here knows of candidates.

mod cpu;
mod lanes;
pub(crate) mod matmul;
mod panels;
mod product;
#[cfg(target_arch = "x86_64")]
mod screen;
pub(crate) mod vector;

pub(crate) mod gelu;

pub(crate) use cpu::on_cpu;
pub(crate) use lanes::{exp_neg, widest};
pub(crate) use matmul::{Layout, dots};
pub(crate) use panels::bf16_products;
pub(crate) use product::Matrix;
#[cfg(target_arch = "x86_64")]
pub(crate) use screen::{Screen, ScreenScratch};
pub(crate) use vector::{dot, norm, normalise, squared_distance, squared_norm};
