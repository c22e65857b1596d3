//! Playing: oscillators, strings and noise, note by note.

use std::f32::consts::TAU;

use cart_media::Sound;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{
    score::Score,
    words::{Course, Gap, Ground, Rhythm, Timbre},
};

/// Samples a second.
const RATE: u32 = 16_000;
/// Seconds before the first and after the last event.
const MARGIN: f32 = 0.1;
/// Level of an event.
const LEVEL: f32 = 0.5;
/// How far loudness goes up or down during an event, in factors of ten.
const SWELL: f32 = 1.2;

/// Plays a score with small random deviations.
pub(super) fn play(score: &Score, rng: &mut ChaCha8Rng) -> Sound {
    let pace = 1.0 + jitter(rng, 0.02);
    let (length, gap) = timing(score);
    let events = score.events();
    let seconds = 2.0 * MARGIN + length * events.len() as f32 + gap * (events.len() - 1) as f32;
    let mut samples = vec![0.0; (seconds * pace * RATE as f32) as usize];
    let mut begin = MARGIN;
    for event in events {
        let hertz = event.pitch.hertz() * (1.0 + jitter(rng, 0.015));
        let level = LEVEL * (1.0 + jitter(rng, 0.1));
        let mut noise = Noise(rng.random());
        for (start, share) in notes(event.rhythm) {
            let from = ((begin + start * length) * pace * RATE as f32) as usize;
            let count = (share * length * pace * RATE as f32) as usize;
            let mut note = note(event.timbre, hertz, count, &mut noise);
            shape(&mut note);
            for (at, sample) in note.iter().enumerate() {
                let through = start + share * at as f32 / count as f32;
                samples[from + at] += level * course(event.course, through) * sample;
            }
        }
        begin += length + gap;
    }
    let deviation = jitter(rng, 0.1);
    add_ground(score.ground, &mut samples, deviation, &mut Noise(rng.random()));
    // In steps of 16 bits, so that a WAV file holds the very samples.
    let stepped = |sample: f32| (sample * 32_768.0).round().clamp(-32_768.0, 32_767.0) / 32_768.0;
    samples.iter_mut().for_each(|sample| *sample = stepped(*sample));
    Sound::new(RATE, samples).expect("finite samples at a usual rate")
}

fn jitter(rng: &mut ChaCha8Rng, range: f32) -> f32 {
    rng.random_range(-range..range)
}

/// Seconds of an event, and of a pause.
fn timing(score: &Score) -> (f32, f32) {
    let (length, long) = [(1.3, 0.0), (1.0, 0.4), (0.8, 0.2)][score.events().len() - 1];
    let gap = match score.gap {
        Gap::AtOnce => 0.02,
        Gap::Short => 0.4 * long,
        Gap::Long => long,
    };
    (length, gap)
}

/// Starts and lengths of an event's notes, as shares of it.
fn notes(rhythm: Rhythm) -> Vec<(f32, f32)> {
    let even = |count: usize, share: f32| -> Vec<(f32, f32)> {
        (0..count).map(|i| (i as f32 / count as f32, share / count as f32)).collect()
    };
    // Each step is three quarters of the one before.
    let mut quickening = Vec::new();
    let (mut at, mut step) = (0.0, 0.27);
    while at + step < 1.0 {
        quickening.push((at, 0.55 * step));
        at += step;
        step *= 0.76;
        if step < 0.055 {
            break;
        }
    }
    match rhythm {
        Rhythm::Held => even(1, 1.0),
        Rhythm::Short => even(1, 0.18),
        Rhythm::Twice => even(2, 0.7),
        Rhythm::Thrice => even(3, 0.7),
        Rhythm::Rapid => even(8, 0.55),
        Rhythm::Speeding => quickening,
        Rhythm::Slowing => {
            quickening.iter().rev().map(|&(at, len)| (1.0 - at - len, len)).collect()
        }
    }
}

/// Factor of loudness after a share of an event.
fn course(course: Course, through: f32) -> f32 {
    match course {
        Course::Steady => 1.0,
        Course::Swelling => 10f32.powf(SWELL * (through - 1.0)),
        Course::Fading => 10f32.powf(-SWELL * through),
    }
}

/// Fades a note in and out within milliseconds, so that it does not click.
fn shape(note: &mut [f32]) {
    let edge = (RATE as usize / 100).min(note.len() / 2).max(1);
    let last = note.len().saturating_sub(1);
    for at in 0..edge.min(note.len()) {
        let share = at as f32 / edge as f32;
        note[at] *= share;
        note[last - at] *= share;
    }
}

/// One note, about as loud as others, before its ends are faded.
fn note(timbre: Timbre, hertz: f32, count: usize, noise: &mut Noise) -> Vec<f32> {
    let rate = RATE as f32;
    let seconds = count as f32 / rate;
    let wave = |turns: f32| (TAU * turns.fract()).sin();
    let mut turns = 0.0f32;
    // A wave whose frequency is a function of the time.
    let mut glide = |frequency: &dyn Fn(f32) -> f32, wave: &dyn Fn(f32, f32) -> f32| -> Vec<f32> {
        (0..count)
            .map(|at| {
                let step = frequency(at as f32 / rate) / rate;
                let sample = wave(turns, step);
                turns = (turns + step).fract();
                sample
            })
            .collect()
    };
    let sweep = |from: f32, to: f32| {
        move |time: f32| hertz * from * (to / from).powf(time / seconds.max(1e-3))
    };
    match timbre {
        Timbre::Sine => glide(&|_| hertz, &|turns, _| wave(turns)),
        Timbre::Buzzer => glide(&|_| hertz, &|turns, step| {
            0.6 * (saw(turns, step) - saw((turns + 0.5).fract(), step))
        }),
        Timbre::Saw => glide(&|_| hertz, &|turns, step| 1.1 * saw(turns, step)),
        Timbre::Riser => glide(&sweep(0.6, 1.8), &|turns, _| wave(turns)),
        Timbre::Faller => glide(&sweep(1.8, 0.6), &|turns, _| wave(turns)),
        Timbre::Warble => {
            let wavering = |time: f32| hertz * (1.5 * wave(7.0 * time) / 12.0).exp2();
            glide(&wavering, &|turns, _| 0.85 * wave(turns) + 0.35 * wave(2.0 * turns))
        }
        Timbre::Organ => {
            let harmonics = [(1.0, 0.5), (2.0, 0.35), (3.0, 0.25), (4.0, 0.2), (8.0, 0.15)];
            let audible = harmonics.map(|(n, w)| (n, if n * hertz < 7_500.0 { w } else { 0.0 }));
            glide(&|_| hertz, &|turns, _| audible.iter().map(|&(n, w)| w * wave(n * turns)).sum())
        }
        Timbre::Bell => {
            let partials = [(1.0, 0.5, 1.6), (2.76, 0.4, 2.5), (5.4, 0.3, 4.0), (0.5, 0.2, 1.2)];
            (0..count)
                .map(|at| {
                    let time = at as f32 / rate;
                    let audible = partials.iter().filter(|(n, ..)| n * hertz < 7_500.0);
                    audible.map(|&(n, w, d)| w * (-d * time).exp() * wave(n * hertz * time)).sum()
                })
                .collect()
        }
        Timbre::Pluck => pluck(hertz, count),
        Timbre::Hiss => {
            let mut band = Resonator::new(2.5 * hertz, 4.0);
            (0..count).map(|_| 1.6 * band.next(noise.next())).collect()
        }
    }
}

/// A sawtooth whose step is rounded off, so that little of it is folded down (Välimäki and
/// Huovilainen, "Antialiasing Oscillators in Subtractive Synthesis", 2007).
fn saw(turns: f32, step: f32) -> f32 {
    let naive = 2.0 * turns - 1.0;
    let rounding = if turns < step {
        let t = turns / step;
        t + t - t * t - 1.0
    } else if turns > 1.0 - step {
        let t = (turns - 1.0) / step;
        t * t + t + t + 1.0
    } else {
        0.0
    };
    naive - rounding
}

/// A plucked string: harmonics that die away, the higher ones sooner.
fn pluck(hertz: f32, count: usize) -> Vec<f32> {
    let audible = (1..=12).take_while(|&n| n as f32 * hertz < 7_500.0);
    let partials: Vec<[f32; 3]> =
        audible.map(|n| [n as f32 * hertz, 0.9 / n as f32, 2.0 + 1.5 * n as f32]).collect();
    (0..count)
        .map(|at| {
            let time = at as f32 / RATE as f32;
            let one = |[hertz, level, decay]: &[f32; 3]| {
                level * (-decay * time).exp() * (TAU * (hertz * time).fract()).sin()
            };
            partials.iter().map(one).sum()
        })
        .collect()
}

fn add_ground(ground: Ground, samples: &mut [f32], jitter: f32, noise: &mut Noise) {
    let level = 1.0 + jitter;
    let rate = RATE as f32;
    match ground {
        Ground::Silence => {}
        Ground::Hum => {
            let hertz = 60.0 * (1.0 + 0.1 * jitter);
            for (at, sample) in samples.iter_mut().enumerate() {
                let turns = hertz * at as f32 / rate;
                let wave = |n: f32| (TAU * (n * turns).fract()).sin();
                *sample += level * (0.08 * wave(1.0) + 0.02 * wave(2.0));
            }
        }
        Ground::Rain => {
            let mut before = 0.0;
            for sample in samples {
                let next = noise.next();
                *sample += 0.02 * level * (next - 0.8 * before);
                before = next;
            }
        }
        Ground::Clock => {
            let mut band = Resonator::new(4_500.0, 3.0);
            for (at, sample) in samples.iter_mut().enumerate() {
                let since = (at as f32 / rate).rem_euclid(0.25);
                let click = if since < 0.01 { noise.next() } else { 0.0 };
                *sample += 0.25 * level * band.next(click);
            }
        }
        Ground::Wind => {
            let mut band = Resonator::new(350.0 * (1.0 + jitter), 1.0);
            for (at, sample) in samples.iter_mut().enumerate() {
                let gust = 1.0 + 0.6 * (TAU * 0.7 * at as f32 / rate).sin();
                *sample += 0.07 * level * gust * band.next(noise.next());
            }
        }
    }
}

/// White noise between -1 and 1: xorshift (Marsaglia, 2003).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        // Zero would stay zero.
        self.0 |= u64::from(self.0 == 0);
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// A band around a frequency: the constant-peak band-pass of R. Bristow-Johnson's "Audio EQ
/// Cookbook".
struct Resonator {
    gain: f32,
    feedback: [f32; 2],
    inputs: [f32; 2],
    outputs: [f32; 2],
}

impl Resonator {
    fn new(hertz: f32, quality: f32) -> Self {
        let turn = TAU * hertz / RATE as f32;
        let alpha = turn.sin() / (2.0 * quality);
        let scale = 1.0 / (1.0 + alpha);
        let feedback = [-2.0 * turn.cos() * scale, (1.0 - alpha) * scale];
        Self { gain: alpha * scale, feedback, inputs: [0.0; 2], outputs: [0.0; 2] }
    }

    fn next(&mut self, input: f32) -> f32 {
        let [a, b] = self.feedback;
        let output =
            self.gain * (input - self.inputs[1]) - a * self.outputs[0] - b * self.outputs[1];
        self.inputs = [input, self.inputs[0]];
        self.outputs = [output, self.outputs[0]];
        output
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Pitch, sounds::score::Score};

    fn note_of(timbre: Timbre, pitch: Pitch) -> Vec<f32> {
        note(timbre, pitch.hertz(), RATE as usize / 2, &mut Noise(5))
    }

    fn power(samples: &[f32]) -> f32 {
        samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len() as f32
    }

    /// Strength of a frequency in a note.
    fn strength(samples: &[f32], hertz: f32) -> f32 {
        let (mut real, mut imaginary) = (0.0, 0.0);
        for (at, sample) in samples.iter().enumerate() {
            let (sin, cos) = (TAU * hertz * at as f32 / RATE as f32).sin_cos();
            real += sample * cos;
            imaginary += sample * sin;
        }
        2.0 * f32::hypot(real, imaginary) / samples.len() as f32
    }

    #[test]
    fn notes_are_about_equally_loud_and_finite() {
        for &timbre in Timbre::ALL {
            for &pitch in Pitch::ALL {
                let note = note_of(timbre, pitch);
                let power = power(&note);
                assert!(note.iter().all(|sample| sample.abs() < 3.0), "{timbre:?} {pitch:?}");
                assert!((0.003..0.8).contains(&power), "{timbre:?} {pitch:?}: {power}");
            }
        }
    }

    #[test]
    fn notes_have_their_pitch() {
        for timbre in [Timbre::Sine, Timbre::Buzzer, Timbre::Saw, Timbre::Organ, Timbre::Pluck] {
            for &pitch in Pitch::ALL {
                let note = note_of(timbre, pitch);
                let own = strength(&note, pitch.hertz());
                for off in [0.8, 0.9, 1.1, 1.2] {
                    let other = strength(&note, off * pitch.hertz());
                    assert!(own > 2.0 * other, "{timbre:?} {pitch:?}: {own} and {other} at {off}");
                }
            }
        }
    }

    #[test]
    fn rhythms_stay_within_their_event_and_go_their_way() {
        for &rhythm in Rhythm::ALL {
            let notes = notes(rhythm);
            assert!(notes.iter().all(|&(at, len)| at >= -1e-6 && at + len <= 1.0 + 1e-6));
            assert!(notes.windows(2).all(|pair| pair[0].0 + pair[0].1 < pair[1].0));
        }
        let steps = |rhythm| -> Vec<f32> {
            notes(rhythm).windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
        };
        let (up, down) = (steps(Rhythm::Speeding), steps(Rhythm::Slowing));
        assert!(up.len() >= 4 && up.windows(2).all(|pair| pair[1] < pair[0]));
        assert!(down.len() >= 4 && down.windows(2).all(|pair| pair[1] > pair[0]));
    }

    #[test]
    fn loudness_goes_its_course_and_grounds_are_soft() {
        let third = |samples: &[f32], part: usize| {
            power(&samples[part * samples.len() / 3..(part + 1) * samples.len() / 3])
        };
        let all = Score::count(1);
        for number in (0..all).step_by(17) {
            let score = Score::numbered(1, number);
            let event = score.events()[0];
            let even = [Timbre::Sine, Timbre::Saw, Timbre::Organ].contains(&event.timbre);
            let sound = play(&score, &mut crate::compose::item_rng(1, 2, 3));
            assert!((1.4..1.6).contains(&sound.seconds()));
            if even && event.rhythm == Rhythm::Held {
                let (first, last) = (third(sound.samples(), 0), third(sound.samples(), 2));
                match event.course {
                    Course::Steady => assert!((0.5..2.0).contains(&(first / last))),
                    Course::Swelling => assert!(last > 4.0 * first),
                    Course::Fading => assert!(first > 4.0 * last),
                }
            }
        }
        for &ground in Ground::ALL {
            let mut samples = vec![0.0; RATE as usize];
            add_ground(ground, &mut samples, 0.0, &mut Noise(9));
            let power = power(&samples);
            assert!(power < 0.01 && (power > 1e-6 || ground == Ground::Silence), "{power}");
        }
    }
}
