//! Errors as codes, and the text of a thread's last one.

use crate::pointers::c_text;
use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use wgformer::Error;
use wgformer_bindings::Kind;

/// No error.
const OK: i32 = 0;
/// A pointer that must not be null is null.
const NULL: i32 = 20;
/// A text is not valid UTF-8.
const UTF8: i32 = 21;
/// The caller's memory is too small.
const TOO_SMALL: i32 = 22;
/// A panic, a defect of the engine.
const PANIC: i32 = 23;

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// What a function returns in place of its result.
pub(crate) struct Failure {
    code: i32,
    text: String,
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub(crate) fn null(what: &str) -> Self {
        Self { code: NULL, text: format!("{what} is a null pointer") }
    }

    pub(crate) fn utf8(what: &str, error: &std::str::Utf8Error) -> Self {
        Self { code: UTF8, text: format!("{what} is not valid UTF-8: {error}") }
    }

    pub(crate) fn too_small(what: &str, needed: usize, capacity: usize) -> Self {
        Self { code: TOO_SMALL, text: format!("{what} has room for {capacity} numbers, but {needed} are needed") }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { code: Kind::from(&error) as i32, text: error.to_string() }
    }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let fixed = panic.downcast_ref::<&str>().copied();
    fixed.or_else(|| panic.downcast_ref().map(String::as_str)).unwrap_or("without a reason")
}

/// Runs a function of the interface: its code, with the text kept.
pub(crate) fn status(call: impl FnOnce() -> Result<()>) -> i32 {
    let done = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        Err(Failure { code: PANIC, text: format!("the engine has a defect: {}", words(panic.as_ref())) })
    });
    match done {
        Ok(()) => OK,
        Err(Failure { code, text }) => {
            // A thread that ends has no place for it.
            let _ = LAST.try_with(|last| *last.borrow_mut() = c_text(&text));
            code
        }
    }
}

/// The text of this thread's last error, empty before the first.
pub(crate) fn last() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    /// A thread's last text.
    #[allow(unsafe_code, reason = "it points to a text of this thread")]
    fn text() -> String {
        // SAFETY: it ends with a zero and lives until the next error of this thread.
        unsafe { CStr::from_ptr(last()) }.to_string_lossy().into_owned()
    }

    #[test]
    fn panics_are_codes_with_a_text_for_their_thread() {
        assert_eq!(
            (status(|| panic!("a reason \0 {}", 7)), text().as_str()),
            (PANIC, "the engine has a defect: a reason \u{fffd} 7")
        );
        assert_eq!(status(|| Err(Failure::null("gpu"))), NULL);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!((status(|| Err(Error::input("x", "is wrong").into())), text().as_str()), (1, "x: is wrong"));
            });
        });
        assert_eq!((status(|| Ok(())), text().as_str()), (OK, "gpu is a null pointer"));
    }
}
