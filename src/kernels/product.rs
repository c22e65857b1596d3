//! Products of rows with weights, of 32 bits or of 16.
#![allow(unsafe_code)]

use gemm::{Parallelism, gemm};
use rayon::prelude::*;

use super::panels::{Panels, able};

/// Columns that a product takes at once: what a thread is given is a multiple.
const TILE: usize = 64;

/// Inputs that a product through `gemm` takes at once.
const DEPTH: usize = 512;

/// Weights `[depth, columns]`.
#[derive(Debug, Clone)]
pub(crate) enum Matrix {
    /// As they come; for products through `gemm`.
    Plain { values: Vec<f32>, depth: usize },
    /// For products of our own, where the processor can.
    Packed(Panels),
}

impl Matrix {
    pub(crate) fn new(values: Vec<f32>, depth: usize) -> Self {
        Self::Plain { values, depth }
    }

    /// Made ready for products: packed in 32 bits, or in 16 if `half`
    /// ([`bf16_products`](super::bf16_products) must hold).
    pub(crate) fn pack(&mut self, half: bool) {
        if let Self::Plain { values, depth } = self {
            if half {
                *self = Self::Packed(Panels::half(values, *depth));
            } else if able() {
                *self = Self::Packed(Panels::full(values, *depth));
            }
        }
    }

    pub(crate) fn depth(&self) -> usize {
        match self {
            Self::Plain { depth, .. } => *depth,
            Self::Packed(panels) => panels.depth(),
        }
    }

    /// The weights changed one by one, before they are packed.
    pub(crate) fn map(self, change: impl Fn(f32) -> f32) -> Self {
        match self {
            Self::Plain { values, depth } => {
                Self::Plain { values: values.into_iter().map(change).collect(), depth }
            }
            Self::Packed(_) => unreachable!("weights are packed last"),
        }
    }

    /// Weights of one depth as one matrix, before they are packed.
    pub(crate) fn beside(parts: &[&Self]) -> Self {
        let depth = parts.first().map_or(0, |part| part.depth());
        let row = |at: usize| {
            parts.iter().flat_map(move |part| match part {
                Self::Plain { values, depth } => {
                    let columns = values.len() / depth;
                    &values[at * columns..(at + 1) * columns]
                }
                Self::Packed(_) => unreachable!("weights are packed last"),
            })
        };
        Self::Plain { values: (0..depth).flat_map(row).copied().collect(), depth }
    }

    /// Adds `left` times the weights to columns of `out`, on all threads if `parallel`.
    ///
    /// # Shapes
    /// - `left`: `[rows, depth]`
    /// - `out`: `[rows, stride]`, from column `first` on
    pub(crate) fn add_product(
        &self,
        left: &[f32],
        out: &mut [f32],
        columns: (usize, usize),
        parallel: bool,
    ) {
        match self {
            Self::Plain { values, depth } => {
                add_plain(left, values, *depth, out, columns, parallel);
            }
            Self::Packed(panels) => panels.add_product(left, out, columns, parallel),
        }
    }
}

/// Adds `left right` to columns of `out`.
///
/// Every number is a sum in the same order whatever the number of rows.
///
/// # Shapes
/// - `left`: `[rows, depth]`
/// - `right`: `[depth, columns]`
/// - `out`: `[rows, stride]`, from column `first` on
fn add_plain(
    left: &[f32],
    right: &[f32],
    depth: usize,
    out: &mut [f32],
    (stride, first): (usize, usize),
    parallel: bool,
) {
    let (rows, columns) = (left.len() / depth, right.len() / depth);
    assert_eq!(left.len(), rows * depth, "left is [rows, depth]");
    assert_eq!(right.len(), columns * depth, "right is [depth, columns]");
    assert_eq!(out.len(), rows * stride, "out is [rows, stride]");
    assert!(first + columns <= stride, "the columns lie in out");
    if rows == 0 || columns == 0 {
        return;
    }
    if rows == 1 {
        // `gemm` has a way of its own for one row, which sums in another order.
        let mut two = [&out[first..first + columns]; 2].concat();
        add_plain(&[left; 2].concat(), right, depth, &mut two, (columns, 0), parallel);
        out[first..first + columns].copy_from_slice(&two[..columns]);
        return;
    }
    // `gemm` cuts greater depths in an order that depends on the number of rows.
    if depth > DEPTH {
        let row = |row: usize, columns: std::ops::Range<usize>| {
            &left[row * depth..(row + 1) * depth][columns]
        };
        for from in (0..depth).step_by(DEPTH) {
            let to = (from + DEPTH).min(depth);
            let left: Vec<f32> = (0..rows).flat_map(|at| row(at, from..to)).copied().collect();
            let right = &right[from * columns..to * columns];
            add_plain(&left, right, to - from, out, (stride, first), parallel);
        }
        return;
    }
    // A share of the columns for each thread, in whole tiles.
    let threads = if parallel { rayon::current_num_threads() } else { 1 };
    let share = columns.div_ceil(threads).next_multiple_of(TILE);
    let to = Columns(out.as_mut_ptr());
    let part = |from: usize| {
        let to = &to;
        // SAFETY: `gemm` reads left[i * depth + p] and right[p * columns + from + j], and reads and
        // writes out[i * stride + first + from + j], for i < rows, p < depth, j < the columns of
        // this part. The largest index of each is below the length asserted above, and a slice's
        // length fits in isize. `out` is borrowed mutably, so it overlaps neither input; parts have
        // columns of their own, and no reference to its numbers exists while they write.
        unsafe {
            gemm(
                rows,
                share.min(columns - from),
                depth,
                to.0.add(first + from),
                1,
                stride as isize,
                true,
                left.as_ptr(),
                1,
                depth as isize,
                right.as_ptr().add(from),
                1,
                columns as isize,
                1.0,
                1.0,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
    };
    if share < columns {
        (0..columns.div_ceil(share)).into_par_iter().for_each(|at| part(at * share))
    } else {
        part(0)
    }
}

/// Where threads write columns of their own.
struct Columns(*mut f32);

// SAFETY: see `add_plain`, which alone makes and uses it.
unsafe impl Sync for Columns {}
