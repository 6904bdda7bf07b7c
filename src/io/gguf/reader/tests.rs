use super::*;
use crate::io::convert::Numbers;
use crate::io::safetensors::Tensors;

/// One tensor for each type of elements that was written by llama.cpp's quantiser, and random bits: 8 rows of 256.
const BLOCKS: &[u8] = include_bytes!("../../../../tests/cases/gguf_blocks.gguf");
/// The same for types that are not read.
const NOT_READ: &[u8] = include_bytes!("../../../../tests/cases/gguf_blocks_not_read.gguf");

fn tensors(bytes: &[u8]) -> BTreeMap<&str, Info> {
    Header::read(bytes).unwrap().tensors(0, bytes.len()).unwrap()
}

fn numbers(info: &Info) -> Numbers<'static> {
    Numbers { dtype: info.dtype, row_len: info.shape.last(), bytes: BLOCKS[info.range.clone()].into() }
}

#[test]
fn blocks_read_as_others_read_them() {
    let expected = include_bytes!("../../../../tests/cases/gguf_blocks.safetensors");
    let expected = Tensors::from_bytes("values", expected.to_vec()).unwrap();
    let tensors = tensors(BLOCKS);
    for (name, info) in &tensors {
        let expected = expected.expect(name).unwrap().to_f32().unwrap();
        assert_eq!(numbers(info).to_f32().unwrap(), expected, "{name}");
        let FileType::Blocks(dtype) = info.dtype else { continue };
        assert_eq!(dtype.name(), *name);
        // In GPU memory they are the same, and a file gets the same bits back.
        let words = numbers(info).to_words(dtype).unwrap();
        assert_eq!(words.len() as u64, dtype.bytes(expected.len()), "{name}");
        let again: Vec<f32> =
            quantised::dequantise(dtype, &words, expected.len()).into_iter().map(|x| x as f32).collect();
        assert_eq!(again, expected, "{name}");
        assert_eq!(quantised::to_file(dtype, &words, expected.len()), BLOCKS[info.range.clone()], "{name}");
        assert_eq!(quantised::bad_scale(dtype, &BLOCKS[info.range.clone()]), None, "{name}");
    }
    let blocks = tensors.values().filter(|info| matches!(info.dtype, FileType::Blocks(_)));
    assert_eq!(blocks.count(), crate::DType::QUANTISED.len());
}

#[test]
fn types_that_are_not_read_are_known() {
    let tensors = tensors(NOT_READ);
    for (name, info) in &tensors {
        let FileType::Other(other) = info.dtype else { panic!("{name} is {}", info.dtype) };
        assert_eq!(other.name.to_lowercase(), **name);
        let refused = Numbers { dtype: info.dtype, row_len: 256, bytes: NOT_READ[info.range.clone()].into() };
        let message = refused.to_f32().unwrap_err();
        assert!(message.contains(&format!("has type {}, which is not read: requantise", other.name)), "{message}");
    }
    assert_eq!(tensors.len(), 9);
}
