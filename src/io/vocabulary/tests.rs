//! Vocabularies in files beside the weights, against the programs that made them.

use super::files::tokenizer;
use crate::io::Tokenizer;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/vocabularies").join(name)
}

fn opened(path: &Path, model_type: &str) -> Tokenizer {
    tokenizer(path, model_type).unwrap().unwrap()
}

/// That texts have the expected tokens, and these the expected text.
fn check(name: &str, model_type: &str, plain: bool) -> Tokenizer {
    let tokenizer = opened(&place(name), model_type);
    let cases: Value = serde_json::from_slice(&std::fs::read(place(name).join("expected.json")).unwrap()).unwrap();
    for case in cases.as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let ids: Vec<u32> = case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        let got = if plain { tokenizer.encode_plain(text) } else { tokenizer.encode(text) };
        assert_eq!(got.unwrap(), ids, "{name}: {text:?}");
        if let Some(decoded) = case["decoded"].as_str() {
            assert_eq!(tokenizer.decode_with(&ids, true).unwrap(), decoded, "{name}: {text:?}");
        }
        if let Some(prompt) = case["prompt_ids"].as_array() {
            let prompt: Vec<u32> = prompt.iter().map(|id| id.as_u64().unwrap() as u32).collect();
            assert_eq!(tokenizer.encode_for_model(text, None).unwrap().ids, prompt, "{name}: {text:?}");
        }
    }
    tokenizer
}

#[test]
fn sentence_piece_files_give_the_tokens_of_their_own_library() {
    let llama = check("llama", "llama", true);
    assert_eq!((llama.prefix(), llama.eos()), (&[1][..], Some(2)));
    let own = llama.id("<|x|>").unwrap();
    assert_eq!(llama.encode_plain("a<|x|>").unwrap(), [llama.encode("a").unwrap(), vec![own]].concat());
    check("gemma", "gemma", true);
    let t5 = check("t5", "t5", true);
    assert_eq!(t5.id("<extra_id_0>").unwrap() + 1, t5.vocab_size() as u32);
    assert_eq!(t5.encode_for_model("a", None).unwrap().ids.last(), t5.eos().as_ref());
    let marian = check("marian", "marian", false);
    assert_eq!(marian.special("pad").unwrap() + 1, marian.vocab_size() as u32);
}

#[test]
fn numbers_of_fairseq_and_pegasus_are_theirs() {
    let xlm = check("xlm-roberta", "xlm-roberta", false);
    assert_eq!(["bos", "pad", "eos", "unk"].map(|role| xlm.special(role)), [0, 1, 2, 3].map(Some));
    let pair = xlm.encode_for_model("a", Some("a")).unwrap();
    assert_eq!((pair.ids, pair.type_ids), (vec![0, 25, 2, 2, 25, 2], vec![0; 6]));
    let mbart = check("mbart", "mbart", false);
    assert_eq!((mbart.id("ar_AR"), mbart.id("zh_CN"), mbart.id("<mask>")), (Some(301), Some(325), Some(326)));
    let more = check("mbart50", "mbart", false);
    assert_eq!((more.id("sl_SI"), more.id("<mask>")), (Some(352), Some(353)));
    let pegasus = check("pegasus", "pegasus", false);
    let ids = ["<pad>", "</s>", "<mask_1>", "<mask_2>", "<unk_2>", "<unk_102>"].map(|token| pegasus.id(token));
    assert_eq!(ids, [0, 1, 2, 3, 4, 104].map(Some));
}

/// A translator with two vocabularies.
fn two_vocabularies() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for file in ["target.spm", "vocab.json", "target_vocab.json", "tokenizer_config.json"] {
        std::fs::copy(place("marian-two").join(file), home.path().join(file)).unwrap();
    }
    std::fs::copy(place("marian/source.spm"), home.path().join("source.spm")).unwrap();
    home
}

#[test]
fn texts_go_in_by_one_vocabulary_and_out_by_the_other() {
    let home = two_vocabularies();
    let tokenizer = opened(home.path(), "marian");
    let cases: Value =
        serde_json::from_slice(&std::fs::read(place("marian-two").join("expected.json")).unwrap()).unwrap();
    let each = |side: &str| cases[side].as_array().unwrap().clone();
    let ids = |case: &Value| -> Vec<u32> { serde_json::from_value(case["ids"].clone()).unwrap() };
    for case in each("source") {
        let text = case["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode_for_model(text, None).unwrap().ids, ids(&case), "{text}");
    }
    for case in each("target") {
        let text = case["text"].as_str().unwrap();
        assert_eq!(tokenizer.answers().encode_for_model(text, None).unwrap().ids, ids(&case), "{text}");
        assert_eq!(tokenizer.decode(&ids(&case)).unwrap(), case["decoded"].as_str().unwrap(), "{text}");
    }
    // What is saved opens as the same.
    std::fs::write(home.path().join("tokenizer.json"), tokenizer.to_json()).unwrap();
    std::fs::write(home.path().join("target_tokenizer.json"), tokenizer.answers_json().unwrap()).unwrap();
    let again = Tokenizer::open(home.path()).unwrap();
    assert_eq!((again.to_json(), again.answers_json()), (tokenizer.to_json(), tokenizer.answers_json()));
    assert_eq!(again.decode(&[60, 33]).unwrap(), tokenizer.decode(&[60, 33]).unwrap());
    for (file, words) in [("target_vocab.json", "target_vocab.json is missing"), ("target.spm", "target.spm")] {
        let home = two_vocabularies();
        std::fs::remove_file(home.path().join(file)).unwrap();
        let message = tokenizer_error(home.path(), "marian");
        assert!(message.contains(words), "{message}");
    }
}

fn tokenizer_error(path: &Path, model_type: &str) -> String {
    tokenizer(path, model_type).unwrap_err().to_string()
}

#[test]
fn word_pieces_and_bytes_give_the_tokens_of_hugging_face() {
    check("bert", "bert", false);
    check("bert-cased", "bert", false);
    check("gpt2", "gpt2", false);
    let roberta = check("roberta", "roberta", false);
    // A mask takes the blank in front of it along, as in the files of the models.
    let mask = roberta.special("mask").unwrap();
    assert_eq!(roberta.encode("mask <mask>").unwrap(), [roberta.encode("mask").unwrap(), vec![mask]].concat());
    check("qwen2", "qwen2", false);
}

#[test]
fn tokens_that_were_added_are_found() {
    let home = tempfile::tempdir().unwrap();
    std::fs::copy(place("llama/tokenizer.model"), home.path().join("tokenizer.model")).unwrap();
    let count = opened(&place("llama"), "llama").vocab_size();
    let token = |content: &str| json!({"content": content, "special": true, "rstrip": true});
    let mut config = json!({"tokenizer_class": "LlamaTokenizer", "added_tokens_decoder": {}, "legacy": false});
    config["added_tokens_decoder"][(count + 2).to_string()] = token("<|end|>");
    let write = |config: &Value| std::fs::write(home.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    write(&config);
    let tokenizer = opened(home.path(), "phi3");
    let ids = tokenizer.encode("a<|end|>  a").unwrap();
    assert!(ids.contains(&(count as u32 + 2)) && tokenizer.ends().contains(&(count as u32 + 2)), "{ids:?}");
    // Blanks behind it are its own, and no other is put there.
    assert_eq!(tokenizer.decode_with(&ids, false).unwrap(), "a<|end|>a");
    config["added_tokens_decoder"][(1_u64 << 40).to_string()] = token("far");
    write(&config);
    let message = super::files::tokenizer(home.path(), "llama").unwrap_err().to_string();
    assert!(message.contains("tokenizer.model") && message.contains("1099511627776"), "{message}");
}

#[test]
fn what_cannot_be_read_is_named_by_its_file() {
    let home = tempfile::tempdir().unwrap();
    assert!(tokenizer(home.path(), "llama").unwrap().is_none());
    let refused = |name: &str, content: &[u8], model_type: &str| {
        std::fs::write(home.path().join(name), content).unwrap();
        let message = tokenizer(home.path(), model_type).unwrap_err().to_string();
        std::fs::remove_file(home.path().join(name)).unwrap();
        assert!(message.contains(name) && message.contains("tokenizer.json beside it"), "{message}");
        message
    };
    assert!(refused("tokenizer.model", b"IQ== 0\nIg== 1\n", "llama").contains("is no readable SentencePiece file"));
    let spm = std::fs::read(place("t5/spiece.model")).unwrap();
    assert!(refused("spiece.model", &spm, "xlnet").contains("of xlnet, whose rules are not known"));
    let message = refused("sentencepiece.bpe.model", &spm, "camembert");
    assert!(message.contains("whose rules are not known") && message.contains("save_pretrained(FOLDER)"), "{message}");
    let config = |text: &str| std::fs::write(home.path().join("tokenizer_config.json"), text).unwrap();
    config(r#"{"src_lang": "xx_XX"}"#);
    assert!(refused("sentencepiece.bpe.model", &spm, "mbart").contains("has no language \"xx_XX\" (src_lang)"));
    config(r#"{"mask_token_sent": null}"#);
    assert!(refused("spiece.model", &spm, "pegasus").contains("other marks than those of Pegasus"));
    config("{}");
    assert!(refused("vocab.txt", b"a\nb\n", "bert").contains("has no token \"[UNK]\""));
    std::fs::write(home.path().join("vocab.json"), r#"{"a": 0, "b": 1}"#).unwrap();
    assert!(refused("merges.txt", b"#version: 0.2\na b c\n", "gpt2").contains("\"a b c\" is no pair of tokens"));
    std::fs::write(home.path().join("vocab.json"), r#"{"a": -1}"#).unwrap();
    std::fs::write(home.path().join("merges.txt"), "").unwrap();
    let message = tokenizer(home.path(), "gpt2").unwrap_err().to_string();
    assert!(message.contains("vocab.json: token \"a\" has no number"), "{message}");
}

#[test]
fn templates_of_conversations_are_found_in_all_forms() {
    let home = tempfile::tempdir().unwrap();
    std::fs::copy(place("gpt2/vocab.json"), home.path().join("vocab.json")).unwrap();
    std::fs::copy(place("gpt2/merges.txt"), home.path().join("merges.txt")).unwrap();
    let write = |name: &str, content: &str| std::fs::write(home.path().join(name), content).unwrap();
    let rendered = |name: &str| {
        let clock: crate::io::Clock = std::sync::Arc::new(|_| Err("no time".into()));
        let template = opened(home.path(), "gpt2").chat_template_named(name, clock).unwrap();
        template.map(|template| template.render(&crate::io::Conversation::of_user("x", None)).unwrap())
    };
    let is = |name: &str, wanted: &str| assert_eq!(rendered(name).as_deref(), Some(wanted), "{name}");
    assert_eq!(rendered("default"), None);
    write("chat_template.json", r#"{"chat_template": "json"}"#);
    is("default", "json");
    write("tokenizer_config.json", r#"{"chat_template": "text"}"#);
    is("tool_use", "text");
    let both =
        r#"{"chat_template": [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "main"}]}"#;
    write("tokenizer_config.json", both);
    is("default", "main");
    is("tool_use", "tools");
    assert_eq!(opened(home.path(), "gpt2").hugging_face_config()["chat_template"][1]["template"], "main");
    write("chat_template.jinja", "file");
    is("tool_use", "file");
    std::fs::create_dir(home.path().join("additional_chat_templates")).unwrap();
    write("additional_chat_templates/rag.jinja", "found");
    is("rag", "found");
    is("default", "file");
}

#[test]
fn damaged_sentence_piece_files_never_panic() {
    let whole = std::fs::read(place("t5/spiece.model")).unwrap();
    // The last pieces, and what is done with texts: the table of characters is most of the file.
    let (front, back) = (&whole[..1500], &whole[whole.len() - 300..]);
    let short = [front, back].concat();
    for at in 0..short.len() {
        for bits in [0x01, 0x80, 0xff] {
            let mut damaged = short.clone();
            damaged[at] ^= bits;
            let Ok(spm) = super::spm_file::read(&damaged) else { continue };
            if at % 29 == 0
                && let Ok(document) = spm.document(Value::Null)
                && let Ok(tokenizer) = Tokenizer::from_json("damaged", document.to_string())
            {
                let _ = tokenizer.encode("Emma Woodhouse, naïve ﬁne");
            }
        }
    }
    let mut broken = whole.clone();
    for at in (whole.len() - 240_000..whole.len()).step_by(9973) {
        broken[at] ^= 0xa5;
        if let Ok(spm) = super::spm_file::read(&broken)
            && let Ok(document) = spm.document(Value::Null)
            && let Ok(tokenizer) = Tokenizer::from_json("damaged", document.to_string())
        {
            let _ = tokenizer.encode("ﬁne café Ａ① naïve");
        }
    }
}
