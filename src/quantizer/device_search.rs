//! Nearest centres on a burn backend, so that K-Means runs where the network does.

use burn::tensor::{Tensor, TensorData, backend::Backend};

use super::{NearestCentre, nearest_codes};
use crate::error::{Error, Result};

/// Rows sent to the device at once.
const CHUNK: usize = 16_384;

/// An engine for K-Means and RQ-KMeans that multiplies on the device of a backend.
///
/// Near-ties may fall otherwise than with [`HostSearch`](super::HostSearch), which resolves them
/// exactly.
///
/// # Example
/// ```
/// use burn::backend::Flex;
/// use cart_retrieval::{cancel::Monitor, expert::DeviceSearch, quantizer::KMeansConfig};
/// let rows = [0.0_f32, 0.1, 5.0, 5.1];
/// let engine = DeviceSearch::<Flex>::new(Default::default());
/// let fitted = KMeansConfig::new(2)
///     .fit_with_engine(&(rows.as_slice(), 1), &engine, &Monitor::new())?;
/// assert_eq!(fitted.predict(&[4.0])?, fitted.predict(&[5.0])?);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct DeviceSearch<B: Backend> {
    device: B::Device,
}

impl<B: Backend> DeviceSearch<B> {
    /// An engine on a device.
    pub fn new(device: B::Device) -> Self {
        Self { device }
    }
}

impl<B: Backend> NearestCentre for DeviceSearch<B> {
    fn nearest(
        &self,
        rows: &[f32],
        dim: usize,
        centres: &[f32],
        out_index: &mut [u32],
        out_distance: &mut [f32],
    ) -> Result<()> {
        let whole = dim > 0 && rows.len().is_multiple_of(dim) && centres.len().is_multiple_of(dim);
        let n = rows.len().checked_div(dim).unwrap_or(0);
        if !whole || centres.is_empty() || out_index.len() != n || out_distance.len() != n {
            return Err(Error::quantizer("nearest centres")
                .expected("rows and centres of one width and an output for each row")
                .found(format!(
                    "{} and {} values of width {dim}, {} outputs",
                    rows.len(),
                    centres.len(),
                    out_index.len()
                ))
                .fix("pass row-major [n, dim] and [k, dim] buffers"));
        }
        let book = Tensor::<B, 2>::from_data(
            TensorData::new(centres.to_vec(), [centres.len() / dim, dim]),
            &self.device,
        );
        let outputs = out_index.chunks_mut(CHUNK).zip(out_distance.chunks_mut(CHUNK));
        for (chunk, (index, distance)) in rows.chunks(CHUNK * dim).zip(outputs) {
            let table = Tensor::<B, 2>::from_data(
                TensorData::new(chunk.to_vec(), [index.len(), dim]),
                &self.device,
            );
            let nearest = nearest_codes(table.clone(), book.clone());
            let gap = table - book.clone().select(0, nearest.clone());
            let squared = gap.square().sum_dim(1).into_data();
            for (out, value) in index.iter_mut().zip(nearest.into_data().iter::<i64>()) {
                *out = value as u32;
            }
            for (out, value) in distance.iter_mut().zip(squared.iter::<f32>()) {
                *out = value;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;
    use crate::quantizer::HostSearch;

    #[test]
    fn agrees_with_the_host() {
        let value = |i: usize| ((i * 37 % 101) as f32 * 0.618).sin();
        let rows: Vec<f32> = (0..300 * 7).map(value).collect();
        let centres: Vec<f32> = (0..11 * 7).map(|i| value(i * 3 + 1)).collect();
        let run = |engine: &dyn NearestCentre| {
            let (mut index, mut distance) = (vec![0; 300], vec![0.0; 300]);
            engine.nearest(&rows, 7, &centres, &mut index, &mut distance).unwrap();
            (index, distance)
        };
        let (host, device) =
            (run(&HostSearch), run(&DeviceSearch::<Flex>::new(Default::default())));
        assert_eq!(host.0, device.0);
        for (a, b) in host.1.iter().zip(&device.1) {
            approx::assert_abs_diff_eq!(a, b, epsilon = 1e-4);
        }
    }

    #[test]
    fn contradicting_shapes_are_refused() {
        let engine = DeviceSearch::<Flex>::new(Default::default());
        let refused = engine.nearest(&[0.0; 3], 2, &[0.0; 2], &mut [0], &mut [0.0]);
        assert!(matches!(refused.unwrap_err(), Error::Quantizer(_)));
    }
}
