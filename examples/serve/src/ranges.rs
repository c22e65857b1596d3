//! A file over HTTP by RFC 9110: validators, conditions and ranges (sections 8.8, 13 and 14).
//!
//! [`ServeFile`] reads and streams; what it does not know is decided here before it is asked:
//! entity tags, `If-Range`, the order of the conditions, and which ranges are one. Several ranges
//! are answered with the whole file, unless they are one together, which the standard allows.

use std::{
    fs::Metadata,
    io,
    path::Path,
    time::{Duration, SystemTime},
};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header},
    response::{IntoResponse, Response},
};
use tower::ServiceExt;
use tower_http::services::ServeFile;

use super::api::Failure;

/// A file that was changed less than this ago may change again within the same second of its date.
const SETTLED: Duration = Duration::from_secs(2);
/// How often a file that is replaced meanwhile is looked at.
const ATTEMPTS: usize = 3;

/// What tells a state of a file from others.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Validators {
    length: u64,
    modified: Option<SystemTime>,
    tag: String,
    /// Whether equal validators mean equal bytes.
    strong: bool,
}

impl Validators {
    fn of(file: &Metadata) -> Self {
        let modified = file.modified().ok();
        let since = modified.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        let strong = modified.is_some_and(|at| at.elapsed().is_ok_and(|age| age >= SETTLED));
        let weak = if strong { "" } else { "W/" };
        let nanoseconds = since.map_or(0, |since| since.as_nanos());
        let tag = format!("{weak}\"{:x}-{nanoseconds:x}\"", file.len());
        Self { length: file.len(), modified, tag, strong }
    }

    /// The date, as it is sent.
    fn date(&self) -> Option<String> {
        self.modified.map(httpdate::fmt_http_date)
    }

    /// Whether the file was changed after a date, in whole seconds; none for what is no date.
    fn is_newer_than(&self, date: &HeaderValue) -> Option<bool> {
        let date = httpdate::parse_http_date(date.to_str().ok()?).ok()?;
        let own = httpdate::parse_http_date(&self.date()?).ok()?;
        Some(own > date)
    }

    /// Whether a list of tags has that of the file.
    fn is_listed(&self, lists: &[&HeaderValue], weakly: bool) -> bool {
        let opaque = |tag: &str| tag.trim_start_matches("W/").to_string();
        let same = |tag: &str| {
            if weakly { opaque(tag) == opaque(&self.tag) } else { self.strong && tag == self.tag }
        };
        let texts = lists.iter().filter_map(|list| list.to_str().ok());
        texts.flat_map(tags).any(|tag| tag == "*" || same(tag))
    }
}

/// The entity tags of a list. A tag may have commas within.
fn tags(list: &str) -> Vec<&str> {
    let (mut tags, mut start, mut quoted) = (Vec::new(), 0, false);
    for (at, character) in list.char_indices() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => {
                tags.push(list[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    tags.push(list[start..].trim());
    tags.retain(|tag| !tag.is_empty());
    tags
}

/// What is asked of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    Whole,
    /// First and last byte.
    Part(u64, u64),
    Unsatisfiable,
    NotModified,
    PreconditionFailed,
}

/// Weighs the conditions and the range of a request, in the order of RFC 9110, section 13.2.2.
fn asked(method: &Method, headers: &HeaderMap, file: &Validators) -> Asked {
    let all = |name: HeaderName| headers.get_all(name).iter().collect::<Vec<_>>();
    let one = |name: HeaderName| match all(name).as_slice() {
        [value] => Some(*value),
        _ => None,
    };
    let (matching, none_matching) = (all(header::IF_MATCH), all(header::IF_NONE_MATCH));
    if !matching.is_empty() {
        if !file.is_listed(&matching, false) {
            return Asked::PreconditionFailed;
        }
    } else if one(header::IF_UNMODIFIED_SINCE).and_then(|date| file.is_newer_than(date))
        == Some(true)
    {
        return Asked::PreconditionFailed;
    }
    if !none_matching.is_empty() {
        if file.is_listed(&none_matching, true) {
            return Asked::NotModified;
        }
    } else if one(header::IF_MODIFIED_SINCE).and_then(|date| file.is_newer_than(date))
        == Some(false)
    {
        return Asked::NotModified;
    }
    // Ranges are of GET alone; several fields are no valid one.
    let Some(range) = one(header::RANGE).filter(|_| method == Method::GET) else {
        return Asked::Whole;
    };
    let unchanged = match all(header::IF_RANGE).as_slice() {
        [] => true,
        [validator] => validator.to_str().is_ok_and(|validator| {
            let dated = file.strong && file.date().as_deref() == Some(validator);
            dated || file.strong && validator == file.tag
        }),
        _ => false,
    };
    let ranges = range.to_str().ok().filter(|_| unchanged).and_then(parse);
    ranges.map_or(Asked::Whole, |ranges| within(&ranges, file.length))
}

/// A range as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Range {
    From(u64, u64),
    Last(u64),
}

/// The ranges of a header in bytes; `None` if the unit is another one or the header is invalid, and
/// so to be ignored.
fn parse(text: &str) -> Option<Vec<Range>> {
    let (unit, set) = text.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let number = |digits: &str| {
        let valid = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        // More than there can be is beyond every end.
        valid.then(|| digits.parse().unwrap_or(u64::MAX))
    };
    let range = |text: &str| {
        let (first, last) = text.split_once('-')?;
        match (first, last) {
            ("", last) => Some(Range::Last(number(last)?)),
            (first, "") => Some(Range::From(number(first)?, u64::MAX)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Range::From(first, last))
            }
        }
    };
    let parts = set.split(',').map(|part| part.trim_matches([' ', '\t']));
    let ranges = parts.filter(|part| !part.is_empty()).map(range).collect::<Option<Vec<_>>>()?;
    (!ranges.is_empty()).then_some(ranges)
}

/// What ranges are of a file of a length: one part where they touch, the whole file where they do
/// not.
fn within(ranges: &[Range], length: u64) -> Asked {
    let mut parts = Vec::new();
    for range in ranges {
        match *range {
            Range::From(first, last) if first < length => parts.push((first, last.min(length - 1))),
            // Of an empty file, the last bytes are all of it.
            Range::Last(1..) if length == 0 => return Asked::Whole,
            Range::Last(count @ 1..) => parts.push((length.saturating_sub(count), length - 1)),
            _ => {}
        }
    }
    parts.sort_unstable();
    let Some(&(first, mut last)) = parts.first() else { return Asked::Unsatisfiable };
    for (from, to) in parts {
        if from > last.saturating_add(1) {
            return Asked::Whole;
        }
        last = last.max(to);
    }
    Asked::Part(first, last)
}

/// Answers a request for a file.
pub async fn serve(path: &Path, method: &Method, headers: &HeaderMap) -> io::Result<Response> {
    let mut before = Validators::of(&tokio::fs::metadata(path).await?);
    for attempt in 1.. {
        let asked = asked(method, headers, &before);
        let mut response = answer(path, method, &asked, &before).await;
        // A file that was replaced meanwhile would come with the validators of the other.
        let after = Validators::of(&tokio::fs::metadata(path).await?);
        let same = (before.length, before.modified) == (after.length, after.modified);
        if same || attempt == ATTEMPTS {
            let headers = response.headers_mut();
            if same {
                let date = before.date().map(|date| (header::LAST_MODIFIED, date));
                for (name, value) in [(header::ETAG, before.tag)].into_iter().chain(date) {
                    if let Ok(value) = HeaderValue::try_from(value) {
                        headers.insert(name, value);
                    }
                }
            }
            headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            return Ok(response);
        }
        before = after;
    }
    unreachable!("attempts end")
}

async fn answer(path: &Path, method: &Method, asked: &Asked, file: &Validators) -> Response {
    let mut request = Request::builder().method(method);
    match asked {
        Asked::Whole => {}
        Asked::Part(first, last) => {
            request = request.header(header::RANGE, format!("bytes={first}-{last}"));
        }
        Asked::Unsatisfiable => {
            let length = [(header::CONTENT_RANGE, format!("bytes */{}", file.length))];
            let error = format!("the file has {} bytes; ask for a range within them", file.length);
            let status = StatusCode::RANGE_NOT_SATISFIABLE;
            return (length, Failure::new(status, error)).into_response();
        }
        Asked::NotModified => return StatusCode::NOT_MODIFIED.into_response(),
        Asked::PreconditionFailed => {
            let error = "the file is not the one that If-Match or If-Unmodified-Since asks for; \
                ask for it without";
            return Failure::new(StatusCode::PRECONDITION_FAILED, error).into_response();
        }
    }
    let Ok(request) = request.body(Body::empty()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    match ServeFile::new(path).oneshot(request).await {
        Ok(response) => response.into_response(),
        Err(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        let of = |text: &str, length: u64| match parse(text) {
            Some(ranges) => within(&ranges, length),
            None => Asked::Whole,
        };
        for (text, asked) in [
            ("bytes=2-4", Asked::Part(2, 4)),
            ("bytes=2-", Asked::Part(2, 9)),
            ("bytes=2-99", Asked::Part(2, 9)),
            ("bytes=-3", Asked::Part(7, 9)),
            ("bytes=-99", Asked::Part(0, 9)),
            ("Bytes=00-01", Asked::Part(0, 1)),
            ("bytes=0-99999999999999999999999", Asked::Part(0, 9)),
            // One range together, or the only one that can be met.
            ("bytes=0-2,3-4", Asked::Part(0, 4)),
            ("bytes=3-4 , ,0-3", Asked::Part(0, 4)),
            ("bytes=0-1,50-60", Asked::Part(0, 1)),
            ("bytes=0-1,5-6", Asked::Whole),
            ("bytes=10-", Asked::Unsatisfiable),
            ("bytes=10-20,30-40", Asked::Unsatisfiable),
            ("bytes=99999999999999999999999-", Asked::Unsatisfiable),
            ("bytes=-0", Asked::Unsatisfiable),
            // Not valid, or not of bytes.
            ("bytes=4-2", Asked::Whole),
            ("bytes=0-1,4-2", Asked::Whole),
            ("bytes=", Asked::Whole),
            ("bytes=a-b", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("bytes=+1-2", Asked::Whole),
            ("bytes 1-2", Asked::Whole),
            ("lines=1-2", Asked::Whole),
        ] {
            assert_eq!(of(text, 10), asked, "{text}");
        }
        assert_eq!(of("bytes=0-", 0), Asked::Unsatisfiable);
        assert_eq!(of("bytes=-5", 0), Asked::Whole);
    }

    #[test]
    fn conditions_are_weighed_in_their_order() {
        let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_500);
        let file = Validators {
            length: 10,
            modified: Some(modified),
            tag: "\"a-1\"".into(),
            strong: true,
        };
        let weak = Validators { tag: "W/\"a-1\"".into(), strong: false, ..file.clone() };
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let (earlier, later) = ("Sun, 06 Nov 1994 08:49:36 GMT", "Sun, 06 Nov 1994 08:49:38 GMT");
        let of = |file: &Validators, method: Method, headers: &[(&'static str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, HeaderValue::from_str(value).unwrap());
            }
            asked(&method, &map, file)
        };
        let get = |headers: &[(&'static str, &str)]| of(&file, Method::GET, headers);
        let part = ("range", "bytes=2-4");
        assert_eq!(get(&[part]), Asked::Part(2, 4));
        assert_eq!(of(&file, Method::HEAD, &[part]), Asked::Whole);
        assert_eq!(get(&[part, part]), Asked::Whole);
        for (if_range, met) in [
            ("\"a-1\"", true),
            ("\"a-2\"", false),
            ("W/\"a-1\"", false),
            (date, true),
            (earlier, false),
            (later, false),
            ("yesterday", false),
        ] {
            let asked = if met { Asked::Part(2, 4) } else { Asked::Whole };
            assert_eq!(get(&[part, ("if-range", if_range)]), asked, "{if_range}");
            let asked = of(&weak, Method::GET, &[part, ("if-range", if_range)]);
            assert_eq!(asked, Asked::Whole, "{if_range}: the file may still change");
        }
        for (name, value, met) in [
            ("if-none-match", "\"a-1\"", Asked::NotModified),
            ("if-none-match", "\"x,y\", W/\"a-1\"", Asked::NotModified),
            ("if-none-match", "*", Asked::NotModified),
            ("if-none-match", "\"a-2\"", Asked::Whole),
            ("if-modified-since", date, Asked::NotModified),
            ("if-modified-since", later, Asked::NotModified),
            ("if-modified-since", earlier, Asked::Whole),
            ("if-modified-since", "yesterday", Asked::Whole),
            ("if-match", "\"a-1\"", Asked::Whole),
            ("if-match", "W/\"a-1\"", Asked::PreconditionFailed),
            ("if-match", "\"a-2\"", Asked::PreconditionFailed),
            ("if-unmodified-since", date, Asked::Whole),
            ("if-unmodified-since", earlier, Asked::PreconditionFailed),
        ] {
            assert_eq!(get(&[(name, value)]), met, "{name}: {value}");
        }
        // Tags go before dates, failed conditions before ranges.
        let tags = [("if-none-match", "\"a-2\""), ("if-modified-since", date)];
        assert_eq!(get(&tags), Asked::Whole);
        let tags = [("if-match", "\"a-1\""), ("if-unmodified-since", earlier), part];
        assert_eq!(get(&tags), Asked::Part(2, 4));
        assert_eq!(get(&[part, ("if-none-match", "\"a-1\"")]), Asked::NotModified);
    }
}
