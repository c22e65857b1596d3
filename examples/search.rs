//! Answers text queries with a saved index: those on the command line, or line by line.

#[macro_use]
extern crate cart_examples as common;

use std::{
    io::{self, BufRead, IsTerminal},
    num::NonZeroUsize,
    path::PathBuf,
};

use anyhow::{Context, Result, bail, ensure};
use cart_retrieval::{
    backend::{BackendTask, LocalBackend},
    prelude::*,
};
use clap::Parser;
use common::backend::Hardware;

/// The longest query that is read, in bytes.
const LONGEST: usize = 1 << 16;

/// Searches an index with text.
///
/// Lines of the standard input are answered one by one; blank ones are passed over. A line that
/// cannot be answered is told and the others are answered; the exit status is then 1.
#[derive(Parser)]
struct Args {
    /// The index folder.
    #[arg(long)]
    index: PathBuf,
    /// Candidates per query.
    #[arg(long, default_value = "10")]
    top: NonZeroUsize,
    /// Beam width; by default the index's, and at least the number of candidates per query.
    #[arg(long)]
    beam: Option<NonZeroUsize>,
    /// Prints one JSON object per query; `warnings` names unknown words and texts that were cut.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hardware: Hardware,
    /// Queries; without any, lines of the standard input.
    queries: Vec<String>,
}

fn main() -> Result<()> {
    common::print::end_with_reader();
    let args = Args::parse();
    args.hardware.run(Main(args))
}

struct Main(Args);

impl BackendTask for Main {
    type Output = Result<()>;

    fn run<B: LocalBackend>(self, device: B::Device) -> Result<()> {
        let args = self.0;
        let retriever = Retriever::<B>::load(&args.index, &device)?;
        if args.queries.is_empty() {
            return answer_lines(&retriever, &args);
        }
        let mut failed = 0;
        for (at, query) in args.queries.iter().enumerate() {
            let place = format!("query {}", at + 1);
            failed += usize::from(!answered(&retriever, &args, &place, Ok(query.clone())));
        }
        all_answered(failed, args.queries.len())
    }
}

/// Answers the lines of the standard input.
fn answer_lines<B: LocalBackend>(retriever: &Retriever<B>, args: &Args) -> Result<()> {
    let stdin = io::stdin();
    let prompt = stdin.is_terminal();
    if prompt {
        println!("{} candidates; an empty line ends the program", retriever.index().ids().len());
    }
    let (mut stdin, mut number, mut asked, mut failed) = (stdin.lock(), 0, 0, 0);
    loop {
        if prompt {
            print!("> ");
            common::print::flush();
        }
        let Some(line) = next_line(&mut stdin).context("cannot read the queries")? else {
            break;
        };
        number += 1;
        let query = text(&line, number == 1);
        if query.as_ref().is_ok_and(String::is_empty) {
            if prompt {
                break;
            }
            continue;
        }
        asked += 1;
        failed += usize::from(!answered(retriever, args, &format!("line {number}"), query));
    }
    if prompt { Ok(()) } else { all_answered(failed, asked) }
}

/// The bytes of the next line, at most one more than a query may have; none at the end.
fn next_line(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let (mut line, mut ended, mut any) = (Vec::new(), false, false);
    while !ended {
        let bytes = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            bytes => bytes?,
        };
        if bytes.is_empty() {
            return Ok(any.then_some(line));
        }
        any = true;
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let part = &bytes[..end.unwrap_or(bytes.len())];
        // What is too long is passed over, not kept.
        line.extend(part.iter().take((LONGEST + 1).saturating_sub(line.len())));
        ended = end.is_some();
        let read = end.map_or(bytes.len(), |end| end + 1);
        reader.consume(read);
    }
    Ok(Some(line))
}

/// The query of a line, without white space around it.
fn text(line: &[u8], first: bool) -> Result<String> {
    ensure!(line.len() <= LONGEST, "a query of more than {LONGEST} bytes");
    // Some editors put a byte order mark first.
    let line = if first { line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line) } else { line };
    let Ok(text) = std::str::from_utf8(line) else {
        bail!("not UTF-8; save the queries as UTF-8");
    };
    Ok(text.trim().to_string())
}

/// Answers a query, or says why not; whether it was answered.
fn answered<B: LocalBackend>(
    retriever: &Retriever<B>,
    args: &Args,
    place: &str,
    query: Result<String>,
) -> bool {
    match query.and_then(|query| answer(retriever, &query, args)) {
        Ok(warnings) => {
            for warning in warnings.iter().filter(|_| !args.json) {
                eprintln!("{place}: {warning}");
            }
            true
        }
        Err(error) => {
            eprintln!("{place}: {error:#}");
            if args.json {
                println!("{}", serde_json::json!({ "at": place, "error": format!("{error:#}") }));
            }
            false
        }
    }
}

fn all_answered(failed: usize, asked: usize) -> Result<()> {
    ensure!(failed == 0, "{failed} of {asked} queries could not be answered");
    Ok(())
}

/// Answers a query; gives what its author should know.
fn answer<B: LocalBackend>(
    retriever: &Retriever<B>,
    query: &str,
    args: &Args,
) -> Result<Vec<String>> {
    let beam = args.beam.map_or(retriever.beam().width, NonZeroUsize::get);
    let hits = retriever.query(query).top(args.top.get()).beam(beam).run()?;
    let warnings = retriever.tokenizer().check(query)?.warnings();
    if args.json {
        let mut answer = serde_json::json!({ "query": query, "hits": hits });
        if !warnings.is_empty() {
            answer["warnings"] = serde_json::json!(warnings);
        }
        println!("{answer}");
        return Ok(warnings);
    }
    println!("{query}");
    for (rank, hit) in hits.iter().enumerate() {
        println!("{:>4}. {:>8.3}  {}  {}", rank + 1, hit.score, hit.identifier, hit.id);
    }
    Ok(warnings)
}
