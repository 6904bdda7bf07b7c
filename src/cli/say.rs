//! Standard output and standard error, which may be full, or closed by who reads them: an error, where `println!` panics.

use crate::error::{Error, Result};
use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// What [`Error::File`] names where standard output cannot be written.
const OUTPUT: &str = "standard output";

/// Prints a line, as `println!` does.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::say::line(format_args!($($text)*)) };
}
pub(super) use say;

/// Prints a text and a line's end.
pub(super) fn line(text: Arguments<'_>) -> Result<()> {
    print(format_args!("{text}\n"))
}

/// Prints a text at once.
pub(super) fn print(text: Arguments<'_>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_fmt(text).and_then(|()| out.flush()).map_err(|e| Error::file(OUTPUT, e))
}

/// Tells people something on standard error. Nothing can be done where that is not there.
pub(super) fn tell(text: Arguments<'_>) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Whether nobody reads standard output any more, as behind `| head`: no mistake.
pub(super) fn nobody_reads(error: &Error) -> bool {
    matches!(error, Error::File { path, source } if path.as_os_str() == OUTPUT && source.kind() == ErrorKind::BrokenPipe)
}
