use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use super::*;

fn listing(lines: &[(i64, i64)]) -> Listing {
    let mut text = "#software: x\n#tb 0: 1/100\n".to_string();
    for (shown, duration) in lines {
        text.push_str(&format!("0, 0, {shown}, {duration}, 9, 0x1, F=0x0, S=1,  40\n"));
    }
    read_listing(&mut text.as_bytes()).unwrap()
}

/// Twin: the frames in the middle of as many parts.
#[test]
fn at_an_even_rate_frames_are_even() {
    for total in [1, 2, 7, 100] {
        for count in [1, 3, 16, 300] {
            let lines: Vec<(i64, i64)> = (0..total).map(|at| (4 * at, 4)).collect();
            let even: Vec<usize> = even(total as usize, count).collect();
            assert_eq!(listing(&lines).choose(count), even, "{count} of {total}");
        }
    }
}

#[test]
fn frames_are_chosen_by_the_time_at_which_they_are_shown() {
    // Written in the order of decoding; one is before the beginning and cut away.
    let some = listing(&[(0, 10), (30, 10), (10, 20), (-10, 10), (40, 60)]);
    assert_eq!((some.times.as_deref(), some.end), (Some(&[0, 10, 30, 40][..]), 100));
    assert_eq!(some.choose(4), [1, 2, 3, 3]);
    assert_eq!(some.before(2), 0.2);
    // Without all times they are counted.
    let unknown = listing(&[(0, 10), (i64::MIN, 10), (30, 10)]);
    assert_eq!((unknown.total, &unknown.times), (3, &None));
    assert_eq!(unknown.choose(3), [0, 1, 2]);
    for broken in ["#tb 0: 1/0\n", "#tb 0: x\n", "P6 1 1 255 abc\n", "0, 1\n", "1, 0, 0, 1, 1\n"] {
        assert!(read_listing(&mut broken.as_bytes()).is_err(), "{broken}");
    }
}

/// Encodes frames of one grey level each; false where ffmpeg or an encoder is missing.
fn encode(path: &Path, levels: impl Iterator<Item = u8>, options: &[&str]) -> bool {
    let input = ["-v", "error", "-f", "rawvideo", "-pix_fmt", "gray", "-s", "34x18", "-r", "25"];
    let child = Command::new("ffmpeg")
        .args(input)
        .args(["-i", "-"])
        .args(options)
        .arg(path)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else { return false };
    let mut stdin = child.stdin.take().unwrap();
    for level in levels {
        if stdin.write_all(&[level; 34 * 18]).is_err() {
            break;
        }
    }
    drop(stdin);
    child.wait().is_ok_and(|status| status.success())
}

#[test]
fn videos_of_any_pixel_format_and_length_give_the_chosen_frames() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let check = |name: &str, count: usize, expected: &[u8]| {
        let frames = frames_by(&path(name), count, "ffmpeg").unwrap();
        let found: Vec<u8> = frames.iter().map(|frame| frame.pixel(3, 3)[0]).collect();
        let near = found.iter().zip(expected).all(|(a, &b)| a.abs_diff(b) < 6);
        assert!(near && found.len() == expected.len(), "{name}: {found:?}, {expected:?}");
    };
    let short = |at: u8| 20 + 2 * at;
    let ten_bits = ["-c:v", "ffv1", "-pix_fmt", "yuv420p10le"];
    if !encode(&path("ten.mkv"), (0..96).map(short), &ten_bits) {
        println!("skipped: ffmpeg with the encoder ffv1 is not installed");
        return;
    }
    check("ten.mkv", 4, &[12, 36, 60, 84].map(short));
    // The same frames each time.
    let again = || frames_by(&path("ten.mkv"), 3, "ffmpeg").unwrap();
    assert_eq!(again(), again());
    // More than there are.
    assert_eq!(frames_by(&path("ten.mkv"), 700, "ffmpeg").unwrap().len(), 700);
    assert!(encode(&path("alpha.mkv"), (0..9).map(short), &["-c:v", "ffv1", "-pix_fmt", "bgra"]));
    check("alpha.mkv", 3, &[1, 4, 7].map(short));
    // One that ffmpeg wrote to a pipe has no duration.
    assert!(encode(&path("live.mkv"), (0..96).map(short), &["-c:v", "ffv1", "-live", "1"]));
    check("live.mkv", 4, &[12, 36, 60, 84].map(short));
    // The second half is shown four times as long.
    let slower = ["-c:v", "ffv1", "-vf", "setpts=(N+3*max(0\\,N-10))/25/TB"];
    assert!(encode(&path("slower.mkv"), (0..20).map(short), &slower));
    check("slower.mkv", 5, &[5, 11, 13, 16, 18].map(short));
    // A long one is sought in; without times it is counted through.
    let long = |at: usize| (at / 6) as u8 + 16;
    let levels = || (0..1200).map(long);
    let expected = [150, 450, 750, 1050].map(long);
    for (name, options) in [
        ("long.mkv", &["-c:v", "mpeg4", "-q:v", "2", "-bf", "2"][..]),
        ("-odd: name.avi", &["-c:v", "mpeg4", "-q:v", "2", "-bf", "2"][..]),
        ("long.mpg", &["-c:v", "mpeg2video", "-q:v", "2"][..]),
    ] {
        assert!(encode(&path(name), levels(), options), "{name}");
        check(name, 4, &expected);
    }
    // A file whose data end early.
    let whole = fs::read(path("long.mkv")).unwrap();
    fs::write(path("cut.mkv"), &whole[..whole.len() / 2]).unwrap();
    let error = frames_by(&path("cut.mkv"), 4, "ffmpeg").unwrap_err().to_string();
    assert!(error.contains("truncated"), "{error}");
    fs::write(path("none.mp4"), b"\0\0\0\x18ftypmp42 and nothing more").unwrap();
    assert!(frames_by(&path("none.mp4"), 4, "ffmpeg").is_err());
}
