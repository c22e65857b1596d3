//! Connections: so many at once, none that never asks, and an end that comes.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, select, sync::Semaphore, time::sleep};
use tokio_io_timeout::TimeoutStream;

/// How connections are treated.
#[derive(Debug, Clone)]
pub struct Manners {
    /// Connections at once.
    pub connections: usize,
    /// How long the head of a request may take, from the end of the one before.
    pub head: Duration,
    /// How long the other side may take nothing of an answer.
    pub unread: Duration,
    /// How long requests under way have when the service is to end.
    pub grace: Duration,
}

impl Default for Manners {
    fn default() -> Self {
        let [head, unread, grace] = [Duration::from_secs(30); 3];
        Self { connections: 512, head, unread, grace }
    }
}

/// Answers requests until `end`, then those that are under way; whether all of them were answered.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    manners: &Manners,
    end: impl Future<Output = ()>,
) -> bool {
    let free = Arc::new(Semaphore::new(manners.connections));
    let under_way = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(manners.head);
    let mut end = pin!(end);
    loop {
        let next = async {
            let place = free.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = select! {
            next = next => next,
            () = &mut end => break,
        };
        let Ok((stream, _)) = accepted else {
            // Too many open files, most likely: some will be closed.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(manners.unread));
        let connection = http.serve_connection(TokioIo::new(Box::pin(stream)), service);
        let connection = under_way.watch(connection);
        tokio::spawn(async move {
            // What ends a connection early is the other side's affair.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    select! {
        () = under_way.shutdown() => true,
        () = sleep(manners.grace) => false,
    }
}
