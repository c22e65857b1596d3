//! What a sound consists of, without how it is played.

use serde::Serialize;

use super::words::{Course, Gap, Ground, Pitch, Rhythm, Timbre};
use crate::permutation::Digits;

/// The most events that one sound has.
pub(super) const MAX_EVENTS: usize = 3;
/// Combinations of timbre and pitch: no two events of a sound share one, so that a caption can
/// point at each.
const VOICES: usize = Timbre::ALL.len() * Pitch::ALL.len();
/// Combinations of rhythm and course.
const MANNERS: usize = Rhythm::ALL.len() * Course::ALL.len();

/// One thing that is heard.
///
/// # Example
/// ```
/// use cart_procedural::{Course, Event, Pitch, Rhythm, Timbre};
///
/// let event = Event {
///     timbre: Timbre::Bell,
///     pitch: Pitch::Deep,
///     rhythm: Rhythm::Twice,
///     course: Course::Fading,
/// };
/// assert_eq!(event.description(), "fading deep bell twice");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Event {
    /// What makes the sound.
    pub timbre: Timbre,
    /// How high it is.
    pub pitch: Pitch,
    /// When it is heard.
    pub rhythm: Rhythm,
    /// How its loudness goes.
    pub course: Course,
}

impl Event {
    /// Everything there is to say about it, in usual words.
    ///
    /// # Example
    /// See [`Event`].
    pub fn description(&self) -> String {
        let Self { timbre, pitch, rhythm, course } = self;
        let course = course.words()[if *course == Course::Steady { 0 } else { 1 }];
        format!("{course} {} {} {}", pitch.word(), timbre.word(), rhythm.word())
    }

    fn pack(&self) -> u64 {
        self.course as u64
            | (self.rhythm as u64) << 2
            | (self.pitch as u64) << 5
            | (self.timbre as u64) << 8
    }
}

/// What a sound consists of: one to three events, one after the other, before a ground.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Score {
    events: [Event; MAX_EVENTS],
    len: u8,
    /// Of all pauses; [`Gap::AtOnce`] where there is one event.
    pub(super) gap: Gap,
    pub(super) ground: Ground,
}

/// Which facts of a sound a caption states. Timbres, pitches, rhythms and the order are always
/// stated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Facts {
    pub(super) courses: bool,
    pub(super) gap: bool,
    pub(super) ground: bool,
}

impl Facts {
    #[cfg(test)]
    pub(super) const ALL: Self = Self { courses: true, gap: true, ground: true };
}

impl Score {
    /// How many scores of `len` events there are.
    pub(super) fn count(len: usize) -> u64 {
        let voices = (0..len).map(|taken| (VOICES - taken) as u64).product::<u64>();
        let gaps = if len == 1 { 1 } else { Gap::ALL.len() as u64 };
        voices * (MANNERS as u64).pow(len as u32) * gaps * Ground::ALL.len() as u64
    }

    /// The score of `len` events with a number below [`Score::count`].
    pub(super) fn numbered(len: usize, number: u64) -> Self {
        let mut digits = Digits(number);
        let ground = digits.pick(Ground::ALL);
        let gap = if len == 1 { Gap::AtOnce } else { digits.pick(Gap::ALL) };
        let mut voices: Vec<usize> = Vec::with_capacity(len);
        for _ in 0..len {
            let voice = digits.other(VOICES, &voices);
            voices.push(voice);
        }
        let mut events = [Event {
            timbre: Timbre::Sine,
            pitch: Pitch::Deep,
            rhythm: Rhythm::Held,
            course: Course::Steady,
        }; MAX_EVENTS];
        for (event, voice) in events.iter_mut().zip(voices) {
            event.timbre = Timbre::ALL[voice % Timbre::ALL.len()];
            event.pitch = Pitch::ALL[voice / Timbre::ALL.len()];
            event.rhythm = digits.pick(Rhythm::ALL);
            event.course = digits.pick(Course::ALL);
        }
        Self { events, len: len as u8, gap, ground }
    }

    pub(super) fn events(&self) -> &[Event] {
        &self.events[..usize::from(self.len)]
    }

    /// A key that two scores share exactly when they agree in all of `facts`.
    pub(super) fn key(&self, facts: Facts) -> u64 {
        let mask = if facts.courses { 0xfff } else { 0xffc };
        // The number of events is always told; an absent event is the pattern of ones.
        let mut packed = [0xfff; MAX_EVENTS];
        for (slot, event) in packed.iter_mut().zip(self.events()) {
            *slot = event.pack() & mask;
        }
        let gap = if facts.gap { self.gap as u64 } else { 3 };
        let ground = if facts.ground { self.ground as u64 } else { 7 };
        packed.iter().fold(gap << 3 | ground, |key, event| key << 12 | event)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_number_is_another_score() {
        let all = Score::count(1);
        let keys: HashSet<u64> =
            (0..all).map(|number| Score::numbered(1, number).key(Facts::ALL)).collect();
        assert_eq!(keys.len() as u64, all);
        for len in [2, 3] {
            let some = (0..100_000).map(|i| i * (Score::count(len) / 100_000));
            let keys: HashSet<u64> =
                some.map(|number| Score::numbered(len, number).key(Facts::ALL)).collect();
            assert_eq!(keys.len(), 100_000);
        }
        assert!(Score::count(2) > 2_000_000);
    }

    #[test]
    fn events_of_a_score_differ_in_timbre_or_pitch() {
        for number in 0..20_000 {
            let score = Score::numbered(3, number * (Score::count(3) / 20_000));
            let voices: HashSet<_> =
                score.events().iter().map(|event| (event.timbre, event.pitch)).collect();
            assert_eq!(voices.len(), 3);
        }
    }

    #[test]
    fn a_key_forgets_exactly_what_is_not_stated() {
        let score = Score::numbered(2, 123_456_789 % Score::count(2));
        let other_gap = if score.gap == Gap::Long { Gap::Short } else { Gap::Long };
        let other = Score { gap: other_gap, ..score };
        assert_ne!(score.key(Facts::ALL), other.key(Facts::ALL));
        let unstated = Facts { gap: false, ..Facts::ALL };
        assert_eq!(score.key(unstated), other.key(unstated));
        let mut other = score;
        other.events[1].course = match score.events[1].course {
            Course::Steady => Course::Fading,
            _ => Course::Steady,
        };
        assert_ne!(score.key(Facts::ALL), other.key(Facts::ALL));
        let unstated = Facts { courses: false, ..Facts::ALL };
        assert_eq!(score.key(unstated), other.key(unstated));
        let mut other = score;
        other.events.swap(0, 1);
        assert_ne!(score.key(Facts::default()), other.key(Facts::default()));
    }
}
