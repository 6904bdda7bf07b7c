//! The structs of the header, field by field. Each begins with its size, so that later versions may add fields.
#![allow(unsafe_code, reason = "structs of numbers and pointers, of which any bytes are valid")]

use crate::failure::Result;
use crate::pointers::{Struct, elements, optional_text, text};
use std::ffi::{c_char, c_void};
use std::mem::size_of;
use std::path::PathBuf;
use wgformer::train::AdamOptions;
use wgformer::{DType, Error};
use wgformer_bindings::{GenerateOptions, LoadOptions, TokenBatch, TrainOptions, dtype};

/// `wgf_load_options`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct WgfLoadOptions {
    size: usize,
    dtype: *const c_char,
    cache: *const c_char,
    tokenizer: *const c_char,
    context: usize,
}

/// `wgf_model_info`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct WgfModelInfo {
    pub(crate) size: usize,
    pub(crate) parameters: u64,
    pub(crate) vocabulary: usize,
    pub(crate) context: usize,
    pub(crate) width: usize,
    pub(crate) layers: usize,
    pub(crate) generates: i32,
    pub(crate) embeds: i32,
    pub(crate) has_tokenizer: i32,
    pub(crate) chats: i32,
}

/// `wgf_on_token`.
pub type WgfOnToken = Option<unsafe extern "C" fn(user: *mut c_void, id: u32, text: *const c_char) -> i32>;

/// `wgf_generate_options`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct WgfGenerateOptions {
    size: usize,
    max_tokens: usize,
    seed: u64,
    temperature: f32,
    top_p: f32,
    min_p: f32,
    repetition_penalty: f32,
    top_k: i64,
    stop: *const *const c_char,
    stop_count: usize,
    pub(crate) on_token: WgfOnToken,
    pub(crate) user: *mut c_void,
}

/// `wgf_message`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct WgfMessage {
    pub(crate) role: *const c_char,
    pub(crate) content: *const c_char,
}

/// `wgf_batch`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct WgfBatch {
    size: usize,
    ids: *const u32,
    mask: *const u32,
    types: *const u32,
    rows: usize,
    length: usize,
}

/// `wgf_train_options`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct WgfTrainOptions {
    size: usize,
    seed: u64,
    beta1: f64,
    beta2: f64,
    epsilon: f32,
    weight_decay: f32,
    max_norm: f32,
    accumulation: u32,
    recompute: i32,
}

/// `wgf_step`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct WgfStep {
    pub(crate) size: usize,
    pub(crate) step: u64,
    pub(crate) loss: f32,
    pub(crate) norm: f32,
    pub(crate) skipped: i32,
}

// SAFETY: each begins with its size; the others are numbers and pointers, which are not followed here.
unsafe impl Struct for WgfLoadOptions {}
// SAFETY: as above.
unsafe impl Struct for WgfModelInfo {}
// SAFETY: as above; a function's pointer may be null.
unsafe impl Struct for WgfGenerateOptions {}
// SAFETY: as above.
unsafe impl Struct for WgfBatch {}
// SAFETY: as above.
unsafe impl Struct for WgfTrainOptions {}
// SAFETY: as above.
unsafe impl Struct for WgfStep {}

const WEIGHTS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
const CACHES: [DType; 3] = [DType::F32, DType::F16, DType::Q8_0];

impl WgfLoadOptions {
    /// `WGF_LOAD_OPTIONS_INIT`.
    pub(crate) const INIT: Self = Self {
        size: size_of::<Self>(),
        dtype: std::ptr::null(),
        cache: std::ptr::null(),
        tokenizer: std::ptr::null(),
        context: 0,
    };

    /// # Safety
    /// Texts are null or end with a zero.
    pub(crate) unsafe fn read(&self) -> Result<LoadOptions> {
        // SAFETY: as the caller promises.
        let [weights, cache, tokenizer] = unsafe {
            [
                optional_text("dtype", self.dtype)?,
                optional_text("cache", self.cache)?,
                optional_text("tokenizer", self.tokenizer)?,
            ]
        };
        let types = [&WEIGHTS[..], &DType::QUANTISED[..]].concat();
        Ok(LoadOptions {
            dtype: weights.map(|name| dtype("dtype", name, &types)).transpose()?,
            cache: cache.map(|name| dtype("cache", name, &CACHES)).transpose()?,
            context: Some(self.context).filter(|context| *context > 0),
            tokenizer: tokenizer.map(PathBuf::from),
        })
    }
}

impl WgfGenerateOptions {
    /// `WGF_GENERATE_OPTIONS_INIT`.
    pub(crate) const INIT: Self = Self {
        size: size_of::<Self>(),
        max_tokens: 0,
        seed: 0,
        temperature: -1.0,
        top_p: -1.0,
        min_p: -1.0,
        repetition_penalty: -1.0,
        top_k: -1,
        stop: std::ptr::null(),
        stop_count: 0,
        on_token: None,
        user: std::ptr::null_mut(),
    };

    /// # Safety
    /// `stop` is null or has `stop_count` texts that end with a zero.
    pub(crate) unsafe fn read(&self) -> Result<GenerateOptions> {
        // SAFETY: as the caller promises.
        let stop = unsafe { elements("stop", self.stop, self.stop_count) }?;
        // SAFETY: as the caller promises.
        let stop = stop.iter().map(|stop| unsafe { text("a stop text", *stop) }.map(str::to_owned));
        // Less than 0: as the model's files say. NaN is no number that was meant.
        let given = |value: f32| Some(value).filter(|value| *value >= 0.0 || value.is_nan());
        let too_many = |_| Error::input("top_k", format!("it is {}, more than a machine counts", self.top_k));
        Ok(GenerateOptions {
            max_tokens: Some(self.max_tokens).filter(|most| *most > 0),
            temperature: given(self.temperature),
            top_k: Some(self.top_k).filter(|k| *k >= 0).map(usize::try_from).transpose().map_err(too_many)?,
            top_p: given(self.top_p),
            min_p: given(self.min_p),
            repetition_penalty: given(self.repetition_penalty),
            seed: self.seed,
            stop: stop.collect::<Result<_>>()?,
        })
    }
}

impl WgfBatch {
    /// Without tokens.
    pub(crate) const EMPTY: Self = Self {
        size: size_of::<Self>(),
        ids: std::ptr::null(),
        mask: std::ptr::null(),
        types: std::ptr::null(),
        rows: 0,
        length: 0,
    };

    /// # Safety
    /// `ids` has `rows` × `length` numbers, and so have `mask` and `types` where they are not null.
    pub(crate) unsafe fn read<'a>(&self) -> Result<TokenBatch<'a>> {
        let too_many =
            || Error::input("batch", format!("{} rows of {} are more than memory holds", self.rows, self.length));
        let count = self.rows.checked_mul(self.length).ok_or_else(too_many)?;
        // SAFETY: as the caller promises.
        let optional = |what, first: *const u32| match first.is_null() {
            true => Ok(None),
            false => unsafe { elements(what, first, count) }.map(Some),
        };
        // SAFETY: as the caller promises.
        let ids = unsafe { elements("ids", self.ids, count) }?;
        let (mask, types) = (optional("mask", self.mask)?, optional("types", self.types)?);
        Ok(TokenBatch { ids, mask, types, rows: self.rows, length: self.length })
    }
}

impl WgfTrainOptions {
    /// `WGF_TRAIN_OPTIONS_INIT`: numbers less than 0 are the engine's own.
    pub(crate) const INIT: Self = Self {
        size: size_of::<Self>(),
        seed: 0,
        beta1: -1.0,
        beta2: -1.0,
        epsilon: -1.0,
        weight_decay: -1.0,
        max_norm: -1.0,
        accumulation: 1,
        recompute: 0,
    };

    pub(crate) fn read(&self) -> TrainOptions {
        let own = TrainOptions::default();
        let single = |value: f32, own: f32| if value < 0.0 { own } else { value };
        let double = |value: f64, own: f64| if value < 0.0 { own } else { value };
        TrainOptions {
            adam: AdamOptions {
                beta1: double(self.beta1, own.adam.beta1),
                beta2: double(self.beta2, own.adam.beta2),
                epsilon: single(self.epsilon, own.adam.epsilon),
                weight_decay: single(self.weight_decay, own.adam.weight_decay),
            },
            max_norm: single(self.max_norm, own.max_norm),
            accumulation: self.accumulation,
            recompute: self.recompute != 0,
            seed: self.seed,
        }
    }
}
