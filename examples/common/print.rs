//! Printing that outlives its reader: these macros take the place of the standard ones in the
//! programs.
//!
//! The standard ones panic when the output cannot be written: the reader of a pipe has ended (`|
//! head`), the disk of a log is full. Here a program goes on with its work, which is worth more
//! than its log, and says once on stderr that output is lost. A program that does nothing but print
//! calls [`end_with_reader`] first.
//!
//! Every program has them: `#[macro_use] extern crate cart_examples as common;`

use std::{
    fmt,
    io::{self, ErrorKind, Write},
    process,
    sync::atomic::{AtomicBool, Ordering},
};

/// Whether the program ends when its output cannot be written.
static ENDS: AtomicBool = AtomicBool::new(false);
/// Whether it was said that output is lost.
static SAID: AtomicBool = AtomicBool::new(false);

#[macro_export]
macro_rules! println {
    () => { $crate::print::out(::std::format_args!("\n")) };
    ($($text:tt)*) => {
        $crate::print::out(::std::format_args!("{}\n", ::std::format_args!($($text)*)))
    };
}

#[macro_export]
macro_rules! print {
    ($($text:tt)*) => { $crate::print::out(::std::format_args!($($text)*)) };
}

#[macro_export]
macro_rules! eprintln {
    () => { $crate::print::err(::std::format_args!("\n")) };
    ($($text:tt)*) => {
        $crate::print::err(::std::format_args!("{}\n", ::std::format_args!($($text)*)))
    };
}

/// Ends the program from now on when its output cannot be written: quietly and with success where
/// the reader has ended, otherwise with an error.
pub fn end_with_reader() {
    ENDS.store(true, Ordering::Relaxed);
}

/// Writes to the standard output.
pub fn out(text: fmt::Arguments<'_>) {
    lost(io::stdout().lock().write_fmt(text));
}

/// Writes what is still in memory of the standard output.
pub fn flush() {
    lost(io::stdout().lock().flush());
}

/// Writes to the standard error, if that can be written.
pub fn err(text: fmt::Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// What to do when output could not be written.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Ends(i32),
    GoesOn,
}

/// The outcome of an error, for a program that ends with its reader and for others.
pub fn outcome(error: &io::Error, ends: bool) -> Outcome {
    match (ends, error.kind()) {
        (false, _) => Outcome::GoesOn,
        (true, ErrorKind::BrokenPipe) => Outcome::Ends(0),
        (true, _) => Outcome::Ends(1),
    }
}

fn lost(written: io::Result<()>) {
    let Err(error) = written else { return };
    match outcome(&error, ENDS.load(Ordering::Relaxed)) {
        Outcome::Ends(status) => {
            if status != 0 {
                err(format_args!("Error: cannot write the output: {error}\n"));
            }
            process::exit(status);
        }
        Outcome::GoesOn if SAID.swap(true, Ordering::Relaxed) => {}
        Outcome::GoesOn => {
            err(format_args!("cannot write the output ({error}); continuing without it\n"));
        }
    }
}
