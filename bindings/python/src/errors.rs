//! Errors as exceptions of `wgformer._errors`, and work without Python's lock.

use pyo3::prelude::*;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use wgformer::{Error, Result};
use wgformer_bindings::Kind;

const MODULE: &str = "wgformer._errors";

fn exception(py: Python<'_>, class: &str, text: &str) -> PyErr {
    let made = || PyModule::import(py, MODULE)?.getattr(class)?.call1((text,));
    made().map_or_else(|error| error, PyErr::from_value)
}

/// An error as an exception by its kind.
pub(crate) fn raised(py: Python<'_>, error: &Error) -> PyErr {
    let class = match Kind::from(error) {
        Kind::Input => "InputError",
        Kind::File => "FileError",
        Kind::Format => "FormatError",
        Kind::NoAdapter => "NoAdapterError",
        Kind::Unsupported => "UnsupportedError",
        Kind::OutOfMemory => "OutOfMemoryError",
        Kind::DeviceLost => "DeviceLostError",
        Kind::NonFinite => "NonFiniteError",
        Kind::Internal => "InternalError",
    };
    exception(py, class, &error.to_string())
}

/// The words of a panic.
pub(crate) fn words(panic: &(dyn Any + Send)) -> String {
    let fixed = panic.downcast_ref::<&str>().copied();
    let words = fixed.or_else(|| panic.downcast_ref().map(String::as_str)).unwrap_or("without a reason");
    format!("the engine has a defect: {words}")
}

/// Works while other threads of Python go on. A panic is an error.
pub(crate) fn work<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    match py.detach(|| catch_unwind(AssertUnwindSafe(work))) {
        Ok(done) => done.map_err(|error| raised(py, &error)),
        Err(panic) => Err(exception(py, "InternalError", &words(panic.as_ref()))),
    }
}
