//! The kinds of errors.

use wgformer::Error;

/// The kind of an error. The numbers are part of C's interface and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Kind {
    /// An argument that is not valid.
    Input = 1,
    /// A file that could not be read or written.
    File = 2,
    /// A file whose content is not valid.
    Format = 3,
    /// No adapter fits the request.
    NoAdapter = 4,
    /// The adapter lacks a feature or a limit.
    Unsupported = 5,
    /// The device has not enough memory.
    OutOfMemory = 6,
    /// The device was lost.
    DeviceLost = 7,
    /// A number is NaN or infinite.
    NonFinite = 8,
    /// A defect of the engine.
    Internal = 9,
}

impl From<&Error> for Kind {
    fn from(error: &Error) -> Self {
        match error {
            Error::Input { .. } | Error::Shape { .. } => Self::Input,
            Error::File { .. } => Self::File,
            Error::Format { .. } => Self::Format,
            Error::NoAdapter { .. } => Self::NoAdapter,
            Error::Unsupported { .. } => Self::Unsupported,
            Error::OutOfMemory { .. } => Self::OutOfMemory,
            Error::DeviceLost { .. } => Self::DeviceLost,
            Error::NonFinite { .. } => Self::NonFinite,
            // `Graph`, `NotDifferentiable`, `Validation`, `Shader`, and what later versions add.
            _ => Self::Internal,
        }
    }
}
