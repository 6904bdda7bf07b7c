//! Steps of training.
#![allow(unsafe_code, reason = "functions with names for C, whose callers promise what the header demands")]

use crate::failure::{Result, status};
use crate::model::WgfModel;
use crate::options::{WgfBatch, WgfStep, WgfTrainOptions};
use crate::pointers::{at, elements, read_options, read_struct, write_struct};
use std::mem::size_of;
use wgformer_bindings::TokenBatch;

/// Labels of a batch, or none where they are null.
///
/// # Safety
/// `labels` is null or has as many numbers as the batch has tokens.
pub(crate) unsafe fn labels<'a>(labels: *const i32, batch: TokenBatch<'_>) -> Result<Option<&'a [i32]>> {
    if labels.is_null() {
        return Ok(None);
    }
    // SAFETY: as the caller promises.
    unsafe { elements("labels", labels, batch.ids.len()) }.map(Some)
}

/// Sets the options of training.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wgf_train_begin(model: *const WgfModel, options: *const WgfTrainOptions) -> i32 {
    status(|| {
        // SAFETY: as the caller promises.
        let (model, options) =
            unsafe { (at("model", model)?, read_options("options", options, WgfTrainOptions::INIT)?) };
        Ok(model.shared.lock()?.begin_training(options.read())?)
    })
}

/// One step of training.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wgf_train_step(
    model: *const WgfModel,
    batch: *const WgfBatch,
    labels: *const i32,
    learning_rate: f64,
    step: *mut WgfStep,
) -> i32 {
    status(|| {
        // SAFETY: as the caller promises.
        let (model, batch) = unsafe { (at("model", model)?, read_struct("batch", batch, WgfBatch::EMPTY)?.read()?) };
        // SAFETY: as the caller promises.
        let labels = unsafe { self::labels(labels, batch) }?;
        let done = model.shared.lock()?.train_step(batch, labels, learning_rate)?;
        let value = WgfStep {
            size: size_of::<WgfStep>(),
            step: done.step,
            loss: done.loss,
            norm: done.norm,
            skipped: i32::from(done.skipped),
        };
        if step.is_null() {
            return Ok(());
        }
        // SAFETY: as the caller promises.
        unsafe { write_struct("step", step, &value) }
    })
}
