//! Writes to standard output and standard error. If these are full or closed it returns an error, where `println!` panics.

use crate::error::{Error, Result};
use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// The path in [`Error::File`] for standard output.
const OUTPUT: &str = "standard output";

/// Prints a line like `println!`, but returns errors.
macro_rules! outln {
    ($($text:tt)*) => { $crate::cli::output::line(format_args!($($text)*)) };
}
pub(super) use outln;

/// Prints a text and a line break.
pub(super) fn line(text: Arguments<'_>) -> Result<()> {
    print(format_args!("{text}\n"))
}

/// Prints a text and flushes.
pub(super) fn print(text: Arguments<'_>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_fmt(text).and_then(|()| out.flush()).map_err(|e| Error::file(OUTPUT, e))
}

/// Prints a note on standard error; errors are ignored.
pub(super) fn note(text: Arguments<'_>) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Whether standard output was closed by its reader, as with `| head`: no error of the command.
pub(super) fn is_broken_pipe(error: &Error) -> bool {
    matches!(error, Error::File { path, source } if path.as_os_str() == OUTPUT && source.kind() == ErrorKind::BrokenPipe)
}
