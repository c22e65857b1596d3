//! Dot products of two sets of vectors by `gemm`, behind a checked and safe face.
#![allow(unsafe_code)]

use gemm::{Parallelism, gemm};

/// How the right-hand vectors lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `[cols, depth]`: one vector after the other.
    Rows,
    /// `[depth, cols]`: transposed, which `gemm` reads faster for narrow vectors.
    Columns,
}

/// All dot products of two sets of vectors, on the calling thread.
///
/// # Shapes
/// - `left`: `[rows, depth]`, row-major
/// - `right`: `cols` vectors of width `depth`, as `layout` says
/// - `out`: `[rows, cols]`, row-major, overwritten
///
/// # Panics
/// When a slice has another length than its shape.
pub fn dots(
    (rows, cols, depth): (usize, usize, usize),
    left: &[f32],
    right: &[f32],
    layout: Layout,
    out: &mut [f32],
) {
    let product = |a: usize, b: usize| a.checked_mul(b).expect("a shape fits in memory");
    assert_eq!(left.len(), product(rows, depth), "left is [rows, depth]");
    assert_eq!(right.len(), product(cols, depth), "right is [cols, depth] or [depth, cols]");
    assert_eq!(out.len(), product(rows, cols), "out is [rows, cols]");
    let (right_row_stride, right_col_stride) = match layout {
        Layout::Rows => (1, depth as isize),
        Layout::Columns => (cols as isize, 1),
    };
    // SAFETY: with the strides below `gemm` reads left[i * depth + p] for i < rows, p < depth,
    // reads right[p * right_row_stride + j * right_col_stride] for p < depth, j < cols, and writes
    // out[i * cols + j]. The largest of each index is one less than the length asserted above, and
    // a slice's length fits in isize. `out` is borrowed mutably, so it overlaps neither input.
    // `read_dst` is false, so nothing is read from `out`.
    unsafe {
        gemm(
            rows,
            cols,
            depth,
            out.as_mut_ptr(),
            1,
            cols as isize,
            false,
            left.as_ptr(),
            1,
            depth as isize,
            right.as_ptr(),
            right_col_stride,
            right_row_stride,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_three_loops_in_both_layouts() {
        for (rows, cols, depth) in [(0, 3, 2), (1, 1, 1), (3, 5, 7), (17, 33, 65), (4, 2, 0)] {
            let value = |i: usize| ((i * 37 + 11) % 23) as f32 - 11.0;
            let left: Vec<f32> = (0..rows * depth).map(value).collect();
            let right: Vec<f32> = (0..cols * depth).map(|i| value(i + 5)).collect();
            let mut turned = vec![0.0; cols * depth];
            let mut expected = vec![0.0; rows * cols];
            for j in 0..cols {
                for p in 0..depth {
                    turned[p * cols + j] = right[j * depth + p];
                    for i in 0..rows {
                        expected[i * cols + j] += left[i * depth + p] * right[j * depth + p];
                    }
                }
            }
            // Small whole numbers: every sum is exact, so the order of additions does not matter.
            for (layout, right) in [(Layout::Rows, &right), (Layout::Columns, &turned)] {
                let mut out = vec![f32::NAN; rows * cols];
                dots((rows, cols, depth), &left, right, layout, &mut out);
                assert_eq!(out, expected, "{rows} x {cols} x {depth}, {layout:?}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "out is [rows, cols]")]
    fn refuses_a_wrong_length() {
        dots((2, 2, 1), &[1.0, 2.0], &[1.0, 2.0], Layout::Rows, &mut [0.0; 3]);
    }
}
