//! Serves an index over HTTP: searches, changes, metrics, and a page for people.

#[macro_use]
#[path = "../common/print.rs"]
mod print;

mod api;
mod app;
#[path = "../common/backend.rs"]
mod backend;
mod batch;
mod media;
#[path = "../common/memory.rs"]
mod memory;
mod metrics;
mod net;
mod page;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use app::{App, Limits};
use backend::Hardware;
use cart_retrieval::{
    backend::{BackendTask, LocalBackend},
    retrieve::LiveRetriever,
};
use clap::Parser;
use net::Manners;
use tokio::net::TcpListener;

/// Serves an index over HTTP.
///
/// Open http://127.0.0.1:7878 in a browser. The address is only reachable from this machine unless told otherwise;
/// there is no password, so put a proxy that asks for one before an address that others reach.
#[derive(Parser)]
struct Args {
    /// The index folder.
    #[arg(long)]
    index: PathBuf,
    /// Address to listen at.
    #[arg(long, default_value = "127.0.0.1:7878")]
    listen: SocketAddr,
    /// Names that requests may be addressed to beside the address itself, with commas between; a page on another
    /// site that has its name lead here is refused.
    #[arg(long, value_delimiter = ',')]
    hosts: Vec<String>,
    /// Folder of the pictures, sounds and videos, by the field `file` of a candidate's metadata, or its id, with or
    /// without an extension [default: `media` in the index folder]. Nothing outside of it is served.
    #[arg(long)]
    media: Option<PathBuf>,
    /// Refuses all changes.
    #[arg(long)]
    read_only: bool,
    /// Seconds until a request is given up.
    #[arg(long, default_value_t = 30)]
    timeout: u64,
    /// Connections at once; more wait.
    #[arg(long, default_value_t = 512)]
    connections: usize,
    /// Queries that may wait; more are turned away.
    #[arg(long, default_value_t = 256)]
    queue: usize,
    /// Queries that are searched together at most.
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// MiB of changes after which the index is saved anew.
    #[arg(long, default_value_t = 64)]
    compact_mib: u64,
    #[command(flatten)]
    hardware: Hardware,
}

fn main() -> Result<()> {
    let args = Args::parse();
    args.hardware.run(Main(args))
}

struct Main(Args);

impl BackendTask for Main {
    type Output = Result<()>;

    fn run<B: LocalBackend>(self, device: B::Device) -> Result<()> {
        let args = self.0;
        let live = LiveRetriever::<B>::open(&args.index, &device)?;
        println!("{} candidates; {}", live.snapshot().index().ids().len(), B::describe(&device));
        let limits = Limits {
            timeout: Duration::from_secs(args.timeout.max(1)),
            queue: args.queue.max(1),
            batch: args.batch.max(1),
            compact: args.compact_mib << 20,
            read_only: args.read_only,
        };
        let media = args.media.unwrap_or_else(|| args.index.join("media"));
        let hosts = [args.hosts, vec![args.listen.ip().to_string()]].concat();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let app = App::new(live, &media, hosts, limits);
            let listener = TcpListener::bind(args.listen)
                .await
                .with_context(|| format!("cannot listen at {}", args.listen))?;
            println!("http://{}  (Ctrl-C ends it)", listener.local_addr()?);
            let manners = Manners { connections: args.connections.max(1), ..Manners::default() };
            if !net::serve(listener, app.router(), &manners, asked_to_end()).await {
                println!("what was still under way was cut off");
            }
            anyhow::Ok(())
        })?;
        // A change or a save that is still being made; killed in the midst of it, it would not have been.
        runtime.shutdown_timeout(Duration::from_secs(30));
        println!("ended");
        Ok(())
    }
}

/// Ctrl-C, or what a service manager sends.
async fn asked_to_end() {
    let ctrl_c = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut terminate) = signal(SignalKind::terminate()) else { return ctrl_c.await };
        tokio::select! {
            () = ctrl_c => {}
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    ctrl_c.await;
}
