//! Nearest centres on a burn backend, so that K-Means runs where the network does.

use burn::tensor::{Tensor, TensorData, backend::Backend};

use super::{NearestCentre, kmeans::check_buffers, nearest_codes};
use crate::error::Result;

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
        check_buffers((rows, dim), centres, out_index, out_distance)?;
        let matrix = |rows: &[f32]| {
            let data = TensorData::new(rows.to_vec(), [rows.len() / dim, dim]);
            Tensor::<B, 2>::from_data(data, &self.device)
        };
        let book = matrix(centres);
        let outputs = out_index.chunks_mut(CHUNK).zip(out_distance.chunks_mut(CHUNK));
        for (chunk, (index, distance)) in rows.chunks(CHUNK * dim).zip(outputs) {
            let table = matrix(chunk);
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
    use crate::{error::Error, quantizer::HostSearch};

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
