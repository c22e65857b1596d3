//! Requests to the example `serve`: any method, path, headers and body get an answer that is not
//! the service's own fault, and the index stays one that can be verified.
//!
//! `cargo +nightly fuzz run requests corpus/requests -- -rss_limit_mb=2048 -max_len=4096`
#![no_main]

#[path = "../../examples/serve/src/api.rs"]
mod api;
#[path = "../../examples/serve/src/app.rs"]
mod app;
#[path = "../../examples/serve/src/batch.rs"]
mod batch;
#[path = "../../examples/serve/src/changes.rs"]
mod changes;
#[path = "../../examples/serve/src/media.rs"]
mod media;
#[path = "../../examples/serve/src/metrics.rs"]
mod metrics;
#[path = "../../examples/serve/src/page.rs"]
mod page;
#[path = "../../examples/serve/src/ranges.rs"]
mod ranges;
#[path = "../../tests/all/live/small.rs"]
mod small;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use app::{App, Limits};
use axum::{
    body::{Body, to_bytes},
    http::{Method, Request, StatusCode, header},
};
use burn::backend::Flex;
use cart_retrieval::retrieve::{LiveRetriever, verify};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;
use tower::ServiceExt;

struct Service {
    folder: tempfile::TempDir,
    app: Arc<App<Flex>>,
    runtime: Runtime,
}

fn service() -> &'static Service {
    static SERVICE: OnceLock<Service> = OnceLock::new();
    SERVICE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        small::retriever(true).save(folder.path()).expect("an index");
        let live = LiveRetriever::open(folder.path(), &Default::default()).expect("an index");
        let limits = Limits {
            timeout: Duration::from_secs(20),
            queue: 16,
            batch: 4,
            compact: 1 << 20,
            read_only: false,
        };
        let app = App::new(live, &folder.path().join("media"), Vec::new(), limits);
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(2).enable_all().build().expect("a runtime");
        Service { folder, app, runtime }
    })
}

const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::HEAD];

/// The first byte is the method, the first line the path; the rest is the body.
fn request(bytes: &[u8]) -> Option<Request<Body>> {
    let (method, rest) = bytes.split_first()?;
    let end = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
    let body = rest.get(end + 1..).unwrap_or_default().to_vec();
    Request::builder()
        .method(METHODS[usize::from(*method) % METHODS.len()].clone())
        .uri(&rest[..end])
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body))
        .ok()
}

fuzz_target!(|bytes: &[u8]| {
    let Some(request) = request(bytes) else { return };
    let service = service();
    let shown = format!("{request:?}");
    let status = service.runtime.block_on(async {
        let response = service.app.clone().router().oneshot(request).await.expect("infallible");
        let status = response.status();
        to_bytes(response.into_body(), 1 << 24).await.expect("a body");
        status
    });
    assert!(
        !status.is_server_error() || status == StatusCode::SERVICE_UNAVAILABLE,
        "{shown}: {status}"
    );
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    if COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 1000 == 999 {
        verify(service.folder.path()).expect("an index");
    }
});
