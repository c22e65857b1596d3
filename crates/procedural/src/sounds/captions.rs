//! Captions of sounds.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{
    score::{Event, Facts, Score},
    words::{Course, Gap, Ground},
};
use crate::compose::{Composition, Templates, fill_slots, indefinite, pick, word};

/// Ways to say it that training captions and queries share.
///
/// - `{then}`: a low bell twice, then a high hiss held, getting louder, and finally ...
/// - `{first}`: first a low bell twice, second a high hiss held ...
/// - `{after}`: a high hiss held after a low bell twice
/// - `{before}`: a low bell twice before a high hiss held
/// - `{heard}`: a low bell is heard twice, then a high hiss is heard held ...
/// - `{tags}`: low bell twice, high hiss held, getting louder
/// - `{table}`: 1: low bell twice; 2: ...
/// - `{behind}`: over rain, in silence, ...; `{ground}`: rain, silence; `{count}`: two sounds;
///   `{sound}`: recording, clip, ...; `{a sound}`: the same with its article
const SHARED: &[&str] = &[
    "{then}, {behind}",
    "{behind}, {then}",
    "{a sound} of {then}, {behind}",
    "there is {then}; in the background {ground}",
    "{then}",
    "{first}",
    "{first}, {behind}",
    "{count} {behind}: {then}",
    "background of {ground}: {then}",
    "{a sound} with {then} and {ground} behind",
    "find {then} {behind}",
    "play me {a sound} of {then} {behind}",
    "i am looking for {then}, {behind}",
    "{table}; background: {ground}",
    "{table}",
    "{heard}, {behind}",
    "{heard}",
    "{tags}, {behind}",
    "{tags}; {ground}",
    "you hear {then}, {behind}",
    "one hears {first} {behind}",
    "{after}, {behind}",
    "{a sound} with {after}, {behind}",
    "{before}, {behind}",
    "{behind}, {before}",
    "{ground} and, over it, {then}",
];

/// Ways to say it that only queries have.
const HELD_OUT: &[&str] = &[
    "can you find the {sound} where {heard} {behind}?",
    "{behind} you can hear {then}",
    "{then}, recorded {behind}",
    "{ground} scene: {tags}",
    "which {sound} has {then} and {ground}?",
    "{after}, played {behind}",
    "which {sound} {behind} has {before}?",
];

const SOUND: &[&str] = &["sound", "recording", "clip"];
const A_SOUND: &[&str] = &["a sound", "a recording", "a clip"];
const COUNTS: [[&str; 2]; 3] = [
    ["one sound", "a single sound"],
    ["two sounds", "two events"],
    ["three sounds", "three events"],
];
const ORDINALS: [&str; 3] = ["first", "second", "third"];

impl Composition for Score {
    type Facts = Facts;

    const TEMPLATES: Templates = Templates { shared: SHARED, held_out: HELD_OUT };

    fn key(&self, facts: Facts) -> u64 {
        Score::key(self, facts)
    }

    /// A lone event comes neither before nor after another, and needs its ground to be told from
    /// its look-alikes.
    fn suits(&self, template: &str) -> bool {
        let relates = ["{first}", "{after}", "{before}", "{table}"];
        let lone = self.events().len() == 1;
        !lone || states_ground(template) && !relates.iter().any(|slot| template.contains(slot))
    }

    fn fill(&self, template: &str, rng: &mut ChaCha8Rng) -> (String, Facts) {
        let lone = self.events().len() == 1;
        // Where several events tell sounds apart, courses and pauses are sometimes left out, as
        // people do.
        let facts = Facts {
            courses: lone || rng.random_bool(0.7),
            gap: lone
                || ["{then}", "{heard}", "{after}", "{before}"]
                    .iter()
                    .any(|s| template.contains(s))
                    && rng.random_bool(0.7),
            ground: states_ground(template),
        };
        (fill_slots(template, |slot| self.slot(slot, facts, rng)), facts)
    }
}

impl Score {
    fn slot(&self, slot: &str, facts: Facts, rng: &mut ChaCha8Rng) -> String {
        let events = self.events();
        match slot {
            "ground" => word(self.ground.words(), rng).to_string(),
            "behind" => behind(self.ground, rng),
            "count" => pick(&COUNTS[events.len() - 1], rng).to_string(),
            "sound" => pick(SOUND, rng).to_string(),
            "a sound" => pick(A_SOUND, rng).to_string(),
            "then" => {
                let say = |event: &Event, rng: &mut ChaCha8Rng| said(event, facts, rng).whole();
                self.in_order(facts, rng, say)
            }
            "heard" => {
                let say = |event: &Event, rng: &mut ChaCha8Rng| {
                    let Said { thing, manner } = said(event, facts, rng);
                    format!("{} is heard {manner}", indefinite(&thing))
                };
                self.in_order(facts, rng, say)
            }
            "first" => {
                let of =
                    |(ordinal, event)| format!("{ordinal} {}", said(event, facts, rng).whole());
                ORDINALS.iter().zip(events).map(of).collect::<Vec<_>>().join(", ")
            }
            "tags" => {
                let of = |event| {
                    let Said { thing, manner } = said(event, facts, rng);
                    format!("{thing} {manner}")
                };
                events.iter().map(of).collect::<Vec<_>>().join(", ")
            }
            "table" => {
                let of = |(number, event)| {
                    let Said { thing, manner } = said(event, facts, rng);
                    format!("{}: {thing} {manner}", number + 1)
                };
                events.iter().enumerate().map(of).collect::<Vec<_>>().join("; ")
            }
            "before" => {
                let mut text = said(&events[0], facts, rng).whole();
                for (number, event) in events.iter().enumerate().skip(1) {
                    let pause = self.pause(facts, rng).map_or(String::new(), |p| format!(", {p},"));
                    let link = if number == 1 { " before" } else { " and then" };
                    text += &format!("{link}{pause} {}", said(event, facts, rng).whole());
                }
                text
            }
            "after" => {
                let (last, first) = events.split_last().expect("at least one event");
                let first: Vec<_> =
                    first.iter().map(|event| said(event, facts, rng).whole()).collect();
                let pause = match (facts.gap, self.gap) {
                    (true, Gap::AtOnce) => " right",
                    (true, Gap::Short) => " shortly",
                    (true, Gap::Long) => " long",
                    (false, _) => "",
                };
                format!(
                    "{}{pause} after {}",
                    said(last, facts, rng).whole(),
                    first.join(" and then ")
                )
            }
            other => unreachable!("no template has the slot {other}"),
        }
    }

    /// "x, then after a moment y and finally z".
    fn in_order(
        &self,
        facts: Facts,
        rng: &mut ChaCha8Rng,
        mut say: impl FnMut(&Event, &mut ChaCha8Rng) -> String,
    ) -> String {
        let events = self.events();
        let mut text = say(&events[0], rng);
        for number in 1..events.len() {
            let last = number == events.len() - 1 && number > 1;
            let link = match last {
                true => pick(&[" and finally", " and at last", ", then"], rng),
                false => pick(&[", then", " followed by", " and then"], rng),
            };
            text.push_str(link);
            if let Some(pause) = self.pause(facts, rng) {
                text = format!("{text}, {pause},");
            }
            text = format!("{text} {}", say(&events[number], rng));
        }
        text
    }

    fn pause(&self, facts: Facts, rng: &mut ChaCha8Rng) -> Option<&'static str> {
        facts.gap.then(|| word(self.gap.words(), rng))
    }
}

/// An event in words.
struct Said {
    /// What is heard: "low bell".
    thing: String,
    /// How: "twice, getting louder".
    manner: String,
}

impl Said {
    fn whole(&self) -> String {
        format!("{} {}", indefinite(&self.thing), self.manner)
    }
}

fn said(event: &Event, facts: Facts, rng: &mut ChaCha8Rng) -> Said {
    let (pitch, timbre) = (word(event.pitch.words(), rng), word(event.timbre.words(), rng));
    let mut thing = format!("{pitch} {timbre}");
    let mut manner = word(event.rhythm.words(), rng).to_string();
    // Nobody says that a loudness is steady, or hardly.
    if facts.courses && (event.course != Course::Steady || rng.random_bool(0.15)) {
        let course = word(event.course.words(), rng);
        match event.course {
            Course::Steady => thing = format!("{course} {thing}"),
            _ => manner = format!("{manner} and {course}"),
        }
    }
    Said { thing, manner }
}

fn behind(ground: Ground, rng: &mut ChaCha8Rng) -> String {
    let what = word(ground.words(), rng);
    match ground {
        Ground::Silence => pick(&["in silence", "in stillness", "with nothing behind"], rng).into(),
        _ => match rng.random_range(0..3) {
            0 => format!("over {what}"),
            1 => format!("with {what} behind"),
            _ => format!("against {what}"),
        },
    }
}

fn states_ground(template: &str) -> bool {
    template.contains("{ground}") || template.contains("{behind}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::{Draft, Purpose, Writer, tests::check_templates};

    fn scores() -> Vec<Score> {
        let of = |len: usize| {
            (0..12).map(move |i| Score::numbered(len, Score::count(len) / 13 * i + 5 * i))
        };
        (1..=3).flat_map(of).collect()
    }

    #[test]
    fn every_template_can_be_filled_and_none_is_in_both_lists() {
        check_templates(&scores());
    }

    #[test]
    fn a_caption_names_every_event_in_order_and_what_it_claims_to_state() {
        for (index, score) in scores().into_iter().enumerate() {
            let mut writer = Writer::new(score, Purpose::Query, 4, index);
            for _ in 0..100 {
                let Draft { text, facts, .. } = writer.write();
                let find = |words: &[&str]| words.iter().filter_map(|word| text.find(word)).min();
                // Where each event's timbre stands; the same timbre may be there twice.
                let mut places = Vec::new();
                for event in score.events() {
                    let thing = event.pitch.words().iter().flat_map(|pitch| {
                        event.timbre.words().iter().map(move |timbre| format!("{pitch} {timbre}"))
                    });
                    let place = thing.filter_map(|thing| text.find(&thing)).min();
                    places.push(place.unwrap_or_else(|| panic!("{event:?}: {text}")));
                    assert!(find(event.rhythm.words()).is_some(), "{text}");
                    if facts.courses && event.course != Course::Steady {
                        assert!(find(event.course.words()).is_some(), "{text}");
                    }
                }
                match text.contains(" after a") && !text.contains(", after a") {
                    // The last one first, then the others in their order.
                    true => assert!(places.last() <= places.first(), "{text}"),
                    false => assert!(places.is_sorted(), "{text}"),
                }
                let grounds = [score.ground.words(), &["nothing behind"]].concat();
                assert!(!facts.ground || find(&grounds).is_some(), "{text}");
            }
        }
    }
}
