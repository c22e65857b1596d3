//! Failures of the disk, for tests: the n-th change of a file below a folder fails.
//!
//! Only in unit tests of this library, and with the feature `faults` in those of the other crates.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What happens at the n-th change of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails; all others succeed.
    Once,
    /// The disk is full from then on: what needs space fails, removing and renaming succeed.
    Full,
    /// The process is dead from then on: nothing is changed any more, and nothing cleaned up. The
    /// files are then as after `kill -9`, while the test goes on.
    Killed,
}

/// Whether a call needs space on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Grow,
    Free,
}

#[derive(Debug)]
struct Plan {
    number: usize,
    folder: PathBuf,
    at: usize,
    fault: Fault,
    calls: usize,
}

/// How many plans there are, so that most calls need no lock.
static ARMED: AtomicUsize = AtomicUsize::new(0);
static NUMBER: AtomicUsize = AtomicUsize::new(0);
static PLANS: Mutex<Vec<Plan>> = Mutex::new(Vec::new());

fn plans() -> MutexGuard<'static, Vec<Plan>> {
    PLANS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A fault that is in force until this is dropped.
#[derive(Debug)]
pub struct Injected(usize);

/// Lets the change number `at` of a file below a folder fail, counted from 0, from any thread of
/// this process. The path of the folder has to be the one that the library is given.
///
/// # Example
/// ```ignore
/// use cart_retrieval::members::{write_bytes, faults::{Fault, inject}};
/// let folder = tempfile::tempdir().unwrap();
/// for at in 0.. {
///     let fault = inject(folder.path(), at, Fault::Killed);
///     let written = write_bytes(folder.path().join("note.txt"), b"two dogs");
///     let happened = fault.happened();
///     drop(fault);
///     assert_eq!(written.is_err(), happened);
///     // Here: whether what is left on the disk can be used.
///     if !happened {
///         break;
///     }
/// }
/// ```
pub fn inject(folder: impl Into<PathBuf>, at: usize, fault: Fault) -> Injected {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = folder.into();
    plans().push(Plan { number, folder, at, fault, calls: 0 });
    ARMED.fetch_add(1, Ordering::SeqCst);
    Injected(number)
}

impl Injected {
    /// Whether as many changes were made that the fault happened.
    pub fn happened(&self) -> bool {
        plans().iter().any(|plan| plan.number == self.0 && plan.calls > plan.at)
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        plans().retain(|plan| plan.number != self.0);
        ARMED.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Counts a call, which fails where a plan says so.
pub(super) fn call(path: &Path, call: Call) -> io::Result<()> {
    if ARMED.load(Ordering::SeqCst) == 0 {
        return Ok(());
    }
    for plan in plans().iter_mut().filter(|plan| path.starts_with(&plan.folder)) {
        let number = plan.calls;
        plan.calls += 1;
        let fails = match plan.fault {
            Fault::Once => number == plan.at,
            Fault::Full => number == plan.at || number > plan.at && call == Call::Grow,
            Fault::Killed => number >= plan.at,
        };
        if fails {
            let kind = match plan.fault {
                Fault::Full if call == Call::Grow => io::ErrorKind::StorageFull,
                _ => io::ErrorKind::Other,
            };
            return Err(io::Error::new(kind, format!("injected failure of call {number}")));
        }
    }
    Ok(())
}

/// Whether the process is not dead yet, or dies in this very call.
pub(super) fn alive(path: &Path) -> bool {
    let dead = |plan: &Plan| {
        plan.fault == Fault::Killed && plan.calls > plan.at + 1 && path.starts_with(&plan.folder)
    };
    !plans().iter().any(dead)
}
