//! Sounds at another rate.

use std::f64::consts::PI;

/// Lobes of the windowed sinc on each side.
const LOBES: f64 = 6.0;
/// Where the filter cuts off, as a part of half the lower rate.
const ROLLOFF: f64 = 0.99;
/// Most weights that are kept in a table.
const TABLE: usize = 1 << 22;

/// Interpolates samples of one rate at the places of another.
pub(super) fn resample(samples: &[f32], from: u32, to: u32) -> Vec<f32> {
    let divisor = gcd(from, to);
    let (from, to) = (u64::from(from / divisor), u64::from(to / divisor));
    let cutoff = from.min(to) as f64 * ROLLOFF;
    // Input samples on each side of an output that count.
    let reach = (LOBES * from as f64 / cutoff).ceil() as i64;
    let taps = 2 * reach as usize + 2;
    let length = (samples.len() as u128 * u128::from(to)).div_ceil(u128::from(from)) as usize;
    // Outputs of one phase lie at the same place between two inputs.
    let weights = |phase: u64| {
        let place = (phase * from % to) as f64 / to as f64;
        (0..taps).map(move |tap| {
            let distance = (tap as i64 - reach) as f64 - place;
            weight(distance / from as f64 * cutoff) * (cutoff / from as f64) as f32
        })
    };
    let table: Option<Vec<f32>> =
        (to as usize * taps <= TABLE).then(|| (0..to).flat_map(weights).collect());
    let mut own = Vec::with_capacity(taps);
    (0..length as u64)
        .map(|number| {
            let phase = number % to;
            let weights = match &table {
                Some(table) => &table[phase as usize * taps..][..taps],
                None => {
                    own.clear();
                    own.extend(weights(phase));
                    &own
                }
            };
            let first = (u128::from(number) * u128::from(from) / u128::from(to)) as i64 - reach;
            let begin = first.max(0) as usize;
            let end = ((first + taps as i64).max(0) as usize).min(samples.len());
            if begin >= end {
                return 0.0;
            }
            let weights = &weights[(begin as i64 - first) as usize..];
            samples[begin..end].iter().zip(weights).map(|(sample, weight)| sample * weight).sum()
        })
        .collect()
}

/// The window times the sinc at a distance in lobes.
fn weight(at: f64) -> f32 {
    if at.abs() >= LOBES {
        return 0.0;
    }
    let window = (at * PI / LOBES / 2.0).cos().powi(2);
    let sinc = if at == 0.0 { 1.0 } else { (PI * at).sin() / (PI * at) };
    (window * sinc) as f32
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
