//! Weights packed in panels, and their products with rows, by AVX-512.
//!
//! A product through `gemm` copies the weights into its own order each time, which for the few rows
//! of one query's beams takes as long as the product. Here that is done once. Numbers are of 32
//! bits or rounded to bf16 (the eight bits of an exponent, eight of a fraction): `VDPBF16PS` (AMD
//! since Zen 4, Intel since Cooper Lake) multiplies pairs of these and adds both products to a sum
//! of 32 bits, twice as many at a time.
//!
//! A tile keeps 24 sums in registers and goes through the depth once, in order: a row's sums do not
//! depend on the rows beside it.
#![allow(unsafe_code)]

/// Whether this processor multiplies pairs of bf16.
pub(crate) fn bf16_products() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        able() && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whether this processor multiplies rows with panels of numbers of 32 bits.
#[cfg(target_arch = "x86_64")]
pub(super) fn able() -> bool {
    is_x86_feature_detected!("avx512f")
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::Panels;

#[cfg(not(target_arch = "x86_64"))]
pub(super) use elsewhere::{Panels, able};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use rayon::prelude::*;

    /// Rows of a tile: with [`GROUPS`], 24 running sums in registers.
    const ROWS: usize = 6;
    /// Registers of columns of a tile.
    const GROUPS: usize = 4;
    /// Numbers in a register.
    const LANES: usize = 16;
    /// Columns of a panel.
    const PANEL: usize = GROUPS * LANES;

    /// Weights `[depth, columns]`.
    #[derive(Debug, Clone)]
    pub(crate) struct Panels {
        depth: usize,
        columns: usize,
        weights: Weights,
    }

    /// Panel after panel.
    #[derive(Debug, Clone)]
    enum Weights {
        /// Per row, the number of every column.
        Full(Vec<[f32; PANEL]>),
        /// Per pair of rows, the pair of every column; the lower half is the first row's.
        Half(Vec<[u32; PANEL]>),
    }

    /// Where a panel's columns are written.
    struct Out(*mut f32);

    // SAFETY: see `add_product`, which alone makes and uses it.
    unsafe impl Sync for Out {}

    /// Every panel's rows, made of the weights at `(row, column)`, 0 outside of them.
    fn pack<T: Copy>(
        values: &[f32],
        depth: usize,
        step: usize,
        make: impl Fn(&dyn Fn(usize) -> f32) -> T,
    ) -> Vec<[T; PANEL]> {
        let columns = values.len() / depth;
        let mut panels = Vec::with_capacity(columns.div_ceil(PANEL) * depth.div_ceil(step));
        for first in (0..columns).step_by(PANEL) {
            panels.extend((0..depth).step_by(step).map(|row| -> [T; PANEL] {
                std::array::from_fn(|at| {
                    let column = first + at;
                    make(&|more| {
                        if row + more < depth && column < columns {
                            values[(row + more) * columns + column]
                        } else {
                            0.0
                        }
                    })
                })
            }));
        }
        panels
    }

    fn bits(value: f32) -> u32 {
        u32::from(half::bf16::from_f32(value).to_bits())
    }

    impl Panels {
        pub(in crate::kernels) fn full(values: &[f32], depth: usize) -> Self {
            let weights = Weights::Full(pack(values, depth, 1, |at| at(0)));
            Self { depth, columns: values.len() / depth, weights }
        }

        /// Rounded to bf16.
        pub(in crate::kernels) fn half(values: &[f32], depth: usize) -> Self {
            let weights =
                Weights::Half(pack(values, depth, 2, |at| bits(at(0)) | bits(at(1)) << 16));
            Self { depth, columns: values.len() / depth, weights }
        }

        pub(in crate::kernels) fn depth(&self) -> usize {
            self.depth
        }

        /// As [`Matrix::add_product`](crate::kernels::Matrix::add_product).
        pub(in crate::kernels) fn add_product(
            &self,
            left: &[f32],
            out: &mut [f32],
            (stride, first): (usize, usize),
            parallel: bool,
        ) {
            let (rows, columns) = (left.len() / self.depth, self.columns);
            assert_eq!(left.len(), rows * self.depth, "left is [rows, depth]");
            assert_eq!(out.len(), rows * stride, "out is [rows, stride]");
            assert!(first + columns <= stride, "the columns lie in out");
            if rows == 0 || columns == 0 {
                return;
            }
            let to = Out(out.as_mut_ptr());
            let panels = columns.div_ceil(PANEL);
            // SAFETY, of both products: the processor is asked. Row i of panel number `at` is read
            // and written at out[i * stride + first + at * PANEL + j] for j < its columns, below
            // the length asserted above; panels have columns of their own, and `out` is borrowed
            // mutably.
            let place = |at: usize| {
                let to = &to;
                (to.0.wrapping_add(first + at * PANEL), (columns - at * PANEL).min(PANEL))
            };
            match &self.weights {
                Weights::Full(weights) => {
                    assert!(super::able(), "checked where the weights were packed");
                    each(panels, parallel, |at| {
                        let panel = &weights[at * self.depth..(at + 1) * self.depth];
                        let (to, columns) = place(at);
                        unsafe { multiply_full(left, panel, to, stride, columns) };
                    });
                }
                Weights::Half(weights) => {
                    assert!(super::bf16_products(), "checked where the weights were packed");
                    let pairs = self.depth.div_ceil(2);
                    let mut rounded = vec![0; rows * pairs];
                    unsafe { round(left, self.depth, &mut rounded) };
                    each(panels, parallel, |at| {
                        let panel = &weights[at * pairs..(at + 1) * pairs];
                        let (to, columns) = place(at);
                        unsafe { multiply_half(&rounded, panel, to, stride, columns) };
                    });
                }
            }
        }
    }

    fn each(count: usize, parallel: bool, work: impl Fn(usize) + Sync + Send) {
        if parallel { (0..count).into_par_iter().for_each(work) } else { (0..count).for_each(work) }
    }

    /// Rows `[rows, depth]` as pairs of bf16, `[rows, pairs]`.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn round(rows: &[f32], depth: usize, out: &mut [u32]) {
        for (row, out) in rows.chunks_exact(depth).zip(out.chunks_exact_mut(depth.div_ceil(2))) {
            let (whole, rest) = row.as_chunks::<{ 2 * LANES }>();
            let (out_whole, out_rest) = out.split_at_mut(whole.len() * LANES);
            for (numbers, out) in whole.iter().zip(out_whole.as_chunks_mut::<LANES>().0) {
                // SAFETY: the arrays have two registers of numbers, and one of pairs.
                unsafe {
                    let low = _mm512_loadu_ps(numbers.as_ptr());
                    let high = _mm512_loadu_ps(numbers.as_ptr().add(LANES));
                    let pairs = _mm512_cvtne2ps_pbh(high, low);
                    let pairs = std::mem::transmute::<__m512bh, __m512i>(pairs);
                    _mm512_storeu_si512(out.as_mut_ptr().cast(), pairs);
                }
            }
            for (numbers, out) in rest.chunks(2).zip(out_rest) {
                *out = bits(numbers[0]) | numbers.get(1).map_or(0, |&second| bits(second) << 16);
            }
        }
    }

    /// The products of rows with a panel, given how to load a register of weights, how to repeat a
    /// number of a row in one, and how to add their product to sums.
    macro_rules! products {
        ($multiply:ident, $tile:ident, $features:literal, $number:ty, $load:expr, $repeat:expr, $add:expr) => {
            /// Adds the products of all rows with a panel.
            ///
            /// # Safety
            /// `out` can be read and written at `i * stride + j` for all rows i and `j < columns`.
            #[target_feature(enable = $features)]
            unsafe fn $multiply(
                rows: &[$number],
                panel: &[[$number; PANEL]],
                out: *mut f32,
                stride: usize,
                columns: usize,
            ) {
                for (at, rows) in rows.chunks(ROWS * panel.len()).enumerate() {
                    let out = out.wrapping_add(at * ROWS * stride);
                    // SAFETY: as the caller's, for the rows of this tile.
                    unsafe {
                        match rows.len() / panel.len() {
                            1 => $tile::<1>(rows, panel, out, stride, columns),
                            2 => $tile::<2>(rows, panel, out, stride, columns),
                            3 => $tile::<3>(rows, panel, out, stride, columns),
                            4 => $tile::<4>(rows, panel, out, stride, columns),
                            5 => $tile::<5>(rows, panel, out, stride, columns),
                            _ => $tile::<ROWS>(rows, panel, out, stride, columns),
                        }
                    }
                }
            }

            /// A tile of `R` rows.
            ///
            /// # Safety
            /// As for all rows, for these.
            #[target_feature(enable = $features)]
            unsafe fn $tile<const R: usize>(
                rows: &[$number],
                panel: &[[$number; PANEL]],
                out: *mut f32,
                stride: usize,
                columns: usize,
            ) {
                assert_eq!(rows.len(), R * panel.len());
                let mask = |group: usize| match columns.saturating_sub(group * LANES) {
                    LANES.. => u16::MAX,
                    left => (1 << left) - 1,
                };
                let place =
                    |row: usize, group: usize| out.wrapping_add(row * stride + group * LANES);
                let mut sums = [[_mm512_setzero_ps(); GROUPS]; R];
                for (row, sums) in sums.iter_mut().enumerate() {
                    for (group, sum) in sums.iter_mut().enumerate() {
                        // SAFETY: lanes beyond `columns` are masked, so not read.
                        *sum = unsafe { _mm512_maskz_loadu_ps(mask(group), place(row, group)) };
                    }
                }
                for (at, weights) in panel.iter().enumerate() {
                    // SAFETY: the array has a register for every group.
                    let weights: [_; GROUPS] = std::array::from_fn(|group| unsafe {
                        $load(weights.as_ptr().add(group * LANES))
                    });
                    for (row, sums) in sums.iter_mut().enumerate() {
                        // SAFETY: `at` is below the length of a row, as asserted above.
                        let number = unsafe { *rows.get_unchecked(row * panel.len() + at) };
                        let number = $repeat(number);
                        for (sum, weights) in sums.iter_mut().zip(weights) {
                            *sum = $add(*sum, number, weights);
                        }
                    }
                }
                for (row, sums) in sums.iter().enumerate() {
                    for (group, sum) in sums.iter().enumerate() {
                        // SAFETY: lanes beyond `columns` are masked, so not written.
                        unsafe { _mm512_mask_storeu_ps(place(row, group), mask(group), *sum) };
                    }
                }
            }
        };
    }

    products!(
        multiply_full,
        tile_full,
        "avx512f",
        f32,
        |from: *const f32| _mm512_loadu_ps(from),
        |number| _mm512_set1_ps(number),
        |sum, number, weights| _mm512_fmadd_ps(number, weights, sum)
    );

    products!(
        multiply_half,
        tile_half,
        "avx512f,avx512bw,avx512bf16",
        u32,
        |from: *const u32| std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(
            from.cast()
        )),
        // SAFETY: both are 512 bits.
        |pair: u32| unsafe {
            std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair as i32))
        },
        |sum, pair, weights| _mm512_dpbf16_ps(sum, pair, weights)
    );
}

#[cfg(not(target_arch = "x86_64"))]
mod elsewhere {
    pub(in crate::kernels) fn able() -> bool {
        false
    }

    /// There are none: no processor is able.
    #[derive(Debug, Clone)]
    pub(crate) enum Panels {}

    impl Panels {
        pub(in crate::kernels) fn full(_: &[f32], _: usize) -> Self {
            unreachable!("checked where the weights are packed")
        }

        pub(in crate::kernels) fn half(_: &[f32], _: usize) -> Self {
            unreachable!("checked where the weights are packed")
        }

        pub(in crate::kernels) fn depth(&self) -> usize {
            match *self {}
        }

        pub(in crate::kernels) fn add_product(
            &self,
            _: &[f32],
            _: &mut [f32],
            _: (usize, usize),
            _: bool,
        ) {
            match *self {}
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    /// Twin: the plain double loop, over rounded numbers for bf16; odd depths and widths, few rows.
    #[test]
    fn equals_the_double_loop() {
        type Way = (bool, fn(&[f32], usize) -> Panels, fn(f32) -> f32);
        let number = |at: usize| ((at * 7919 % 2003) as f32 - 1001.0) / 700.0;
        let plain = |value: f32| value;
        let rounded = |value: f32| half::bf16::from_f32(value).to_f32();
        let ways: [Way; 2] =
            [(able(), Panels::full, plain), (bf16_products(), Panels::half, rounded)];
        for (possible, make, rounded) in ways {
            if !possible {
                eprintln!("skipped: this processor has no such instructions");
                continue;
            }
            for (rows, depth, columns) in [
                (1, 1, 1),
                (2, 3, 5),
                (3, 31, 9),
                (7, 33, 64),
                (4, 63, 7),
                (6, 70, 65),
                (13, 384, 130),
            ] {
                let left: Vec<f32> = (0..rows * depth).map(number).collect();
                let right: Vec<f32> = (0..depth * columns).map(|at| number(at + 17)).collect();
                let (stride, first) = (columns + 3, 2);
                for parallel in [false, true] {
                    let mut out = vec![0.5f32; rows * stride];
                    make(&right, depth).add_product(&left, &mut out, (stride, first), parallel);
                    for (row, out) in out.chunks_exact(stride).enumerate() {
                        let outside = out[..first].iter().chain(&out[first + columns..]);
                        assert!(outside.copied().all(|x| x == 0.5));
                        for column in 0..columns {
                            let term = |p: usize| {
                                let (a, b) = (left[row * depth + p], right[p * columns + column]);
                                f64::from(rounded(a)) * f64::from(rounded(b))
                            };
                            let expected = 0.5 + (0..depth).map(term).sum::<f64>();
                            let found = f64::from(out[first + column]);
                            assert!((found - expected).abs() < 1e-4 * (1.0 + expected.abs()));
                        }
                    }
                }
            }
        }
    }
}
