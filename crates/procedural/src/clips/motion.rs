//! Where shapes are at a time, and the frames that show them.

use std::f32::consts::{PI, TAU};

use cart_media::Picture;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{
    script::{Actor, Plot, Script},
    words::{Interaction, Motion, Side, Speed},
};
use crate::{
    Texture,
    scenes::{Canvas, Light, Point, Stamp},
};

/// Radius of a shape that is alone, of one of two side by side, and of one of two that meet.
const RADII: [f32; 3] = [0.14, 0.09, 0.105];
/// How far a shape that is alone goes from the middle, and one of two side by side.
const REACHES: [f32; 2] = [0.3, 0.13];

/// A shape at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Pose {
    /// From the middle of its motion, in its reach.
    at: Point,
    /// Its size as a factor.
    size: f32,
    visible: bool,
}

/// Draws the frames of a script with small random deviations.
pub(super) fn frames(
    script: &Script,
    size: usize,
    count: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<Picture> {
    let light = Light::draw(rng);
    let looks: [_; 2] = std::array::from_fn(|_| {
        let mut jitter = |range: f32| rng.random_range(-range..range);
        Look {
            at: [jitter(0.012), jitter(0.012)],
            size: 1.0 + jitter(0.05),
            angle: jitter(0.12),
            shade: jitter(0.06),
        }
    });
    let frame = |number: usize| {
        let mut canvas = Canvas::new(size, script.backdrop, light);
        let time = number as f32 / (count - 1) as f32;
        for placed in placed(&script.plot, time).into_iter().flatten() {
            let look = looks[placed.look];
            canvas.stamp(&Stamp {
                shape: placed.actor.shape,
                colour: placed.actor.colour,
                texture: Texture::Plain,
                at: [placed.at[0] + look.at[0], placed.at[1] + look.at[1]],
                radius: placed.radius,
                size: look.size,
                angle: look.angle,
                shade: look.shade,
            });
        }
        canvas.into_picture()
    };
    (0..count).map(frame).collect()
}

/// How a shape deviates in all frames.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Point,
    size: f32,
    angle: f32,
    shade: f32,
}

/// A shape in a frame.
#[derive(Debug, Clone, Copy)]
struct Placed {
    actor: Actor,
    /// Number of its [`Look`].
    look: usize,
    at: Point,
    radius: f32,
}

/// The shapes that are to be seen at a time between 0 and 1, the one behind first.
fn placed(plot: &Plot, time: f32) -> [Option<Placed>; 2] {
    let alone = |actor: Actor, look: usize, middle: f32, part: usize, pose: Pose| {
        let [x, y] = pose.at.map(|at| at * REACHES[part]);
        let (at, radius) = ([middle + x, 0.5 + y], RADII[part] * pose.size);
        pose.visible.then_some(Placed { actor, look, at, radius })
    };
    match *plot {
        Plot::One { actor, motion, speed } => {
            [alone(actor, 0, 0.5, 0, pose(motion, speed, time)), None]
        }
        Plot::Then { actor, first, second } => {
            let (motion, time) =
                if time < 0.5 { (first, 2.0 * time) } else { (second, 2.0 * time - 1.0) };
            [alone(actor, 0, 0.5, 0, pose(motion, Speed::Slow, time)), None]
        }
        Plot::While { left, left_motion, right, right_motion } => [
            alone(left, 0, 0.26, 1, pose(left_motion, Speed::Slow, time)),
            alone(right, 1, 0.74, 1, pose(right_motion, Speed::Slow, time)),
        ],
        Plot::Between { actor, interaction, other, side } => {
            let (one, two) = meeting(interaction, time);
            // Written for the one that comes from the left.
            let mirrored = |[x, y]: Point| if side == Side::Right { [1.0 - x, y] } else { [x, y] };
            let place = |actor: Actor, look: usize, at: Point| {
                Some(Placed { actor, look, at: mirrored(at), radius: RADII[2] })
            };
            let (one, two) = (place(actor, 0, one), place(other, 1, two));
            if interaction == Interaction::PassesBehind { [one, two] } else { [two, one] }
        }
    }
}

/// How far a motion is: over all of the time, or done early.
fn progress(speed: Speed, time: f32) -> f32 {
    match speed {
        Speed::Slow => time,
        Speed::Fast => (2.5 * time).min(1.0),
    }
}

fn pose(motion: Motion, speed: Speed, time: f32) -> Pose {
    let still = Pose { at: [0.0, 0.0], size: 1.0, visible: true };
    let slow = speed == Speed::Slow;
    let towards = |x: f32, y: f32| {
        let along = 2.0 * progress(speed, time) - 1.0;
        Pose { at: [x * along, y * along], ..still }
    };
    let around = |sense: f32| {
        let turn = sense * TAU * time * if slow { 1.0 } else { 2.0 };
        Pose { at: [0.85 * turn.sin(), -0.85 * turn.cos()], ..still }
    };
    match motion {
        Motion::Right => towards(1.0, 0.0),
        Motion::Left => towards(-1.0, 0.0),
        Motion::Up => towards(0.0, -1.0),
        Motion::Down => towards(0.0, 1.0),
        Motion::UpRight => towards(1.0, -1.0),
        Motion::UpLeft => towards(-1.0, -1.0),
        Motion::DownRight => towards(1.0, 1.0),
        Motion::DownLeft => towards(-1.0, 1.0),
        Motion::Clockwise => around(1.0),
        Motion::Counterclockwise => around(-1.0),
        Motion::Bouncing => {
            let hops = if slow { 2.0 } else { 4.0 };
            Pose { at: [0.0, 1.0 - 2.0 * (PI * hops * time).sin().abs()], ..still }
        }
        Motion::Swinging => {
            let swings = if slow { 1.0 } else { 3.0 };
            Pose { at: [(TAU * swings * time).sin(), 0.0], ..still }
        }
        Motion::Growing => Pose { size: 0.4 + 1.1 * progress(speed, time), ..still },
        Motion::Shrinking => Pose { size: 1.5 - 1.1 * progress(speed, time), ..still },
        Motion::Blinking => {
            let times = if slow { 2.0 } else { 4.0 };
            Pose { visible: (times * time).fract() < 0.5, ..still }
        }
    }
}

/// Where two shapes are, the first one coming from the left.
fn meeting(interaction: Interaction, time: f32) -> (Point, Point) {
    let middle = [0.5, 0.5];
    let between = |from: f32, to: f32, time: f32| from + (to - from) * time.clamp(0.0, 1.0);
    // Nearest to each other when their outlines touch.
    let touch = 2.1 * RADII[2];
    match interaction {
        Interaction::Collides => {
            let away = 0.33 * (1.0 - 2.0 * time).abs() + 0.5 * touch;
            ([0.5 - away, 0.5], [0.5 + away, 0.5])
        }
        Interaction::Follows => {
            let lead = between(0.42, 0.88, time);
            ([lead - 0.3, 0.5], [lead, 0.5])
        }
        Interaction::PassesBehind | Interaction::PassesBefore => {
            ([between(0.12, 0.88, time), 0.5], middle)
        }
        Interaction::Orbits => {
            let (sin, cos) = (TAU * time).sin_cos();
            ([0.5 - 0.32 * cos, 0.5 - 0.32 * sin], middle)
        }
        Interaction::Pushes => {
            let one = between(0.12, 0.88 - touch, time);
            ([one, 0.5], [(one + touch).max(0.5), 0.5])
        }
        Interaction::JumpsOver => {
            let height = 0.36 * (PI * time).sin();
            ([between(0.12, 0.88, time), 0.6 - height], [0.5, 0.6])
        }
        Interaction::Joins => ([between(0.1, 0.5 - touch, 2.0 * time), 0.5], middle),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backdrop, Colour, Shape};

    const ACTOR: Actor = Actor { shape: Shape::Circle, colour: Colour::Red };
    const OTHER: Actor = Actor { shape: Shape::Square, colour: Colour::Blue };

    /// Where a colour is in a picture on white: its middle and number of pixels.
    fn find(frame: &Picture, colour: Colour) -> (f32, f32, f32) {
        let (mut x, mut y, mut count) = (0.0, 0.0, 0.0);
        for row in 0..frame.height() {
            for column in 0..frame.width() {
                let [r, g, b] = frame.pixel(column, row).map(i32::from);
                let found = match colour {
                    Colour::Red => r > 120 && g < 120 && b < 120,
                    _ => b > 120 && r < 120,
                };
                if found {
                    (x, y, count) = (x + column as f32, y + row as f32, count + 1.0);
                }
            }
        }
        (x / count / frame.width() as f32, y / count / frame.height() as f32, count)
    }

    fn filmed(plot: Plot) -> Vec<Picture> {
        let script = Script { plot, backdrop: Backdrop::White };
        frames(&script, 64, 17, &mut crate::compose::item_rng(1, 2, 3))
    }

    #[test]
    fn a_shape_moves_as_its_motion_says() {
        for &motion in Motion::ALL {
            for &speed in Speed::ALL {
                let film = filmed(Plot::One { actor: ACTOR, motion, speed });
                let places: Vec<_> = film.iter().map(|frame| find(frame, Colour::Red)).collect();
                let (first, last) = (places[0], places[16]);
                let (right, down) = (last.0 - first.0, last.1 - first.1);
                let larger = last.2 / first.2;
                match motion {
                    Motion::Right => assert!(right > 0.5 && down.abs() < 0.05),
                    Motion::Left => assert!(right < -0.5 && down.abs() < 0.05),
                    Motion::Up => assert!(down < -0.5 && right.abs() < 0.05),
                    Motion::Down => assert!(down > 0.5 && right.abs() < 0.05),
                    Motion::UpRight => assert!(down < -0.5 && right > 0.5),
                    Motion::UpLeft => assert!(down < -0.5 && right < -0.5),
                    Motion::DownRight => assert!(down > 0.5 && right > 0.5),
                    Motion::DownLeft => assert!(down > 0.5 && right < -0.5),
                    Motion::Clockwise => assert!(places[2].0 > first.0 + 0.1),
                    Motion::Counterclockwise => assert!(places[2].0 < first.0 - 0.1),
                    Motion::Growing => assert!(larger > 5.0, "{larger}"),
                    Motion::Shrinking => assert!(larger < 0.2, "{larger}"),
                    Motion::Bouncing | Motion::Swinging => {
                        let of = |place: &(f32, f32, f32)| {
                            if motion == Motion::Bouncing { place.1 } else { place.0 }
                        };
                        let turns = places.windows(3).filter(|three| {
                            let [a, b, c] = [0, 1, 2].map(|at| of(&three[at]));
                            (b - a) * (c - b) < 0.0
                        });
                        let turns = turns.count();
                        assert!(if speed == Speed::Slow { turns <= 3 } else { turns >= 5 });
                    }
                    Motion::Blinking => {
                        let gone = places.iter().filter(|place| place.2 == 0.0).count();
                        assert!((6..=10).contains(&gone), "{gone}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_second_motion_comes_after_the_first() {
        let (first, second) = (Motion::Right, Motion::Growing);
        let film = filmed(Plot::Then { actor: ACTOR, first, second });
        let places: Vec<_> = film.iter().map(|frame| find(frame, Colour::Red)).collect();
        assert!(places[7].0 > places[0].0 + 0.4 && (places[16].0 - places[9].0).abs() < 0.05);
        assert!(places[16].2 > 4.0 * places[9].2 && places[7].2 < 1.3 * places[0].2);
    }

    #[test]
    fn two_shapes_do_to_each_other_what_is_said() {
        for &interaction in Interaction::ALL {
            for &side in Side::ALL {
                let film = filmed(Plot::Between { actor: ACTOR, interaction, other: OTHER, side });
                let track = |colour| -> Vec<(f32, f32, f32)> {
                    film.iter().map(|frame| find(frame, colour)).collect()
                };
                let (one, two) = (track(Colour::Red), track(Colour::Blue));
                let from_left = one[0].0 < two[0].0;
                assert_eq!(from_left, side == Side::Left, "{interaction:?} {side:?}");
                let moved = (two[16].0 - two[0].0).abs();
                let apart = |at: usize| f32::hypot(one[at].0 - two[at].0, one[at].1 - two[at].1);
                match interaction {
                    Interaction::Collides => {
                        assert!(apart(8) < 0.3 && apart(0) > 0.7 && apart(16) > 0.7);
                    }
                    Interaction::Follows => {
                        assert!(moved > 0.3 && (apart(16) - apart(0)).abs() < 0.1)
                    }
                    Interaction::PassesBehind => {
                        assert!(one[8].2 < 0.4 * one[0].2 && two[8].2 > 0.9 * two[0].2);
                    }
                    Interaction::PassesBefore => {
                        assert!(two[8].2 < 0.4 * two[0].2 && one[8].2 > 0.9 * one[0].2);
                    }
                    Interaction::Orbits => (0..17).for_each(|at| {
                        assert!((apart(at) - apart(0)).abs() < 0.06 && moved < 0.01);
                    }),
                    Interaction::Pushes => assert!(moved > 0.2 && apart(16) < 0.3),
                    Interaction::JumpsOver => {
                        assert!(moved < 0.01 && one[8].1 < two[8].1 - 0.25);
                        assert!((one[16].0 < two[16].0) != from_left);
                    }
                    Interaction::Joins => {
                        assert!(moved < 0.01 && apart(8) < 0.3 && apart(16) < 0.3)
                    }
                }
            }
        }
    }
}
