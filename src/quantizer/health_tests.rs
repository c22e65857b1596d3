use approx::assert_relative_eq;
use proptest::prelude::*;

use super::*;
use crate::quantizer::{HealthThresholds, KMeansConfig, RqKMeans, RqKMeansConfig};

/// Codes at 0, 1, ..: a token is the row, rounded.
fn line(sizes: &[usize]) -> RqKMeans {
    let codebook = |&size: &usize| (0..size).map(|code| code as f32).collect();
    RqKMeans::from_parts(sizes.iter().map(codebook).collect(), 1).unwrap()
}

fn report(sizes: &[usize], rows: &[f32], tokens: &[u16]) -> HealthReport {
    let codes = Codes::from_flat(sizes.len(), tokens.to_vec()).unwrap();
    HealthReport::new(&line(sizes), rows, &codes).unwrap()
}

#[test]
fn figures_of_a_small_case_by_hand() {
    // Counts 2, 1, 1, 0 of four codes.
    let report = report(&[4, 2], &[0.0, 0.0, 1.0, 3.0], &[0, 0, 0, 0, 1, 0, 2, 1]);
    let level = &report.levels[0];
    assert_eq!((level.size, level.used, level.used_share), (4, 3, 0.75));
    assert_relative_eq!(level.entropy, 1.5, epsilon = 1e-12);
    assert_relative_eq!(level.normalised_entropy, 0.75, epsilon = 1e-12);
    assert_relative_eq!(level.perplexity, 2.0_f64.powf(1.5), epsilon = 1e-12);
    assert_relative_eq!(level.gini, 0.375, epsilon = 1e-12);
    // Mean 1: variance 1 + 1 + 0 + 4; the last row is off by 1 after one level, right after two.
    assert_relative_eq!(level.residual_energy, 1.0 / 6.0, epsilon = 1e-12);
    assert_eq!(report.levels[1].residual_energy, 0.0);
    assert_eq!((report.unique_share, report.shared_share), (0.5, 0.5));
    assert_eq!((report.items, report.largest_collision), (4, 2));
}

#[test]
fn a_level_larger_than_the_items_is_judged_by_the_items() {
    let report = report(&[1000], &[0.0, 5.0], &[0, 5]);
    let level = &report.levels[0];
    assert_eq!((level.used_share, level.normalised_entropy, level.gini), (1.0, 1.0, 0.0));
    report.ensure(&HealthThresholds::default()).unwrap();
}

#[test]
fn a_level_with_nothing_left_to_describe_is_healthy() {
    let report = report(&[2, 16], &[0.0, 1.0, 1.0], &[0, 0, 1, 0, 1, 0]);
    assert_eq!(report.levels[0].residual_energy, 0.0);
    let level = &report.levels[1];
    assert_eq!((level.used, level.used_share, level.normalised_entropy), (1, 1.0, 1.0));
    let thresholds = HealthThresholds { max_shared_items: 0.7, ..HealthThresholds::default() };
    report.ensure(&thresholds).unwrap();
}

#[test]
fn a_bound_that_an_error_advises_passes() {
    let report =
        report(&[8, 4], &[0.0, 0.0, 0.0, 1.0, 3.0, 3.5], &[0, 0, 0, 0, 0, 0, 1, 0, 3, 0, 3, 0]);
    let mut thresholds = HealthThresholds {
        min_used_share: 0.9,
        min_normalised_entropy: 0.9,
        max_shared_items: 0.1,
        max_largest_collision: 2,
        max_residual_energy: -1.0,
    };
    for _ in 0..9 {
        let Err(Error::Collapsed(problem)) = report.ensure(&thresholds) else { break };
        let (_, advice) = problem.remedy.rsplit_once("set ").unwrap();
        let (name, value) = advice.split_once(" to ").unwrap();
        let value: f64 = value.split(' ').next().unwrap().parse().unwrap();
        match name {
            "min_used_share" => thresholds.min_used_share = value,
            "min_normalised_entropy" => thresholds.min_normalised_entropy = value,
            "max_shared_items" => thresholds.max_shared_items = value,
            "max_largest_collision" => thresholds.max_largest_collision = value as usize,
            _ => thresholds.max_residual_energy = value,
        }
    }
    report.ensure(&thresholds).unwrap();
}

#[test]
fn one_item_and_rows_all_alike_are_no_division_by_zero() {
    let one = report(&[4], &[2.0], &[2]);
    assert_eq!(one.levels[0].residual_energy, 0.0);
    assert_eq!(one.levels[0].normalised_entropy, 1.0);
    let wrong = report(&[4], &[2.0, 2.0], &[1, 1]);
    assert_eq!(wrong.levels[0].residual_energy, 1.0);
    assert_eq!(wrong.levels[0].entropy, 0.0);
}

#[test]
fn each_threshold_names_what_is_wrong() {
    let rows: Vec<f32> = (0..8).map(|i| i as f32).collect();
    let collapsed = report(&[8], &rows, &[0; 8]);
    let ensure = |report: &HealthReport, change: fn(&mut HealthThresholds)| {
        let mut thresholds = HealthThresholds {
            min_used_share: 0.0,
            min_normalised_entropy: 0.0,
            max_shared_items: 1.0,
            max_largest_collision: usize::MAX,
            max_residual_energy: f64::INFINITY,
        };
        report.ensure(&thresholds).unwrap();
        change(&mut thresholds);
        let error = report.ensure(&thresholds).unwrap_err();
        assert!(matches!(error, Error::Collapsed(_)));
        error.to_string()
    };
    let text = ensure(&collapsed, |t| t.min_used_share = 0.5);
    assert!(text.contains("level 0") && text.contains("12.5%") && text.contains("fewer"), "{text}");
    let text = ensure(&collapsed, |t| t.min_normalised_entropy = 0.5);
    assert!(text.contains("level 0") && text.contains("entropy"), "{text}");
    let text = ensure(&collapsed, |t| t.max_shared_items = 0.3);
    assert!(text.contains("100.0% of 8 items"), "{text}");
    let text = ensure(&collapsed, |t| t.max_largest_collision = 7);
    assert!(text.contains("8 items"), "{text}");
    let text = ensure(&collapsed, |t| t.max_residual_energy = 0.9);
    assert!(text.contains("variance left"), "{text}");
}

#[test]
fn fitted_quantizers_are_healthy() {
    let rows: Vec<f32> = (0..4000).map(|i| ((i * 7919) % 1013) as f32).collect();
    let quantizer = RqKMeansConfig::new(vec![16, 16, 16]).fit(&rows, 4).unwrap();
    let report = HealthReport::new(&quantizer, &rows, &quantizer.encode(&rows).unwrap()).unwrap();
    report.ensure(&HealthThresholds::default()).unwrap();
}

#[test]
fn residual_energy_of_k_means_is_its_inertia_over_the_variance() {
    // More rows than are decoded at a time.
    let rows: Vec<f32> = (0..10_000).map(|i| ((i * 7919) % 1013) as f32).collect();
    let kmeans = KMeansConfig { restarts: 1, ..KMeansConfig::new(5) }.fit(&rows, 2).unwrap();
    let report = HealthReport::new(&kmeans, &rows, &kmeans.encode(&rows).unwrap()).unwrap();
    let mut variance = 0.0;
    for j in 0..2 {
        let column: Vec<f64> = rows.iter().skip(j).step_by(2).map(|&v| f64::from(v)).collect();
        let mean = column.iter().sum::<f64>() / column.len() as f64;
        variance += column.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>();
    }
    let expected = kmeans.inertia() / variance;
    assert_relative_eq!(report.levels[0].residual_energy, expected, max_relative = 1e-5);
}

#[test]
fn contradicting_shapes_are_refused() {
    let quantizer = line(&[4]);
    let codes = |tokens: &[u16]| Codes::from_flat(1, tokens.to_vec()).unwrap();
    assert!(HealthReport::new(&quantizer, &[], &codes(&[])).is_err());
    assert!(HealthReport::new(&quantizer, &[1.0], &codes(&[1, 2])).is_err());
    assert!(HealthReport::new(&quantizer, &[f32::NAN], &codes(&[1])).is_err());
    assert!(HealthReport::new(&quantizer, &[1.0], &codes(&[4])).is_err());
    let wide = Codes::from_flat(2, vec![1, 1]).unwrap();
    assert!(HealthReport::new(&quantizer, &[1.0], &wide).is_err());
}

#[test]
fn the_table_is_aligned_and_files_round_trip() {
    let report = report(&[4, 256], &[0.0, 0.0, 1.0, 3.0], &[0, 0, 0, 0, 1, 0, 2, 1]);
    let text = report.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4);
    assert!(lines[..3].iter().all(|line| line.len() == lines[0].len()), "{text}");
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<HealthReport>(&json).unwrap(), report);
    let thresholds: HealthThresholds = serde_json::from_str("{}").unwrap();
    assert_eq!(thresholds, HealthThresholds::default());
    assert!(serde_json::from_str::<HealthThresholds>(r#"{"min_use": 1}"#).is_err());
}

proptest! {
    /// The slow twin: Gini by all pairs, entropy by natural logarithms, collisions by all pairs.
    #[test]
    fn figures_agree_with_their_definitions(
        tokens in prop::collection::vec((0_u16..12, 0_u16..3), 1..60),
    ) {
        let n = tokens.len();
        let rows: Vec<f32> = (0..n).map(|i| (i % 7) as f32).collect();
        let flat: Vec<u16> = tokens.iter().flat_map(|&(a, b)| [a, b]).collect();
        let report = report(&[12, 3], &rows, &flat);
        for (level, size) in [(0, 12), (1, 3)] {
            let mut counts: Vec<f64> = (0..size)
                .map(|code| flat.iter().skip(level).step_by(2).filter(|&&t| t == code).count())
                .map(|count| count as f64)
                .collect();
            counts.sort_by(|a, b| b.total_cmp(a));
            counts.truncate(n);
            let m = counts.len() as f64;
            let pairs: f64 = counts
                .iter()
                .flat_map(|a| counts.iter().map(move |b| (a - b).abs()))
                .sum();
            let entropy: f64 = counts
                .iter()
                .filter(|&&count| count > 0.0)
                .map(|count| -count / n as f64 * (count / n as f64).ln())
                .sum();
            let health = &report.levels[level];
            prop_assert!((health.gini - pairs / (2.0 * m * n as f64)).abs() < 1e-9);
            prop_assert!((health.entropy - entropy / 2.0_f64.ln()).abs() < 1e-9);
            prop_assert!((health.perplexity - entropy.exp()).abs() < 1e-9);
            prop_assert!((0.0..=1.0).contains(&health.normalised_entropy));
        }
        let group = |token: &(u16, u16)| tokens.iter().filter(|other| *other == token).count();
        let shared = tokens.iter().filter(|token| group(token) > 1).count();
        prop_assert!((report.shared_share - shared as f64 / n as f64).abs() < 1e-12);
        prop_assert!((report.shared_share + report.unique_share - 1.0).abs() < 1e-12);
        prop_assert_eq!(Some(report.largest_collision), tokens.iter().map(group).max());
    }
}

/// Codes of many clusters keep neighbours, those of two clusters few.
#[test]
fn finer_codes_keep_more_neighbours() {
    let rows: Vec<f32> = (0..800).map(|i| ((i * i % 977) as f32 * 0.71).sin()).collect();
    let measured = |k: usize| {
        let quantizer = KMeansConfig::new(k).fit(&rows, 4).unwrap();
        let report = HealthReport::new(&quantizer, &rows, &quantizer.encode(&rows).unwrap());
        let report = report.unwrap().with_neighbours(&quantizer, &(&rows[..], 4)).unwrap();
        (report.neighbour_recall.unwrap(), report.distance_correlation.unwrap(), report)
    };
    let (coarse, fine, exact) = (measured(2), measured(40), measured(200));
    assert!(coarse.0 < fine.0 && fine.0 < exact.0, "{coarse:?} {fine:?} {exact:?}");
    assert!(coarse.1 < fine.1 && fine.1 < exact.1);
    // Every row is its own centre: nothing is lost, and nothing is left to unique tokens.
    assert!(exact.0 > 0.999 && exact.1 > 0.999);
    assert!(exact.2.unique_bits.unwrap() < 0.1);
    // A hundred rows a code, about: near seven bits to tell them apart.
    assert!((6.0..7.7).contains(&coarse.2.unique_bits.unwrap()), "{:?}", coarse.2.unique_bits);
    assert!(exact.2.to_string().contains("correlation of distances 1.000"), "{}", exact.2);
    // Two rows have no neighbours to lose.
    let quantizer = KMeansConfig::new(2).fit(&rows[..8], 4).unwrap();
    let codes = quantizer.encode(&rows[..8]).unwrap();
    let two = HealthReport::new(&quantizer, &rows[..8], &codes).unwrap();
    let two = two.with_neighbours(&quantizer, &(&rows[..8], 4)).unwrap();
    assert!(two.neighbour_recall.is_none() && two.distance_correlation.is_none());
}
