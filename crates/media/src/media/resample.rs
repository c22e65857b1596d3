//! Sounds at another rate.

use std::f64::consts::PI;

/// Lobes of the windowed sinc on each side.
const LOBES: f64 = 6.0;
/// Where the filter cuts off, as a part of half the lower rate.
const ROLLOFF: f64 = 0.99;
/// Most weights that are kept in a table.
const TABLE: usize = 1 << 22;
/// Input samples that are no longer needed are removed when they are as many as this.
const SPENT: usize = 1 << 16;

/// Interpolates samples of one rate at the places of another.
pub(super) fn resample(samples: &[f32], from: u32, to: u32) -> Vec<f32> {
    let mut resampler = Resampler::new(from, to);
    let mut found = Vec::with_capacity(resampler.length(samples.len() as u64));
    for part in samples.chunks(SPENT) {
        resampler.push(part, &mut found);
    }
    resampler.finish(&mut found);
    found
}

/// The same for samples that arrive in parts.
pub(super) struct Resampler {
    from: u64,
    to: u64,
    cutoff: f64,
    /// Input samples on each side of an output that count, and all that count.
    reach: i64,
    taps: usize,
    /// Weights of all phases, where they are few; those of one otherwise.
    table: Option<Vec<f32>>,
    own: Vec<f32>,
    /// Input samples that are needed still, and the number of the first.
    kept: Vec<f32>,
    start: i64,
    /// Input samples so far.
    heard: i64,
    /// Number of the next output.
    next: u64,
}

impl Resampler {
    pub fn new(from: u32, to: u32) -> Self {
        let divisor = gcd(from, to);
        let (from, to) = (u64::from(from / divisor), u64::from(to / divisor));
        let cutoff = from.min(to) as f64 * ROLLOFF;
        let reach = (LOBES * from as f64 / cutoff).ceil() as i64;
        let taps = 2 * reach as usize + 2;
        let mut resampler = Self {
            from,
            to,
            cutoff,
            reach,
            taps,
            table: None,
            own: Vec::with_capacity(taps),
            kept: Vec::new(),
            start: 0,
            heard: 0,
            next: 0,
        };
        if to as usize * taps <= TABLE {
            let table = (0..to).flat_map(|phase| resampler.weights(phase)).collect();
            resampler.table = Some(table);
        }
        resampler
    }

    /// Number of outputs of as many inputs.
    pub fn length(&self, samples: u64) -> usize {
        (u128::from(samples) * u128::from(self.to)).div_ceil(u128::from(self.from)) as usize
    }

    /// Takes the next samples, and appends the outputs that no later ones change.
    pub fn push(&mut self, samples: &[f32], found: &mut Vec<f32>) {
        self.kept.extend_from_slice(samples);
        self.heard += samples.len() as i64;
        while self.first() + self.taps as i64 <= self.heard {
            found.push(self.output());
        }
        let spent = (self.first() - self.start).clamp(0, self.kept.len() as i64) as usize;
        if spent >= SPENT {
            self.kept.drain(..spent);
            self.start += spent as i64;
        }
    }

    /// Appends the outputs at the end.
    pub fn finish(mut self, found: &mut Vec<f32>) {
        let length = self.length(self.heard as u64) as u64;
        while self.next < length {
            found.push(self.output());
        }
    }

    /// The first input sample that the next output takes; before 0 there are none.
    fn first(&self) -> i64 {
        let place = u128::from(self.next) * u128::from(self.from) / u128::from(self.to);
        place as i64 - self.reach
    }

    fn output(&mut self) -> f32 {
        let first = self.first();
        let phase = self.next % self.to;
        self.next += 1;
        let (begin, end) = (first.max(0), (first + self.taps as i64).clamp(0, self.heard));
        if begin >= end {
            return 0.0;
        }
        if self.table.is_none() {
            let weights: Vec<f32> = self.weights(phase).collect();
            self.own = weights;
        }
        let weights = match &self.table {
            Some(table) => &table[phase as usize * self.taps..][..self.taps],
            None => &self.own,
        };
        let weights = &weights[(begin - first) as usize..];
        let samples = &self.kept[(begin - self.start) as usize..(end - self.start) as usize];
        samples.iter().zip(weights).map(|(sample, weight)| sample * weight).sum()
    }

    /// Weights of a phase: outputs of one phase lie at the same place between two inputs.
    fn weights(&self, phase: u64) -> impl Iterator<Item = f32> + use<> {
        let (from, reach, cutoff) = (self.from as f64, self.reach, self.cutoff);
        let place = (phase * self.from % self.to) as f64 / self.to as f64;
        (0..self.taps).map(move |tap| {
            let distance = (tap as i64 - reach) as f64 - place;
            weight(distance / from * cutoff) * (cutoff / from) as f32
        })
    }
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
