//! Nearest codes on the device.

use burn::tensor::{Int, Tensor, backend::Backend};

/// The nearest code of each row, in the form `|e|^2 - 2 r e` (the row's own norm changes nothing).
///
/// # Shapes
/// - `rows`: `[n, d]`
/// - `codebook`: `[k, d]`
/// - returns: `[n]`
pub fn nearest_codes<B: Backend>(rows: Tensor<B, 2>, codebook: Tensor<B, 2>) -> Tensor<B, 1, Int> {
    let [n, _] = rows.dims();
    let [k, _] = codebook.dims();
    let norms = codebook.clone().square().sum_dim(1).reshape([1, k]);
    // The factor goes to the smaller matrix; being a power of two it changes no digit.
    let distance = norms + rows.matmul(codebook.mul_scalar(-2.0).transpose());
    distance.argmin(1).reshape([n])
}

/// Greedy codes of every level, with what the codes leave of each row.
///
/// # Shapes
/// - `rows`: `[n, d]`
/// - `codebooks`: per level `[k, d]`
/// - returns: per level `[n]`, and the residual `[n, d]`
pub fn assign_nearest<B: Backend>(
    rows: Tensor<B, 2>,
    codebooks: &[Tensor<B, 2>],
) -> (Vec<Tensor<B, 1, Int>>, Tensor<B, 2>) {
    let mut residual = rows;
    let mut codes = Vec::with_capacity(codebooks.len());
    for codebook in codebooks {
        let nearest = nearest_codes(residual.clone(), codebook.clone());
        residual = residual - codebook.clone().select(0, nearest.clone());
        codes.push(nearest);
    }
    (codes, residual)
}
