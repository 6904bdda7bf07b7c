//! The one error type of the engine: what went wrong, where, and what to do about it.

use std::any::Any;
use std::path::{Path, PathBuf};

/// Shorthand for a result with the engine's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error, with words that a user can act on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operands of an op do not fit together.
    #[error("{op}: {what}")]
    Shape {
        /// The op, or the tensor, that was refused.
        op: String,
        /// What was expected and what was given.
        what: String,
    },
    /// A graph is not valid.
    #[error("graph: {0}")]
    Graph(String),
    /// An op has no gradient, and one was asked for.
    #[error("{op} has no gradient: keep it out of the path between the loss and what it is differentiated by")]
    NotDifferentiable {
        /// The op.
        op: String,
    },
    /// No adapter fits the request.
    #[error("no GPU adapter {wanted}. Found: {found}. {hint}")]
    NoAdapter {
        /// The request.
        wanted: String,
        /// The adapters of this machine.
        found: String,
        /// What the user can do.
        hint: String,
    },
    /// The adapter lacks a feature or a limit.
    #[error("{what} needs {needs}, which adapter \"{adapter}\" does not offer. {hint}")]
    Unsupported {
        /// The operation.
        what: String,
        /// The feature or limit.
        needs: String,
        /// The adapter's name.
        adapter: String,
        /// What the user can do.
        hint: String,
    },
    /// The device has not enough memory.
    #[error("{what} needs {needed} of GPU memory, the device allows {available}. {hint}")]
    OutOfMemory {
        /// The use of the memory.
        what: String,
        /// The requested size, with its unit.
        needed: String,
        /// The limit as far as it is known, with its unit.
        available: String,
        /// What to lower.
        hint: String,
    },
    /// The device went away: driver reset, unplugged, killed by a watchdog, or destroyed by its owner.
    #[error(
        "the GPU device was lost ({reason}). Open it again, prepare the programs again and resume from the last checkpoint"
    )]
    DeviceLost {
        /// The driver's message.
        reason: String,
    },
    /// wgpu refused a call. This is a defect of the engine or of a custom op.
    #[error("wgpu refused {what}: {message}")]
    Validation {
        /// The call or object.
        what: String,
        /// wgpu's message.
        message: String,
    },
    /// A kernel did not compile.
    #[error("shader {location}: {message}")]
    Shader {
        /// File and line.
        location: String,
        /// The compiler's message.
        message: String,
    },
    /// An argument is not valid.
    #[error("{what}: {message}")]
    Input {
        /// The argument.
        what: String,
        /// What is wrong, and what is valid.
        message: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The content of a file is not valid.
    #[error("{}: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A number is NaN or infinite.
    #[error("{what} is not finite: {message}")]
    NonFinite {
        /// The quantity.
        what: String,
        /// Where, and what to do.
        message: String,
    },
}

impl Error {
    /// A shape error of `op`.
    pub fn shape(op: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Shape { op: op.into(), what: what.into() }
    }

    /// An argument `what` that is not valid, and why.
    pub fn input(what: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Input { what: what.into(), message: message.into() }
    }

    /// A file that the operating system could not read or write.
    pub fn file(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::File { path: path.as_ref().to_owned(), source }
    }

    /// A file whose content is not valid.
    pub fn format(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::Format { path: path.as_ref().to_owned(), message: message.into() }
    }
}

/// The words of a panic.
pub(crate) fn panic_words(panic: &(dyn Any + Send)) -> &str {
    let fixed = panic.downcast_ref::<&str>().copied();
    fixed.or_else(|| panic.downcast_ref().map(String::as_str)).unwrap_or("without a reason")
}

/// A byte count as people read it: `12.3 MiB`.
#[must_use]
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{size:.1} {}", UNITS[unit]) }
}
