//! The tokenizer and the chat template of a file.

use super::made::{Meta, file, metadata, tensors};
use super::{small, with};
use std::sync::Arc;
use wgformer::io::gguf;
use wgformer::models;

#[test]
fn the_tokenizer_of_the_file_is_the_one_it_describes() {
    let opened = gguf::from_bytes("small.gguf", small()).unwrap();
    let tokenizer = opened.expect_tokenizer().unwrap();
    let (t, the) = (256, 258);
    assert_eq!(tokenizer.encode("the the to<|end|>").unwrap(), [u32::from(b't'), 257, the, t, u32::from(b'o'), 259]);
    // Each digit is a word of its own.
    assert_eq!(tokenizer.encode("12").unwrap(), [u32::from(b'1'), u32::from(b'2')]);
    assert_eq!(tokenizer.decode(&[the, t, 259]).unwrap(), " the t");
    assert_eq!((tokenizer.eos(), tokenizer.special("bos")), (Some(259), None));
    assert_eq!(models::end_tokens(&opened.config, tokenizer.vocab_size()).unwrap(), [259]);
    let begun = gguf::from_bytes("small.gguf", {
        let mut metadata = metadata();
        metadata.insert("tokenizer.ggml.bos_token_id", Meta::U32(260));
        metadata.insert("tokenizer.ggml.add_bos_token", Meta::Flag(true));
        file(&metadata, &tensors()).0
    });
    let begun = begun.unwrap().expect_tokenizer().unwrap().clone();
    assert_eq!(begun.encode_for_model("to", None).unwrap().ids, [260, u32::from(b't'), u32::from(b'o')]);
}

#[test]
fn the_chat_template_of_the_file_is_found() {
    let clock: wgformer::io::Clock = Arc::new(|_| Err("there is no time here".into()));
    let text = Meta::Text("{{ eos_token }}{{ messages[0].content }}");
    let opened = gguf::from_bytes("small.gguf", with("tokenizer.chat_template", text)).unwrap();
    let tokenizer = opened.tokenizer.unwrap();
    let template = tokenizer.chat_template(clock).unwrap().unwrap();
    let eos = tokenizer.token(tokenizer.eos().unwrap()).unwrap();
    let conversation = wgformer::io::Conversation::of_user("Hi", None);
    assert_eq!(template.render(&conversation).unwrap(), format!("{eos}Hi"));
    let mut metadata = metadata();
    metadata.insert("tokenizer.chat_template.tool_use", Meta::Text("tools"));
    metadata.insert("tokenizer.chat_template", Meta::Text("main"));
    let opened = gguf::from_bytes("small.gguf", file(&metadata, &tensors()).0).unwrap();
    let clock = || -> wgformer::io::Clock { Arc::new(|_| Err("there is no time here".into())) };
    for (name, wanted) in [("tool_use", "tools"), ("default", "main"), ("nonesuch", "main")] {
        let template = opened.tokenizer.as_ref().unwrap().chat_template_named(name, clock()).unwrap().unwrap();
        assert_eq!(template.render(&conversation).unwrap(), wanted);
    }
    let plain = gguf::from_bytes("small.gguf", small()).unwrap();
    assert!(!plain.tokenizer.unwrap().has_chat_template());
}

#[test]
fn texts_are_cut_as_the_file_says() {
    // The lengths of words by the name of the rule that cuts them: each token is a byte, so that merges do not matter.
    let cut = |pre: &'static str, text: &str| {
        let opened = gguf::from_bytes("small.gguf", with("tokenizer.ggml.pre", Meta::Text(pre))).unwrap();
        let words = opened.expect_tokenizer().unwrap().encode_for_model(text, None).unwrap().words;
        let mut lengths: Vec<usize> = Vec::new();
        for (i, word) in words.iter().enumerate() {
            if i > 0 && word == &words[i - 1] {
                *lengths.last_mut().unwrap() += 1;
            } else {
                lengths.push(1);
            }
        }
        lengths
    };
    // "A1234!" with a blank in front of the second copy, which joins what it stands before.
    assert_eq!(cut("gpt-2", "A1234! A1234!"), [1, 4, 1, 2, 4, 1]);
    assert_eq!(cut("smollm", "A1234! A1234!"), [1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1]);
    assert_eq!(cut("llama-bpe", "A1234! A1234!"), [1, 3, 1, 1, 2, 3, 1, 1]);
    assert_eq!(cut("qwen2", "A12! A12!"), [1, 1, 1, 1, 2, 1, 1, 1]);
    assert_eq!(cut("default", "A1234! A1234!"), [1, 3, 1, 1, 2, 3, 1, 1]);
}

#[test]
fn all_tokens_that_end_something_end_an_answer() {
    let mut metadata = metadata();
    metadata.insert("tokenizer.ggml.eot_token_id", Meta::U32(261));
    metadata.insert("tokenizer.ggml.eom_token_id", Meta::U32(263));
    let opened = gguf::from_bytes("small.gguf", file(&metadata, &tensors()).0).unwrap();
    assert_eq!(models::end_tokens(&opened.config, 288).unwrap(), [259, 261, 263]);
    // The same token in two roles.
    metadata.insert("tokenizer.ggml.eot_token_id", Meta::U32(259));
    let opened = gguf::from_bytes("small.gguf", file(&metadata, &tensors()).0).unwrap();
    assert_eq!(models::end_tokens(&opened.config, 288).unwrap(), [259, 263]);
    let settings = wgformer::generate::GenerationSettings::of(&opened, 288).unwrap();
    assert_eq!(settings.end, [259, 263]);
}
