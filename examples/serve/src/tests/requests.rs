//! Slips in requests, and files by the standard.

use std::{
    fs::{self, File},
    time::{Duration, SystemTime},
};

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{LIMITS, Limits, Service, error, ids, items, names};

/// An answer with its headers.
async fn answer(service: &Service, request: Request<Body>) -> (StatusCode, HeaderMap, Vec<u8>) {
    let response = service.router().oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    (status, headers, to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec())
}

fn request(method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
    let request = headers.iter().fold(request, |all, (name, value)| all.header(*name, *value));
    request.body(Body::from(body.to_string())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_come_whole_or_in_parts_by_the_standard() {
    let service = Service::new();
    let path = service.folder.path().join("media/old-1.png");
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let settle = || {
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(hour_ago).unwrap();
    };
    settle();
    let get = async |headers: &[(&str, &str)]| {
        answer(&service, request(Method::GET, "/media/old-1", headers, "")).await
    };
    let (status, headers, body) = get(&[]).await;
    assert_eq!((status, &body[..]), (StatusCode::OK, &b"picture"[..]));
    let tag = headers[header::ETAG].to_str().unwrap().to_string();
    let date = headers[header::LAST_MODIFIED].to_str().unwrap().to_string();
    assert_eq!(headers[header::CONTENT_TYPE], "image/png");
    assert_eq!(headers[header::ACCEPT_RANGES], "bytes");
    for (headers, status, range, bytes) in [
        (vec![("range", "bytes=2-4")], 206, "bytes 2-4/7", "ctu"),
        (vec![("range", "bytes=-2")], 206, "bytes 5-6/7", "re"),
        (vec![("range", "bytes=-99")], 206, "bytes 0-6/7", "picture"),
        (vec![("range", "bytes=5-")], 206, "bytes 5-6/7", "re"),
        (vec![("range", "bytes=0-1,5-6")], 200, "", "picture"),
        (vec![("range", "bytes=0-1,2-2")], 206, "bytes 0-2/7", "pic"),
        (vec![("range", "lines=0-1")], 200, "", "picture"),
        (vec![("range", "bytes=4-2")], 200, "", "picture"),
        (vec![("range", "bytes=7-")], 416, "bytes */7", ""),
        (vec![("range", "bytes=2-4"), ("if-range", &tag)], 206, "bytes 2-4/7", "ctu"),
        (vec![("range", "bytes=2-4"), ("if-range", &date)], 206, "bytes 2-4/7", "ctu"),
        (vec![("range", "bytes=2-4"), ("if-range", "\"old\"")], 200, "", "picture"),
        (
            vec![("range", "bytes=2-4"), ("if-range", "Sun, 06 Nov 1994 08:49:37 GMT")],
            200,
            "",
            "picture",
        ),
        (vec![("if-none-match", &tag)], 304, "", ""),
        (vec![("if-modified-since", &date)], 304, "", ""),
        (vec![("if-none-match", "\"old\""), ("if-modified-since", &date)], 200, "", "picture"),
        (vec![("if-match", "\"old\"")], 412, "", ""),
    ] {
        let (found, answered, body) = get(&headers).await;
        let shown = answered.get(header::CONTENT_RANGE).map_or("", |range| range.to_str().unwrap());
        assert_eq!((found.as_u16(), shown), (status, range), "{headers:?}");
        if status < 400 {
            assert_eq!(body, bytes.as_bytes(), "{headers:?}");
            assert_eq!(answered[header::ETAG], tag);
        } else {
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert!(!error(&body).is_empty());
        }
    }
    // HEAD: no range, no body.
    let head = request(Method::HEAD, "/media/old-1", &[("range", "bytes=2-4")], "");
    let (status, headers, body) = answer(&service, head).await;
    assert_eq!((status, body.len()), (StatusCode::OK, 0));
    assert_eq!(headers[header::CONTENT_LENGTH], "7");

    // Another file under the old name: what was kept of the first is not continued.
    fs::write(&path, b"another").unwrap();
    let (status, headers, body) = get(&[("range", "bytes=2-4"), ("if-range", &tag)]).await;
    assert_eq!((status, &body[..]), (StatusCode::OK, &b"another"[..]));
    // It may change again within the second.
    assert!(headers[header::ETAG].to_str().unwrap().starts_with("W/"));
    fs::write(&path, b"").unwrap();
    settle();
    let (status, headers, body) = get(&[]).await;
    assert_eq!((status, body.len()), (StatusCode::OK, 0));
    assert_eq!(headers[header::CONTENT_LENGTH], "0");
    let (status, headers, _) = get(&[("range", "bytes=0-")]).await;
    assert_eq!(status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(headers[header::CONTENT_RANGE], "bytes */0");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_says_what_to_do() {
    let service = Service::new();
    let json = ("content-type", "application/json");
    for (method, path, headers, body, status, words) in [
        (Method::POST, "/media/old-1", vec![], "", 405, "Allow"),
        (Method::DELETE, "/api/search", vec![], "", 405, "Allow"),
        (Method::GET, "/api/nothing", vec![], "", 404, "docs/index.md"),
        (Method::GET, "/media/%FF", vec![], "", 404, "percent-encoded"),
        (Method::POST, "/api/search", vec![json], "", 400, "the body is empty"),
        (Method::POST, "/api/search", vec![json], " \r\n", 400, "the body is empty"),
        (Method::POST, "/api/search", vec![json], "{", 400, "EOF"),
        (Method::POST, "/api/search", vec![json], "[]", 422, "struct"),
        (Method::POST, "/api/search", vec![], "{}", 415, "none; send JSON"),
        (Method::POST, "/api/search", vec![("content-type", "text/html")], "{}", 415, "text/html"),
        (Method::DELETE, "/api/items", vec![json], r#"{"ids": []}"#, 400, "there are no ids"),
        (
            Method::DELETE,
            "/api/items",
            vec![json],
            r#"{"ids": ["old-1", "old-1"]}"#,
            400,
            r#""old-1" twice"#,
        ),
        (Method::DELETE, "/api/items", vec![json], r#"{"ids": ["old-1 "]}"#, 400, "looks the same"),
        (Method::PUT, "/api/metadata", vec![json], "{}", 400, "there are no ids"),
        (
            Method::PUT,
            "/api/metadata",
            vec![json],
            r#"{"old-1": {"n": 1}, "old-1": {"n": 2}}"#,
            400,
            "twice",
        ),
        (Method::GET, "/api/explain?q=a&id=OLD-1", vec![], "", 400, r#"\"old-1\" exists"#),
    ] {
        let sent = request(method.clone(), path, &headers, body);
        let (found, headers, text) = answer(&service, sent).await;
        let shown = String::from_utf8_lossy(&text).into_owned();
        assert_eq!(found.as_u16(), status, "{method} {path} {body}: {shown}");
        let refused: Value = serde_json::from_slice(&text).unwrap();
        let refused = error(&refused);
        let words = words.replace("\\\"", "\"");
        assert!(refused.contains(&words), "{refused}: {words}");
        if status == 405 {
            assert!(headers.contains_key(header::ALLOW), "{path}");
        }
    }
    let allow = request(Method::POST, "/media/old-1", &[], "");
    assert_eq!(answer(&service, allow).await.1[header::ALLOW], "GET,HEAD");
    let long = format!("{}{{}}", " ".repeat(70_000));
    let sent = request(Method::POST, "/api/search", &[json], &long);
    let (status, _, text) = answer(&service, sent).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(String::from_utf8_lossy(&text).contains("64 KiB"));
    assert_eq!(service.app.live.pending().0, 0);
    // A byte order mark, and another type of JSON.
    let marked = request(
        Method::POST,
        "/api/search",
        &[("content-type", "application/vnd.api+json; charset=utf-8")],
        "\u{feff}{\"query\": \"dog\"}",
    );
    assert_eq!(answer(&service, marked).await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn items_are_added_as_a_whole_or_not_at_all() {
    let service = Service::new();
    let new = items(&names("new-", 0..1));
    let item = |id: &str, group: Option<&str>| {
        let mut item = json!({"id": id, "features": new.row(0)});
        if let Some(group) = group {
            item["group"] = group.into();
        }
        item
    };
    let add = async |items: Value| {
        service.ask(Method::POST, "/api/items", json!({ "items": items })).await
    };
    for (items, words) in [
        (json!([item("a", Some("x")), item("b", None)]), "\"b\" has none"),
        (json!([item(" a", None)]), "write \"a\""),
        (json!([item("old-1 ", None)]), "old-1"),
        (json!([item("\u{feff}old-1", None)]), "looks like the existing \"old-1\""),
        (json!([item("caf\u{e9}", None), item("cafe\u{301}", None)]), "normalisation"),
        (json!([item("a\tb", None)]), "U+0009"),
        (json!([item("a", None), item("a", None)]), "\"a\""),
        (json!([item("a", Some("x"))]), "group"),
    ] {
        let (status, answer) = add(items).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert!(error(&answer).contains(words), "{answer}: {words}");
    }
    assert_eq!(service.app.live.pending().0, 0);
    assert_eq!(add(json!([item("caf\u{e9}", None)])).await.0, StatusCode::OK);
    let (status, answer) = add(json!([item("cafe\u{301}", None)])).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(error(&answer).contains("looks like"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slips_in_filters_and_unknown_words_are_told() {
    let service = Service::new();
    for (filter, words) in [
        (json!({"all": [{"n": 1}]}), "write $all"),
        (json!({"$al": [{"n": 1}]}), "write $all"),
        (json!({"m": 1}), "write n"),
        (json!({"n": {"gte": 1}}), "write ge"),
        (json!({"n": "1"}), "a number"),
        (json!({"n": []}), "an empty list"),
    ] {
        let (status, answer) = service.search(json!({"query": "dog", "filter": filter})).await;
        assert!(status.is_client_error(), "{status}: {filter}");
        assert!(error(&answer).contains(words), "{answer}: {words}");
    }
    let (status, answer) = service.search(json!({"query": "dog", "filter": {"n": 999}})).await;
    assert_eq!((status, ids(&answer).len()), (StatusCode::OK, 0));
    assert_eq!(answer.get("warnings"), None);
    let (_, answer) = service.search(json!({"query": "\u{2603}"})).await;
    assert!(answer["warnings"][0].as_str().unwrap().contains("knows no word"), "{answer}");
    let (_, answer) = service.search(json!({"query": "dog ".repeat(40)})).await;
    assert!(answer["warnings"][0].as_str().unwrap().contains("cut after"), "{answer}");
}

/// The service that only reads says so, and sees what the one that writes does.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_only_reads_stands_next_to_one_that_writes() {
    let writes = Service::new();
    let reads = writes.read_only(Limits { read_only: true, ..LIMITS });
    writes.ask(Method::DELETE, "/api/items", json!({"ids": ["old-1"]})).await;
    assert!(reads.live.refresh().unwrap());
    let refused = request(Method::POST, "/api/compact", &[], "");
    let response = reads.clone().router().oneshot(refused).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(reads.live.snapshot().index().ids().len(), 59);
}
