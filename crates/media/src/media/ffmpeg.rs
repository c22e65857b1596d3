//! The program ffmpeg as a reader of files.

use std::{
    ffi::OsString,
    io::{BufReader, Read},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread::JoinHandle,
};

use cart_retrieval::{Error, Result};

/// Bytes of complaints that are kept.
const COMPLAINTS: u64 = 1 << 16;
/// Threads of one program, since several files are read at once.
const THREADS: &str = "2";

/// A file that a program like ffmpeg reads.
pub(super) struct Ffmpeg<'a> {
    pub path: &'a Path,
    pub program: &'a str,
}

/// A program that runs, and its output.
pub(super) struct Running {
    child: Child,
    complaints: Option<JoinHandle<String>>,
}

impl Ffmpeg<'_> {
    /// Starts the program: options before the input, and after it.
    pub fn start(&self, before: &[String], after: &[&str]) -> Result<(Running, ChildStdout)> {
        // With `file:` a name with a colon or a minus at its beginning is a name still. A playlist
        // called `.mp4` may not fetch anything from the network.
        let mut input = OsString::from("file:");
        input.push(self.path);
        let spawned = Command::new(self.program)
            .args(["-nostdin", "-v", "error", "-threads", THREADS])
            .args(["-protocol_whitelist", "file"])
            .args(before)
            .arg("-i")
            .arg(input)
            .args(after)
            .arg("-")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let missing = |found: String| {
            Error::media(self.name())
                .expected(format!("the program `{}`, which reads files of this kind", self.program))
                .found(found)
                .fix("install ffmpeg, or convert the file (a video also to a folder of pictures)")
        };
        let mut child = spawned.map_err(|e| missing(e.to_string()))?;
        let output = child.stdout.take().ok_or_else(|| missing("no output".into()))?;
        // Read by another thread, so that a program with many complaints does not wait for a
        // reader.
        let complaints = child.stderr.take().map(|mut stream| {
            std::thread::spawn(move || {
                let mut text = Vec::new();
                let _ = stream.by_ref().take(COMPLAINTS).read_to_end(&mut text);
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
                String::from_utf8_lossy(&text).trim().to_string()
            })
        });
        Ok((Running { child, complaints }, output))
    }

    /// Runs the program and reads its output, whose reader says what is wrong with it. Returns what
    /// was read, and the program's complaints if it ended well all the same.
    pub fn read<T>(
        &self,
        before: &[String],
        after: &[&str],
        read: impl FnOnce(&mut BufReader<ChildStdout>) -> std::result::Result<T, String>,
    ) -> Result<(T, String)> {
        let (running, output) = self.start(before, after)?;
        let mut output = BufReader::with_capacity(1 << 16, output);
        let found = read(&mut output);
        drop(output);
        let (ended_well, complaints) = running.end(found.is_err());
        match found {
            Ok(found) if ended_well => Ok((found, complaints)),
            Ok(_) if complaints.is_empty() => Err(self.failed("an exit with a failure")),
            // What the reader found is a consequence of what the program complains about.
            Ok(_) => Err(self.failed(complaints)),
            Err(_) if !complaints.is_empty() && !ended_well => Err(self.failed(complaints)),
            Err(problem) => Err(self.failed(problem)),
        }
    }

    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    pub fn failed(&self, found: impl Into<String>) -> Error {
        let expected = format!("a file that `{}` (ffmpeg) reads", self.program);
        Error::media(self.name())
            .expected(expected)
            .found(found.into())
            .fix("download it again, or leave it out")
    }
}

impl Running {
    /// Waits for the end, or brings it about; whether the program ended well, and its complaints.
    pub fn end(mut self, kill: bool) -> (bool, String) {
        if kill {
            let _ = self.child.kill();
        }
        let ended_well = self.child.wait().is_ok_and(|status| status.success());
        let complaints = self.complaints.take().and_then(|thread| thread.join().ok());
        (ended_well, complaints.unwrap_or_default())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After an error or a panic of the reader; harmless where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
