//! What a sound is made of, and the words for it.

use crate::vocabulary::vocabulary;

vocabulary! {
    /// What makes the sound of an event.
    Timbre,
    /// A pure sine.
    Sine: ["sine tone", "pure tone"],
    /// A square wave.
    Buzzer: ["buzzer", "square wave"],
    /// A sawtooth wave.
    Saw: ["sawtooth", "saw wave"],
    /// A string that is plucked and dies away.
    Pluck: ["plucked string", "guitar string"],
    /// Partials out of tune that die away.
    Bell: ["bell", "chime"],
    /// Noise around a frequency.
    Hiss: ["hiss", "noise burst"],
    /// A tone that glides upwards.
    Riser: ["rising sweep", "upward chirp"],
    /// A tone that glides downwards.
    Faller: ["falling sweep", "downward chirp"],
    /// A few steady harmonics.
    Organ: ["organ", "organ pipe"],
    /// A tone that wavers.
    Warble: ["warble", "siren"],
}

vocabulary! {
    /// How high an event sounds, in steps of half an octave.
    Pitch,
    /// About 131 Hz.
    Deep: ["deep", "bass"],
    /// About 185 Hz.
    Low: ["low", "baritone"],
    /// About 262 Hz.
    Lowish: ["lowish", "tenor"],
    /// About 370 Hz.
    Middle: ["middle", "alto"],
    /// About 523 Hz.
    Highish: ["highish", "mezzo"],
    /// About 740 Hz.
    High: ["high", "soprano"],
    /// About 1,047 Hz.
    Shrill: ["shrill", "descant"],
    /// About 1,480 Hz.
    Piercing: ["piercing", "piccolo"],
}

impl Pitch {
    /// Its usual frequency in Hz.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::Pitch;
    ///
    /// assert!((Pitch::Highish.hertz() / Pitch::Deep.hertz() - 4.0).abs() < 1e-5);
    /// ```
    pub fn hertz(self) -> f32 {
        130.8 * (0.5 * self as u8 as f32).exp2()
    }
}

vocabulary! {
    /// When an event is heard.
    Rhythm,
    /// All the time.
    Held: ["held", "sustained"],
    /// Once and short.
    Short: ["once and short", "cut short"],
    /// Two notes.
    Twice: ["twice", "two times"],
    /// Three notes.
    Thrice: ["three times", "thrice"],
    /// Eight notes.
    Rapid: ["in quick repetition", "rapidly repeated"],
    /// Notes that come ever faster.
    Speeding: ["faster and faster", "speeding up"],
    /// Notes that come ever slower.
    Slowing: ["slower and slower", "slowing down"],
}

vocabulary! {
    /// How the loudness of an event goes.
    Course,
    /// As loud all the time.
    Steady: ["steady", "even"],
    /// Louder towards the end.
    Swelling: ["getting louder", "swelling"],
    /// Softer towards the end.
    Fading: ["getting softer", "fading"],
}

vocabulary! {
    /// What is heard behind the events.
    Ground,
    /// Nothing.
    Silence: ["silence", "stillness"],
    /// A low electric hum.
    Hum: ["a hum", "a mains hum"],
    /// Rain.
    Rain: ["rain", "a drizzle"],
    /// The ticks of a clock.
    Clock: ["a ticking clock", "clock ticks"],
    /// Wind.
    Wind: ["wind", "a breeze"],
}

vocabulary! {
    /// How long it is quiet between two events.
    Gap,
    /// Not at all.
    AtOnce: ["at once", "immediately"],
    /// For a moment.
    Short: ["after a short pause", "after a moment"],
    /// Clearly longer.
    Long: ["after a long pause", "after a long wait"],
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_word_stands_for_two_things() {
        let mut seen = HashSet::new();
        let all = Timbre::ALL.iter().flat_map(|x| x.words()).copied();
        let all = all.chain(Pitch::ALL.iter().flat_map(|x| x.words()).copied());
        let all = all.chain(Rhythm::ALL.iter().flat_map(|x| x.words()).copied());
        let all = all.chain(Course::ALL.iter().flat_map(|x| x.words()).copied());
        let all = all.chain(Ground::ALL.iter().flat_map(|x| x.words()).copied());
        let mut all = all.chain(Gap::ALL.iter().flat_map(|x| x.words()).copied());
        assert!(all.all(|word| seen.insert(word)), "{seen:?}");
    }
}
