//! Ctrl-C: the first asks to stop where nothing is lost, the second ends the process at once.

use crate::exit::{Exit, Failure};
use std::sync::atomic::{AtomicBool, Ordering};

/// What a shell reports for a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

static ASKED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C and SIGTERM raise the flag that comes back.
///
/// # Errors
/// When the system allows no handler.
pub(crate) fn on_interrupt() -> Result<&'static AtomicBool, Failure> {
    let handler = || {
        if ASKED.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED);
        }
        eprintln!("stopping after the operation in progress; once more ends the process at once");
    };
    ctrlc::set_handler(handler)
        .map_err(|error| Failure::new(Exit::Failure, format!("Ctrl-C cannot be handled: {error}")))?;
    Ok(&ASKED)
}
