//! Serves an index over HTTP: searches, changes, metrics, and a page for people.

#[macro_use]
extern crate cart_examples as common;

mod api;
mod app;
mod batch;
mod changes;
mod media;
mod metrics;
mod net;
mod page;
mod ranges;
#[cfg(test)]
mod tests;

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use app::{App, Limits};
use cart_retrieval::{
    Error,
    backend::{BackendTask, LocalBackend},
    retrieve::LiveRetriever,
};
use clap::{Parser, value_parser};
use common::backend::Hardware;
use net::Manners;

/// Serves an index over HTTP.
///
/// Open http://127.0.0.1:7878 in a browser. The address is only reachable from this machine unless
/// told otherwise; there is no password, so put a proxy that asks for one before an address that
/// others reach.
#[derive(Parser)]
struct Args {
    /// The index folder.
    #[arg(long)]
    index: PathBuf,
    /// Address to listen on: 127.0.0.1:7878, [::1]:7878, localhost:7878.
    #[arg(long, default_value = "127.0.0.1:7878", value_parser = address)]
    listen: SocketAddr,
    /// Host names that requests may use besides the address itself, separated by commas. Others are
    /// refused, as a protection against DNS rebinding.
    #[arg(long, value_delimiter = ',')]
    hosts: Vec<String>,
    /// Folder of the pictures, sounds and videos, by the field `file` of a candidate's metadata, or
    /// its id, with or without an extension [default: `media` in the index folder]. Nothing outside
    /// of it is served.
    #[arg(long)]
    media: Option<PathBuf>,
    /// Refuses all changes, takes no lock, writes nothing, and follows the changes of other
    /// programs.
    #[arg(long)]
    read_only: bool,
    /// With --read-only: seconds between checks for changes; 0 turns them off.
    #[arg(long, default_value_t = 2, requires = "read_only")]
    follow: u64,
    /// Request timeout in seconds.
    #[arg(long, default_value_t = 30, value_parser = value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Maximum number of connections; more wait.
    #[arg(long, default_value_t = 512, value_parser = value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// Maximum number of waiting queries; more are refused.
    #[arg(long, default_value_t = 256, value_parser = value_parser!(u32).range(1..=1_000_000))]
    queue: u32,
    /// Maximum number of queries searched in one batch.
    #[arg(long, default_value_t = 32, value_parser = value_parser!(u32).range(1..=100_000))]
    batch: u32,
    /// MiB of changes after which the index is compacted.
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
        // What needs no index is checked before it is loaded.
        if let Some(media) = &args.media {
            ensure!(media.is_dir(), "--media {}: there is no such folder", media.display());
        }
        let listener = listen(args.listen)?;
        let live = open::<B>(&args, &device)?;
        println!("{} candidates; {}", live.snapshot().index().ids().len(), B::describe(&device));
        let limits = Limits {
            timeout: Duration::from_secs(args.timeout),
            queue: args.queue as usize,
            batch: args.batch as usize,
            compact: args.compact_mib.saturating_mul(1 << 20),
            read_only: args.read_only,
        };
        let media = args.media.unwrap_or_else(|| args.index.join("media"));
        let hosts = [args.hosts, vec![args.listen.ip().to_string()]].concat();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let app = App::new(live, &media, hosts, limits);
            let listener = tokio::net::TcpListener::from_std(listener)?;
            println!("http://{}  (Ctrl-C ends it)", listener.local_addr()?);
            if args.read_only && args.follow > 0 {
                tokio::spawn(follow(app.clone(), Duration::from_secs(args.follow)));
            }
            let manners = Manners { connections: args.connections as usize, ..Manners::default() };
            if !net::serve(listener, app.router(), &manners, asked_to_end()).await {
                println!("requests still in progress were cut off");
            }
            anyhow::Ok(())
        })?;
        // A change or a save that is still being made; killed in the midst of it, it would not have
        // been.
        runtime.shutdown_timeout(Duration::from_secs(30));
        println!("ended");
        Ok(())
    }
}

/// An address of the command line; names are looked up.
fn address(text: &str) -> Result<SocketAddr, String> {
    let found = text.to_socket_addrs().ok().and_then(|mut found| found.next());
    found.ok_or_else(|| {
        "expected an address and a port, as 127.0.0.1:7878, [::1]:7878 or localhost:7878".into()
    })
}

/// Takes the port, which is quick, before the index is loaded.
fn listen(at: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(at).with_context(|| {
        format!(
            "cannot listen at {at}; another program may have the port: choose another one with \
             --listen"
        )
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn open<B: LocalBackend>(args: &Args, device: &B::Device) -> Result<LiveRetriever<B>> {
    if args.read_only {
        return Ok(LiveRetriever::open_read_only(&args.index, device)?);
    }
    LiveRetriever::open(&args.index, device).map_err(|error| {
        let unwritable = match &error {
            Error::Io { action, source, .. } if *action != "read" => {
                let refused = [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem];
                refused.contains(&source.kind())
            }
            _ => false,
        };
        let error = anyhow::Error::new(error);
        if unwritable {
            return error.context(
                "the index cannot be opened for changes; --read-only serves it unchanged",
            );
        }
        error
    })
}

/// Serves what other programs make of the index.
async fn follow<B: LocalBackend>(app: Arc<App<B>>, every: Duration) {
    let mut failed = false;
    loop {
        tokio::time::sleep(every).await;
        let app = app.clone();
        let refreshed = tokio::task::spawn_blocking(move || {
            let changed = app.live.refresh()?;
            Ok::<_, Error>(changed.then(|| app.live.snapshot().index().ids().len()))
        });
        match refreshed.await {
            Ok(Ok(changed)) => {
                failed = false;
                if let Some(candidates) = changed {
                    println!("the index was changed: {candidates} candidates");
                }
            }
            Ok(Err(error)) if !failed => {
                failed = true;
                eprintln!("the previous index is still served: {error}");
            }
            _ => {}
        }
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
