//! Embeddings of items from several views of each: frames of a video, stretches of a sound.

use burn::tensor::{Tensor, backend::Backend};
use cart_media::MediaItem;
use cart_retrieval::Result;
use rayon::prelude::*;

/// Views encoded at once.
const BATCH: usize = 32;

/// What makes embeddings of items out of those of their views: unit vectors, the mean of them, of
/// unit length again.
///
/// `views` reads an item, on several threads; `embed` turns as many views as it is told, one behind
/// the other, into `[views, dim]`. Items are taken so many at a time that their views, at most
/// `most` each, make a batch.
pub(super) fn embed_views<B: Backend>(
    items: &[MediaItem],
    most: usize,
    views: impl Fn(&MediaItem) -> Result<Vec<Vec<f32>>> + Sync,
    embed: impl Fn(Vec<f32>, usize) -> Tensor<B, 2>,
) -> Vec<Result<Vec<f32>>> {
    let group = |items: &[MediaItem]| -> Vec<Result<Vec<f32>>> {
        let read: Vec<Result<Vec<Vec<f32>>>> = items.par_iter().map(&views).collect();
        let all: Vec<&Vec<f32>> = read.iter().flatten().flatten().collect();
        let mut vectors = Vec::with_capacity(all.len());
        for batch in all.chunks(BATCH) {
            let values: Vec<f32> = batch.iter().copied().flatten().copied().collect();
            let found = embed(values, batch.len());
            let [_, dim] = found.dims();
            let found: Vec<f32> = found.into_data().iter::<f32>().collect();
            vectors.extend(found.chunks_exact(dim).map(unit));
        }
        let mut vectors = vectors.into_iter();
        let mut mean = |views: Vec<Vec<f32>>| {
            let mut sum: Vec<f32> = Vec::new();
            for vector in vectors.by_ref().take(views.len()) {
                sum.resize(vector.len(), 0.0);
                sum.iter_mut().zip(vector).for_each(|(sum, value)| *sum += value);
            }
            unit(&sum)
        };
        read.into_iter().map(|item| item.map(&mut mean)).collect()
    };
    items.chunks((BATCH / most.max(1)).max(1)).flat_map(group).collect()
}

fn unit(row: &[f32]) -> Vec<f32> {
    let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
    row.iter().map(|value| value / length.max(f32::MIN_POSITIVE)).collect()
}

/// Starts of `count` stretches of `length` seconds, evenly over a sound of `seconds`, from its
/// beginning to its end.
pub(super) fn stretches(seconds: f64, length: f64, count: usize) -> Vec<f64> {
    let last = (seconds - length).max(0.0);
    let step = last / count.saturating_sub(1).max(1) as f64;
    (0..count.max(1)).map(|number| number as f64 * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_lie_evenly_and_end_with_the_sound() {
        assert_eq!(stretches(10.0, 2.0, 3), [0.0, 4.0, 8.0]);
        assert_eq!(stretches(1.0, 2.0, 3), [0.0, 0.0, 0.0]);
        assert_eq!(stretches(10.0, 2.0, 1), [0.0]);
    }
}
