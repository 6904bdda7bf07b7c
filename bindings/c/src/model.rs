//! Models: loading, vectors, logits, saving.
#![allow(unsafe_code, reason = "functions with names for C, whose callers promise what the header demands")]

use crate::failure::{Result, status};
use crate::gpu::WgfGpu;
use crate::options::{WgfBatch, WgfLoadOptions, WgfModelInfo};
use crate::pointers::{at, c_text, elements, free, place, read_options, read_struct, text, write, write_struct};
use std::ffi::{CString, c_char};
use std::mem::size_of;
use std::path::Path;
use wgformer_bindings::{Session, Shared};

/// `wgf_model`.
pub struct WgfModel {
    pub(crate) shared: Shared,
    family: CString,
}

fn given(place: &mut *mut WgfModel, session: Session) -> Result<()> {
    let family = c_text(&session.info()?.family);
    *place = Box::into_raw(Box::new(WgfModel { shared: Shared::new(session), family }));
    Ok(())
}

/// Loads a model.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wgf_model_load(
    gpu: *const WgfGpu,
    path: *const c_char,
    options: *const WgfLoadOptions,
    model: *mut *mut WgfModel,
) -> i32 {
    status(|| {
        // SAFETY: as the caller promises.
        let (place, gpu, path, options) = unsafe {
            let options = read_options("options", options, WgfLoadOptions::INIT)?.read()?;
            (place("model", model)?, at("gpu", gpu)?, text("path", path)?, options)
        };
        given(place, Session::load(&gpu.gpu, Path::new(path), &options)?)
    })
}

/// Makes a model with fresh weights.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wgf_model_new(
    gpu: *const WgfGpu,
    config: *const c_char,
    seed: u64,
    options: *const WgfLoadOptions,
    model: *mut *mut WgfModel,
) -> i32 {
    status(|| {
        // SAFETY: as the caller promises.
        let (place, gpu, config, options) = unsafe {
            let options = read_options("options", options, WgfLoadOptions::INIT)?.read()?;
            (place("model", model)?, at("gpu", gpu)?, text("config", config)?, options)
        };
        given(place, Session::new(&gpu.gpu, config, seed, &options)?)
    })
}

/// What a model is.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wgf_model_get_info(model: *const WgfModel, info: *mut WgfModelInfo) -> i32 {
    status(|| {
        // SAFETY: as the caller promises.
        let model = unsafe { at("model", model) }?;
        let found = model.shared.lock()?.info()?;
        let value = WgfModelInfo {
            size: size_of::<WgfModelInfo>(),
            parameters: found.parameters as u64,
            vocabulary: found.vocabulary,
            context: found.context,
            width: found.width,
            layers: found.layers,
            generates: i32::from(found.generates),
            embeds: i32::from(found.embeds),
            has_tokenizer: i32::from(found.has_tokenizer),
            chats: i32::from(found.chats),
        };
        // SAFETY: as the caller promises.
        unsafe { write_struct("info", info, &value) }
    })
}

/// The family of a model.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wgf_model_family(model: *const WgfModel) -> *const c_char {
    // SAFETY: as the caller promises.
    unsafe { model.as_ref() }.map_or(std::ptr::null(), |model| model.family.as_ptr())
}

/// Saves a model as a folder.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wgf_model_save(model: *const WgfModel, path: *const c_char) -> i32 {
    status(|| {
        // SAFETY: as the caller promises.
        let (model, path) = unsafe { (at("model", model)?, text("path", path)?) };
        Ok(model.shared.lock()?.save(Path::new(path))?)
    })
}

/// Frees a model.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wgf_model_free(model: *mut WgfModel) {
    status(|| {
        // SAFETY: as the caller promises.
        unsafe { free(model) };
        Ok(())
    });
}

/// Vectors of texts.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wgf_embed(
    model: *const WgfModel,
    texts: *const *const c_char,
    count: usize,
    vectors: *mut f32,
    capacity: usize,
) -> i32 {
    status(|| {
        // SAFETY: as the caller promises.
        let (model, texts) = unsafe { (at("model", model)?, elements("texts", texts, count)?) };
        // SAFETY: as the caller promises.
        let texts: Vec<&str> = texts.iter().map(|one| unsafe { text("a text", *one) }).collect::<Result<_>>()?;
        let found = model.shared.lock()?.embed(&texts)?;
        // SAFETY: as the caller promises.
        unsafe { write("vectors", &found, vectors, capacity, std::ptr::null_mut()) }
    })
}

/// Logits, or states.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wgf_forward(
    model: *const WgfModel,
    batch: *const WgfBatch,
    values: *mut f32,
    capacity: usize,
    count: *mut usize,
) -> i32 {
    status(|| {
        // SAFETY: as the caller promises.
        let (model, batch) = unsafe { (at("model", model)?, read_struct("batch", batch, WgfBatch::EMPTY)?.read()?) };
        let found = model.shared.lock()?.forward(batch)?;
        // SAFETY: as the caller promises.
        unsafe { write("values", &found.values, values, capacity, count) }
    })
}

/// The mean cross-entropy.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wgf_loss(
    model: *const WgfModel,
    batch: *const WgfBatch,
    labels: *const i32,
    loss: *mut f32,
) -> i32 {
    status(|| {
        // SAFETY: as the caller promises.
        let (model, batch) = unsafe { (at("model", model)?, read_struct("batch", batch, WgfBatch::EMPTY)?.read()?) };
        // SAFETY: as the caller promises.
        let labels = unsafe { crate::train::labels(labels, batch) }?;
        let found = model.shared.lock()?.loss(batch, labels)?;
        // SAFETY: as the caller promises.
        unsafe { write("loss", &[found], loss, 1, std::ptr::null_mut()) }
    })
}
