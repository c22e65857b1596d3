//! Bounds on distances from 8-bit products, for processors that multiply these four times as fast.
//!
//! Rows and centres are rounded to 8 bits after a common shift. The error of a product of rounded
//! vectors is at most `|x - x'| |c| + |x'| |c - c'|` (Cauchy-Schwarz), and both differences are
//! measured, not estimated. So the bounds hold, and the few centres that may be the nearest one
//! are then compared exactly: the answer is that of the plain double loop.
//!
//! The instruction is `VPDPBUSD` of AVX-512 VNNI (Intel since Ice Lake, AMD since Zen 4).
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::vector::{squared_distance, squared_norm};

/// Rows of a tile: with [`GROUPS`], 24 running sums in registers.
const ROWS: usize = 6;
/// Rows of a tile of a few queries.
const FEW: usize = 4;
/// Registers of centres of a tile.
const GROUPS: usize = 4;
/// Numbers in a register.
const LANES: usize = 16;
/// Centres of a panel.
pub(crate) const PANEL: usize = GROUPS * LANES;
/// Values multiplied by one instruction in each lane.
const STEP: usize = 4;
/// Added to the 8-bit values of centres, which the instruction takes without a sign.
const OFFSET: i32 = 128;
/// Bounds held at once by a thread: 256 KiB, which share the second-level cache with the centres.
const BOUNDS: usize = 1 << 16;
/// Widest rows whose products surely fit 32 bits: 2^31 / (255 * 127), rounded down.
const WIDEST: usize = 1 << 16;
/// Below this many centres or dimensions rounding costs more than it saves.
const LEAST: usize = 32;

/// Centres made ready for bounds.
pub(crate) struct Screen {
    dim: usize,
    k: usize,
    /// Common shift of rows and centres: the mean of the centres, `[dim]`.
    shift: Vec<f32>,
    /// For each panel and each step of four dimensions, four values of each of its centres.
    packed: Vec<[u8; PANEL * STEP]>,
    /// For each group of centres, what its lanes need.
    groups: Vec<Group>,
    largest_norm: f32,
}

/// Figures of 16 centres, shifted.
#[derive(Clone)]
struct Group {
    /// Half the squared norm; infinite where there is no centre.
    half: [f32; LANES],
    /// What a unit of the rounded values stands for.
    unit: [f32; LANES],
    /// Norm.
    norm: [f32; LANES],
    /// Norm of what rounding changed.
    error: [f32; LANES],
}

/// Buffers of one thread.
#[derive(Default)]
pub(crate) struct ScreenScratch {
    /// Rounded rows, four values in each number: `[rows, steps]`.
    rounded: Vec<i32>,
    figures: Vec<Row>,
    /// Lower bounds of the scores: `[rows, centres, padded to panels]`.
    lower: Vec<f32>,
    /// Upper bound of the lowest score of each row, by lane.
    upper: Vec<[f32; LANES]>,
    near: Vec<u32>,
    /// Where the centres of each row start in `near`.
    starts: Vec<usize>,
}

/// A few vectors, rounded; made by [`Screen::queries`].
pub(crate) struct Queries {
    n: usize,
    rounded: Vec<i32>,
    figures: Vec<Row>,
}

/// Figures of a shifted row.
#[derive(Clone, Copy, Default)]
struct Row {
    /// Squared norm.
    square: f32,
    unit: f32,
    /// Norm of the rounded row.
    norm: f32,
    error: f32,
    /// [`OFFSET`] times the sum of the rounded values.
    offset: i32,
    slack: f32,
}

impl Screen {
    /// Prepares centres `[k, dim]`, where the processor can and it pays.
    pub(crate) fn new(centres: &[f32], dim: usize) -> Option<Self> {
        let k = centres.len() / dim;
        let able = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni");
        if !able || k < LEAST || !(LEAST..=WIDEST).contains(&dim) {
            return None;
        }
        // SAFETY: the processor has just been asked.
        Some(unsafe { Self::new_avx512(centres, dim) })
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn new_avx512(centres: &[f32], dim: usize) -> Self {
        let k = centres.len() / dim;
        let mut sums = vec![0.0_f64; dim];
        for centre in centres.chunks_exact(dim) {
            sums.iter_mut().zip(centre).for_each(|(sum, &value)| *sum += f64::from(value));
        }
        let shift: Vec<f32> = sums.iter().map(|sum| (sum / k as f64) as f32).collect();

        let (panels, steps) = (k.div_ceil(PANEL), dim.div_ceil(STEP));
        let empty = Group {
            half: [f32::INFINITY; LANES],
            unit: [0.0; LANES],
            norm: [0.0; LANES],
            error: [0.0; LANES],
        };
        let mut groups = vec![empty; panels * GROUPS];
        let mut packed = vec![[OFFSET as u8; PANEL * STEP]; panels * steps];
        let mut largest_norm = 0.0_f32;
        let mut shifted = vec![0.0; dim];
        for (j, centre) in centres.chunks_exact(dim).enumerate() {
            for ((shifted, value), shift) in shifted.iter_mut().zip(centre).zip(&shift) {
                *shifted = value - shift;
            }
            let largest = shifted.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
            let (unit, inverse) = unit_of(largest);
            let mut error = 0.0_f32;
            for (p, &value) in shifted.iter().enumerate() {
                // At most 127 by the choice of the unit.
                let rounded = (value * inverse).round_ties_even();
                let gap = value - rounded * unit;
                error += gap * gap;
                packed[j / PANEL * steps + p / STEP][j % PANEL * STEP + p % STEP] =
                    (rounded as i32 + OFFSET) as u8;
            }
            let norm = squared_norm(&shifted);
            let (group, lane) = (&mut groups[j / LANES], j % LANES);
            group.half[lane] = 0.5 * norm;
            group.unit[lane] = unit;
            group.norm[lane] = norm.sqrt() * safety(dim);
            group.error[lane] = error.sqrt() * safety(dim);
            largest_norm = largest_norm.max(norm);
        }
        Self { dim, k, shift, packed, groups, largest_norm }
    }

    /// Squared distance of each row to the centre that `index` names.
    ///
    /// # Panics
    /// When the shapes contradict each other, or an index is no centre.
    pub(crate) fn distances(&self, rows: &[f32], centres: &[f32], index: &[u32], out: &mut [f32]) {
        // SAFETY: `new` has asked the processor for these instructions.
        unsafe { self.distances_avx512(rows, centres, index, out) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn distances_avx512(&self, rows: &[f32], centres: &[f32], index: &[u32], out: &mut [f32]) {
        for ((row, &index), out) in rows.chunks_exact(self.dim).zip(index).zip(out) {
            *out = squared_distance(row, &centres[index as usize * self.dim..][..self.dim]);
        }
    }

    /// Rows to pass to [`Screen::nearest`] at a time.
    pub(crate) fn piece(&self) -> usize {
        let rows = BOUNDS / (self.groups.len() * LANES);
        rows.clamp(4 * ROWS, 16 * ROWS) / ROWS * ROWS
    }

    /// Writes the nearest centre of each row; `false`, with nothing written, when so many centres
    /// are near that the plain product is faster.
    ///
    /// # Panics
    /// When `rows` is not `[out.len(), dim]`, or `centres` are not those of `new`.
    pub(crate) fn nearest(
        &self,
        rows: &[f32],
        centres: &[f32],
        scratch: &mut ScreenScratch,
        out: &mut [u32],
    ) -> bool {
        assert_eq!(rows.len(), out.len() * self.dim, "rows are [n, dim]");
        assert_eq!(centres.len(), self.k * self.dim, "centres are [k, dim]");
        // SAFETY: `new` has asked the processor for these instructions.
        unsafe { self.nearest_avx512(rows, centres, scratch, out) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn nearest_avx512(
        &self,
        rows: &[f32],
        centres: &[f32],
        scratch: &mut ScreenScratch,
        out: &mut [u32],
    ) -> bool {
        let (n, steps) = (out.len(), self.dim.div_ceil(STEP));
        let (padded, width) = (n.next_multiple_of(ROWS), self.groups.len() * LANES);
        scratch.rounded.resize(padded * steps, 0);
        scratch.figures.resize(padded, Row::default());
        scratch.lower.resize(padded * width, 0.0);
        scratch.upper.clear();
        scratch.upper.resize(padded, [f32::INFINITY; LANES]);
        for ((row, rounded), figures) in rows
            .chunks_exact(self.dim)
            .zip(scratch.rounded.chunks_exact_mut(steps))
            .zip(&mut scratch.figures)
        {
            *figures = self.round(row, rounded);
        }
        // A panel of centres stays in the nearest cache while all rows pass.
        for (panel, (packed, groups)) in
            self.packed.chunks_exact(steps).zip(self.groups.chunks_exact(GROUPS)).enumerate()
        {
            for (tile, ((rounded, figures), upper)) in scratch
                .rounded
                .chunks_exact(ROWS * steps)
                .zip(scratch.figures.chunks_exact(ROWS))
                .zip(scratch.upper.chunks_exact_mut(ROWS))
                .enumerate()
            {
                let sums = products::<ROWS>(rounded, packed);
                let lower = &mut scratch.lower[tile * ROWS * width + panel * PANEL..];
                bounds(&sums, figures, groups, lower, width, upper);
            }
        }
        scratch.near.clear();
        scratch.starts.clear();
        for ((lower, upper), figures) in
            scratch.lower.chunks_exact(width).zip(&scratch.upper).zip(&scratch.figures).take(n)
        {
            scratch.starts.push(scratch.near.len());
            let limit = _mm512_reduce_min_ps(load(upper)) + figures.slack;
            let limit = _mm512_set1_ps(limit);
            for (group, lower) in lower.as_chunks::<LANES>().0.iter().enumerate() {
                let mut mask = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(load(lower), limit);
                while mask != 0 {
                    scratch.near.push((group * LANES) as u32 + mask.trailing_zeros());
                    mask &= mask - 1;
                }
            }
        }
        scratch.starts.push(scratch.near.len());
        // An exact distance costs about as much as four of the plain product.
        if scratch.near.len() > n * self.k.div_ceil(8) {
            return false;
        }
        for ((row, ends), out) in
            rows.chunks_exact(self.dim).zip(scratch.starts.windows(2)).zip(out)
        {
            let near = &scratch.near[ends[0]..ends[1]];
            let mut best = (f32::INFINITY, near.first().copied().unwrap_or(0));
            if near.len() > 1 {
                for &index in near {
                    let centre = &centres[index as usize * self.dim..][..self.dim];
                    let distance = squared_distance(row, centre);
                    if distance < best.0 {
                        best = (distance, index);
                    }
                }
            }
            *out = best.1;
        }
        true
    }

    /// Rounds a few vectors to be compared with all centres, `[n, dim]`.
    pub(crate) fn queries(&self, vectors: &[f32]) -> Queries {
        // SAFETY: `new` has asked the processor for these instructions.
        unsafe { self.queries_avx512(vectors) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn queries_avx512(&self, vectors: &[f32]) -> Queries {
        let (n, steps) = (vectors.len() / self.dim, self.dim.div_ceil(STEP));
        let padded = n.next_multiple_of(FEW);
        let mut rounded = vec![0; padded * steps];
        let mut figures = vec![Row::default(); padded];
        for ((vector, rounded), figures) in
            vectors.chunks_exact(self.dim).zip(rounded.chunks_exact_mut(steps)).zip(&mut figures)
        {
            *figures = self.round(vector, rounded);
        }
        Queries { n, rounded, figures }
    }

    /// Finds all centres from `first` on that may be nearer to a query than `limits` say; calls
    /// `found` with the number of the query and that of the centre, which ascends for each query.
    ///
    /// # Shapes
    /// - `first`: a multiple of [`PANEL`]
    /// - `limits`: squared distances, one for each centre from `first` on that is looked at, a
    ///   multiple of [`PANEL`] of them; 0 behind the last centre
    pub(crate) fn nearer(
        &self,
        queries: &Queries,
        first: usize,
        limits: &[f32],
        found: impl FnMut(usize, usize),
    ) {
        // SAFETY: `new` has asked the processor for these instructions.
        unsafe { self.nearer_avx512(queries, first, limits, found) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn nearer_avx512(
        &self,
        queries: &Queries,
        first: usize,
        limits: &[f32],
        mut found: impl FnMut(usize, usize),
    ) {
        let steps = self.dim.div_ceil(STEP);
        let panels = self.packed.chunks_exact(steps).zip(self.groups.chunks_exact(GROUPS));
        let limits = limits.as_chunks::<PANEL>().0;
        for (panel, ((packed, groups), limits)) in
            panels.skip(first / PANEL).zip(limits).enumerate()
        {
            let tiles = queries.rounded.chunks_exact(FEW * steps);
            for (tile, (rounded, figures)) in
                tiles.zip(queries.figures.chunks_exact(FEW)).enumerate()
            {
                let sums = products::<FEW>(rounded, packed);
                for (row, (sums, figures)) in sums.iter().zip(figures).enumerate() {
                    let query = tile * FEW + row;
                    if query >= queries.n {
                        break;
                    }
                    // |x - c|^2 is twice the score, and |x|^2.
                    let square = _mm512_set1_ps(figures.square - 2.0 * figures.slack);
                    let limits = limits.as_chunks::<LANES>().0;
                    for (group, ((sum, figures_of), limits)) in
                        sums.iter().zip(groups).zip(limits).enumerate()
                    {
                        let (score, error) = score(*sum, figures, figures_of);
                        let low = _mm512_sub_ps(score, error);
                        let low = _mm512_fmadd_ps(_mm512_set1_ps(2.0), low, square);
                        let mut mask = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(low, load(limits));
                        while mask != 0 {
                            let lane = mask.trailing_zeros() as usize;
                            found(query, first + panel * PANEL + group * LANES + lane);
                            mask &= mask - 1;
                        }
                    }
                }
            }
        }
    }

    /// Shifts a row and rounds it to 8 bits.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn round(&self, row: &[f32], rounded: &mut [i32]) -> Row {
        let (body, tail) = row.as_chunks::<LANES>();
        let (shifts, shifts_tail) = self.shift.as_chunks::<LANES>();
        // The rest of the row, with zeros behind it.
        let mut last = [0.0; LANES];
        for ((last, value), shift) in last.iter_mut().zip(tail).zip(shifts_tail) {
            *last = value - shift;
        }
        let last = load(&last);
        let mut largest = _mm512_abs_ps(last);
        for (values, shift) in body.iter().zip(shifts) {
            let shifted = _mm512_sub_ps(load(values), load(shift));
            largest = _mm512_max_ps(largest, _mm512_abs_ps(shifted));
        }
        let (unit, inverse) = unit_of(_mm512_reduce_max_ps(largest));
        let (units, inverses) = (_mm512_set1_ps(unit), _mm512_set1_ps(inverse));
        let (mut squares, mut errors) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        let mut sum = _mm512_setzero_si512();
        let mut turn = |shifted: __m512| -> [i32; STEP] {
            let whole = _mm512_cvtps_epi32(_mm512_mul_ps(shifted, inverses));
            let gap = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(whole), units, shifted);
            squares = _mm512_fmadd_ps(shifted, shifted, squares);
            errors = _mm512_fmadd_ps(gap, gap, errors);
            sum = _mm512_add_epi32(sum, whole);
            let bytes = _mm512_cvtsepi32_epi8(whole);
            let mut words = [0; STEP];
            // SAFETY: `words` has the 16 bytes that are written.
            unsafe { _mm_storeu_si128(words.as_mut_ptr().cast(), bytes) };
            words
        };
        let (words, words_tail) = rounded.as_chunks_mut::<STEP>();
        let mut words = words.iter_mut();
        for ((values, shift), words) in body.iter().zip(shifts).zip(words.by_ref()) {
            *words = turn(_mm512_sub_ps(load(values), load(shift)));
        }
        if !tail.is_empty() {
            let found = turn(last);
            match words.next() {
                Some(words) => *words = found,
                None => words_tail.copy_from_slice(&found[..words_tail.len()]),
            }
        }
        let square = _mm512_reduce_add_ps(squares);
        let error = _mm512_reduce_add_ps(errors).sqrt() * safety(self.dim);
        Row {
            square,
            unit,
            norm: square.sqrt() * safety(self.dim) + error,
            error,
            offset: _mm512_reduce_add_epi32(sum).wrapping_mul(OFFSET),
            // What sums in 32 bits may be off, as in the plain search; and so much that squares
            // which are too small for 32 bits are all compared.
            slack: f32::EPSILON * (16.0 + (self.dim as f32).sqrt()) * (square + self.largest_norm)
                + 1e-30,
        }
    }
}

/// What a unit stands for so that `largest` becomes 127, and its inverse.
fn unit_of(largest: f32) -> (f32, f32) {
    // So small that the inverse is infinite: all values become 0, and the error is all there is.
    let inverse = 127.0 / largest;
    if inverse.is_finite() && largest > f32::MIN_POSITIVE {
        (largest / 127.0, inverse)
    } else {
        (0.0, 0.0)
    }
}

/// A factor for norms of `dim` values that were summed in 32 bits.
fn safety(dim: usize) -> f32 {
    1.0 + (dim as f32 + 8.0) * f32::EPSILON
}

#[target_feature(enable = "avx512f")]
fn load(values: &[f32; LANES]) -> __m512 {
    // SAFETY: the array has the 64 bytes that are read.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

/// Products of some rows with the 64 centres of a panel.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn products<const R: usize>(
    rounded: &[i32],
    packed: &[[u8; PANEL * STEP]],
) -> [[__m512i; GROUPS]; R] {
    let steps = packed.len();
    let rows: [&[i32]; R] = std::array::from_fn(|row| &rounded[row * steps..][..steps]);
    let mut sums = [[_mm512_setzero_si512(); GROUPS]; R];
    for (step, packed) in packed.iter().enumerate() {
        let packed = packed.as_chunks::<{ LANES * STEP }>().0;
        let mut centres = [_mm512_setzero_si512(); GROUPS];
        for group in 0..GROUPS {
            // SAFETY: the chunk has the 64 bytes that are read.
            centres[group] = unsafe { _mm512_loadu_si512(packed[group].as_ptr().cast()) };
        }
        for row in 0..R {
            let values = _mm512_set1_epi32(rows[row][step]);
            for group in 0..GROUPS {
                sums[row][group] = _mm512_dpbusd_epi32(sums[row][group], centres[group], values);
            }
        }
    }
    sums
}

/// Scores of a row with 16 centres, and how far they may be off.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn score(sum: __m512i, figures: &Row, group: &Group) -> (__m512, __m512) {
    let sum = _mm512_sub_epi32(sum, _mm512_set1_epi32(figures.offset));
    let unit = _mm512_mul_ps(_mm512_set1_ps(figures.unit), load(&group.unit));
    let score = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(sum), unit, load(&group.half));
    let error = _mm512_fmadd_ps(
        _mm512_set1_ps(figures.error),
        load(&group.norm),
        _mm512_mul_ps(_mm512_set1_ps(figures.norm), load(&group.error)),
    );
    (score, error)
}

/// Turns products into bounds of the scores `|c|^2 / 2 - x.c`, which order centres as distances do.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn bounds(
    sums: &[[__m512i; GROUPS]; ROWS],
    figures: &[Row],
    groups: &[Group],
    lower: &mut [f32],
    width: usize,
    upper: &mut [[f32; LANES]],
) {
    for (row, ((sums, figures), upper)) in sums.iter().zip(figures).zip(upper).enumerate() {
        let lower = lower[row * width..][..PANEL].as_chunks_mut::<LANES>().0;
        let mut least = load(upper);
        for ((sum, group), lower) in sums.iter().zip(groups).zip(lower) {
            let (score, error) = score(*sum, figures, group);
            least = _mm512_min_ps(least, _mm512_add_ps(score, error));
            // SAFETY: the array has the 64 bytes that are written.
            unsafe { _mm512_storeu_ps(lower.as_mut_ptr(), _mm512_sub_ps(score, error)) };
        }
        // SAFETY: the array has the 64 bytes that are written.
        unsafe { _mm512_storeu_ps(upper.as_mut_ptr(), least) };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// The slow twin: every distance, the first smallest one.
    fn plain(rows: &[f32], dim: usize, centres: &[f32]) -> Vec<u32> {
        rows.chunks_exact(dim)
            .map(|row| {
                let mut best = (0, f32::INFINITY);
                for (index, centre) in centres.chunks_exact(dim).enumerate() {
                    let distance = squared_distance(row, centre);
                    if distance < best.1 {
                        best = (index as u32, distance);
                    }
                }
                best.0
            })
            .collect()
    }

    fn normal(rng: &mut ChaCha8Rng) -> f32 {
        (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0
    }

    /// Nearest centres by the screen; `None` where it gives back or the processor cannot.
    fn screened(rows: &[f32], dim: usize, centres: &[f32]) -> Option<Vec<u32>> {
        let screen = Screen::new(centres, dim)?;
        let mut scratch = ScreenScratch::default();
        let mut out = vec![u32::MAX; rows.len() / dim];
        let mut all = true;
        for (rows, out) in rows.chunks(screen.piece() * dim).zip(out.chunks_mut(screen.piece())) {
            all &= screen.nearest(rows, centres, &mut scratch, out);
        }
        all.then_some(out)
    }

    fn able() -> bool {
        Screen::new(&vec![0.0; LEAST * LEAST], LEAST).is_some()
    }

    #[test]
    fn the_answer_is_that_of_the_plain_loop() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (n, k, dim) in
            [(1, 32, 32), (100, 33, 33), (211, 200, 47), (97, 1000, 128), (7, 65, 515)]
        {
            for offset in [0.0, 5.0, 1e4] {
                let mut draw =
                    |n: usize| (0..n).map(|_| normal(&mut rng) + offset).collect::<Vec<f32>>();
                let (rows, centres) = (draw(n * dim), draw(k * dim));
                let found = screened(&rows, dim, &centres);
                assert!(found.is_some() || !able(), "{n} {k} {dim} {offset}");
                if let Some(found) = found {
                    assert_eq!(found, plain(&rows, dim, &centres), "{n} {k} {dim} {offset}");
                }
            }
        }
    }

    #[test]
    fn bounds_hold_where_all_rounding_errors_point_one_way() {
        let dim = 64;
        let askew = |i: usize| if i == 0 { 127.0 } else { 10.49 };
        // A unit is 1 for the one and exact for the other: Cauchy-Schwarz is nearly an equality.
        for (vector, centre) in [
            ((0..dim).map(askew).collect::<Vec<f32>>(), vec![1.0; dim]),
            (vec![127.0; dim], (0..dim).map(askew).collect()),
        ] {
            // Pairs around 0, so that the shift is 0.
            let centres: Vec<f32> = (0..32)
                .flat_map(|j| {
                    let sign = if j % 2 == 0 { 1.0 } else { -1.0 };
                    centre.iter().map(move |value| value * sign * (1 + j / 2) as f32)
                })
                .collect();
            let limits: Vec<f32> = centres
                .chunks_exact(dim)
                .map(|centre| squared_distance(&vector, centre) * (1.0 + 1e-5))
                .chain([0.0; 32])
                .collect();
            let Some(screen) = Screen::new(&centres, dim) else { return };
            let mut found = Vec::new();
            screen.nearer(&screen.queries(&vector), 0, &limits, |_, centre| found.push(centre));
            assert_eq!(found, (0..32).collect::<Vec<usize>>());
        }
    }

    #[test]
    fn equal_centres_and_rows_on_centres_go_to_the_first() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let dim = 40;
        let half: Vec<f32> = (0..100 * dim).map(|_| normal(&mut rng)).collect();
        let centres = half.repeat(2);
        if let Some(found) = screened(&half, dim, &centres) {
            assert_eq!(found, (0..100).collect::<Vec<u32>>());
        }
        // Nothing to tell apart: it is given back, or right.
        for value in [0.0, 1e-25, 3.0, 1e14] {
            let (rows, centres) = (vec![value; 20 * dim], vec![value; 64 * dim]);
            assert_eq!(screened(&rows, dim, &centres), None);
        }
    }

    proptest! {
        #[test]
        fn any_scale_and_any_mixture_agrees_with_the_plain_loop(
            seed in 0_u64..1000,
            dim in 32_usize..100,
            k in 32_usize..150,
            exponent in -30_i32..14,
            spread in 0_i32..6,
            outlier in any::<bool>(),
        ) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let scale = 10.0_f32.powi(exponent);
            // Clusters of clusters, so that rows and their centres lie close together.
            let coarse: Vec<f32> = (0..4 * dim).map(|_| normal(&mut rng)).collect();
            let near = 10.0_f32.powi(-spread);
            let mut draw = |n: usize| -> Vec<f32> {
                (0..n * dim)
                    .map(|i| {
                        let mut value =
                            coarse[i / dim % 4 * dim + i % dim] + near * normal(&mut rng);
                        if outlier && i % dim == 3 {
                            value = value * 40.0 + 100.0;
                        }
                        value * scale
                    })
                    .collect()
            };
            let (rows, centres) = (draw(60), draw(k));
            if let Some(found) = screened(&rows, dim, &centres) {
                prop_assert_eq!(found, plain(&rows, dim, &centres));
            }
        }

        #[test]
        fn every_nearer_centre_is_found(
            seed in 0_u64..1000,
            dim in 32_usize..90,
            k in 32_usize..200,
            queries in 1_usize..10,
            share in 0.0_f32..1.5,
        ) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut draw = |n: usize| -> Vec<f32> {
                (0..n * dim).map(|_| normal(&mut rng) + 3.0).collect()
            };
            let (vectors, centres) = (draw(queries), draw(k));
            let Some(screen) = Screen::new(&centres, dim) else { return Ok(()) };
            let mut limits = vec![share * 2.0 * dim as f32; k];
            limits.resize(k.next_multiple_of(PANEL), 0.0);
            let mut found = vec![Vec::new(); queries];
            // In two parts, as threads do it.
            let rounded = screen.queries(&vectors);
            for (first, limits) in [(0, &limits[..PANEL]), (PANEL, &limits[PANEL..])] {
                screen.nearer(&rounded, first, limits, |query, centre| found[query].push(centre));
            }
            for (vector, found) in vectors.chunks_exact(dim).zip(found) {
                prop_assert!(found.is_sorted() && found.iter().all(|&centre| centre < k));
                let mut count = 0;
                for (j, centre) in centres.chunks_exact(dim).enumerate() {
                    if squared_distance(vector, centre) < limits[j] {
                        count += 1;
                        prop_assert!(found.contains(&j));
                    }
                }
                prop_assert!(count > 0 || found.len() <= k);
            }
        }
    }
}
