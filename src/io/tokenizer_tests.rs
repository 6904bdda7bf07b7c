//! Tests of tokenizers: round trips, streams, training, and files that are damaged.

use super::*;
use proptest::prelude::*;

const TEXT: &str = "Sir Walter Elliot, of Kellynch Hall, in Somersetshire, was a man who, for his own amusement, never took up any \
    book but the Baronetage; there he found occupation for an idle hour, and consolation in a distressed one.\n\n\
    \tÉtait-ce possible ? 日本語のテキスト。 👩‍🚀🎉 -------- ==== ----- 1815 1816\r\n";

fn all() -> Vec<Tokenizer> {
    vec![
        Tokenizer::bytes().unwrap(),
        Tokenizer::characters(TEXT).unwrap(),
        Tokenizer::train_bpe(&TEXT.repeat(3), 400).unwrap(),
    ]
}

/// Everything a stream gives for these tokens, and the pieces.
fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> (String, Vec<String>) {
    let mut stream = tokenizer.stream();
    let mut pieces: Vec<String> = ids.iter().filter_map(|&id| stream.push(id).unwrap()).collect();
    pieces.extend(stream.finish().unwrap());
    (pieces.concat(), pieces)
}

#[test]
fn every_tokenizer_gives_the_text_back_also_when_streamed_saved_and_opened() {
    let folder = tempfile::tempdir().unwrap();
    for tokenizer in all() {
        let ids = tokenizer.encode(TEXT).unwrap();
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
        assert_eq!(tokenizer.decode(&ids).unwrap(), TEXT);
        let (text, pieces) = streamed(&tokenizer, &ids);
        assert_eq!(text, TEXT);
        assert!(pieces.iter().all(|p| !p.contains('\u{FFFD}')), "{pieces:?}");
        tokenizer.save(folder.path().join(TOKENIZER)).unwrap();
        let opened = Tokenizer::open(folder.path()).unwrap();
        assert_eq!(opened.to_json(), tokenizer.to_json());
        assert_eq!(opened.encode(TEXT).unwrap(), ids);
        assert_eq!((opened.vocab_size(), opened.eos()), (tokenizer.vocab_size(), tokenizer.eos()));
    }
}

#[test]
fn bytes_are_their_own_ids() {
    let tokenizer = Tokenizer::bytes().unwrap();
    assert_eq!(tokenizer.vocab_size(), 256);
    assert_eq!(tokenizer.encode("aé\n ").unwrap(), [97, 0xc3, 0xa9, 10, 32]);
    assert_eq!(tokenizer.decode(&[0xc3]).unwrap(), "\u{FFFD}");
    assert_eq!((tokenizer.eos(), tokenizer.bos()), (None, None));
    assert_eq!(tokenizer.encode("").unwrap(), [0u32; 0]);
}

#[test]
fn characters_are_counted_once_and_unknown_ones_are_named() {
    let tokenizer = Tokenizer::characters("banana\n").unwrap();
    assert_eq!(tokenizer.vocab_size(), 4);
    assert_eq!(tokenizer.encode("ab\nn").unwrap(), [1, 2, 0, 3]);
    let message = tokenizer.encode("bandana").unwrap_err().to_string();
    assert!(message.contains("'d'"), "{message}");
    assert!(tokenizer.encode_for_model("a", Some("z")).unwrap_err().to_string().contains("'z'"));
    assert!(Tokenizer::characters("").unwrap_err().to_string().contains("empty"));
}

#[test]
fn a_trained_bpe_is_the_same_every_time() {
    // Repetitions give one token by several merges, where an order that depends on hashing would show.
    let text =
        TEXT.repeat(2) + &"-".repeat(300) + " " + &"ab".repeat(200) + &" aaaa aaa aa".repeat(50) + &"=-".repeat(77);
    let first = Tokenizer::train_bpe(&text, 500).unwrap();
    for _ in 0..12 {
        assert_eq!(Tokenizer::train_bpe(&text, 500).unwrap().to_json(), first.to_json());
    }
    assert_eq!(first.id(END_OF_TEXT), first.eos());
    assert_eq!(first.eos(), Some(0));
    let ids = first.encode(TEXT).unwrap();
    assert!(ids.len() * 2 < TEXT.len(), "{} tokens for {} bytes", ids.len(), TEXT.len());
    assert_eq!(first.decode(&[ids, vec![0]].concat()).unwrap(), TEXT, "special tokens are no text");
}

#[test]
fn sizes_that_make_no_sense_are_refused() {
    assert!(Tokenizer::train_bpe(TEXT, 256).unwrap_err().to_string().contains("257"));
    assert!(Tokenizer::train_bpe("", 300).unwrap_err().to_string().contains("empty"));
    assert_eq!(Tokenizer::train_bpe("x", 1 << 20).unwrap().vocab_size(), 257);
}

#[test]
fn long_texts_encode_as_short_ones_do() {
    for tokenizer in all() {
        assert!(tokenizer.inner.divisible);
        let whole = tokenizer.inner.tokenizer.encode_fast(TEXT, false).unwrap();
        let parts = pieces(TEXT, 20);
        assert!(parts.len() > 5);
        assert_eq!(parts.concat(), TEXT);
        let ids: Vec<u32> = parts.iter().flat_map(|p| tokenizer.encode(p).unwrap()).collect();
        assert_eq!(ids, whole.get_ids());
    }
    let long = TEXT.repeat(2 * PIECE / TEXT.len());
    let tokenizer = Tokenizer::bytes().unwrap();
    assert_eq!(tokenizer.decode(&tokenizer.encode(&long).unwrap()).unwrap(), long);
    let unbroken = "x".repeat(50);
    assert_eq!(pieces(&unbroken, 10).concat(), unbroken);
}

#[test]
fn a_stream_waits_for_whole_characters_but_not_for_ever() {
    let tokenizer = Tokenizer::bytes().unwrap();
    let mut stream = tokenizer.stream();
    let bytes = "é👩".as_bytes();
    let pushed: Vec<Option<String>> = bytes.iter().map(|&b| stream.push(u32::from(b)).unwrap()).collect();
    let expected = [None, Some("é"), None, None, None, Some("👩")];
    assert_eq!(pushed, expected.map(|p| p.map(str::to_owned)));
    for _ in 0..1000 {
        stream.push(0xff).unwrap();
    }
    assert!(stream.remembered() <= 128, "the stream remembers more and more");
    let (text, _) = streamed(&tokenizer, &[97, 0xff, 98, 0xe6, 0x97]);
    assert_eq!(text, "a\u{FFFD}b\u{FFFD}");
}

/// A tokenizer in the form of Llama's: blanks as `▁`, bytes that have no token as `<0x..>`.
fn with_fallback() -> Tokenizer {
    let mut vocabulary: BTreeMap<String, u32> = (0..=255u32).map(|b| (format!("<0x{b:02X}>"), b + 3)).collect();
    for (token, id) in [("<unk>", 0), ("<s>", 1), ("</s>", 2), ("▁", 259), ("a", 260), ("▁a", 261)] {
        vocabulary.insert(token.into(), id);
    }
    let special = |id: u32, content: &str| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let decoders = json!([
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]);
    let normalizers = json!([
        {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]);
    let json = json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 50}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"},
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": normalizers}, "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": true, "byte_fallback": true, "vocab": vocabulary, "merges": [["▁", "a"]]},
    });
    Tokenizer::from_json("llama", json.to_string()).unwrap()
}

#[test]
fn streams_keep_blanks_and_characters_of_fallback_tokenizers() {
    let tokenizer = with_fallback();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.special("unk")), (Some(1), Some(2), Some(0)));
    let text = "a a é日本 a👩a";
    let ids = tokenizer.encode(text).unwrap();
    assert!(ids.len() > 10, "neither truncated nor padded: {ids:?}");
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    let (streamed, pieces) = streamed(&tokenizer, &ids);
    assert_eq!(streamed, text, "{pieces:?}");
    assert!(tokenizer.to_json().contains("\"Fixed\":50"), "saved as it was read");
}

#[test]
fn roles_come_from_the_files_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    Tokenizer::characters("abc").unwrap().save(folder.path().join(TOKENIZER)).unwrap();
    let config = json!({"eos_token": {"content": "c"}, "bos_token": "a", "pad_token": null, "mask_token": "not there"});
    std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(0), Some(2)));
    assert_eq!((tokenizer.special("pad"), tokenizer.special("mask")), (None, None));
    assert_eq!(tokenizer.hugging_face_config()["eos_token"], "c");
}

#[test]
fn damaged_files_are_refused_with_their_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let good = Tokenizer::bytes().unwrap();
    for bad in ["", "{}", "[]", "{\"model\": {\"type\": \"BPE\"}}", &good.to_json()[..200]] {
        std::fs::write(&path, bad).unwrap();
        let message = Tokenizer::open(&path).unwrap_err().to_string();
        assert!(message.contains("tokenizer.json: is not a readable tokenizer"), "{bad}: {message}");
    }
}

/// A tokenizer of three words with a part exchanged, through every call.
fn through_every_call(part: &str, value: Value) -> Result<()> {
    let mut json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "unk_token": "a", "vocab": {"a": 0, "b": 1, "ab": 2, " ": 3}, "merges": [["a", "b"]]},
    });
    match part.split_once('.') {
        Some((outer, inner)) => json[outer][inner] = value,
        None => json[part] = value,
    }
    let tokenizer = Tokenizer::from_json("tokenizer.json", json.to_string())?;
    tokenizer.encode("ab a")?;
    tokenizer.encode_for_model("ab a", None)?;
    tokenizer.encode_for_model("ab", Some("a"))?;
    tokenizer.stream().push(3)?;
    tokenizer.decode(&[3, 0]).map(|_| ())
}

#[test]
fn files_on_which_the_library_panics_are_refused() {
    let template = |pieces: Value| {
        let pair = json!([{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]);
        json!({"type": "TemplateProcessing", "single": pieces, "pair": pair, "special_tokens": {}})
    };
    let charsmap = |map: &str| json!({"type": "Precompiled", "precompiled_charsmap": map});
    let cases = [
        ("model.continuing_subword_prefix", json!("###")),
        ("normalizer", charsmap("")),
        ("normalizer", charsmap("AAAA")),
        ("normalizer", charsmap("BAAAAP////8=")),
        ("pre_tokenizer", json!({"type": "FixedLength", "length": 0})),
        ("post_processor", template(json!([{"SpecialToken": {"id": "[CLS]", "type_id": 0}}]))),
        ("post_processor", template(json!([{"Sequence": {"id": "B", "type_id": 0}}]))),
        ("decoder", json!({"type": "Strip", "content": " ", "start": 0, "stop": 5})),
    ];
    through_every_call("decoder", Value::Null).unwrap();
    for (part, value) in cases {
        let message = through_every_call(part, value.clone()).expect_err(part).to_string();
        let said = message.starts_with("tokenizer.json: ") && message.contains("the file is damaged");
        assert!(said && message.contains("the tokenizer crate refuses it: "), "{part} {value}: {message}");
    }
}

#[test]
fn pairs_carry_types_sequences_and_offsets() {
    let tokenizer = Tokenizer::characters("abc").unwrap();
    let encoding = tokenizer.encode_for_model("ab", Some("c")).unwrap();
    assert_eq!(encoding.ids, [0, 1, 2]);
    assert_eq!(encoding.type_ids, [0, 0, 1]);
    assert_eq!(encoding.sequences, [Some(0), Some(0), Some(1)]);
    assert_eq!(encoding.offsets, [(0, 1), (1, 2), (0, 1)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_survives_bytes(text in any::<String>()) {
        let tokenizer = Tokenizer::bytes().unwrap();
        let ids = tokenizer.encode(&text).unwrap();
        let expected: Vec<u32> = text.bytes().map(u32::from).collect();
        prop_assert_eq!(&ids, &expected);
        prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text.as_str());
        prop_assert_eq!(streamed(&tokenizer, &ids).0, text);
    }
}

#[test]
fn a_novel_trains_the_same_bpe_twice_and_comes_back_whole() {
    let novel = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/data/pride_and_prejudice.txt")).unwrap();
    let tokenizer = Tokenizer::train_bpe(&novel, 1024).unwrap();
    assert_eq!(tokenizer.to_json(), Tokenizer::train_bpe(&novel, 1024).unwrap().to_json());
    assert_eq!(tokenizer.vocab_size(), 1024);
    let ids = tokenizer.encode(&novel).unwrap();
    assert!(ids.len() * 5 < novel.len() * 2, "{} tokens for {} bytes", ids.len(), novel.len());
    assert_eq!(tokenizer.decode(&ids).unwrap(), novel);
    let whole = tokenizer.inner.tokenizer.encode_fast(novel.as_str(), false).unwrap();
    assert!(ids == whole.get_ids(), "pieces encode otherwise than the whole");
}

/// A trained tokenizer without letters of several bytes, so that any byte of it may be exchanged.
static SMALL: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
    let json = Tokenizer::train_bpe("ab ab ab abc", 260).unwrap().to_json().to_owned();
    json.replace(|c: char| !c.is_ascii(), "_")
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_tokenizers_never_panic(cut in 0usize..4000, flips in prop::collection::vec((any::<usize>(), 32u8..127), 0..4)) {
        let mut bytes = SMALL.clone().into_bytes();
        let length = bytes.len();
        for (at, value) in flips {
            bytes[at % length] = value;
        }
        if cut % 2 == 0 {
            bytes.truncate(cut);
        }
        let Ok(text) = String::from_utf8(bytes) else { return Ok(()) };
        if let Ok(tokenizer) = Tokenizer::from_json("damaged", text) {
            let _ = tokenizer.encode("ab abc é").map(|ids| tokenizer.decode(&ids));
            let _ = (tokenizer.vocab_size(), tokenizer.decode(&[0, 1, 300, u32::MAX]));
        }
    }
}

#[test]
fn what_is_damaged_in_tests_is_whole_before() {
    Tokenizer::from_json("small", SMALL.clone()).unwrap();
}

/// The tokenizers of the cases, of which several put a blank in front of every text.
fn of_cases() -> Vec<Tokenizer> {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let files = ["llama_spm/tokenizer_llama2.json", "llama_spm/tokenizer_mistral.json", "llama_words/tokenizer.json"];
    let more = ["llama_wordpiece/tokenizer.json", "llama_bytes/tokenizer_bos.json"];
    files.iter().chain(&more).map(|file| Tokenizer::open(cases.join(file)).unwrap()).collect()
}

#[test]
fn pieces_of_a_long_text_meet_without_a_token_more() {
    let text =
        "The capital  of France is Paris.\nIt is a city, the\tcapital; été 日本 is it?\n\n The  end of it is the end. ";
    let text = text.repeat(40);
    for tokenizer in of_cases().into_iter().chain([with_fallback()]) {
        let pieces = tried_pieces(&|text: &str| tokenizer.encode_whole(text), &text, 150).unwrap();
        assert!(pieces.len() > 20, "{}", pieces.len());
        let ids: Vec<u32> = pieces.iter().flat_map(|piece| tokenizer.encode(piece).unwrap()).collect();
        assert_eq!(ids, tokenizer.encode(&text).unwrap(), "{}", tokenizer.inner.source.display());
    }
    let (unbroken, tokenizer) = ("x".repeat(500), with_fallback());
    let whole = tried_pieces(&|text: &str| tokenizer.encode_whole(text), &unbroken, 100).unwrap();
    assert_eq!(whole, [unbroken.as_str()]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// What a stream gives behind a prompt is what decoding both together gives behind it.
    #[test]
    fn a_stream_goes_on_behind_a_prompt(
        prompt in "([a-z]{1,5}|the|capital|is| |\n|é|日本|👩‍🚀|\\.){1,12}", answer in "( |[a-z]{1,4}|paris|city|\n|\\.|é|👩‍🚀|本){0,12}",
    ) {
        for tokenizer in of_cases().into_iter().chain(all()).chain([with_fallback()]) {
            let (Ok(before), Ok(behind)) = (tokenizer.encode_prompt(&prompt), tokenizer.encode(&answer)) else { continue };
            let mut stream = TextStream::after(tokenizer.text_of(), &before).unwrap();
            let mut text: String = behind.iter().filter_map(|&id| stream.push(id).unwrap()).collect();
            text.extend(stream.finish().unwrap());
            let whole = tokenizer.decode(&[before.as_slice(), &behind].concat()).unwrap();
            let expected = whole.strip_prefix(&tokenizer.decode(&before).unwrap());
            prop_assert_eq!(Some(text.as_str()), expected, "{}", tokenizer.inner.source.display());
        }
    }

    /// For any tokens nothing is lost: a stream returns all decoded text except replacement characters.
    #[test]
    fn a_stream_of_any_tokens_loses_no_text(ids in prop::collection::vec(0u32..262, 0..40)) {
        let tokenizer = with_fallback();
        let (text, _) = streamed(&tokenizer, &ids);
        let whole = tokenizer.decode(&ids).unwrap();
        let plain = |text: &str| text.replace(char::REPLACEMENT_CHARACTER, "");
        if !whole.contains(char::REPLACEMENT_CHARACTER) {
            prop_assert_eq!(text, whole);
        } else {
            // A character that the decoder takes back for the bytes behind it stays where it was shown.
            let (shown, all) = (plain(&text), plain(&whole));
            let mut left = shown.chars();
            prop_assert!(all.chars().all(|c| left.any(|other| other == c)), "{shown:?} has not all of {all:?}");
        }
    }
}

#[test]
fn what_stands_in_front_of_a_text_and_what_ends_it_is_known() {
    let [llama, mistral, words, _, bytes] = of_cases().try_into().unwrap();
    assert_eq!((llama.prefix(), mistral.prefix(), bytes.prefix()), (&[1][..], &[1][..], &[256][..]));
    assert!(words.prefix().is_empty() && words.ends().is_empty());
    assert_eq!((llama.ends(), bytes.ends()), (&[2][..], &[256][..]));
    assert!(bytes.is_special(256) && !bytes.is_special(9) && !bytes.is_special(999));
    assert_eq!(bytes.encode_prompt("a").unwrap(), [256, 65 + 32]);
    assert_eq!(bytes.encode_prompt("<|endoftext|>a").unwrap(), [256, 65 + 32], "one in front is enough");
    assert_eq!(bytes.encode_prompt("").unwrap(), [256]);
    let special = |id: u32, content: &str| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let with = |tokens: &[&str], roles: &[Value]| {
        let added: Vec<Value> = tokens.iter().zip(0..).map(|(token, id)| special(id, token)).collect();
        let mut vocabulary = json!({"</s>": 7, "x": 8});
        tokens.iter().enumerate().for_each(|(id, token)| vocabulary[*token] = json!(id));
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
            "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "x"},
        });
        Tokenizer::from_json_with("made", json.to_string(), roles).unwrap().ends().to_vec()
    };
    // An ordinary word of that name is none, unless the file says so.
    assert_eq!(with(&["<|im_start|>", "<|im_end|>", "<|endoftext|>"], &[]), [1, 2]);
    assert_eq!(with(&["<a>"], &[json!({"eos_token": "</s>"})]), [7]);
    assert_eq!(with(&["<|end|>", "<|return|>", "<|call|>"], &[]), [1, 2], "a message within a turn ends with <|end|>");
    assert_eq!(with(&["<|end|>", "<|user|>"], &[]), [0]);
}
