//! What happens in a video, without how it is drawn.

use serde::Serialize;

use super::words::{Interaction, Motion, Side, Speed};
use crate::{Backdrop, Colour, Shape, permutation::Digits};

/// Combinations of shape and colour: no two shapes of a video share one, so that a caption can
/// point at each.
const LOOKS: usize = Shape::ALL.len() * Colour::ALL.len();

/// A shape that moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Actor {
    /// Its outline.
    pub shape: Shape,
    /// Its colour.
    pub colour: Colour,
}

impl Actor {
    fn numbered(look: usize) -> Self {
        Self {
            shape: Shape::ALL[look % Shape::ALL.len()],
            colour: Colour::ALL[look / Shape::ALL.len()],
        }
    }

    /// The usual words for it.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::{Actor, Colour, Shape};
    ///
    /// let actor = Actor { shape: Shape::Star, colour: Colour::Red };
    /// assert_eq!(actor.description(), "red star");
    /// ```
    pub fn description(&self) -> String {
        format!("{} {}", self.colour.word(), self.shape.word())
    }

    fn pack(&self) -> u64 {
        (self.shape as u64) << 4 | self.colour as u64
    }
}

/// What happens in a video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Plot {
    /// A shape moves.
    One {
        /// The shape.
        actor: Actor,
        /// Its motion.
        motion: Motion,
        /// How fast it is.
        speed: Speed,
    },
    /// A shape moves in two ways, one after the other.
    Then {
        /// The shape.
        actor: Actor,
        /// Its motion in the first half.
        first: Motion,
        /// Another one in the second half.
        second: Motion,
    },
    /// Two shapes move side by side, each in its way.
    While {
        /// The shape on the left.
        left: Actor,
        /// Its motion.
        left_motion: Motion,
        /// The shape on the right.
        right: Actor,
        /// Its motion.
        right_motion: Motion,
    },
    /// A shape does something to another.
    Between {
        /// Who acts.
        actor: Actor,
        /// What it does.
        interaction: Interaction,
        /// To whom.
        other: Actor,
        /// Where the first one comes from.
        side: Side,
    },
}

impl Plot {
    /// Everything there is to say about it, in usual words.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::{Actor, Colour, Motion, Plot, Shape, Speed};
    ///
    /// let actor = Actor { shape: Shape::Star, colour: Colour::Red };
    /// let plot = Plot::One { actor, motion: Motion::Growing, speed: Speed::Slow };
    /// assert_eq!(plot.description(), "red star growing slowly");
    /// ```
    pub fn description(&self) -> String {
        match *self {
            Self::One { actor, motion, speed } => {
                format!("{} {} {}", actor.description(), motion.word(), speed.word())
            }
            Self::Then { actor, first, second } => {
                format!("{} first {}, then {}", actor.description(), first.word(), second.word())
            }
            Self::While { left, left_motion, right, right_motion } => format!(
                "on the left {} {}, on the right {} {}",
                left.description(),
                left_motion.word(),
                right.description(),
                right_motion.word()
            ),
            Self::Between { actor, interaction, other, side } => format!(
                "{} {} {} {}",
                actor.description(),
                side.word(),
                interaction.word(),
                other.description()
            ),
        }
    }
}

/// What a video shows: a plot before a backdrop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Script {
    pub(super) plot: Plot,
    pub(super) backdrop: Backdrop,
}

/// Which facts of a video a caption states. Shapes, colours, motions and their order are always
/// stated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Facts {
    pub(super) speed: bool,
    pub(super) side: bool,
    pub(super) backdrop: bool,
}

impl Facts {
    #[cfg(test)]
    pub(super) const ALL: Self = Self { speed: true, side: true, backdrop: true };
}

/// Kinds of plots, in the order of [`Plot`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    One,
    Then,
    While,
    Between,
}

impl Script {
    /// How many scripts of a kind there are.
    pub(super) fn count(kind: Kind) -> u64 {
        let (motions, pairs) = (Motion::ALL.len(), LOOKS * (LOOKS - 1));
        let plots = match kind {
            Kind::One => LOOKS * motions * Speed::ALL.len(),
            Kind::Then => LOOKS * motions * (motions - 1),
            Kind::While => pairs * motions * motions,
            Kind::Between => pairs * Interaction::ALL.len() * Side::ALL.len(),
        };
        (plots * Backdrop::ALL.len()) as u64
    }

    /// The script of a kind with a number below [`Script::count`].
    pub(super) fn numbered(kind: Kind, number: u64) -> Self {
        let mut digits = Digits(number);
        let backdrop = digits.pick(Backdrop::ALL);
        let look = digits.below(LOOKS);
        let actor = Actor::numbered(look);
        let plot = match kind {
            Kind::One => {
                let (motion, speed) = (digits.pick(Motion::ALL), digits.pick(Speed::ALL));
                Plot::One { actor, motion, speed }
            }
            Kind::Then => {
                let first = digits.below(Motion::ALL.len());
                let second = digits.other(Motion::ALL.len(), &[first]);
                let [first, second] = [first, second].map(|motion| Motion::ALL[motion]);
                Plot::Then { actor, first, second }
            }
            Kind::While => {
                let right = Actor::numbered(digits.other(LOOKS, &[look]));
                let left_motion = digits.pick(Motion::ALL);
                let right_motion = digits.pick(Motion::ALL);
                Plot::While { left: actor, left_motion, right, right_motion }
            }
            Kind::Between => {
                let other = Actor::numbered(digits.other(LOOKS, &[look]));
                let interaction = digits.pick(Interaction::ALL);
                Plot::Between { actor, interaction, other, side: digits.pick(Side::ALL) }
            }
        };
        Self { plot, backdrop }
    }

    /// A key that two scripts share exactly when they agree in all of `facts`.
    pub(super) fn key(&self, facts: Facts) -> u64 {
        let unstated = 0xf;
        let fields = match self.plot {
            Plot::One { actor, motion, speed } => {
                let speed = if facts.speed { speed as u64 } else { unstated };
                [0, actor.pack(), motion as u64, speed, 0]
            }
            Plot::Then { actor, first, second } => {
                [1, actor.pack(), first as u64, second as u64, 0]
            }
            Plot::While { left, left_motion, right, right_motion } => {
                [2, left.pack(), left_motion as u64, right.pack(), right_motion as u64]
            }
            Plot::Between { actor, interaction, other, side } => {
                let side = if facts.side { side as u64 } else { unstated };
                [3, actor.pack(), interaction as u64, other.pack(), side]
            }
        };
        let backdrop = if facts.backdrop { self.backdrop as u64 } else { unstated };
        fields.iter().fold(backdrop, |key, field| key << 8 | field)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_number_is_another_script() {
        for kind in [Kind::One, Kind::Then, Kind::While, Kind::Between] {
            let all = Script::count(kind);
            let some = all.min(100_000);
            let keys: HashSet<u64> = (0..some)
                .map(|i| Script::numbered(kind, i * (all / some)).key(Facts::ALL))
                .collect();
            assert_eq!(keys.len() as u64, some, "{kind:?}");
        }
        assert!(Script::count(Kind::While) > 2_000_000);
        assert!(Script::count(Kind::Between) > 300_000 && Script::count(Kind::Then) > 66_000);
    }

    #[test]
    fn a_key_forgets_exactly_what_is_not_stated() {
        for number in 0..500 {
            let script = Script::numbered(Kind::Between, number * 1_001);
            let Plot::Between { actor, interaction, other, side } = script.plot else {
                unreachable!("asked for one")
            };
            assert_ne!(actor, other);
            let side = if side == Side::Left { Side::Right } else { Side::Left };
            let turned =
                Script { plot: Plot::Between { actor, interaction, other, side }, ..script };
            assert_ne!(script.key(Facts::ALL), turned.key(Facts::ALL));
            let unstated = Facts { side: false, ..Facts::ALL };
            assert_eq!(script.key(unstated), turned.key(unstated));
        }
        let script = Script::numbered(Kind::Then, 4_321);
        let Plot::Then { actor, first, second } = script.plot else {
            unreachable!("asked for one")
        };
        let plot = Plot::Then { actor, first: second, second: first };
        let turned = Script { plot, ..script };
        assert_ne!(script.key(Facts::default()), turned.key(Facts::default()));
    }
}
