//! The one error type of the engine: what went wrong, where, and what to do about it.

use std::path::{Path, PathBuf};

/// Shorthand for a result with the engine's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, in words that a user can act on.
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
    /// A graph was put together in a way that has no meaning.
    #[error("graph: {0}")]
    Graph(String),
    /// An op has no gradient, and one was asked for.
    #[error("{op} has no gradient: keep it out of the path between the loss and what it is differentiated by")]
    NotDifferentiable {
        /// The op's name.
        op: String,
    },
    /// No adapter fits what was asked for.
    #[error("no GPU adapter {wanted}. Found: {found}. {hint}")]
    NoAdapter {
        /// What was asked for.
        wanted: String,
        /// The adapters that are there.
        found: String,
        /// What the user can do.
        hint: String,
    },
    /// The adapter lacks a feature or a limit.
    #[error("{what} needs {needs}, which adapter \"{adapter}\" does not offer. {hint}")]
    Unsupported {
        /// What was to be done.
        what: String,
        /// The feature or limit.
        needs: String,
        /// The adapter's name.
        adapter: String,
        /// What the user can do.
        hint: String,
    },
    /// The device could not give the memory.
    #[error("{what} needs {needed} of GPU memory, the device allows {available}. {hint}")]
    OutOfMemory {
        /// What the memory was for.
        what: String,
        /// The size asked for, with its unit.
        needed: String,
        /// What is known of the limit, with its unit.
        available: String,
        /// What to lower.
        hint: String,
    },
    /// The device went away: driver reset, unplugged, killed by a watchdog, or destroyed by its owner.
    #[error(
        "the GPU device was lost ({reason}). Open it again, prepare the programs again and resume from the last checkpoint"
    )]
    DeviceLost {
        /// What the driver said.
        reason: String,
    },
    /// wgpu refused a call. This is a defect of the engine or of a custom op.
    #[error("wgpu refused {what}: {message}")]
    Validation {
        /// The call or object.
        what: String,
        /// wgpu's words.
        message: String,
    },
    /// A kernel did not compile.
    #[error("shader {location}: {message}")]
    Shader {
        /// File and line.
        location: String,
        /// The compiler's words.
        message: String,
    },
    /// A value handed in by the caller is not usable.
    #[error("{what}: {message}")]
    Input {
        /// The argument.
        what: String,
        /// What is wrong with it and what would be right.
        message: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        source: std::io::Error,
    },
    /// A file was read, and what it says makes no sense.
    #[error("{}: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// Numbers left the finite range.
    #[error("{what} is not finite: {message}")]
    NonFinite {
        /// The quantity.
        what: String,
        /// Where it was seen and what to do.
        message: String,
    },
}

impl Error {
    /// A shape error of `op`.
    pub fn shape(op: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Shape { op: op.into(), what: what.into() }
    }

    /// An argument `what` that is not usable, and why.
    pub fn input(what: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Input { what: what.into(), message: message.into() }
    }

    /// A file the operating system would not read or write.
    pub fn file(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::File { path: path.as_ref().to_owned(), source }
    }

    /// A file whose content makes no sense.
    pub fn format(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::Format { path: path.as_ref().to_owned(), message: message.into() }
    }
}

/// A byte count as people read it: `12.3 MiB`.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{size:.1} {}", UNITS[unit]) }
}
