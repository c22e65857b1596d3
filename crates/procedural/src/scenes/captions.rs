//! Captions of scenes.

use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    layout::{Facts, Layout, Object},
    phrases::{around, joined, list, object_words, relations},
};
use crate::compose::{Composition, Templates, fill_slots, pick};

/// Ways to say it that training captions and queries share.
///
/// - `{list}`: a red star at the top left, a blue ring in the centre and ...
/// - `{lead}`: at the top left a red star, in the centre a blue ring and ...
/// - `{is}`: the red star is at the top left, the blue ring is in the centre and ...
/// - `{tags}`: red star top left, blue ring centre, ...
/// - `{table}`: top left: red star; centre: blue ring; ...
/// - `{relations}`: a red star above a blue ring, and a green cross below the red star
/// - `{around}`: a red star in the centre, with a blue ring above it and ...
/// - `{bg}`: a white background; `{colour}`: white; `{count}`: three objects;
///   `{picture}`: picture, image, ...; `{a picture}`: the same with its article
const SHARED: &[&str] = &[
    "{list} on {bg}",
    "{bg} with {list}",
    "{a picture} of {list} against {bg}",
    "there is {list}; the background is {colour}",
    "{lead}, all on {bg}",
    "{colour} background: {list}",
    "on {bg}, {lead}",
    "{count} on {bg}: {list}",
    "{list}",
    "{lead}",
    "{a picture} that shows {list}, with {colour} behind",
    "find {list} on {bg}",
    "show me {a picture} of {list} on {bg}",
    "i am looking for {list}, over {bg}",
    "{table}; background: {colour}",
    "{table}",
    "{is}, and the background is {colour}",
    "{is}",
    "{tags}, {colour} background",
    "it has {list}, and behind that {bg}",
    "{relations} on {bg}",
    "{a picture} with {relations}, on {bg}",
    "on {bg}, {relations}",
    "{around}, on {bg}",
    "{a picture} of {around}; the background is {colour}",
    "{bg} and, on it, {around}",
];

/// Ways to say it that only queries have.
const HELD_OUT: &[&str] = &[
    "can you find the {picture} where {is}, in front of {bg}?",
    "against {bg} you can see {list}",
    "{list}, drawn on {bg}",
    "{colour} scene: {tags}",
    "which {picture} has {list} and {bg}?",
    "{relations}, painted over {bg}",
    "which {picture} on {bg} has {around}?",
];

const PICTURE: &[&str] = &["picture", "image", "drawing"];
const A_PICTURE: &[&str] = &["a picture", "an image", "a drawing"];
const BACKGROUND: &[&str] = &["background", "background", "backdrop", "canvas"];
const COUNTS: [[&str; 2]; 3] = [
    ["one object", "a single shape"],
    ["two objects", "two shapes"],
    ["three objects", "three shapes"],
];

impl Composition for Layout {
    type Facts = Facts;

    const TEMPLATES: Templates = Templates { shared: SHARED, held_out: HELD_OUT };

    fn key(&self, facts: Facts) -> u64 {
        Layout::key(self, facts)
    }

    /// A lone object has no relations, and needs its backdrop to be told from its look-alikes.
    fn suits(&self, template: &str) -> bool {
        let lone = self.objects().len() == 1;
        !lone || states_backdrop(template) && !relates(template) && !template.contains("all on")
    }

    fn fill(&self, template: &str, rng: &mut ChaCha8Rng) -> (String, Facts) {
        let facts = self.choose_facts(template, rng);
        let mut objects = self.objects().to_vec();
        objects.shuffle(rng);
        (fill_slots(template, |slot| self.slot(slot, &objects, facts, rng)), facts)
    }
}

impl Layout {
    /// What a caption states follows from its slots; where places tell scenes apart, sizes and
    /// textures are sometimes left out, as people do.
    fn choose_facts(&self, template: &str, rng: &mut ChaCha8Rng) -> Facts {
        let everything = relates(template) || self.objects().len() == 1;
        Facts {
            extents: everything || rng.random_bool(0.6),
            textures: everything || rng.random_bool(0.7),
            places: !relates(template),
            backdrop: states_backdrop(template),
        }
    }

    fn slot(&self, slot: &str, objects: &[Object], facts: Facts, rng: &mut ChaCha8Rng) -> String {
        let backdrop = self.backdrop;
        match slot {
            "bg" => format!("a {} {}", pick(backdrop.words(), rng), pick(BACKGROUND, rng)),
            "colour" => pick(backdrop.words(), rng).to_string(),
            "count" => pick(&COUNTS[objects.len() - 1], rng).to_string(),
            "picture" => pick(PICTURE, rng).to_string(),
            "a picture" => pick(A_PICTURE, rng).to_string(),
            "relations" => relations(objects, facts, rng),
            "around" => around(objects, facts, rng),
            "list" => list(objects, rng, |object, rng| {
                let words = object_words(object, facts, rng);
                format!("{} {}", words.indefinite(), pick(object.place.phrases(), rng))
            }),
            "lead" => list(objects, rng, |object, rng| {
                let words = object_words(object, facts, rng);
                format!("{} {}", pick(object.place.phrases(), rng), words.indefinite())
            }),
            "is" => list(objects, rng, |object, rng| {
                let words = object_words(object, facts, rng);
                format!("the {} is {}", words.full, pick(object.place.phrases(), rng))
            }),
            "tags" => joined(objects, ", ", |object| {
                let words = object_words(object, facts, rng);
                format!("{} {}", words.full, pick(object.place.words(), rng))
            }),
            "table" => joined(objects, "; ", |object| {
                let words = object_words(object, facts, rng);
                format!("{}: {}", pick(object.place.words(), rng), words.full)
            }),
            other => unreachable!("no template has the slot {other}"),
        }
    }
}

fn relates(template: &str) -> bool {
    template.contains("{relations}") || template.contains("{around}")
}

fn states_backdrop(template: &str) -> bool {
    template.contains("{bg}") || template.contains("{colour}")
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::compose::{Draft, Purpose, Writer, tests::check_templates};

    #[test]
    fn every_template_can_be_filled_and_none_is_in_both_lists() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        check_templates(&[1, 2, 3].map(|len| Layout::draw(len, &mut rng)));
    }

    #[test]
    fn a_caption_names_the_shape_and_the_colour_of_every_object() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        for (index, len) in [1, 2, 3, 3, 3].into_iter().enumerate() {
            let layout = Layout::draw(len, &mut rng);
            let mut writer = Writer::new(layout, Purpose::Query, 4, index);
            for _ in 0..200 {
                let Draft { text, facts, .. } = writer.write();
                let names = |words: &[&str]| words.iter().any(|word| text.contains(word));
                for object in layout.objects() {
                    assert!(names(object.shape.words()), "{text}");
                    assert!(names(object.colour.words()), "{text}");
                    assert!(!facts.extents || names(object.extent.words()), "{text}");
                    let places = [object.place.words(), object.place.phrases()].concat();
                    assert!(!facts.places || names(&places), "{text}");
                }
                assert!(!facts.backdrop || names(layout.backdrop.words()), "{text}");
            }
        }
    }
}
