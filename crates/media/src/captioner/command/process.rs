//! A program that is fed, read, timed and ended.

use std::{
    io::{Read, Write},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use cart_retrieval::{Error, Result};

use super::config::CommandConfig;

/// How long to wait between two looks at program, clock and stop flag.
const TICK: Duration = Duration::from_millis(10);
/// Bytes of the standard error that are kept: the last ones.
const TAIL: usize = 2048;

/// What became of the standard output.
enum Output {
    Whole(Vec<u8>),
    TooLarge,
    Broken(String),
}

/// The output of the program for an input; nothing when it was stopped.
///
/// Input, output and errors go through threads of their own, so that neither side waits for the
/// other with a full pipe. When the program is ended, they are left to themselves: a pipe may live
/// on in a program that it started.
pub(super) fn run(
    config: &CommandConfig,
    items: usize,
    input: String,
    is_stopped: impl Fn() -> bool,
) -> Result<Option<Vec<u8>>> {
    let started = Instant::now();
    let mut child = start(config)?;
    let tail = Arc::new(Mutex::new(Vec::new()));
    let (to_main, from_threads) = mpsc::channel();
    if let Some(mut stdin) = child.stdin.take() {
        // A program that needs no more input may close it.
        thread::spawn(move || stdin.write_all(input.as_bytes()));
    }
    if let Some(stdout) = child.stdout.take() {
        let most = config.most_bytes;
        thread::spawn(move || to_main.send(read(stdout, most)));
    }
    let errors = child.stderr.take().map(|stderr| {
        let tail = tail.clone();
        thread::spawn(move || keep_tail(stderr, &tail))
    });
    let failed = |expected: String, found: String, remedy: &str| {
        // What it said last may still be on its way.
        let until = Instant::now() + Duration::from_millis(300);
        while errors.as_ref().is_some_and(|thread| !thread.is_finished()) && Instant::now() < until
        {
            thread::sleep(TICK);
        }
        let said = tail.lock().map(|tail| String::from_utf8_lossy(&tail).trim().to_string());
        let found = match said.unwrap_or_default() {
            said if said.is_empty() => format!("{found}, with nothing on its standard error"),
            said => format!("{found}; its standard error ends with: {said}"),
        };
        Error::captions(config.shown()).expected(expected).found(found).fix(remedy)
    };

    let (mut output, mut status): (Option<Vec<u8>>, Option<ExitStatus>) = (None, None);
    loop {
        if is_stopped() {
            end(&mut child);
            return Ok(None);
        }
        if output.is_none() {
            match from_threads.recv_timeout(TICK) {
                Ok(Output::Whole(bytes)) => output = Some(bytes),
                Ok(Output::TooLarge) => {
                    end(&mut child);
                    return Err(failed(
                        format!("at most {} bytes for {items} items", config.most_bytes),
                        "more on its standard output".into(),
                        "make it write only a line per caption, or raise `most_bytes`",
                    ));
                }
                Ok(Output::Broken(message)) => {
                    end(&mut child);
                    return Err(failed("its output".into(), message, "start it again"));
                }
                Err(_) => {}
            }
        } else {
            thread::sleep(TICK);
        }
        if status.is_none() {
            status = child.try_wait().map_err(|e| Error::io("wait for", &config.program, e))?;
        }
        match (status, output.take()) {
            (Some(status), _) if !status.success() => {
                // Ended by the same Ctrl-C that raises the flag, perhaps a moment before it.
                thread::sleep(TICK);
                if is_stopped() {
                    return Ok(None);
                }
                return Err(failed(
                    "the exit status 0".into(),
                    status.to_string(),
                    "fix the error that it reports; finished batches are kept",
                ));
            }
            (Some(_), Some(bytes)) => return Ok(Some(bytes)),
            (_, bytes) => output = bytes,
        }
        if started.elapsed().as_secs_f64() > config.seconds {
            end(&mut child);
            return Err(failed(
                format!("captions of {items} items within {} s", config.seconds),
                "a program that is still running".into(),
                "raise `seconds`, lower `batch`, or find out what it waits for",
            ));
        }
    }
}

fn start(config: &CommandConfig) -> Result<Child> {
    let mut command = Command::new(&config.program);
    command.args(&config.args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    #[cfg(unix)]
    {
        // A group of its own, so that it can be ended together with what it starts.
        use std::os::unix::process::CommandExt;
        command.process_group(0);
    }
    command.spawn().map_err(|e| {
        Error::captions(config.shown())
            .expected("a program that can be started")
            .found(e.to_string())
            .fix(
                "install it, or give its full path; arguments belong in `args`, and no shell reads \
             them",
            )
    })
}

/// Ends a program, on Unix with all that it started, and waits for it.
fn end(child: &mut Child) {
    // Only while it was not waited for: afterwards its number may be another's.
    #[cfg(unix)]
    if let (Ok(None), Ok(group)) = (child.try_wait(), i32::try_from(child.id())) {
        use nix::{
            sys::signal::{Signal, killpg},
            unistd::Pid,
        };
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// All of a stream, unless it is too long.
fn read(mut stream: impl Read, most: usize) -> Output {
    let mut bytes = Vec::new();
    match stream.by_ref().take(most as u64 + 1).read_to_end(&mut bytes) {
        Ok(_) if bytes.len() > most => Output::TooLarge,
        Ok(_) => Output::Whole(bytes),
        Err(e) => Output::Broken(e.to_string()),
    }
}

/// Reads a stream to its end and keeps its last bytes.
fn keep_tail(mut stream: impl Read, tail: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if let Ok(mut tail) = tail.lock() {
            tail.extend_from_slice(&buffer[..count]);
            let surplus = tail.len().saturating_sub(TAIL);
            tail.drain(..surplus);
        }
    }
}
