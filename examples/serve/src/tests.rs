//! Requests as they come from outside, without a socket.

mod requests;
#[path = "../../../tests/all/live/small.rs"]
mod small;

use std::{fs, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Method, Request, StatusCode, header},
};
use burn::backend::Flex;
use cart_retrieval::{Result, retrieve::LiveRetriever};
use futures_util::{future::join_all, stream::pending};
use serde_json::{Value, json};
use small::{fields, items, names, retriever};
use tower::ServiceExt;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    app::{App, Limits},
    net::{self, Manners},
};

const LIMITS: Limits = Limits {
    timeout: Duration::from_secs(60),
    queue: 64,
    batch: 8,
    compact: u64::MAX,
    read_only: false,
};

struct Service {
    folder: tempfile::TempDir,
    app: Arc<App<Flex>>,
}

impl Service {
    fn with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        retriever(true).save(folder.path()).unwrap();
        let media = folder.path().join("media");
        fs::create_dir(&media).unwrap();
        fs::write(media.join("old-1.png"), b"picture").unwrap();
        fs::write(media.join("old-2.txt"), b"text").unwrap();
        fs::write(folder.path().join("secret.png"), b"secret").unwrap();
        let live = LiveRetriever::open(folder.path(), &Default::default()).unwrap();
        let hosts = vec!["example.org".into(), "127.0.0.1".into()];
        let app = App::new(live, &media, hosts, limits);
        Self { folder, app }
    }

    fn new() -> Self {
        Self::with(LIMITS)
    }

    /// Another service on the same index that takes no changes.
    fn read_only(&self, limits: Limits) -> Arc<App<Flex>> {
        let live = LiveRetriever::open_read_only(self.folder.path(), &Default::default()).unwrap();
        App::new(live, &self.folder.path().join("media"), Vec::new(), limits)
    }

    fn router(&self) -> Router {
        self.app.clone().router()
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Vec<u8>) {
        let response = self.router().oneshot(request).await.unwrap();
        let status = response.status();
        (status, to_bytes(response.into_body(), 1 << 24).await.unwrap().to_vec())
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let request =
            Request::builder().method(method).uri(path).header(header::HOST, "localhost:7878");
        let request = match body {
            Value::Null => request.body(Body::empty()),
            body => request
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(body.to_string())),
        };
        let (status, bytes) = self.send(request.unwrap()).await;
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.ask(Method::GET, path, Value::Null).await
    }

    async fn search(&self, body: Value) -> (StatusCode, Value) {
        self.ask(Method::POST, "/api/search", body).await
    }
}

fn ids(answer: &Value) -> Vec<&str> {
    answer["hits"].as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap()).collect()
}

fn error(answer: &Value) -> &str {
    answer["error"].as_str().unwrap()
}

/// The same hits as the library gives, alone and in company.
#[tokio::test(flavor = "multi_thread")]
async fn queries_at_the_same_time_are_answered_as_alone() {
    let service = Service::new();
    let index = service.app.live.snapshot();
    let queries: Vec<String> = (0..40).map(|n| format!("a red dog {n} at sea")).collect();
    let asked = queries.iter().enumerate().map(|(n, query)| {
        let mut body = json!({"query": query, "top": 1 + n % 7, "beam": 5 + 5 * (n % 3)});
        if n % 4 == 0 {
            body["filter"] = json!({"n": {"lt": 20}});
        }
        service.search(body)
    });
    let answers = join_all(asked).await;
    let few = cart_retrieval::metadata::Condition::parse(r#"{"n": {"lt": 20}}"#).unwrap();
    let few = index.index().filter_where(&few).unwrap();
    for (n, (query, (status, answer))) in queries.iter().zip(answers).enumerate() {
        assert_eq!(status, StatusCode::OK, "{answer}");
        let top = 1 + n % 7;
        let mut search = index.query(query).top(top).beam((5 + 5 * (n % 3)).max(top));
        if n % 4 == 0 {
            search = search.filter(&few);
        }
        let hits = search.run().unwrap();
        assert_eq!(ids(&answer), hits.iter().map(|hit| hit.id.as_str()).collect::<Vec<_>>());
        assert_eq!(
            answer["hits"][0]["metadata"]["n"].as_u64(),
            hits[0].metadata.as_ref().unwrap()["n"].as_u64()
        );
    }
    let text = service.app.metrics.text();
    let batches = |line: &str| {
        line.strip_prefix("cart_batch_queries_count ").and_then(|n| n.parse::<u64>().ok())
    };
    let batches = text.lines().find_map(batches).unwrap();
    assert!(batches <= 40, "{text}");
    assert!(text.contains("cart_batch_queries_sum 40"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn candidates_come_change_and_go() -> Result<()> {
    let service = Service::new();
    let new = items(&names("new-", 0..2));
    let item = |row: usize, n: u64| json!({"id": new.id(row), "features": new.row(row), "metadata": {"n": n}});
    let (status, answer) = service
        .ask(Method::POST, "/api/items", json!({"items": [item(0, 700), item(1, 700)]}))
        .await;
    assert_eq!((status, &answer["candidates"]), (StatusCode::OK, &json!(62)), "{answer}");
    let asked = json!({"query": "cats", "filter": {"n": 700}});
    let (_, answer) = service.search(asked.clone()).await;
    let mut found = ids(&answer);
    found.sort_unstable();
    assert_eq!(found, ["new-0", "new-1"]);
    service.ask(Method::PUT, "/api/items", json!({"items": [item(1, 800)]})).await;
    assert_eq!(ids(&service.search(asked.clone()).await.1), ["new-0"]);
    service.ask(Method::PUT, "/api/metadata", json!({"old-5": {"n": 700}})).await;
    service.ask(Method::DELETE, "/api/items", json!({"ids": ["new-0"]})).await;
    assert_eq!(ids(&service.search(asked).await.1), ["old-5"]);
    let (_, info) = service.get("/api/info").await;
    assert_eq!((&info["candidates"], &info["pending"]["changes"]), (&json!(61), &json!(4)));
    let (status, _) = service.ask(Method::POST, "/api/compact", Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(service.get("/api/info").await.1["pending"]["changes"], 0);
    cart_retrieval::retrieve::verify(service.folder.path())?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said() {
    let service = Service::new();
    for (body, words) in [
        (json!({"query": " "}), "blank"),
        (json!({"query": "x".repeat(5000)}), "4096"),
        (json!({"query": "a", "top": 0}), "1 to 1000"),
        (json!({"query": "a", "beam": 100_000}), "1 to 1000"),
        (json!({"query": "a", "filter": {"n": {"about": 3}}}), "about"),
        (json!({"query": "a", "offset": 3}), "offset"),
        (json!({"top": 3}), "query"),
    ] {
        let (status, answer) = service.search(body).await;
        assert!(status.is_client_error() && error(&answer).contains(words), "{answer}: {words}");
    }
    let new = |id: &str, features: Value| json!({"items": [{"id": id, "features": features}]});
    for (method, path, body, words) in [
        (Method::POST, "/api/items", new("old-1", json!([1, 2, 3, 4, 5, 6, 7, 8])), "old-1"),
        (Method::POST, "/api/items", new("x", json!([1])), "8 numbers"),
        (Method::POST, "/api/items", new("x\n", json!([1, 2, 3, 4, 5, 6, 7, 8])), "U+000A"),
        (Method::POST, "/api/items", json!({"items": []}), "no items"),
        (Method::PUT, "/api/items", new("x", json!([1, 2, 3, 4, 5, 6, 7, 8])), "\"x\""),
        (Method::DELETE, "/api/items", json!({"ids": ["x"]}), "\"x\""),
        (Method::PUT, "/api/metadata", json!({"x": {}}), "\"x\""),
    ] {
        let (status, answer) = service.ask(method, path, body).await;
        assert!(status.is_client_error() && error(&answer).contains(words), "{answer}: {words}");
    }
    for path in [
        "/api/explain?q=a&id=x",
        "/api/explain?q=a",
        "/api/prefix?tokens=a-b",
        "/api/search?q=a&filter=%7B",
    ] {
        assert!(service.get(path).await.0.is_client_error(), "{path}");
    }
    assert_eq!(service.get("/api/nothing").await.0, StatusCode::NOT_FOUND);
    assert_eq!(service.app.live.pending().0, 0);
    let text = |kind: &str, body: Vec<u8>| {
        Request::post("/api/search")
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, kind)
            .body(Body::from(body))
            .unwrap()
    };
    assert_eq!(
        service.send(text("text/plain", b"{\"query\": \"a\"}".to_vec())).await.0,
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
    assert!(service.send(text("application/json", b"{".to_vec())).await.0.is_client_error());
    assert_eq!(
        service.send(text("application/json", vec![b' '; 100_000])).await.0,
        StatusCode::PAYLOAD_TOO_LARGE
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_media_of_candidates_is_served() {
    let service = Service::new();
    let file = |path: &str, host: &str| {
        Request::get(path).header(header::HOST, host).body(Body::empty()).unwrap()
    };
    assert_eq!(
        service.send(file("/media/old-1", "localhost")).await,
        (StatusCode::OK, b"picture".to_vec())
    );
    assert_eq!(service.send(file("/media/old-1", "example.org:80")).await.0, StatusCode::OK);
    assert_eq!(service.send(file("/media/old-1", "evil.example")).await.0, StatusCode::FORBIDDEN);
    let hostless = Request::get("/health").body(Body::empty()).unwrap();
    assert_eq!(service.send(hostless).await.0, StatusCode::FORBIDDEN);
    for path in [
        "/media/old-2",
        "/media/old-3",
        "/media/..%2Fsecret",
        "/media/..%2Fsecret.png",
        "/media/secret.png",
        "/media/%2Fetc%2Fhostname",
    ] {
        assert_eq!(service.send(file(path, "localhost")).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    // Not even where the metadata say so, or a link leads out.
    #[cfg(unix)]
    std::os::unix::fs::symlink(
        service.folder.path().join("secret.png"),
        service.folder.path().join("media/link.png"),
    )
    .unwrap();
    for name in ["../secret.png", "/etc/hostname", "link.png", "./../secret.png"] {
        service.app.live.describe(vec![("old-3".into(), fields(json!({"file": name})))]).unwrap();
        assert_eq!(
            service.send(file("/media/old-3", "localhost")).await.0,
            StatusCode::NOT_FOUND,
            "{name}"
        );
    }
    service
        .app
        .live
        .describe(vec![("old-3".into(), fields(json!({"file": "old-1.png"})))])
        .unwrap();
    assert_eq!(service.send(file("/media/old-3", "localhost")).await.1, b"picture");
    let part = Request::get("/media/old-1")
        .header(header::HOST, "localhost")
        .header(header::RANGE, "bytes=2-4");
    assert_eq!(
        service.send(part.body(Body::empty()).unwrap()).await,
        (StatusCode::PARTIAL_CONTENT, b"ctu".to_vec())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_walk_and_the_figures_are_there() {
    let service = Service::new();
    let (_, answer) = service.get("/api/search?q=dog&top=1").await;
    let id = ids(&answer)[0];
    let (status, walk) = service.get(&format!("/api/explain?q=dog&id={id}")).await;
    assert_eq!((status, walk["levels"].as_array().unwrap().len()), (StatusCode::OK, 4));
    let (score, found) =
        (answer["hits"][0]["score"].as_f64().unwrap(), walk["score"].as_f64().unwrap());
    assert!((score - found).abs() < 1e-4);
    let coarse = answer["hits"][0]["identifier"][0].as_u64().unwrap();
    let (_, below) = service.get(&format!("/api/prefix?tokens={coarse}&limit=3")).await;
    assert!(below["count"].as_u64().unwrap() >= 3 && below["items"].as_array().unwrap().len() == 3);
    assert!(below["items"].as_array().unwrap().iter().all(|item| item["identifier"][0] == coarse));
    assert_eq!(service.get("/api/prefix?tokens=3-3-3-999").await.1["count"], 0);
    let get = |path: &str| {
        Request::get(path).header(header::HOST, "[::1]:7878").body(Body::empty()).unwrap()
    };
    assert_eq!(service.send(get("/health")).await.1, b"ok\n");
    let text = String::from_utf8(service.send(get("/metrics")).await.1).unwrap();
    for words in [
        "cart_candidates 60",
        "cart_requests_total{route=\"/api/search\",status=\"200\"} 1",
        "cart_request_seconds_bucket",
    ] {
        assert!(text.contains(words), "{text}: {words}");
    }
    for path in ["/", "/app.js", "/style.css"] {
        assert_eq!(service.send(get(path)).await.0, StatusCode::OK);
    }
}

/// Pages of other sites can send requests that change nothing in their form; what changes something
/// is not taken from them.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_sites_change_nothing() {
    let service = Service::new();
    let from = |origin: &str, method: Method, host: &str| {
        let request = Request::builder().method(method).uri("/api/compact");
        let request = request.header(header::HOST, host).header(header::ORIGIN, origin);
        request.body(Body::empty()).unwrap()
    };
    service.app.live.remove(&["old-1"]).unwrap();
    for origin in [
        "http://evil.example",
        "http://localhost:3000",
        "http://127.0.0.1:3000",
        "null",
        "localhost:7878",
        "",
    ] {
        let (status, _) = service.send(from(origin, Method::POST, "localhost:7878")).await;
        assert_eq!((status, service.app.live.pending().0), (StatusCode::FORBIDDEN, 1), "{origin}");
    }
    // A proxy that is known by its name may call the service otherwise than the browser calls the
    // proxy.
    for (origin, host) in [
        ("http://localhost:7878", "localhost:7878"),
        ("https://example.org", "127.0.0.1:7878"),
        ("http://[::1]:7878", "[::1]:7878"),
    ] {
        let (status, _) = service.send(from(origin, Method::POST, host)).await;
        assert_eq!(status, StatusCode::OK, "{origin}");
    }
    assert_eq!(service.app.live.pending().0, 0);
}

/// Whatever is asked for, the figures grow by no more names than there are routes.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_makes_a_figure_of_its_own() {
    let service = Service::new();
    for n in 0..20 {
        for host in ["localhost", "evil.example"] {
            for path in [format!("/api/x{n}"), format!("/metrics/{n}"), format!("/media/{n}")] {
                let request = Request::get(path).header(header::HOST, host);
                service.send(request.body(Body::empty()).unwrap()).await;
            }
        }
    }
    let text = service.app.metrics.text();
    let requests = text.lines().filter(|line| line.starts_with("cart_requests_total"));
    // Media and unknown ones, each refused and not found.
    assert_eq!(requests.count(), 4, "{text}");
}

/// A service that is told to end does so, though somebody stays on the line.
#[tokio::test(flavor = "multi_thread")]
async fn it_ends_though_somebody_never_finishes() {
    let service = Service::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (end, asked) = tokio::sync::oneshot::channel::<()>();
    let (short, long) = (Duration::from_millis(300), Duration::from_secs(600));
    let manners = Manners { connections: 2, head: long, unread: long, grace: short };
    let router = service.router();
    let served = tokio::spawn(async move {
        net::serve(listener, router, &manners, async { drop(asked.await) }).await
    });
    let ask = async |stream: &mut TcpStream| {
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut bytes = [0; 4096];
        let length = stream.read(&mut bytes).await.unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let mut stalled = TcpStream::connect(address).await.unwrap();
    stalled.write_all(b"GET /health HTTP/1.1\r\nhost: loc").await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut idle).await.ends_with("ok\n"));
    // No place for a third until one of them goes.
    let mut third = TcpStream::connect(address).await.unwrap();
    {
        let asked = ask(&mut third);
        tokio::pin!(asked);
        assert!(tokio::time::timeout(short, &mut asked).await.is_err());
        drop(idle);
        assert!(asked.await.ends_with("ok\n"));
    }
    end.send(()).unwrap();
    let all = tokio::time::timeout(Duration::from_secs(60), served).await.unwrap().unwrap();
    assert!(!all, "one was still under way");
}

/// Somebody who asks for a long file and reads nothing of it does not stay for ever.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_reads_is_cut_off() {
    const LONG: u64 = 64 << 20;
    let service = Service::new();
    let file = fs::File::create(service.folder.path().join("media/old-1.png")).unwrap();
    file.set_len(LONG).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let unread = Duration::from_millis(200);
    let manners = Manners { connections: 1, unread, ..Manners::default() };
    let router = service.router();
    tokio::spawn(
        async move { net::serve(listener, router, &manners, std::future::pending()).await },
    );
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /media/old-1 HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    // The only place is free again without a word read.
    let mut next = TcpStream::connect(address).await.unwrap();
    next.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut bytes = [0; 4096];
    let answered = tokio::time::timeout(Duration::from_secs(60), next.read(&mut bytes)).await;
    assert!(answered.unwrap().unwrap() > 0);
    let mut rest = Vec::new();
    let _ = idle.read_to_end(&mut rest).await;
    assert!((rest.len() as u64) < LONG, "{}", rest.len());
}

/// Heads that never come to an end are cut off.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_takes_too_long_is_cut_off() {
    let service = Service::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let manners = Manners { head: Duration::from_millis(100), ..Manners::default() };
    let router = service.router();
    tokio::spawn(
        async move { net::serve(listener, router, &manners, std::future::pending()).await },
    );
    let mut stalled = TcpStream::connect(address).await.unwrap();
    stalled.write_all(b"GET /health HTTP/1.1\r\nhost: loc").await.unwrap();
    let mut rest = Vec::new();
    let read = stalled.read_to_end(&mut rest);
    // The other side closes, with a word or without, and before it would by itself, after half a
    // minute.
    let _ = tokio::time::timeout(Duration::from_secs(20), read).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold() {
    let read_only = Service::with(Limits { read_only: true, ..LIMITS });
    let (status, answer) =
        read_only.ask(Method::DELETE, "/api/items", json!({"ids": ["old-1"]})).await;
    assert_eq!((status, read_only.app.live.pending().0), (StatusCode::FORBIDDEN, 0), "{answer}");
    assert_eq!(read_only.get("/favicon.ico").await.0, StatusCode::NOT_FOUND);
    // It does not even wait for the body.
    let body = Body::from_stream(pending::<std::io::Result<Vec<u8>>>());
    let endless = Request::post("/api/items").header(header::HOST, "localhost").body(body).unwrap();
    assert_eq!(read_only.send(endless).await.0, StatusCode::FORBIDDEN);
    let hasty = Service::with(Limits { timeout: Duration::from_millis(50), ..LIMITS });
    // A body that never ends.
    let body = Body::from_stream(pending::<std::io::Result<Vec<u8>>>());
    let endless = Request::post("/api/search")
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)
        .unwrap();
    assert_eq!(hasty.send(endless).await.0, StatusCode::SERVICE_UNAVAILABLE);
    let narrow = Service::with(Limits { queue: 1, batch: 1, ..LIMITS });
    let asked = (0..200).map(|_| narrow.search(json!({"query": "a red dog", "beam": 50})));
    let answers = join_all(asked).await;
    let full =
        answers.iter().filter(|(status, _)| *status == StatusCode::SERVICE_UNAVAILABLE).count();
    assert!((1..200).contains(&full), "{full} of 200 were turned away");
    let saving = Service::with(Limits { compact: 0, ..LIMITS });
    saving.ask(Method::DELETE, "/api/items", json!({"ids": ["old-1"]})).await;
    for _ in 0..200 {
        if saving.app.live.pending().0 == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the index was not saved anew");
}
