//! Against stand-ins for captioners: scripts of the shell.

use std::{path::Path, time::Instant};

use super::*;
use crate::media::{MediaItem, Modality};

/// A captioner that is a script; `$1` is a folder of its own.
fn script(text: &str, folder: &Path) -> CommandConfig {
    let folder = folder.to_str().unwrap();
    CommandConfig::new("sh").with_args(["-c", text, "captioner", folder])
}

/// Answers every line with a caption, which is the path.
const ECHO: &str = r#"sed 's/"path":/"caption":/'"#;

fn job(count: usize) -> CaptionJob {
    let ids: Vec<String> = (0..count).map(|item| format!("i{item}")).collect();
    let media: Vec<MediaItem> = ids
        .iter()
        .map(|id| MediaItem {
            id: id.clone(),
            path: format!("a b/{id}'s \"$(file)\".png").into(),
            modality: Modality::Image,
            span: None,
        })
        .collect();
    CaptionJob::new(&ids).unwrap().with_media("/media", &media).unwrap()
}

fn run_all(captioner: &CommandCaptioner, job: &CaptionJob) -> Result<Captioned> {
    captioner.caption(job, &Monitor::new())
}

fn message(config: CommandConfig, count: usize) -> String {
    run_all(&config.init().unwrap(), &job(count)).unwrap_err().to_string()
}

fn has(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
}

#[test]
fn paths_go_in_and_captions_come_out() {
    let folder = tempfile::tempdir().unwrap();
    let config = CommandConfig {
        source: Some("echo".into()),
        weight: 0.5,
        batch: 2,
        ..script(ECHO, folder.path())
    };
    let mut seen = Vec::new();
    let made = config
        .init()
        .unwrap()
        .caption(
            &job(5),
            &Monitor::new().with_progress(|at: CaptionProgress| seen.push((at.done, at.total))),
        )
        .unwrap();
    assert_eq!(seen, [(2, 5), (4, 5), (5, 5)]);
    let ids: Vec<&str> = made.captions.iter().map(|caption| caption.id.as_str()).collect();
    assert_eq!(ids, ["i0", "i1", "i2", "i3", "i4"]);
    let last = made.captions.iter().last().unwrap();
    assert_eq!(last.text, "/media/a b/i4's \"$(file)\".png");
    assert_eq!((last.source.as_deref(), last.weight), (Some("echo"), 0.5));
    assert_eq!(last.kind.as_deref(), Some("generated"));
}

#[test]
fn order_weights_and_items_without_a_caption() {
    let folder = tempfile::tempdir().unwrap();
    let text = r#"cat > "$1/input"
        printf '%s\n' '{"id": "i2", "caption": "two", "weight": 0.5, "score": 3}' ''
        printf '%s' '{"id": "i0", "caption": "zero"}'"#;
    let config = CommandConfig { weight: 0.5, ..script(text, folder.path()) };
    let captioner = config.init().unwrap();
    let made = run_all(&captioner, &job(3)).unwrap();
    let found: Vec<(&str, f32)> =
        made.captions.iter().map(|caption| (caption.text.as_str(), caption.weight)).collect();
    assert_eq!(found, [("zero", 0.5), ("two", 0.25)]);
    assert_eq!((made.without, captioner.source()), (vec!["i1".to_string()], "sh"));
    // Without files, the program gets the ids alone; a part of a file is told.
    run_all(&captioner, &CaptionJob::new(&["i0", "i2"]).unwrap()).unwrap();
    let input = || std::fs::read_to_string(folder.path().join("input")).unwrap();
    assert_eq!(input(), "{\"id\":\"i0\"}\n{\"id\":\"i2\"}\n");
    let media = ["i0", "i2"].map(|id| MediaItem {
        id: id.into(),
        path: "x.wav".into(),
        modality: Modality::Audio,
        span: Some((1.0, 2.5)),
    });
    let spans = CaptionJob::new(&["i0", "i2"]).unwrap().with_media("m", &media).unwrap();
    run_all(&captioner, &spans).unwrap();
    has(&input(), &[r#"{"id":"i0","path":"m/x.wav","span":[1.0,2.5]}"#]);
    let error = CaptionJob::new(&["i0", "i9"]).unwrap().with_media("m", &media).unwrap_err();
    has(&error.to_string(), &["none for `i9`", "media.jsonl"]);
}

/// A megabyte each way and to the standard error at once: pipes hold 64 kB.
#[test]
fn full_pipes_are_no_deadlock() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "i=0; while [ $i -lt 20000 ]; do echo 'a line of sixty-four characters, more or less, to fill it up' >&2; \
         i=$((i+1)); done; {ECHO}"
    );
    let made = run_all(&script(&text, folder.path()).init().unwrap(), &job(1000)).unwrap();
    assert_eq!(made.captions.len(), 1000);
    let many = CommandConfig { batch: 20_000, ..script(ECHO, folder.path()) };
    let made = run_all(&many.init().unwrap(), &job(20_000)).unwrap();
    assert_eq!(made.captions.len(), 20_000);
    // A program that reads nothing closes the pipe under the writer.
    let text = r#"printf '{"id": "i7", "caption": "seven"}\n'"#;
    let config = CommandConfig { batch: 20_000, ..script(text, folder.path()) };
    let made = run_all(&config.init().unwrap(), &job(20_000)).unwrap();
    assert_eq!((made.captions.len(), made.without.len()), (1, 19_999));
}

#[test]
fn a_program_that_fails_is_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let missing = CommandConfig::new("no-such-captioner");
    has(&message(missing, 1), &["`no-such-captioner`", "can be started", "no shell"]);
    let text = "cat > /dev/null; echo loading >&2; echo out of memory >&2; exit 3";
    let found = message(script(text, folder.path()), 2);
    has(&found, &["exit status 0", "exit status: 3", "out of memory"]);
    let text =
        "i=0; while [ $i -lt 3000 ]; do echo noise >&2; i=$((i+1)); done; echo the end >&2; exit 1";
    let found = message(script(text, folder.path()), 1);
    has(&found, &["the end"]);
    assert!(found.len() < 3000, "{}", found.len());
    has(&message(script("exit 1", folder.path()), 1), &["nothing on its standard error"]);
    has(&message(script("kill -9 $$", folder.path()), 1), &["signal: 9"]);
    has(&message(script("cat > /dev/null", folder.path()), 4), &["at least one of 4 items"]);
}

#[test]
fn lines_that_are_not_asked_for_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let says = |line: &str| {
        let text = format!("cat > /dev/null; printf '\\n%b\\n' '{line}'");
        message(script(&text, folder.path()), 2)
    };
    has(
        &says("Loading model"),
        &["line 2", "one JSON object", "\"Loading model\"", "standard error"],
    );
    has(&says(r#"{"id": "i0"}"#), &["missing field `caption`"]);
    has(&says(r#"{"id": "i0", "caption": 7}"#), &["invalid type", "column"]);
    has(&says(r#"{"id": "i9", "caption": "x"}"#), &["`i9`, which was not"]);
    has(&says(r#"{"id": "i0", "caption": "  "}"#), &["some text", "\"  \" for `i0`"]);
    has(&says(r#"{"id": "i0", "caption": "\0377"}"#), &["line 2", "UTF-8", "byte 25"]);
    for weight in ["0", "-1", "1e39"] {
        let line = format!(r#"{{"id": "i0", "caption": "x", "weight": {weight}}}"#);
        has(&says(&line), &["line 2"]);
    }
    let twice = r#"{"id": "i0", "caption": "x"}\n{"id": "i0", "caption": "y"}"#;
    has(&says(twice), &["line 3", "at most 1 caption of `i0`", "`per_item`"]);
    let text = format!("cat > /dev/null; printf '%b\\n' '{twice}'");
    let two = CommandConfig { per_item: 2, ..script(&text, folder.path()) };
    assert_eq!(run_all(&two.init().unwrap(), &job(2)).unwrap().captions.len(), 2);
}

#[test]
fn too_much_output_and_too_much_time_end_it() {
    let folder = tempfile::tempdir().unwrap();
    let endless = CommandConfig {
        most_bytes: 100_000,
        ..script("while :; do echo '{\"id\": \"i0\"}'; done", folder.path())
    };
    has(&message(endless, 1), &["at most 100000 bytes", "`most_bytes`"]);
    // The shell waits for a program of its own, which holds the pipes.
    let started = Instant::now();
    let text = r#"echo waiting >&2; (sleep 3; touch "$1/late"); true"#;
    let slow = CommandConfig { seconds: 0.3, ..script(text, folder.path()) };
    has(&message(slow, 1), &["within 0.3 s", "waiting", "`seconds`"]);
    // It ended, and left one behind that holds the output.
    let text = r#"(sleep 3; touch "$1/late") & exit 0"#;
    let left = CommandConfig { seconds: 0.3, ..script(text, folder.path()) };
    has(&message(left, 1), &["within 0.3 s"]);
    assert!(started.elapsed().as_secs_f64() < 2.5);
}

#[test]
fn a_stop_ends_the_program_and_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let text = r#"(touch "$1/begun"; sleep 1.5; touch "$1/late"); true"#;
    let captioner = script(text, folder.path()).init().unwrap();
    let stop = cart_retrieval::cancel::StopFlag::new();
    let (raise, begun) = (stop.clone(), folder.path().join("begun"));
    let thread = std::thread::spawn(move || {
        while !begun.exists() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        raise.raise();
    });
    let started = Instant::now();
    let error = captioner.caption(&job(1), &Monitor::new().with_stop(&stop)).unwrap_err();
    thread.join().unwrap();
    assert!(matches!(error, Error::Interrupted(_)), "{error}");
    assert!(started.elapsed().as_secs_f64() < 1.4);
    std::thread::sleep(std::time::Duration::from_millis(1800));
    assert!(!folder.path().join("late").exists());
}

#[test]
fn a_later_run_goes_on_behind_finished_batches() {
    let folder = tempfile::tempdir().unwrap();
    let (state, other) = (folder.path().join("state"), folder.path().join("other"));
    // Fails in the second batch, unless there is a file that says that it was mended; counts its
    // starts.
    let text = format!(
        r#"echo start >> "$1/starts"; if [ "$(wc -l < "$1/starts")" = 2 ]; then echo stumbled >&2; exit 1; fi
           grep -v '"i1"' | {ECHO}"#
    );
    let config = CommandConfig { batch: 2, ..script(&text, folder.path()) };
    let captioner = config.clone().init().unwrap().with_state(&state);
    has(&run_all(&captioner, &job(5)).unwrap_err().to_string(), &["stumbled", "are kept"]);
    let made = run_all(&captioner, &job(5)).unwrap();
    assert_eq!((made.resumed, made.captions.len()), (2, 4));
    assert_eq!(made.without, ["i1"]);
    let starts = || std::fs::read_to_string(folder.path().join("starts")).unwrap().lines().count();
    assert_eq!(starts(), 4);
    let again = run_all(&captioner, &job(5)).unwrap();
    assert_eq!((again.resumed, starts()), (5, 4));
    let whole = run_all(&config.clone().init().unwrap(), &job(5)).unwrap();
    assert_eq!(whole.captions, made.captions);
    assert_eq!((again.captions, again.without), (whole.captions, whole.without));

    let refused = |config: CommandConfig, count: usize| {
        let captioner = config.init().unwrap().with_state(&state);
        run_all(&captioner, &job(count)).unwrap_err().to_string()
    };
    has(&refused(config.clone(), 4), &["over 4 items", "over 5 items"]);
    has(&refused(CommandConfig { per_item: 3, ..config.clone() }, 5), &["numbers of captions"]);
    has(&refused(CommandConfig { batch: 3, ..config.clone() }, 5), &["by 3", "by 2"]);
    std::fs::write(state.join("batch-000001.json"), "{").unwrap();
    has(&refused(config.clone(), 5), &["batch-000001.json", "remove this file"]);
    std::fs::copy(state.join("batch-000000.json"), state.join("batch-000001.json")).unwrap();
    has(&refused(config.clone(), 5), &["other items"]);
    captioner.forget().unwrap();
    assert!(!state.exists());
    captioner.forget().unwrap();

    // A stop between batches keeps those before it.
    let stop = cart_retrieval::cancel::StopFlag::new();
    let captioner = config.init().unwrap().with_state(&other);
    let error = captioner
        .caption(&job(5), &Monitor::new().with_stop(&stop).with_progress(|_| stop.raise()))
        .unwrap_err();
    has(&error.to_string(), &["after 2, which are kept in"]);
    assert_eq!(run_all(&captioner, &job(5)).unwrap().resumed, 2);
}

/// Whatever write fails and wherever the process dies, the same job again gives the same file, and
/// nothing else is left.
#[test]
fn whatever_fails_the_same_job_again_succeeds() {
    use cart_retrieval::members::faults::{Fault, inject};
    for fault in [Fault::Once, Fault::Full, Fault::Killed] {
        for at in 0.. {
            let folder = tempfile::tempdir().unwrap();
            let (state, file) = (folder.path().join("state"), folder.path().join("made.jsonl"));
            let config = CommandConfig { batch: 1, ..script(ECHO, folder.path()) };
            let captioner = config.init().unwrap().with_state(&state);
            // As the example `caption` does.
            let work = || -> Result<()> {
                if captioner.was_saved(&file)? || file.exists() {
                    return Ok(());
                }
                let made = run_all(&captioner, &job(2))?;
                captioner.save(&made.captions, &file)
            };
            let injected = inject(folder.path(), at, fault);
            let first = work();
            let happened = injected.happened();
            drop(injected);
            assert_eq!(first.is_err(), happened, "{fault:?} {at}");
            work().unwrap_or_else(|e| panic!("{fault:?} {at}: {e}"));
            assert_eq!(Captions::from_jsonl(&file).unwrap().len(), 2);
            let left: Vec<_> = std::fs::read_dir(folder.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            assert_eq!(left, ["made.jsonl"], "{fault:?} {at}");
            if !happened {
                assert!(at > 20, "{at}");
                break;
            }
        }
    }
}

#[test]
fn bad_settings_are_refused() {
    let usual = || CommandConfig::new("sh");
    let bad = |config: CommandConfig| config.init().unwrap_err().to_string();
    has(&bad(CommandConfig::new("")), &["program"]);
    has(&bad(CommandConfig { source: Some(" ".into()), ..usual() }), &["source"]);
    has(&bad(CommandConfig { per_item: 0, ..usual() }), &["per_item"]);
    has(&bad(CommandConfig { batch: 0, ..usual() }), &["batch"]);
    has(&bad(CommandConfig { most_bytes: 0, ..usual() }), &["most_bytes"]);
    has(&bad(CommandConfig { seconds: f64::NAN, ..usual() }), &["seconds"]);
    has(&bad(CommandConfig { weight: -1.0, ..usual() }), &["weight"]);
    assert!(serde_json::from_str::<CommandConfig>(r#"{"program": "a", "shell": true}"#).is_err());
}
