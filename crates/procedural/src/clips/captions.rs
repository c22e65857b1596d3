//! Captions of videos.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{
    script::{Actor, Facts, Plot, Script},
    words::{Interaction, Motion, Speed},
};
use crate::{
    Backdrop,
    compose::{Composition, Templates, fill_slots, indefinite, pick, word},
};

/// Ways to say it that training captions and queries share.
///
/// - `{doing}`: a red star growing slowly
/// - `{does}`: a red star grows slowly
/// - `{lead}`: growing slowly, a red star
/// - `{tags}`: red star, growing, slowly
/// - `{table}`: red star: growing slowly
/// - `{bg}`: a white background; `{colour}`: white; `{count}`: one shape;
///   `{video}`: video, film, ...; `{a video}`: the same with its article
const SHARED: &[&str] = &[
    "{doing} on {bg}",
    "{bg} with {doing}",
    "{a video} of {doing} against {bg}",
    "there is {doing}; the background is {colour}",
    "{does}, all on {bg}",
    "{colour} background: {doing}",
    "on {bg}, {does}",
    "{count} on {bg}: {doing}",
    "{doing}",
    "{does}",
    "{a video} that shows {doing}, with {colour} behind",
    "find {doing} on {bg}",
    "show me {a video} of {doing} on {bg}",
    "i am looking for {doing}, over {bg}",
    "{table}; background: {colour}",
    "{table}",
    "{does}, and the background is {colour}",
    "{lead}, on {bg}",
    "{lead}",
    "{tags}, {colour} background",
    "{tags}",
    "it has {doing}, and behind that {bg}",
    "{a video} in which {does} on {bg}",
    "over {bg} {does}",
    "{bg} and, on it, {doing}",
    "{does} in front of {bg}",
];

/// Ways to say it that only queries have.
const HELD_OUT: &[&str] = &[
    "can you find the {video} where {does}, in front of {bg}?",
    "against {bg} you can see {doing}",
    "{does}, drawn on {bg}",
    "{colour} scene: {tags}",
    "which {video} has {doing} and {bg}?",
    "{lead}, painted over {bg}",
    "in which {video} on {bg} is there {doing}?",
];

const VIDEO: &[&str] = &["video", "film", "clip"];
const A_VIDEO: &[&str] = &["a video", "a film", "a clip"];
const BACKGROUND: &[&str] = &["background", "background", "backdrop", "canvas"];
const COUNTS: [[&str; 2]; 2] = [["one shape", "a single shape"], ["two shapes", "two objects"]];

impl Composition for Script {
    type Facts = Facts;

    const TEMPLATES: Templates = Templates { shared: SHARED, held_out: HELD_OUT };

    fn key(&self, facts: Facts) -> u64 {
        Script::key(self, facts)
    }

    /// A lone motion needs its backdrop to be told from its look-alikes.
    fn suits(&self, template: &str) -> bool {
        !matches!(self.plot, Plot::One { .. }) || states_backdrop(template)
    }

    fn fill(&self, template: &str, rng: &mut ChaCha8Rng) -> (String, Facts) {
        let facts = Facts {
            speed: true,
            // Where two shapes tell videos apart, the side is sometimes left out, as people do.
            side: rng.random_bool(0.7),
            backdrop: states_backdrop(template),
        };
        (fill_slots(template, |slot| self.slot(slot, facts, rng)), facts)
    }
}

/// How a motion is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// "growing".
    Doing,
    /// "grows".
    Does,
}

impl Script {
    fn slot(&self, slot: &str, facts: Facts, rng: &mut ChaCha8Rng) -> String {
        match slot {
            "bg" => format!("{} {}", indefinite(colour(self.backdrop, rng)), pick(BACKGROUND, rng)),
            "colour" => colour(self.backdrop, rng).to_string(),
            "count" => {
                let two = matches!(self.plot, Plot::While { .. } | Plot::Between { .. });
                pick(&COUNTS[usize::from(two)], rng).to_string()
            }
            "video" => pick(VIDEO, rng).to_string(),
            "a video" => pick(A_VIDEO, rng).to_string(),
            "doing" => self.plot.sentence(Form::Doing, facts, rng),
            "does" => self.plot.sentence(Form::Does, facts, rng),
            "lead" => self.plot.led(facts, rng),
            "tags" => self.plot.listed([", ", ", "], ", ", facts, rng),
            "table" => self.plot.listed([": ", "; "], " ", facts, rng),
            other => unreachable!("no template has the slot {other}"),
        }
    }
}

impl Plot {
    /// "a red star growing slowly", or with verbs.
    fn sentence(&self, form: Form, facts: Facts, rng: &mut ChaCha8Rng) -> String {
        let doing = form == Form::Doing;
        let act = |motion: Motion, rng: &mut ChaCha8Rng| {
            word(if doing { motion.words() } else { motion.verbs() }, rng)
        };
        match *self {
            Self::One { actor, motion, speed } => {
                let (who, speed) = (a(actor, rng), pace(speed, facts, rng));
                format!("{who} {}{speed}", act(motion, rng))
            }
            Self::Then { actor, first, second } => {
                let who = a(actor, rng);
                match rng.random_range(0..4) {
                    0 => format!("{who} {} after {}", act(second, rng), word(first.words(), rng)),
                    1 => format!("{who} {}, then {}", act(first, rng), act(second, rng)),
                    2 => format!("{who} {} before {}", act(first, rng), word(second.words(), rng)),
                    _ => format!("{who} first {} and then {}", act(first, rng), act(second, rng)),
                }
            }
            Self::While { left, left_motion, right, right_motion } => {
                let mut halves =
                    [(left, left_motion, "on the left"), (right, right_motion, "on the right")];
                if rng.random_bool(0.5) {
                    halves.reverse();
                }
                let link = pick(&["while", "and"], rng);
                let [one, two] = halves.map(|(actor, motion, place)| {
                    format!("{} {} {place}", a(actor, rng), act(motion, rng))
                });
                format!("{one} {link} {two}")
            }
            Self::Between { actor, interaction, other, side } => {
                let (who, whom) = (a(actor, rng), a(other, rng));
                let act = to(interaction, doing, rng);
                match (facts.side, doing) {
                    (true, true) => {
                        format!("{who} coming {} and {act} {whom}", word(side.words(), rng))
                    }
                    (true, false) => {
                        format!("{who} comes {} and {act} {whom}", word(side.words(), rng))
                    }
                    (false, _) => format!("{who} {act} {whom}"),
                }
            }
        }
    }

    /// "growing slowly, a red star".
    fn led(&self, facts: Facts, rng: &mut ChaCha8Rng) -> String {
        match *self {
            Self::One { actor, motion, speed } => {
                let (act, speed) = (word(motion.words(), rng), pace(speed, facts, rng));
                format!("{act}{speed}, {}", a(actor, rng))
            }
            Self::Then { actor, first, second } => {
                let [first, second] = [first, second].map(|motion| word(motion.words(), rng));
                format!("first {first}, then {second}, {}", a(actor, rng))
            }
            Self::While { left, left_motion, right, right_motion } => {
                let [left_motion, right_motion] =
                    [left_motion, right_motion].map(|motion| word(motion.words(), rng));
                let (left, right) = (a(left, rng), a(right, rng));
                format!("on the left {left} {left_motion}, on the right {right} {right_motion}")
            }
            Self::Between { actor, interaction, other, side } => {
                let (act, who, whom) = (to(interaction, true, rng), a(actor, rng), a(other, rng));
                match facts.side {
                    true => format!("{}, {who} {act} {whom}", word(side.words(), rng)),
                    false => format!("{act} {whom}, {who}"),
                }
            }
        }
    }

    /// What is there, one after the other: separators behind a shape and between shapes, and
    /// between the parts of what it does.
    fn listed(
        &self,
        [behind, between]: [&str; 2],
        within: &str,
        facts: Facts,
        rng: &mut ChaCha8Rng,
    ) -> String {
        match *self {
            Self::One { actor, motion, speed } => {
                let (who, act) = (said(actor, rng), word(motion.words(), rng));
                let speed = if facts.speed { word(speed.words(), rng) } else { "" };
                format!("{who}{behind}{act}{within}{speed}")
            }
            Self::Then { actor, first, second } => {
                let who = said(actor, rng);
                let [first, second] = [first, second].map(|motion| word(motion.words(), rng));
                format!("{who}{behind}{first}, then {second}")
            }
            Self::While { left, left_motion, right, right_motion } => {
                let one = |actor, place, motion: Motion, rng: &mut ChaCha8Rng| {
                    format!("{place} {}{behind}{}", said(actor, rng), word(motion.words(), rng))
                };
                let left = one(left, "left", left_motion, rng);
                format!("{left}{between}{}", one(right, "right", right_motion, rng))
            }
            Self::Between { actor, interaction, other, side } => {
                let (who, whom) = (said(actor, rng), said(other, rng));
                let from = if facts.side {
                    format!("{within}{}", word(side.words(), rng))
                } else {
                    String::new()
                };
                format!("{who}{behind}{} {whom}{from}", to(interaction, true, rng))
            }
        }
    }
}

fn said(actor: Actor, rng: &mut ChaCha8Rng) -> String {
    format!("{} {}", word(actor.colour.words(), rng), word(actor.shape.words(), rng))
}

fn a(actor: Actor, rng: &mut ChaCha8Rng) -> String {
    indefinite(&said(actor, rng))
}

fn pace(speed: Speed, facts: Facts, rng: &mut ChaCha8Rng) -> String {
    if facts.speed { format!(" {}", word(speed.words(), rng)) } else { String::new() }
}

fn to(interaction: Interaction, doing: bool, rng: &mut ChaCha8Rng) -> &'static str {
    word(if doing { interaction.words() } else { interaction.verbs() }, rng)
}

fn colour(backdrop: Backdrop, rng: &mut ChaCha8Rng) -> &'static str {
    pick(backdrop.words(), rng)
}

fn states_backdrop(template: &str) -> bool {
    template.contains("{bg}") || template.contains("{colour}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clips::script::Kind,
        compose::{Draft, Purpose, Writer, tests::check_templates},
    };

    fn scripts() -> Vec<Script> {
        let of = |kind: Kind| {
            (0..12).map(move |i| Script::numbered(kind, Script::count(kind) / 13 * i + 5 * i))
        };
        [Kind::One, Kind::Then, Kind::While, Kind::Between].into_iter().flat_map(of).collect()
    }

    #[test]
    fn every_template_can_be_filled_and_none_is_in_both_lists() {
        check_templates(&scripts());
    }

    /// Where one of some words begins.
    fn find(text: &str, words: &[&[&str]]) -> Option<usize> {
        words.concat().iter().filter_map(|word| text.find(word)).min()
    }

    #[test]
    fn a_caption_says_who_does_what_in_which_order() {
        for (index, script) in scripts().into_iter().enumerate() {
            let mut writer = Writer::new(script, Purpose::Query, 4, index);
            for _ in 0..100 {
                let Draft { text, facts, .. } = writer.write();
                let who = |actor: Actor| {
                    let mut all: Vec<String> = Vec::new();
                    for colour in actor.colour.words() {
                        all.extend(
                            actor.shape.words().iter().map(|shape| format!("{colour} {shape}")),
                        );
                    }
                    let found = all.iter().filter_map(|who| text.find(who.as_str())).min();
                    found.unwrap_or_else(|| panic!("{actor:?}: {text}"))
                };
                let act = |motion: Motion| {
                    let found = find(&text, &[motion.words(), motion.verbs()]);
                    found.unwrap_or_else(|| panic!("{motion:?}: {text}"))
                };
                match script.plot {
                    Plot::One { actor, motion, speed } => {
                        who(actor);
                        act(motion);
                        assert_eq!(facts.speed, find(&text, &[speed.words()]).is_some(), "{text}");
                    }
                    Plot::Then { actor, first, second } => {
                        who(actor);
                        let in_order = act(first) < act(second);
                        assert_eq!(in_order, !text.contains(" after "), "{text}");
                    }
                    Plot::While { left, left_motion, right, right_motion } => {
                        act(left_motion);
                        act(right_motion);
                        let left_first = text.find("left").unwrap() < text.find("right").unwrap();
                        // Motions have these words too.
                        if !text.contains("to the") && !text.contains("from") {
                            let unclear = text.contains("up and") || text.contains("down and");
                            assert!(unclear || left_first == (who(left) < who(right)), "{text}");
                        }
                    }
                    Plot::Between { actor, interaction, other, side } => {
                        let act = find(&text, &[interaction.words(), interaction.verbs()]);
                        let act = act.unwrap_or_else(|| panic!("{interaction:?}: {text}"));
                        assert!(act < who(other), "{text}");
                        assert!(who(actor) < act || text.ends_with(&text[who(actor)..]), "{text}");
                        assert_eq!(facts.side, find(&text, &[side.words()]).is_some(), "{text}");
                    }
                }
                let stated = find(&text, &[script.backdrop.words()]).is_some();
                assert!(!facts.backdrop || stated, "{text}");
            }
        }
    }
}
