//! What a video is made of, and the words for it; shapes, colours and backdrops are those of
//! pictures.

use crate::vocabulary::vocabulary;

vocabulary! {
    /// How a shape moves or changes.
    Motion,
    /// To the right.
    Right: ["moving to the right", "going from left to right"],
    /// To the left.
    Left: ["moving to the left", "going from right to left"],
    /// Upwards.
    Up: ["rising", "moving upwards"],
    /// Downwards.
    Down: ["sinking", "moving downwards"],
    /// Upwards and to the right.
    UpRight: ["climbing to the right", "moving up and right"],
    /// Upwards and to the left.
    UpLeft: ["climbing to the left", "moving up and left"],
    /// Downwards and to the right.
    DownRight: ["sliding down to the right", "moving down and right"],
    /// Downwards and to the left.
    DownLeft: ["sliding down to the left", "moving down and left"],
    /// On a circle, as the hands of a clock.
    Clockwise: ["circling clockwise", "going round clockwise"],
    /// On a circle, the other way round.
    Counterclockwise: ["circling anticlockwise", "going round counterclockwise"],
    /// Up and down, as a ball.
    Bouncing: ["bouncing", "hopping up and down"],
    /// From side to side.
    Swinging: ["swinging", "rocking from side to side"],
    /// Becoming larger.
    Growing: ["growing", "getting bigger"],
    /// Becoming smaller.
    Shrinking: ["shrinking", "getting smaller"],
    /// There and not there.
    Blinking: ["blinking", "flashing on and off"],
}

impl Motion {
    /// What the shape does, in the order of [`Motion::words`], which say what it is doing.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::Motion;
    ///
    /// assert_eq!(Motion::Up.words()[0], "rising");
    /// assert_eq!(Motion::Up.verbs()[0], "rises");
    /// ```
    pub fn verbs(self) -> &'static [&'static str] {
        match self {
            Self::Right => &["moves to the right", "goes from left to right"],
            Self::Left => &["moves to the left", "goes from right to left"],
            Self::Up => &["rises", "moves upwards"],
            Self::Down => &["sinks", "moves downwards"],
            Self::UpRight => &["climbs to the right", "moves up and right"],
            Self::UpLeft => &["climbs to the left", "moves up and left"],
            Self::DownRight => &["slides down to the right", "moves down and right"],
            Self::DownLeft => &["slides down to the left", "moves down and left"],
            Self::Clockwise => &["circles clockwise", "goes round clockwise"],
            Self::Counterclockwise => &["circles anticlockwise", "goes round counterclockwise"],
            Self::Bouncing => &["bounces", "hops up and down"],
            Self::Swinging => &["swings", "rocks from side to side"],
            Self::Growing => &["grows", "gets bigger"],
            Self::Shrinking => &["shrinks", "gets smaller"],
            Self::Blinking => &["blinks", "flashes on and off"],
        }
    }
}

vocabulary! {
    /// How fast a shape moves.
    Speed,
    /// Over the whole video, or few times.
    Slow: ["slowly", "at a slow pace"],
    /// At the beginning of the video, or many times.
    Fast: ["quickly", "at a fast pace"],
}

vocabulary! {
    /// What one shape does to another.
    Interaction,
    /// Both meet in the middle and go back.
    Collides: ["colliding with", "bumping into"],
    /// Both go the same way, one after the other.
    Follows: ["following", "trailing behind"],
    /// One goes past, hidden for a moment.
    PassesBehind: ["passing behind", "going behind"],
    /// One goes past, hiding the other for a moment.
    PassesBefore: ["passing in front of", "going in front of"],
    /// One goes round the other, clockwise.
    Orbits: ["orbiting", "circling around"],
    /// One comes, and the other has to go on with it.
    Pushes: ["pushing", "shoving"],
    /// One goes past in an arc above.
    JumpsOver: ["jumping over", "leaping over"],
    /// One comes to the other and stays.
    Joins: ["joining", "coming to rest beside"],
}

impl Interaction {
    /// What the one does to the other, in the order of [`Interaction::words`], which say what it is
    /// doing.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::Interaction;
    ///
    /// assert_eq!(Interaction::Pushes.words()[0], "pushing");
    /// assert_eq!(Interaction::Pushes.verbs()[0], "pushes");
    /// ```
    pub fn verbs(self) -> &'static [&'static str] {
        match self {
            Self::Collides => &["collides with", "bumps into"],
            Self::Follows => &["follows", "trails behind"],
            Self::PassesBehind => &["passes behind", "goes behind"],
            Self::PassesBefore => &["passes in front of", "goes in front of"],
            Self::Orbits => &["orbits", "circles around"],
            Self::Pushes => &["pushes", "shoves"],
            Self::JumpsOver => &["jumps over", "leaps over"],
            Self::Joins => &["joins", "comes to rest beside"],
        }
    }
}

vocabulary! {
    /// Where the first of two shapes comes from.
    Side,
    /// The left.
    Left: ["from the left", "from the left side"],
    /// The right.
    Right: ["from the right", "from the right side"],
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_word_stands_for_two_things_and_verbs_go_with_words() {
        let mut seen = HashSet::new();
        for motion in Motion::ALL {
            assert_eq!(motion.words().len(), motion.verbs().len());
            let all = [motion.words(), motion.verbs()].concat();
            all.into_iter().for_each(|word| assert!(seen.insert(word), "{word} is there twice"));
        }
        for interaction in Interaction::ALL {
            assert_eq!(interaction.words().len(), interaction.verbs().len());
            let all = [interaction.words(), interaction.verbs()].concat();
            all.into_iter().for_each(|word| assert!(seen.insert(word), "{word} is there twice"));
        }
    }
}
