//! Answers text queries with a saved index: those on the command line, or line by line.

mod common;

use std::{
    io::{BufRead, IsTerminal, Write},
    path::PathBuf,
};

use anyhow::Result;
use cart_retrieval::{
    backend::{BackendTask, LocalBackend},
    prelude::*,
};
use clap::Parser;
use common::backend::Hardware;

/// Searches an index with text.
#[derive(Parser)]
struct Args {
    /// The index folder.
    #[arg(long)]
    index: PathBuf,
    /// Candidates per query.
    #[arg(long, default_value_t = 10)]
    top: usize,
    /// Width of the beam, if not the index's.
    #[arg(long)]
    beam: Option<usize>,
    /// Prints one JSON object per query.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hardware: Hardware,
    /// Queries; without any, lines of the standard input.
    queries: Vec<String>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    args.hardware.run(Main(args))
}

struct Main(Args);

impl BackendTask for Main {
    type Output = Result<()>;

    fn run<B: LocalBackend>(self, device: B::Device) -> Result<()> {
        serve::<B>(&self.0, &device)
    }
}

fn serve<B: LocalBackend>(args: &Args, device: &B::Device) -> Result<()> {
    let retriever = Retriever::<B>::load(&args.index, device)?;
    if !args.queries.is_empty() {
        return args.queries.iter().try_for_each(|query| answer(&retriever, query, args));
    }
    let stdin = std::io::stdin();
    let prompt = stdin.is_terminal();
    if prompt {
        println!("{} candidates; an empty line ends", retriever.index().ids().len());
    }
    loop {
        if prompt {
            print!("> ");
            std::io::stdout().flush()?;
        }
        let mut line = String::new();
        if stdin.lock().read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok(());
        }
        match answer(&retriever, line.trim(), args) {
            // A query that cannot be answered does not end the conversation.
            Err(error) if prompt => eprintln!("{error:#}"),
            result => result?,
        }
    }
}

fn answer<B: LocalBackend>(retriever: &Retriever<B>, query: &str, args: &Args) -> Result<()> {
    let beam = args.beam.unwrap_or(retriever.beam().width);
    let hits = retriever.search(query).top(args.top).beam(beam).run()?;
    if args.json {
        println!("{}", serde_json::json!({ "query": query, "hits": hits }));
        return Ok(());
    }
    println!("{query}");
    for (rank, hit) in hits.iter().enumerate() {
        println!("{:>4}. {:>8.3}  {}  {}", rank + 1, hit.score, hit.identifier, hit.id);
    }
    Ok(())
}
