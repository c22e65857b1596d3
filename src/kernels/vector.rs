//! Plain sums over vectors, each in a fixed order.

/// The L2 norm; in `f64`, where squares of `f32` neither overflow nor vanish.
pub(crate) fn norm(row: &[f32]) -> f64 {
    row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

/// Scales a vector to length 1; a zero vector stays, and one with NaN becomes NaN.
pub fn normalise(row: &mut [f32]) {
    let norm = norm(row);
    if norm != 0.0 {
        row.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
    }
}

/// Dot product in a fixed order of sixteen running sums.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    let (a16, b16) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = a16.remainder().iter().zip(b16.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a16.zip(b16) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// Squared Euclidean distance of two rows of equal width.
///
/// Sixteen running sums in a fixed order: the compiler can vectorise them, and the result depends
/// on nothing but the two rows. Always inline, to become wider where the caller may use more.
#[inline(always)]
pub(crate) fn squared_distance(left: &[f32], right: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0_f32; LANES];
    let (left_body, left_tail) = left.as_chunks::<LANES>();
    let (right_body, right_tail) = right.as_chunks::<LANES>();
    for (a, b) in left_body.iter().zip(right_body) {
        for lane in 0..LANES {
            let difference = a[lane] - b[lane];
            sums[lane] += difference * difference;
        }
    }
    let tail: f32 = left_tail.iter().zip(right_tail).map(|(a, b)| (a - b) * (a - b)).sum();
    sums.iter().sum::<f32>() + tail
}

/// Squared Euclidean norm of a row, summed as [`squared_distance`] does.
#[inline(always)]
pub(crate) fn squared_norm(row: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0_f32; LANES];
    let (body, tail) = row.as_chunks::<LANES>();
    for a in body {
        for lane in 0..LANES {
            sums[lane] += a[lane] * a[lane];
        }
    }
    sums.iter().sum::<f32>() + tail.iter().map(|a| a * a).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_agree_with_the_plain_sum() {
        for dim in [1, 15, 16, 17, 100] {
            let a: Vec<f32> = (0..dim).map(|i| (i % 7) as f32).collect();
            let b: Vec<f32> = (0..dim).map(|i| (i % 5) as f32).collect();
            let plain: f32 = a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum();
            assert_eq!(squared_distance(&a, &b), plain);
            assert_eq!(squared_norm(&a), a.iter().map(|a| a * a).sum::<f32>());
        }
    }
}
