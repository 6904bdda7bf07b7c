//! GPUs, the version, errors.
#![allow(unsafe_code, reason = "functions with names for C, whose callers promise what the header demands")]

use crate::failure::{last, status};
use crate::pointers::{c_text, free, free_text, optional_text, place};
use std::ffi::{CString, c_char};
use wgformer::Gpu;

/// `wgf_gpu`.
pub struct WgfGpu {
    pub(crate) gpu: Gpu,
    name: CString,
}

/// The version of the library.
#[unsafe(no_mangle)]
pub extern "C" fn wgf_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The text of this thread's last error.
#[unsafe(no_mangle)]
pub extern "C" fn wgf_last_error() -> *const c_char {
    last()
}

/// Frees a text.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wgf_text_free(text: *mut c_char) {
    // SAFETY: as the caller promises.
    unsafe { free_text(text) };
}

/// The adapters of this machine, a line each.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wgf_adapters(text: *mut *mut c_char) -> i32 {
    status(|| {
        // SAFETY: as the caller promises.
        let text = unsafe { place("text", text) }?;
        let lines: Vec<String> = Gpu::summaries().iter().map(ToString::to_string).collect();
        *text = c_text(&lines.join("\n")).into_raw();
        Ok(())
    })
}

/// Opens a GPU.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wgf_gpu_open(adapter: *const c_char, gpu: *mut *mut WgfGpu) -> i32 {
    status(|| {
        // SAFETY: as the caller promises.
        let (adapter, place) = unsafe { (optional_text("adapter", adapter)?, place("gpu", gpu)?) };
        let gpu = Gpu::choose(adapter)?;
        let name = c_text(&format!("{} ({})", gpu.info().name, gpu.info().backend));
        *place = Box::into_raw(Box::new(WgfGpu { gpu, name }));
        Ok(())
    })
}

/// The name of a GPU.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wgf_gpu_name(gpu: *const WgfGpu) -> *const c_char {
    // SAFETY: as the caller promises.
    unsafe { gpu.as_ref() }.map_or(std::ptr::null(), |gpu| gpu.name.as_ptr())
}

/// Frees a GPU; models on it go on.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wgf_gpu_free(gpu: *mut WgfGpu) {
    status(|| {
        // SAFETY: as the caller promises.
        unsafe { free(gpu) };
        Ok(())
    });
}
