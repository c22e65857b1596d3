//! The parts of a caption: objects in words, lists of them, relations between them.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{
    layout::{Facts, Object},
    words::{Place, Texture},
};
use crate::compose::{indefinite, pick, word};

/// An object in words.
pub(super) struct ObjectWords {
    /// All that is to be said: "small red star with dots".
    pub(super) full: String,
    /// Enough to point at it later: "red star".
    pub(super) short: String,
}

impl ObjectWords {
    /// The full words with "a" or "an".
    pub(super) fn indefinite(&self) -> String {
        indefinite(&self.full)
    }
}

pub(super) fn object_words(object: &Object, facts: Facts, rng: &mut ChaCha8Rng) -> ObjectWords {
    let mut full = String::new();
    if facts.extents {
        full.push_str(word(object.extent.words(), rng));
        full.push(' ');
    }
    // Nobody says that a thing is plain, or hardly.
    let mut after = "";
    if facts.textures && (object.texture != Texture::Plain || rng.random_bool(0.15)) {
        after = match object.texture {
            Texture::Striped => " with stripes",
            Texture::Dotted => " with dots",
            Texture::Plain => "",
        };
        if after.is_empty() || rng.random_bool(0.7) {
            after = "";
            full.push_str(word(object.texture.words(), rng));
            full.push(' ');
        }
    }
    let (colour, shape) = (word(object.colour.words(), rng), word(object.shape.words(), rng));
    let short = format!("{colour} {shape}");
    full.push_str(&short);
    full.push_str(after);
    ObjectWords { full, short }
}

/// "x", "x and y", "x, y and z".
pub(super) fn list(
    objects: &[Object],
    rng: &mut ChaCha8Rng,
    mut say: impl FnMut(&Object, &mut ChaCha8Rng) -> String,
) -> String {
    let said: Vec<_> = objects.iter().map(|object| say(object, rng)).collect();
    match said.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, first)) => format!("{} and {last}", first.join(", ")),
        None => String::new(),
    }
}

/// The objects one after the other.
pub(super) fn joined(
    objects: &[Object],
    separator: &str,
    say: impl FnMut(&Object) -> String,
) -> String {
    objects.iter().map(say).collect::<Vec<_>>().join(separator)
}

/// "a red star above a blue ring, and a green cross below the blue ring".
pub(super) fn relations(objects: &[Object], facts: Facts, rng: &mut ChaCha8Rng) -> String {
    let said: Vec<_> = objects.iter().map(|object| object_words(object, facts, rng)).collect();
    let relation = |i: usize, j: usize| objects[i].place.relation_to(objects[j].place);
    let mut text = format!("{} {} {}", said[0].indefinite(), relation(0, 1), said[1].indefinite());
    for i in 2..objects.len() {
        let anchor = rng.random_range(0..i);
        text.push_str(&format!(
            ", and {} {} the {}",
            said[i].indefinite(),
            relation(i, anchor),
            said[anchor].short
        ));
    }
    text
}

/// "a red star in the centre, with a blue ring to its left and a green cross above it".
pub(super) fn around(objects: &[Object], facts: Facts, rng: &mut ChaCha8Rng) -> String {
    let place = objects[0].place;
    let anchor = object_words(&objects[0], facts, rng).indefinite();
    let others = list(&objects[1..], rng, |object, rng| {
        let words = object_words(object, facts, rng).indefinite();
        format!("{words} {}", beside_it(object.place, place))
    });
    format!("{anchor} {}, with {others}", pick(place.phrases(), rng))
}

/// [`Place::relation_to`], said of "it".
fn beside_it(place: Place, it: Place) -> String {
    match place.relation_to(it) {
        "to the left of" => "to its left".to_string(),
        "to the right of" => "to its right".to_string(),
        upright @ ("above" | "below") => format!("{upright} it"),
        slanting => {
            let upright = if place.row() < it.row() { "above" } else { "below" };
            let side = if slanting.ends_with("left of") { "left" } else { "right" };
            format!("{upright} it to the {side}")
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::{Colour, Extent, Shape};

    #[test]
    fn relations_are_said_the_right_way_round() {
        let object = |shape, colour, place| Object {
            shape,
            colour,
            extent: Extent::Large,
            texture: Texture::Plain,
            place,
        };
        let objects = [
            object(Shape::Hexagon, Colour::Orange, Place::TopLeft),
            object(Shape::Star, Colour::Purple, Place::BottomLeft),
        ];
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        for _ in 0..50 {
            let text = relations(&objects, Facts::default(), &mut rng);
            let (first, second) = text.split_once(" above ").expect("the first one is above");
            assert!(Colour::Orange.words().iter().any(|word| first.contains(word)), "{text}");
            assert!(second.starts_with("a purple") || second.starts_with("a violet"), "{text}");
            let text = around(&objects, Facts::default(), &mut rng);
            assert!(text.starts_with("an orange") || text.starts_with("a tangerine"), "{text}");
            assert!(text.ends_with(" below it"), "{text}");
        }
    }

    #[test]
    fn slanting_relations_keep_both_directions() {
        assert_eq!(beside_it(Place::Top, Place::BottomLeft), "above it to the right");
        assert_eq!(beside_it(Place::Bottom, Place::TopRight), "below it to the left");
        assert_eq!(beside_it(Place::Left, Place::Centre), "to its left");
        assert_eq!(beside_it(Place::Right, Place::Centre), "to its right");
    }
}
