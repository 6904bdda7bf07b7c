//! Files that are not supported, truncated or damaged.

use super::made::{Meta, file, metadata, tensors};
use super::{gpus, no_tokenizer, refusal, with};
use half::f16;
use proptest::prelude::*;
use wgformer::io::gguf;
use wgformer::models;
use wgformer::{DType, Error};

#[test]
fn what_is_not_supported_is_named() {
    assert!(
        refusal(with("general.architecture", Meta::Text("mamba")))
            .contains("\"general.architecture\" is mamba, which is not read yet; llama, qwen2, ")
    );
    assert!(
        no_tokenizer(with("tokenizer.ggml.model", Meta::Text("rwkv")))
            .contains("\"rwkv\"; gpt2, llama, t5 and bert are")
    );
    assert!(
        no_tokenizer(with("tokenizer.ggml.pre", Meta::Text("nonesuch")))
            .contains("\"nonesuch\"; supported are default")
    );
    // Experts that are counted, and are not there.
    models::decoder_of(&gguf::from_bytes("m", with("llama.expert_count", Meta::U32(8))).unwrap()).unwrap();
    let scaled = |kind| refusal(with("llama.rope.scaling.type", Meta::Text(kind)));
    assert!(scaled("longrope").contains("is \"longrope\", which is not read here; none, linear and yarn are"));
    assert!(scaled("yarn").contains("\"llama.rope.scaling.factor\" is missing"));
    assert!(
        refusal(with("llama.block_count", Meta::Text("two"))).contains("\"llama.block_count\" is not a whole number")
    );
    for key in ["block_count", "embedding_length", "feed_forward_length", "attention.head_count"] {
        let key = format!("llama.{key}").leak();
        for value in [0, 7, u32::MAX] {
            let message = refusal(with(key, Meta::U32(value)));
            assert!(message.contains("llama.") || message.contains("rows"), "{key} {value}: {message}");
        }
    }
    assert!(refusal(with("llama.context_length", Meta::U32(u32::MAX))).contains("llama.context_length"));
    assert!(no_tokenizer(with("tokenizer.ggml.token_type", Meta::Integers(vec![1; 5]))).contains("5 items"));
    assert!(no_tokenizer(with("tokenizer.ggml.merges", Meta::Texts(vec!["ab".into()]))).contains("\"ab\""));
    let mut lacking = metadata();
    lacking.remove("llama.embedding_length");
    assert!(refusal(file(&lacking, &tensors()).0).contains("\"llama.embedding_length\" is missing"));
    let mut made = tensors();
    made[3].kind = 77;
    assert!(refusal(file(&metadata(), &made).0).contains("\"blk.0.attn_v.weight\" has the unknown type 77"));
    // A file with a tensor of a type that is not read opens, and does not load.
    let down = made.iter().position(|made| made.name == "blk.0.ffn_down.weight").unwrap();
    (made[3].kind, made[down].kind) = (1, 18);
    let opened = gguf::from_bytes("some/model.gguf", file(&metadata(), &made).0).unwrap();
    let Err(error) = models::load(&gpus()[0], &opened, None) else { panic!("it was loaded") };
    let expected = "some/model.gguf: tensor \"model.layers.0.mlp.down_proj.weight\": has type IQ3_XXS, which is not read: requantise the model";
    assert!(error.to_string().starts_with(expected), "{error}");
    let mut no_tokenizer = metadata();
    no_tokenizer.remove("tokenizer.ggml.model");
    let opened = gguf::from_bytes("m", file(&no_tokenizer, &tensors()).0).unwrap();
    assert!(opened.expect_tokenizer().is_err());
    assert!(refusal(b"PK\x03\x04".to_vec()).contains("no GGUF file"));
    assert!(refusal(b"version https://git-lfs.github.com/spec/v1".to_vec()).contains("git lfs pull"));
    assert!(refusal(b"GGUF\x00\x00\x00\x03".to_vec()).contains("big-endian"));
    assert!(refusal(b"GGUF\x01\x00\x00\x00".to_vec()).contains("version 1"));
}

#[test]
fn truncated_and_lying_files_are_refused() {
    let (bytes, start) = file(&metadata(), &tensors());
    for cut in [0, 3, 7, 20, 24, 40, 200, start / 2, start - 1, start, start + 1, bytes.len() - 100] {
        let message = refusal(bytes[..cut].to_vec());
        assert!(message.contains("truncated") || message.contains("no GGUF file"), "{cut}: {message}");
    }
    let mut twice = tensors();
    twice[1].name = "token_embd.weight".into();
    assert!(refusal(file(&metadata(), &twice).0).contains("\"token_embd.weight\" twice"));
    let mut broken = tensors();
    broken[2].shape = vec![32, 63];
    assert!(refusal(file(&metadata(), &broken).0).contains("not whole blocks"));
    let mut huge = tensors();
    huge[3].shape = vec![1 << 40, 1 << 40];
    assert!(refusal(file(&metadata(), &huge).0).contains("extents"));
    huge[3].shape = vec![1 << 40, 64];
    assert!(refusal(file(&metadata(), &huge).0).contains("truncated"));
    huge[3].shape = vec![0, 64];
    assert!(refusal(file(&metadata(), &huge).0).contains("extents"));
    let mut counts = bytes.clone();
    counts[8..16].fill(0xff);
    refusal(counts);
    let mut counts = bytes.clone();
    counts[16..24].fill(0xff);
    refusal(counts);
    let mut odd = bytes;
    let at = start - 200;
    odd[at..at + 8].fill(0xff);
    refusal(odd);
    // A valid file whose tensors are not those of its architecture.
    let mut missing = tensors();
    missing.pop();
    let opened = gguf::from_bytes("m", file(&metadata(), &missing).0).unwrap();
    let Err(error) = models::load(&gpus()[0], &opened, None) else { panic!("a tensor was made up") };
    assert!(error.to_string().contains("1 missing: model.norm.weight"), "{error}");
}

#[test]
fn scales_that_are_no_numbers_are_refused() {
    let mut made = tensors();
    made[1].bytes[20..22].copy_from_slice(&f16::INFINITY.to_le_bytes());
    let opened = gguf::from_bytes("m", file(&metadata(), &made).0).unwrap();
    for storage in [None, Some(DType::F32)] {
        let Err(error) = models::load(&gpus()[0], &opened, storage) else { panic!("an infinity was taken") };
        assert!(matches!(error, Error::NonFinite { .. }), "{error}");
        assert!(error.to_string().contains("model.layers.0.self_attn.q_proj.weight"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_headers_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        words in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(vec![0_u64, 1, 255, 1 << 31, 1 << 40, u64::MAX])), 0..2),
        end in prop::option::of(any::<prop::sample::Index>()),
        vocabulary in prop::sample::select(vec!["gpt2", "llama", "t5", "bert"]),
        architecture in prop::sample::select(vec![
            "llama", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "gemma", "gemma2", "gemma3", "phi3", "olmoe", "granite", "smollm3",
            "gpt2", "bert", "t5",
        ]),
        experts in prop::option::of(any::<u32>()),
    ) {
        let mut metadata: std::collections::BTreeMap<&'static str, Meta> = metadata()
            .into_iter()
            .map(|(key, value)| match key.strip_prefix("llama.") {
                Some(rest) => (&*format!("{architecture}.{rest}").leak(), value),
                None => (key, value),
            })
            .collect();
        metadata.insert("general.architecture", Meta::Text(architecture));
        metadata.insert("tokenizer.ggml.model", Meta::Text(vocabulary));
        metadata.insert("tokenizer.ggml.scores", Meta::Floats(vec![-1.0, -2.0, 0.0]));
        if let Some(count) = experts {
            metadata.insert(format!("{architecture}.expert_count").leak(), Meta::U32(count));
        }
        // Most of the header is its tokens: fewer of them, so that what is damaged is not always a token.
        metadata.remove("tokenizer.ggml.token_type");
        metadata.insert("tokenizer.ggml.tokens", Meta::Texts(["Ġ", "t", "Ġt"].map(str::to_owned).into()));
        metadata.insert("tokenizer.ggml.merges", Meta::Texts(vec!["Ġ t".into()]));
        metadata.insert("tokenizer.ggml.eos_token_id", Meta::U32(2));
        let (mut bytes, start) = file(&metadata, &tensors());
        for (at, value) in flips {
            bytes[at.index(start)] = value;
        }
        for (at, value) in words {
            bytes[at.index(start)..][..8].copy_from_slice(&value.to_le_bytes());
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        if let Ok(opened) = gguf::from_bytes("m", bytes) {
            for tensor in opened.tensors.iter() {
                let _ = (tensor.to_f32(), tensor.to_u32(), tensor.to_words(DType::Q8_0), tensor.to_words(DType::F16));
            }
            let _ = models::decoder_of(&opened).map(|model| model.dimensions());
        }
    }
}
