//! Finding the nearest centre of each row, with a seam for other engines.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicUsize, Ordering},
};

use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use crate::kernels::{Screen, ScreenScratch};
use crate::{
    error::{Error, Result},
    kernels::{Layout, dots, squared_distance, squared_norm},
};

/// Finds nearest centres: on the host with [`HostSearch`], or on a device of your own.
///
/// [`KMeansConfig::fit_with_engine`](super::KMeansConfig::fit_with_engine) calls it once an
/// iteration with all rows, so that an engine can cut them as its memory asks for.
///
/// # Example
/// ```
/// use cart_retrieval::expert::{HostSearch, NearestCentre};
/// let (mut index, mut distance) = ([0; 2], [0.0; 2]);
/// HostSearch.nearest(&[0.0, 9.0], 1, &[1.0, 7.0], &mut index, &mut distance)?;
/// assert_eq!((index, distance), ([0, 1], [1.0, 4.0]));
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub trait NearestCentre {
    /// Writes the nearest centre of each row, ties to the smaller index, and its distance.
    ///
    /// # Shapes
    /// - `rows`: `[n, dim]`
    /// - `centres`: `[k, dim]`
    /// - `out_index`: `[n]`
    /// - `out_distance`: `[n]`, squared Euclidean distances
    ///
    /// # Errors
    /// When the shapes contradict each other, or the engine fails.
    fn nearest(
        &self,
        rows: &[f32],
        dim: usize,
        centres: &[f32],
        out_index: &mut [u32],
        out_distance: &mut [f32],
    ) -> Result<()>;
}

/// The default engine: all cores of the current rayon pool.
///
/// Distances come as `||c||^2 / 2 - x.c`, a matrix product over pieces of rows that fit the cache:
/// in 8 bits with bounds on what rounding does where the processor has AVX-512 VNNI, else in 32.
/// Centres whose scores are too close for that form to tell apart are compared by
/// their exact distances, so the answer is that of the plain double loop, and depends neither on
/// the processor nor on the number of threads.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostSearch;

impl NearestCentre for HostSearch {
    fn nearest(
        &self,
        rows: &[f32],
        dim: usize,
        centres: &[f32],
        out_index: &mut [u32],
        out_distance: &mut [f32],
    ) -> Result<()> {
        check_buffers((rows, dim), centres, out_index, out_distance)?;
        let search = Search::new(centres, dim);
        let size = search.piece();
        rows.par_chunks(size * dim)
            .zip(out_index.par_chunks_mut(size))
            .zip(out_distance.par_chunks_mut(size))
            .for_each_init(Scratch::default, |scratch, ((rows, index), distance)| {
                search.piece_nearest(rows, scratch, index);
                search.distances(rows, index, distance);
            });
        Ok(())
    }
}

/// Checks the shapes of a search for nearest centres.
pub(crate) fn check_buffers(
    (rows, dim): (&[f32], usize),
    centres: &[f32],
    index: &[u32],
    distance: &[f32],
) -> Result<()> {
    let whole = dim > 0 && rows.len().is_multiple_of(dim) && centres.len().is_multiple_of(dim);
    let n = rows.len().checked_div(dim).unwrap_or(0);
    let fits = whole && !centres.is_empty() && index.len() == n && distance.len() == n;
    let (values, book, outputs, distances) =
        (rows.len(), centres.len(), index.len(), distance.len());
    Error::quantizer("nearest centres")
        .expected("rows [n, dim], centres [k, dim] with k > 0, and two outputs [n]")
        .found(format!(
            "{values} and {book} values, outputs of {outputs} and {distances}, dim {dim}"
        ))
        .fix_if(!fits, "pass buffers of these shapes")
}

/// Centres made ready for many searches.
pub(crate) struct Search<'a> {
    centres: &'a [f32],
    /// The centres as `layout` says.
    right: Cow<'a, [f32]>,
    layout: Layout,
    dim: usize,
    half_norms: Vec<f32>,
    largest_norm: f32,
    #[cfg(target_arch = "x86_64")]
    screen: Option<Screen>,
    /// Pieces that the screen gave back, for the plain product.
    given_back: AtomicUsize,
}

/// Buffers of one thread.
#[derive(Default)]
pub(crate) struct Scratch {
    dots: Vec<f32>,
    #[cfg(target_arch = "x86_64")]
    screen: ScreenScratch,
}

/// Pieces after which a screen that keeps giving them back is no longer asked.
const PATIENCE: usize = 8;

/// Width up to which transposed centres are measurably faster to multiply with.
const NARROW: usize = 256;
/// Scores held at once by a thread: 1 MiB, the second-level cache of current cores.
const SCORES: usize = 1 << 18;
/// Scores looked at together, so that the compiler can vectorise.
const BLOCK: usize = 16;

impl<'a> Search<'a> {
    /// Prepares centres `[k, dim]` with k and dim above zero.
    pub(crate) fn new(centres: &'a [f32], dim: usize) -> Self {
        Self {
            #[cfg(target_arch = "x86_64")]
            screen: Screen::new(centres, dim),
            ..Self::plain(centres, dim)
        }
    }

    /// As [`Search::new`], for the product in 32 bits only.
    fn plain(centres: &'a [f32], dim: usize) -> Self {
        let norms = centres.chunks_exact(dim).map(squared_norm);
        let largest_norm = norms.clone().fold(0.0, f32::max);
        let half_norms: Vec<f32> = norms.map(|norm| 0.5 * norm).collect();
        let k = half_norms.len();
        let (right, layout) = if dim <= NARROW {
            let mut turned = vec![0.0; centres.len()];
            for (j, centre) in centres.chunks_exact(dim).enumerate() {
                for (p, &value) in centre.iter().enumerate() {
                    turned[p * k + j] = value;
                }
            }
            (Cow::Owned(turned), Layout::Columns)
        } else {
            (Cow::Borrowed(centres), Layout::Rows)
        };
        Self {
            centres,
            right,
            layout,
            dim,
            half_norms,
            largest_norm,
            #[cfg(target_arch = "x86_64")]
            screen: None,
            given_back: AtomicUsize::new(0),
        }
    }

    /// Rows to pass to [`Search::piece_nearest`] at a time.
    pub(crate) fn piece(&self) -> usize {
        #[cfg(target_arch = "x86_64")]
        if let Some(screen) = &self.screen {
            return screen.piece();
        }
        (SCORES / self.half_norms.len()).clamp(64, 512)
    }

    /// One centre.
    pub(crate) fn centre(&self, index: u32) -> &'a [f32] {
        &self.centres[index as usize * self.dim..][..self.dim]
    }

    /// Squared distance of each row to the centre that `index` names, on the calling thread.
    fn distances(&self, rows: &[f32], index: &[u32], out: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(screen) = &self.screen {
            return screen.distances(rows, self.centres, index, out);
        }
        for ((row, &index), out) in rows.chunks_exact(self.dim).zip(index).zip(out) {
            *out = squared_distance(row, self.centre(index));
        }
    }

    /// Nearest centres of all rows.
    pub(crate) fn indices(&self, rows: &[f32]) -> Vec<u32> {
        let size = self.piece();
        let mut index = vec![0; rows.len() / self.dim];
        rows.par_chunks(size * self.dim).zip(index.par_chunks_mut(size)).for_each_init(
            Scratch::default,
            |scratch, (rows, out)| {
                self.piece_nearest(rows, scratch, out);
            },
        );
        index
    }

    /// Nearest centres of one piece of rows, on the calling thread.
    pub(crate) fn piece_nearest(&self, rows: &[f32], scratch: &mut Scratch, out: &mut [u32]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(screen) = &self.screen
            && self.given_back.load(Ordering::Relaxed) < PATIENCE
        {
            if screen.nearest(rows, self.centres, &mut scratch.screen, out) {
                return;
            }
            self.given_back.fetch_add(1, Ordering::Relaxed);
        }
        let scratch = &mut scratch.dots;
        let k = self.half_norms.len();
        scratch.resize(out.len() * k, 0.0);
        dots((out.len(), k, self.dim), rows, &self.right, self.layout, scratch);
        let rows = rows.chunks_exact(self.dim);
        for ((row, dots), out) in rows.zip(scratch.chunks_exact(k)).zip(out) {
            *out = self.best(row, dots);
        }
    }

    /// The nearest centre of one row, given its dot products with all of them.
    fn best(&self, row: &[f32], dots: &[f32]) -> u32 {
        // The score ||c||^2 / 2 - x.c orders centres as distances do. Its rounding error grows
        // with the norms, not with the distance, hence the slack in which scores count as equal.
        let slack = f32::EPSILON
            * (8.0 + (self.dim as f32).sqrt())
            * (squared_norm(row) + self.largest_norm);
        let limit = self.lowest(dots) + slack;
        let mut first = None;
        let mut exact: Option<(f32, usize)> = None;
        for (block, (dots, halves)) in
            dots.chunks(BLOCK).zip(self.half_norms.chunks(BLOCK)).enumerate()
        {
            let near = |(d, h): (&f32, &f32)| h - d <= limit;
            if !dots.iter().zip(halves).fold(false, |any, pair| any | near(pair)) {
                continue;
            }
            for (offset, pair) in dots.iter().zip(halves).enumerate() {
                if !near(pair) {
                    continue;
                }
                let index = block * BLOCK + offset;
                let Some(earlier) = first else {
                    first = Some(index);
                    continue;
                };
                let distance = |index: usize| squared_distance(row, self.centre(index as u32));
                let best = exact.unwrap_or_else(|| (distance(earlier), earlier));
                let here = distance(index);
                exact = Some(if here < best.0 { (here, index) } else { best });
            }
        }
        exact.map(|(_, index)| index).or(first).unwrap_or(0) as u32
    }

    /// The lowest score of a row.
    fn lowest(&self, dots: &[f32]) -> f32 {
        let lower = |a: f32, b: f32| if b < a { b } else { a };
        let mut lanes = [f32::INFINITY; BLOCK];
        let (dots, dots_tail) = dots.as_chunks::<BLOCK>();
        let (halves, halves_tail) = self.half_norms.as_chunks::<BLOCK>();
        for (dots, halves) in dots.iter().zip(halves) {
            for lane in 0..BLOCK {
                lanes[lane] = lower(lanes[lane], halves[lane] - dots[lane]);
            }
        }
        let tail = dots_tail.iter().zip(halves_tail).map(|(d, h)| h - d);
        tail.chain(lanes).fold(f32::INFINITY, lower)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The slow twin: every distance, the first smallest one.
    fn plain(rows: &[f32], dim: usize, centres: &[f32]) -> (Vec<u32>, Vec<f32>) {
        rows.chunks_exact(dim)
            .map(|row| {
                let mut best = (0, f32::INFINITY);
                for (index, centre) in centres.chunks_exact(dim).enumerate() {
                    let distance = squared_distance(row, centre);
                    if distance < best.1 {
                        best = (index as u32, distance);
                    }
                }
                best
            })
            .unzip()
    }

    fn host(rows: &[f32], dim: usize, centres: &[f32]) -> (Vec<u32>, Vec<f32>) {
        let n = rows.len() / dim;
        let (mut index, mut distance) = (vec![0; n], vec![0.0; n]);
        HostSearch.nearest(rows, dim, centres, &mut index, &mut distance).unwrap();
        (index, distance)
    }

    #[test]
    fn ties_go_to_the_smaller_index() {
        let centres = [2.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0];
        assert_eq!(host(&[1.0, 0.0, 0.0, 0.0], 2, &centres).0, [0, 1]);
    }

    #[test]
    fn a_large_common_offset_does_not_blur_distances() {
        // Norms near 1e6 and distances near 1: the matrix form alone has no digit left.
        let centres: Vec<f32> = (0..40).map(|i| 1000.0 + (i * 7 % 40) as f32 * 0.25).collect();
        let rows: Vec<f32> = (0..300).map(|i| 1000.0 + (i * 13 % 80) as f32 * 0.125).collect();
        assert_eq!(host(&rows, 1, &centres), plain(&rows, 1, &centres));
        assert_eq!(host(&rows, 4, &centres), plain(&rows, 4, &centres));
    }

    #[test]
    fn wide_rows_and_many_centres_agree_with_the_plain_loop() {
        let value = |i: usize| ((i * 7919 + 13) % 1009) as f32 / 1009.0 - 0.5;
        for (n, k, dim) in [(700, 300, 20), (50, 5000, 3), (70, 33, 300), (500, 700, 64)] {
            let rows: Vec<f32> = (0..n * dim).map(value).collect();
            let centres: Vec<f32> = (0..k * dim).map(|i| value(i + 31)).collect();
            assert_eq!(host(&rows, dim, &centres), plain(&rows, dim, &centres));
            assert_eq!(Search::new(&centres, dim).indices(&rows), plain(&rows, dim, &centres).0);
            assert_eq!(Search::plain(&centres, dim).indices(&rows), plain(&rows, dim, &centres).0);
        }
    }

    #[test]
    fn centres_that_bounds_cannot_tell_apart_are_told_apart() {
        // Pairs of far groups; within a group, differences far below what 8 bits see.
        let value = |i: usize| ((i * 7919 + 13) % 1009) as f32 / 1009.0 - 0.5;
        let dim = 40;
        let make = |n: usize, shift: usize| -> Vec<f32> {
            (0..n * dim).map(|i| 1000.0 * (i / dim % 2) as f32 + value(i + shift)).collect()
        };
        let (rows, centres) = (make(2000, 5), make(300, 77));
        assert_eq!(host(&rows, dim, &centres), plain(&rows, dim, &centres));
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let mut one = ([0], [0.0]);
        for (rows, dim, centres) in
            [(&[1.0_f32, 2.0][..], 1, &[1.0_f32][..]), (&[1.0], 0, &[1.0]), (&[1.0], 1, &[])]
        {
            assert!(HostSearch.nearest(rows, dim, centres, &mut one.0, &mut one.1).is_err());
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_plain_loop(
            dim in 1_usize..20,
            offset in -50.0_f32..50.0,
            rows in prop::collection::vec(-3_i8..=3, 0..600),
            centres in prop::collection::vec(-3_i8..=3, 20..400),
        ) {
            // Few distinct values: many exact ties.
            let make = |values: Vec<i8>| -> Vec<f32> {
                let whole = values.len() / dim * dim;
                values[..whole].iter().map(|&v| f32::from(v) * 0.3 + offset).collect()
            };
            let (rows, centres) = (make(rows), make(centres));
            prop_assert_eq!(host(&rows, dim, &centres), plain(&rows, dim, &centres));
        }
    }
}
