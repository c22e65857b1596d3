use proptest::prelude::*;
use rand::RngExt;

use super::*;
use crate::{
    cancel::StopFlag,
    kernels::squared_distance,
    quantizer::{kmeans::Init, rows::distinct_rows},
};

/// Rows around `k` far corners, in turn.
pub(crate) fn planted(n: usize, k: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let corners: Vec<f32> = (0..k * dim).map(|_| rng.random_range(-50.0..50.0)).collect();
    (0..n * dim)
        .map(|i| corners[i / dim % k * dim + i % dim] + rng.random_range(-0.5_f32..0.5))
        .collect()
}

/// The slow twin: plain loops in f64 from the same first centres, without empty clusters.
fn plain_lloyd(rows: &[f32], dim: usize, centres: &[f32], updates: usize) -> (Vec<f32>, f64) {
    let mut centres = centres.to_vec();
    for update in 0..=updates {
        let mut sums = vec![0.0_f64; centres.len()];
        let mut counts = vec![0.0_f64; centres.len() / dim];
        let mut inertia = 0.0;
        for row in rows.chunks_exact(dim) {
            let mut best = (0, f32::INFINITY);
            for (i, centre) in centres.chunks_exact(dim).enumerate() {
                let distance = squared_distance(row, centre);
                if distance < best.1 {
                    best = (i, distance);
                }
            }
            inertia += f64::from(best.1);
            counts[best.0] += 1.0;
            for (j, &value) in row.iter().enumerate() {
                sums[best.0 * dim + j] += f64::from(value);
            }
        }
        if update == updates {
            return (centres, inertia);
        }
        for (i, centre) in centres.iter_mut().enumerate() {
            if counts[i / dim] > 0.0 {
                *centre = (sums[i] / counts[i / dim]) as f32;
            }
        }
    }
    unreachable!("the last pass returns")
}

#[test]
fn follows_the_plain_iteration_from_the_same_start() {
    for (n, k, dim) in [(500, 7, 3), (900, 20, 18), (1500, 40, 50)] {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let rows: Vec<f32> = (0..n * dim).map(|_| rng.random_range(-1.0..1.0)).collect();
        for updates in [1, 4] {
            let config =
                KMeansConfig { max_iterations: updates, tolerance: 0.0, ..KMeansConfig::new(k) };
            let start = rows[..k * dim].to_vec();
            let fast = lloyd(
                &config,
                &(rows.as_slice(), dim),
                start.clone(),
                0,
                &HostSearch,
                &Monitor::new(),
            );
            let fast = fast.unwrap();
            let (centres, inertia) = plain_lloyd(&rows, dim, &start, updates);
            assert_eq!((fast.centres, fast.inertia), (centres, inertia));
            assert_eq!(fast.iterations, updates);
        }
    }
}

#[test]
fn planted_clusters_are_recovered() {
    let rows = planted(600, 12, 6, 1);
    let fitted = KMeansConfig { seed: 3, ..KMeansConfig::new(12) }.fit(&rows, 6).unwrap();
    let tokens = fitted.predict(&rows).unwrap();
    for (i, &token) in tokens.iter().enumerate() {
        assert_eq!(token, tokens[i % 12], "rows of one corner share a token");
    }
    assert!(fitted.inertia() < 600.0 * 6.0 * 0.1);
}

#[test]
fn a_fit_does_not_depend_on_the_number_of_threads() {
    for (k, dim) in [(16, 8), (50, 40)] {
        let rows = planted(5000, 9, dim, 2);
        for init in [Init::PlusPlus, Init::Random] {
            let config = KMeansConfig { seed: 11, init, max_iterations: 6, ..KMeansConfig::new(k) };
            let fit = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| config.fit(&rows, dim).unwrap())
            };
            assert_eq!(fit(1), fit(2));
            assert_eq!(fit(2), fit(3));
        }
    }
}

#[test]
fn seeds_and_restarts_matter() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let rows: Vec<f32> = (0..2000).map(|_| rng.random_range(-1.0..1.0)).collect();
    let config = KMeansConfig { init: Init::Random, restarts: 1, ..KMeansConfig::new(20) };
    let one = config.clone().fit(&rows, 4).unwrap();
    assert_ne!(one, KMeansConfig { seed: 1, ..config.clone() }.fit(&rows, 4).unwrap());
    assert!(
        KMeansConfig { restarts: 6, ..config }.fit(&rows, 4).unwrap().inertia() <= one.inertia()
    );
}

#[test]
fn inertia_is_that_of_the_returned_centres() {
    let rows = planted(300, 10, 3, 4);
    for iterations in [1, 2, 50] {
        let config =
            KMeansConfig { max_iterations: iterations, restarts: 1, ..KMeansConfig::new(7) };
        let fitted = config.fit(&rows, 3).unwrap();
        let (_, distances) = fitted.predict_with_distances(&rows).unwrap();
        assert_eq!(fitted.inertia(), distances.iter().map(|&d| f64::from(d)).sum::<f64>());
    }
}

#[test]
fn empty_clusters_take_the_farthest_distinct_rows() {
    // Two centres far away from everything lose all their rows at once.
    let rows = [0.0, 0.0, 0.1, 5.0, 5.0, 9.0];
    let start = vec![0.0, 1000.0, 2000.0];
    let config = KMeansConfig { max_iterations: 20, ..KMeansConfig::new(3) };
    let mut reseeded = 0;
    let monitor = Monitor::new().with_progress(|event| {
        if let KMeansEvent::Iteration { reseeded: r, .. } = event {
            reseeded += r;
        }
    });
    let fitted = lloyd(&config, &(rows.as_slice(), 1), start, 0, &HostSearch, &monitor).unwrap();
    drop(monitor);
    assert_eq!(reseeded, 2);
    let mut centres = fitted.centres.clone();
    centres.sort_by(f32::total_cmp);
    assert_eq!(centres[1..], [5.0, 9.0]);

    let mut index = [0, 0, 0, 0, 0, 0];
    let distance = [0.0, 0.0, 0.01, 25.0, 25.0, 81.0];
    let counts = [6, 0, 0, 0];
    let source = (rows.as_slice(), 1);
    assert_eq!(fill_empty(&source, &counts, &mut index, &distance).unwrap(), 3);
    assert_eq!(index, [0, 0, 3, 2, 0, 1]);
}

/// Rows that can only be read, with the largest range asked for.
struct Pieces<'a> {
    rows: (&'a [f32], usize),
    largest: std::cell::Cell<usize>,
}

impl<'a> Pieces<'a> {
    fn new(rows: &'a [f32], dim: usize) -> Self {
        Self { rows: (rows, dim), largest: std::cell::Cell::new(0) }
    }
}

impl RowSource for Pieces<'_> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn dim(&self) -> usize {
        self.rows.1
    }

    fn read(&self, range: std::ops::Range<usize>, into: &mut Vec<f32>) -> Result<()> {
        self.largest.set(self.largest.get().max(range.len()));
        self.rows.read(range, into)
    }
}

#[test]
fn rows_read_in_blocks_give_the_same_bits_as_rows_in_memory() {
    // Many duplicates, so that a sample lacks distinct rows and clusters run empty.
    let few: Vec<f32> = planted(40, 20, 3, 8).repeat(100);
    for (rows, k) in [(planted(5000, 30, 3, 7), 37), (few, 30)] {
        for init in [Init::PlusPlus, Init::Random] {
            let config = KMeansConfig {
                init,
                seeding_rows: Some(64),
                batch_rows: 300,
                max_iterations: 8,
                restarts: 2,
                ..KMeansConfig::new(k)
            };
            let source = Pieces::new(&rows, 3);
            let fitted = config.fit_source(&source).unwrap();
            assert_eq!(fitted, config.fit(&rows, 3).unwrap(), "{init:?}");
            let largest = source.largest.get();
            assert!(largest <= 4096, "{largest} rows at once");
        }
    }
}

#[test]
fn as_many_clusters_as_distinct_rows_leave_no_inertia() {
    let rows = [1.0, 1.0, 2.0, 4.0, 4.0, 8.0, 16.0];
    for seed in 0..10 {
        let fitted = KMeansConfig { seed, ..KMeansConfig::new(5) }.fit(&rows, 1).unwrap();
        assert_eq!(fitted.inertia(), 0.0);
    }
}

#[test]
fn wide_rows_with_nearly_as_many_clusters_or_with_duplicates() {
    let distinct = planted(70, 70, 40, 3);
    let rows = distinct.repeat(3);
    for k in [65, 70] {
        let fitted = KMeansConfig { restarts: 1, ..KMeansConfig::new(k) }.fit(&rows, 40).unwrap();
        let (index, distance) = fitted.predict_with_distances(&rows).unwrap();
        assert_eq!(index[..70], index[70..140]);
        assert_eq!(distance.iter().filter(|&&d| d == 0.0).count() == 210, k == 70);
        let mut used = index;
        used.sort_unstable();
        used.dedup();
        assert_eq!(used.len(), k);
    }
}

#[test]
fn impossible_requests_are_refused() {
    let rows = [1.0, 1.0, 2.0, 2.0, 3.0];
    let message =
        |k: usize, rows: &[f32], dim| KMeansConfig::new(k).fit(rows, dim).unwrap_err().to_string();
    assert!(message(1, &rows, 1).contains("vocabulary of size 1"));
    assert!(message(6, &rows, 1).contains("found 3 distinct rows; set k to 3 or less"));
    assert!(message(4, &rows, 1).contains("found 3 distinct rows; set k to 3 or less"));
    assert!(message(2, &rows[..2], 1).contains("found 1 distinct rows; pass rows that differ"));
    assert!(message(2, &rows, 2).contains("whole number of rows"));
    assert!(message(2, &rows, 0).contains("whole number of rows"));
    assert!(message(2, &[], 1).contains("found 0 distinct rows"));
    assert!(message(2, &[0.0, 1.0, f32::NAN], 1).contains("row 2"));
    assert!(message(2, &[0.0, f32::INFINITY], 1).contains("row 1"));
}

#[test]
fn a_stop_interrupts() {
    let rows = planted(100, 4, 2, 0);
    for most in 0..3 {
        let stop = StopFlag::new();
        let mut events = 0;
        let monitor = Monitor::new().with_stop(&stop).with_progress(|_| {
            events += 1;
            if events > most {
                stop.raise();
            }
        });
        let result = KMeansConfig::new(4).fit_with_progress(&rows, 2, &monitor);
        drop(monitor);
        assert!(matches!(result, Err(Error::Interrupted(_))));
        assert_eq!(events, most + 1);
    }
}

#[test]
fn another_engine_is_used() {
    struct Failing;
    impl NearestCentre for Failing {
        fn nearest(
            &self,
            _: &[f32],
            _: usize,
            _: &[f32],
            _: &mut [u32],
            _: &mut [f32],
        ) -> Result<()> {
            Err(Error::quantizer("device")
                .expected("memory")
                .found("none")
                .fix("use a smaller one"))
        }
    }
    let rows = planted(50, 4, 2, 0);
    let result =
        KMeansConfig::new(4).fit_with_engine(&(rows.as_slice(), 2), &Failing, &Monitor::new());
    assert!(result.unwrap_err().to_string().contains("device"));
}

proptest! {
    #[test]
    fn inertia_never_rises_and_all_clusters_are_used(
        values in prop::collection::vec(-4_i8..=4, 4..200),
        dim in 1_usize..4,
        k in 2_usize..8,
        seed in 0_u64..50,
    ) {
        let rows: Vec<f32> =
            values[..values.len() / dim * dim].iter().map(|&v| f32::from(v)).collect();
        prop_assume!(distinct_rows(&rows, dim, k) == k);
        let mut last = f64::INFINITY;
        let config = KMeansConfig { seed, restarts: 1, tolerance: 0.0, ..KMeansConfig::new(k) };
        let monitor = Monitor::new().with_progress(|event| {
            if let KMeansEvent::Iteration { inertia, .. } = event {
                assert!(inertia <= last * (1.0 + 1e-5) + 1e-9, "{inertia} after {last}");
                last = inertia;
            }
        });
        let fitted = config.fit_with_progress(&rows, dim, &monitor).unwrap();
        let mut used = fitted.predict(&rows).unwrap();
        used.sort_unstable();
        used.dedup();
        prop_assert_eq!(used.len(), k);
    }
}
