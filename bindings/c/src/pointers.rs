//! Pointers of the caller, made into values: all that is dereferenced is dereferenced here.
#![allow(unsafe_code, reason = "pointers of the caller, null or as the header demands them")]

use crate::failure::{Failure, Result};
use std::ffi::{CStr, CString, c_char};
use std::mem::size_of;
use wgformer::Error;

/// A text for C. Bytes of zero, which would end it, become U+FFFD.
pub(crate) fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

/// A text of the caller.
///
/// # Safety
/// `text` is null or ends with a zero, and lives as long as the result is used.
pub(crate) unsafe fn text<'a>(what: &str, text: *const c_char) -> Result<&'a str> {
    if text.is_null() {
        return Err(Failure::null(what));
    }
    // SAFETY: it is not null and ends with a zero, as the caller promises.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|error| Failure::utf8(what, &error))
}

/// A text of the caller, or none where it is null.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn optional_text<'a>(what: &str, pointer: *const c_char) -> Result<Option<&'a str>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: as the caller promises.
    unsafe { text(what, pointer) }.map(Some)
}

fn fits<T>(what: &str, count: usize) -> Result<()> {
    match count.checked_mul(size_of::<T>()) {
        Some(bytes) if isize::try_from(bytes).is_ok() => Ok(()),
        _ => Err(Error::input(what, format!("{count} elements are more than memory can hold")).into()),
    }
}

/// Elements of the caller; null only if there are none.
///
/// # Safety
/// `first` is null or the first of `count` elements that live, unchanged, as long as the result is used.
pub(crate) unsafe fn elements<'a, T>(what: &str, first: *const T, count: usize) -> Result<&'a [T]> {
    fits::<T>(what, count)?;
    match (first.is_null(), count) {
        (true, 0) => Ok(&[]),
        (true, _) => Err(Failure::null(what)),
        // SAFETY: there are so many, as the caller promises, and they fit into memory.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts(first, count) }),
    }
}

/// Writes values into memory of the caller, and how many there are, also where there is no room for them.
///
/// # Safety
/// `first` is null or has room for `capacity` elements; `count` is null or has room for one number.
pub(crate) unsafe fn write<T: Copy>(
    what: &str,
    values: &[T],
    first: *mut T,
    capacity: usize,
    count: *mut usize,
) -> Result<()> {
    if !count.is_null() {
        // SAFETY: it is not null, and has room as the caller promises.
        unsafe { count.write(values.len()) };
    }
    if values.len() > capacity {
        return Err(Failure::too_small(what, values.len(), capacity));
    }
    if first.is_null() && !values.is_empty() {
        return Err(Failure::null(what));
    }
    if !values.is_empty() {
        // SAFETY: there is room for them, and memory of the caller does not overlap ours.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), first, values.len()) };
    }
    Ok(())
}

/// What a handle or another pointer of the caller points to.
///
/// # Safety
/// `pointer` is null or points to a `T` that lives as long as the result is used.
pub(crate) unsafe fn at<'a, T>(what: &str, pointer: *const T) -> Result<&'a T> {
    // SAFETY: as the caller promises.
    unsafe { pointer.as_ref() }.ok_or_else(|| Failure::null(what))
}

/// Where a result is put, checked before the work is done, and null until it is.
///
/// # Safety
/// `place` is null or has room for a pointer.
pub(crate) unsafe fn place<'a, T>(what: &str, place: *mut *mut T) -> Result<&'a mut *mut T> {
    if place.is_null() {
        return Err(Failure::null(what));
    }
    // SAFETY: it is not null, and has room as the caller promises; written before it is read.
    unsafe {
        place.write(std::ptr::null_mut());
        Ok(&mut *place)
    }
}

/// Takes back what [`Box::into_raw`] gave; null is nothing.
///
/// # Safety
/// `pointer` is null or was given out once and not taken back.
pub(crate) unsafe fn free<T>(pointer: *mut T) {
    if !pointer.is_null() {
        // SAFETY: as the caller promises.
        drop(unsafe { Box::from_raw(pointer) });
    }
}

/// Takes back a text that was given out; null is nothing.
///
/// # Safety
/// As [`free`], by [`CString::into_raw`].
pub(crate) unsafe fn free_text(pointer: *mut c_char) {
    if !pointer.is_null() {
        // SAFETY: as the caller promises.
        drop(unsafe { CString::from_raw(pointer) });
    }
}

/// A struct of C's that begins with its size in bytes, as the caller's header has it, and whose values are numbers and pointers.
///
/// # Safety
/// Any bytes are a valid `Self`, and its first field is the size, a `usize`.
pub(crate) unsafe trait Struct: Copy {}

/// The size that a struct of the caller has.
///
/// # Safety
/// `pointer` is null or points to at least a `usize`.
unsafe fn size<T: Struct>(what: &str, pointer: *const T) -> Result<usize> {
    if pointer.is_null() {
        return Err(Failure::null(what));
    }
    // SAFETY: it is not null, and begins with its size.
    let size = unsafe { pointer.cast::<usize>().read() };
    let (least, most) = (size_of::<usize>(), size_of::<T>());
    if (least..=most).contains(&size) {
        return Ok(size);
    }
    let message = format!(
        "its size is {size}, but this library knows {least} to {most}: begin it by its _INIT of the header that came with the library"
    );
    Err(Error::input(what, message).into())
}

/// A struct that the caller filled. What an older header does not have is as in `default`; of a newer one nothing is known.
///
/// # Safety
/// `pointer` is null or points to as many bytes as its first field says.
pub(crate) unsafe fn read_struct<T: Struct>(what: &str, pointer: *const T, default: T) -> Result<T> {
    // SAFETY: as the caller promises.
    let size = unsafe { size(what, pointer) }?;
    let mut value = default;
    // SAFETY: so many bytes are there, `T` has room for them, and any bytes are one.
    unsafe { std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), std::ptr::from_mut(&mut value).cast(), size) };
    Ok(value)
}

/// As [`read_struct`], but null is the default.
///
/// # Safety
/// As [`read_struct`].
pub(crate) unsafe fn read_options<T: Struct>(what: &str, pointer: *const T, default: T) -> Result<T> {
    if pointer.is_null() {
        return Ok(default);
    }
    // SAFETY: as the caller promises.
    unsafe { read_struct(what, pointer, default) }
}

/// Fills a struct of the caller behind its size, as much as its header has of it.
///
/// # Safety
/// `pointer` is null or has room for as many bytes as its first field says.
pub(crate) unsafe fn write_struct<T: Struct>(what: &str, pointer: *mut T, value: &T) -> Result<()> {
    // SAFETY: as the caller promises.
    let size = unsafe { size(what, pointer.cast_const()) }?;
    let (head, bytes) = (size_of::<usize>(), std::ptr::from_ref(value).cast::<u8>());
    // SAFETY: so many bytes have room there, and `T` has as many.
    unsafe { std::ptr::copy_nonoverlapping(bytes.add(head), pointer.cast::<u8>().add(head), size - head) };
    Ok(())
}
