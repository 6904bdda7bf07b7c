use super::*;
use crate::io::ModelFolder;

fn case(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/torch").join(name)).unwrap()
}

/// A folder with such a checkpoint.
fn opened(bytes: &[u8]) -> Result<Tensors> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(SINGLE), bytes).unwrap();
    Tensors::open(folder.path())
}

#[test]
fn both_forms_give_the_tensors_that_were_saved() {
    for name in ["new.bin", "old.bin"] {
        let tensors = opened(&case(name)).unwrap();
        let of = |name: &str| {
            let tensor = tensors.expect(name).unwrap();
            (tensor.shape.dims().to_vec(), tensor.to_f32().unwrap())
        };
        let all: Vec<f32> = (0..12_u8).map(f32::from).collect();
        assert_eq!(of("a"), (vec![3, 4], all));
        assert_eq!(of("b"), (vec![4, 3], vec![0., 4., 8., 1., 5., 9., 2., 6., 10., 3., 7., 11.]), "transposed");
        assert_eq!(of("c"), (vec![2, 3], vec![5., 6., 7., 9., 10., 11.]), "a part");
        assert_eq!((of("half").1, of("bf").1, of("p").1), (vec![1.5, -2.0], vec![0.5, 3.0], vec![9.0]));
        assert_eq!(tensors.expect("n").unwrap().to_i32().unwrap(), [7]);
        assert_eq!(of("e"), (vec![0, 3], Vec::new()));
        assert_eq!(tensors.len(), 8, "{name}");
    }
    assert_eq!(opened(&case("nested.bin")).unwrap().expect("w").unwrap().to_f32().unwrap(), [1.0, 1.0]);
}

#[test]
fn what_a_pickle_calls_is_named_and_not_done() {
    let message = opened(&case("calls.bin")).unwrap_err().to_string();
    assert!(
        message.contains("pytorch_model.bin: its pickle calls \"posix\".\"system\", which is not done"),
        "{message}"
    );
    assert!(message.contains("AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(FOLDER"), "{message}");
}

/// Every byte damaged in several ways, and every length: an error or tensors inside the file, never a panic.
#[test]
fn damaged_files_are_refused_or_read() {
    for name in ["new.bin", "old.bin"] {
        let whole = case(name);
        for at in 0..whole.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= change;
                if let Ok(parts) = tensors_of(&bytes) {
                    for part in parts.values() {
                        if let Numbers::There(range) = &part.numbers {
                            assert!(range.end <= bytes.len() && range.start <= range.end);
                        }
                    }
                }
            }
            assert!(tensors_of(&whole[..at]).is_err() || at + 16 > whole.len(), "{name} cut at {at}");
        }
    }
}

/// The pickles of an older file: its root as given, no storages behind.
fn old(root: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(b"M\xe9\x03.}.");
    bytes.extend(root);
    bytes.extend(b"].");
    bytes
}

#[test]
fn hostile_pickles_are_refused_by_what_is_wrong() {
    let deep = [vec![b')'; 1], vec![0x85; 1_000_000], b".".to_vec()].concat();
    // A float storage of 2³⁰ numbers, of which a tensor is said to have as many.
    let storage = b"((U\x07storagectorch\nFloatStorage\nU\x01kU\x03cpuJ\x00\x00\x00\x40tQ".as_slice();
    let tensor =
        [b"}U\x01wctorch._utils\n_rebuild_tensor\n".as_slice(), storage, b"K\x00J\x00\x00\x00\x40\x85K\x01\x85tRs."]
            .concat();
    for (root, wanted) in [
        (b"cos\nsystem\n.".to_vec(), "calls \"os\".\"system\""),
        (b"\x8c\x08builtins\x8c\x04eval\x93.".to_vec(), "calls \"builtins\".\"eval\""),
        (b"cbuiltins\n__import__\n.".to_vec(), "calls \"builtins\""),
        (b"i.".to_vec(), "has the instruction 0x69"),
        (b"\x82\x01.".to_vec(), "has the instruction 0x82"),
        (b"R.".to_vec(), "takes more than it has"),
        (b"NNR.".to_vec(), "with arguments that do not fit"),
        (b"Nu.".to_vec(), "no mark"),
        (b"Ns.".to_vec(), "takes more than it has"),
        (b"NNNs.".to_vec(), "adds an entry to what is no dictionary"),
        (b"h\x07.".to_vec(), "asks for what it has not kept"),
        (b"X\xff\xff\xff\xff".to_vec(), "truncated"),
        (b"NQ.".to_vec(), "refers to what is no storage"),
        (b"}.".to_vec(), "holds no tensors by name"),
        (b"N.".to_vec(), "holds no dictionary of tensors"),
        (deep, "holds no dictionary of tensors"),
        (tensor, "its numbers (storage \"k\") are missing"),
    ] {
        let message = tensors_of(&old(&root)).unwrap_err();
        assert!(message.contains(wanted), "{wanted}: {message}");
    }
    assert_eq!(tensors_of(b"").unwrap_err(), "is no checkpoint of PyTorch");
    assert!(tensors_of(b"PK\x03\x04 and no more").unwrap_err().contains("is a damaged ZIP archive"));
}

#[test]
fn tensors_reach_no_further_than_their_storage() {
    let bytes = [0_u8; 48];
    let storage = Storage { key: "0", dtype: crate::io::FileType::Plain(safetensors::Dtype::F32), count: 12 };
    let of = |shape: &[usize], strides: &[usize], offset| {
        let view = View { storage: 0, offset, shape: shape.to_vec(), strides: strides.to_vec() };
        part(&bytes, &view, &storage, 0..48).map(|part| part.shape)
    };
    assert_eq!(of(&[3, 4], &[4, 1], 0), Ok(vec![3, 4]));
    assert_eq!(of(&[4, 3], &[1, 4], 0), Ok(vec![4, 3]));
    assert_eq!(of(&[], &[], 11), Ok(vec![]));
    let outside = Err("it reaches outside of its storage".to_owned());
    let most = usize::MAX;
    for (shape, strides, offset) in [
        (&[3, 4][..], &[4, 1][..], 1),
        (&[13], &[1], 0),
        (&[1], &[1], 12),
        (&[13], &[0], 0),
        (&[2], &[most], 0),
        (&[most, most], &[1, 1], 0),
        (&[2], &[1], most),
    ] {
        assert_eq!(of(shape, strides, offset), outside, "{shape:?} {strides:?} {offset}");
    }
    assert!(of(&[2, 2], &[1], 0).unwrap_err().contains("a stride too many or too few"));
}

/// A model whose weights are a checkpoint in two files opens as others do.
#[test]
fn a_folder_with_checkpoints_opens() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("config.json", b"{\"model_type\": \"gpt2\"}");
    write("a.bin", &case("old.bin"));
    write("b.bin", &case("nested.bin"));
    write(INDEX, br#"{"weight_map": {"a": "a.bin", "w": "b.bin"}}"#);
    let tensors = ModelFolder::open(folder.path()).unwrap().tensors;
    assert_eq!((tensors.len(), tensors.expect("w").unwrap().shape.dims()), (9, &[2][..]));
    write(INDEX, br#"{"weight_map": {"a": "a.bin", "w": "../b.bin"}}"#);
    assert!(ModelFolder::open(folder.path()).is_err());
    write(INDEX, br#"{"weight_map": {"a": "a.bin", "w": "none.bin"}}"#);
    let message = ModelFolder::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("pytorch_model.bin.index.json names it: download it again"), "{message}");
}
