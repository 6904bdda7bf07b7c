//! Texts: tokens, answers, conversations.
#![allow(unsafe_code, reason = "functions with names for C, whose callers promise what the header demands")]

use crate::failure::{Result, status};
use crate::model::WgfModel;
use crate::options::{WgfGenerateOptions, WgfMessage};
use crate::pointers::{at, c_text, elements, free, place, read_options, text, write};
use std::ffi::{CString, c_char};
use std::ops::ControlFlow;
use wgformer::Error;
use wgformer_bindings::Session;

/// `wgf_answer`.
pub struct WgfAnswer {
    text: Option<CString>,
    tokens: Vec<u32>,
    finish: CString,
}

/// The tokens of a text.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wgf_tokenize(
    model: *const WgfModel,
    text: *const c_char,
    ids: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> i32 {
    status(|| {
        // SAFETY: as the caller promises.
        let (model, text) = unsafe { (at("model", model)?, self::text("text", text)?) };
        let found = model.shared.lock()?.tokenize(text)?;
        // SAFETY: as the caller promises.
        unsafe { write("ids", &found, ids, capacity, count) }
    })
}

/// The text of tokens.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wgf_detokenize(
    model: *const WgfModel,
    ids: *const u32,
    count: usize,
    text: *mut *mut c_char,
) -> i32 {
    status(|| {
        // SAFETY: as the caller promises.
        let (place, model, ids) = unsafe { (place("text", text)?, at("model", model)?, elements("ids", ids, count)?) };
        *place = c_text(&model.shared.lock()?.detokenize(ids)?).into_raw();
        Ok(())
    })
}

/// Goes on from a text.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wgf_generate(
    model: *const WgfModel,
    prompt: *const c_char,
    options: *const WgfGenerateOptions,
    answer: *mut *mut WgfAnswer,
) -> i32 {
    status(|| {
        // SAFETY: as the caller promises.
        let prompt = unsafe { text("prompt", prompt) }?;
        // SAFETY: as the caller promises.
        unsafe { generate(model, options, answer, |session| Ok(session.tokenize(prompt)?)) }
    })
}

/// Goes on from tokens.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wgf_generate_tokens(
    model: *const WgfModel,
    ids: *const u32,
    count: usize,
    options: *const WgfGenerateOptions,
    answer: *mut *mut WgfAnswer,
) -> i32 {
    status(|| {
        // SAFETY: as the caller promises.
        let ids = unsafe { elements("ids", ids, count) }?;
        // SAFETY: as the caller promises.
        unsafe { generate(model, options, answer, |_| Ok(ids.to_vec())) }
    })
}

/// Answers a conversation.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wgf_chat(
    model: *const WgfModel,
    messages: *const WgfMessage,
    count: usize,
    options: *const WgfGenerateOptions,
    answer: *mut *mut WgfAnswer,
) -> i32 {
    status(|| {
        // SAFETY: as the caller promises.
        let messages = unsafe { elements("messages", messages, count) }?;
        let read = |message: &WgfMessage| {
            // SAFETY: as the caller promises.
            let (role, content) = unsafe { (text("a role", message.role)?, text("a content", message.content)?) };
            Ok((role.to_owned(), content.to_owned()))
        };
        let messages: Vec<(String, String)> = messages.iter().map(read).collect::<Result<_>>()?;
        // SAFETY: as the caller promises.
        unsafe { generate(model, options, answer, |session| Ok(session.tokenize_chat(&messages)?)) }
    })
}

/// # Safety
/// As the header says of `wgf_generate`.
unsafe fn generate(
    model: *const WgfModel,
    options: *const WgfGenerateOptions,
    answer: *mut *mut WgfAnswer,
    ids: impl FnOnce(&Session) -> Result<Vec<u32>>,
) -> Result<()> {
    // SAFETY: as the caller promises.
    let (place, model, options, read) = unsafe {
        let options = read_options("options", options, WgfGenerateOptions::INIT)?;
        (place("answer", answer)?, at("model", model)?, options, options.read()?)
    };
    let mut session = model.shared.lock()?;
    let ids = ids(&session)?;
    let mut watch = |token: &wgformer::generate::Token| {
        let Some(on_token) = options.on_token else { return ControlFlow::Continue(()) };
        let text = c_text(&token.text);
        // SAFETY: the caller's function, called as the header says, on the caller's thread.
        let stop = unsafe { on_token(options.user, token.id, text.as_ptr()) };
        if stop == 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let answers = session.generate(&[ids], &read, &mut watch)?;
    let missing = || Error::Graph("the answer is missing".into());
    let found = answers.into_iter().next().ok_or_else(missing)?;
    let text = found.text.as_deref().map(c_text);
    let answer = WgfAnswer { text, tokens: found.tokens, finish: c_text(found.finish.name()) };
    *place = Box::into_raw(Box::new(answer));
    Ok(())
}

/// The text of an answer.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wgf_answer_text(answer: *const WgfAnswer) -> *const c_char {
    // SAFETY: as the caller promises.
    let text = unsafe { answer.as_ref() }.and_then(|answer| answer.text.as_ref());
    text.map_or(std::ptr::null(), |text| text.as_ptr())
}

/// The tokens of an answer.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wgf_answer_tokens(answer: *const WgfAnswer, count: *mut usize) -> *const u32 {
    // SAFETY: as the caller promises.
    let (answer, count) = unsafe { (answer.as_ref(), count.as_mut()) };
    if let Some(count) = count {
        *count = answer.map_or(0, |answer| answer.tokens.len());
    }
    answer.map_or(std::ptr::null(), |answer| answer.tokens.as_ptr())
}

/// Why an answer ended.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wgf_answer_finish(answer: *const WgfAnswer) -> *const c_char {
    // SAFETY: as the caller promises.
    unsafe { answer.as_ref() }.map_or(std::ptr::null(), |answer| answer.finish.as_ptr())
}

/// Frees an answer.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wgf_answer_free(answer: *mut WgfAnswer) {
    status(|| {
        // SAFETY: as the caller promises.
        unsafe { free(answer) };
        Ok(())
    });
}
