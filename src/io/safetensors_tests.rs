//! Tests of safetensors files: round trips, damage of every kind, and disks that are full.

use super::*;
use crate::dtype::DType;
use crate::shape::TensorType;
use proptest::prelude::*;
use serde_json::json;
use std::io;

/// A small file with several types.
fn example() -> Vec<u8> {
    let tensors = [
        NamedTensor::f32("h.0.weight", [2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        NamedTensor::new("half", TensorType::new([3], DType::F16), vec![0, 0x3c, 0, 0x40, 0, 0x42, 0, 0]),
        NamedTensor::new("ids", TensorType::new([2], DType::U32), vec![1, 0, 0, 0, 2, 0, 0, 0]),
        NamedTensor::f32("scalar", Shape::default(), &[7.0]),
        NamedTensor::f32("empty", [0, 4], &[]),
    ];
    bytes_of(&tensors)
}

fn bytes_of(tensors: &[NamedTensor<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Layout::new(tensors).unwrap().write_to(&mut bytes).unwrap();
    bytes
}

/// A file with a header of our choice.
fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn refusal(bytes: Vec<u8>) -> String {
    let message = Tensors::from_bytes("some/model.safetensors", bytes).unwrap_err().to_string();
    assert!(message.starts_with("some/model.safetensors: "), "no path in: {message}");
    message
}

#[test]
fn what_is_written_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let weights = NamedTensor::f32("w", [2, 2], &[1.0, -2.5, 3.0, f32::MIN_POSITIVE]);
    let labels = NamedTensor::new("labels", TensorType::new([1], DType::I32), (-100i32).to_le_bytes().to_vec());
    write(&path, &[weights, labels]).unwrap();
    let read = Tensors::open(&path).unwrap();
    assert_eq!(read.names().collect::<Vec<_>>(), ["labels", "w"]);
    assert_eq!(read.expect("w").unwrap().to_f32().unwrap(), [1.0, -2.5, 3.0, f32::MIN_POSITIVE]);
    assert_eq!(read.expect("w").unwrap().shape, &Shape::from([2, 2]));
    assert_eq!(read.expect("labels").unwrap().to_i32().unwrap(), [-100]);
    assert_eq!(read.metadata()["format"], "pt");
    assert_eq!(read.iter().count(), 2);
}

#[test]
fn the_reference_implementation_reads_what_is_written() {
    let bytes = example();
    let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(read.len(), 5);
    assert_eq!(read.tensor("half").unwrap().data(), [0, 0x3c, 0, 0x40, 0, 0x42], "padding belongs to the GPU only");
    assert_eq!(read.tensor("scalar").unwrap().shape(), [0usize; 0]);
    assert_eq!(bytes, example(), "the same tensors give the same file");
}

#[test]
fn tensors_that_lie_cannot_be_written() {
    let refused = |tensors: &[NamedTensor<'_>]| Layout::new(tensors).err().unwrap().to_string();
    let short = NamedTensor::new("w", TensorType::f32([3]), vec![0; 8]);
    assert_eq!(refused(&[short]), "w: f32[3] has 12 bytes, got 8");
    let one = NamedTensor::f32("w", [1], &[1.0]);
    assert!(refused(&[one.clone(), one.clone()]).contains("rename it"));
    let other_type = NamedTensor::new("w", TensorType::new([1], DType::F16), vec![0; 2]);
    let between = NamedTensor::f32("z", [1], &[1.0]);
    assert!(refused(&[one, between, other_type]).contains("same name"));
    assert!(refused(&[NamedTensor::f32("__metadata__", [1], &[1.0])]).contains("rename it"));
}

#[test]
fn missing_tensors_are_named_with_what_is_like_them() {
    let tensors = Tensors::from_bytes("m", example()).unwrap();
    let message = tensors.expect("transformer.h.0.weight").unwrap_err().to_string();
    assert!(message.contains("\"transformer.h.0.weight\"") && message.contains("\"h.0.weight\""), "{message}");
    let message = tensors.expect("encoder.bias").unwrap_err().to_string();
    assert!(message.contains("another model family"), "{message}");
    let message = tensors.expect_shape("h.0.weight", &[3, 2].into()).unwrap_err().to_string();
    assert!(message.contains("[2, 3]") && message.contains("[3, 2]"), "{message}");
}

#[test]
fn files_that_lie_are_refused() {
    let info = |offsets: [u64; 2], shape: &[u64]| json!({"dtype": "F32", "shape": shape, "data_offsets": offsets});
    let file = |header: serde_json::Value, data: usize| with_header(&header.to_string(), &vec![0; data]);
    assert!(refusal(file(json!({"a": info([0, 8], &[2])}), 4)).contains("truncated"));
    assert!(refusal(file(json!({"a": info([0, 8], &[2])}), 12)).contains("after its end"));
    assert!(refusal(file(json!({"a": info([4, 8], &[1])}), 8)).contains("offset for tensor `a`"));
    assert!(refusal(file(json!({"a": info([8, 0], &[2])}), 8)).contains("offset for tensor `a`"));
    let overlapping = json!({"a": info([0, 8], &[2]), "b": info([4, 12], &[2])});
    assert!(refusal(file(overlapping, 12)).contains("offset for tensor `b`"));
    assert!(refusal(file(json!({"a": info([0, 8], &[3])}), 8)).contains("invalid shape"));
    assert!(refusal(file(json!({"a": info([0, 8], &[u64::MAX, u64::MAX])}), 8)).contains("overflow"));
    let endless = json!({"a": {"dtype": "U8", "shape": [u64::MAX], "data_offsets": [0, u64::MAX]}});
    assert!(refusal(file(endless, 8)).contains("overflow"));
    let long = json!({"a": {"dtype": "U8", "shape": [1u64 << 60], "data_offsets": [0, 1u64 << 60]}});
    assert!(refusal(file(long, 8)).contains("truncated"));
    assert!(refusal(file(json!({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}), 4)).contains("F99"));
    assert!(
        refusal(file(json!({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}), 4)).contains("damaged")
    );
    assert!(refusal(file(json!([1, 2]), 0)).contains("damaged"));
    let deep = "[".repeat(100_000);
    assert!(refusal(with_header(&deep, &[])).contains("damaged"));
    assert!(refusal(with_header("{\"a\": \u{1}", &[])).contains("damaged"));
}

#[test]
fn short_huge_and_foreign_files_are_refused() {
    assert!(refusal(Vec::new()).contains("0 bytes long"));
    assert!(refusal(vec![1, 2, 3]).contains("3 bytes long"));
    assert!(refusal(vec![0xff; 64]).contains("not a safetensors file"));
    let mut long = 99_999_999u64.to_le_bytes().to_vec();
    long.extend(b"{}");
    assert!(refusal(long).contains("99999999 bytes, 2 follow"));
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n".to_vec();
    assert!(refusal(pointer).contains("git lfs pull"));
    assert!(Tensors::from_bytes("m", with_header("{}", &[])).unwrap().is_empty());
}

#[test]
fn paths_that_are_no_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |path: &Path| Tensors::open(path).unwrap_err().to_string();
    assert!(refused(&folder.path().join("nothing.safetensors")).contains("nothing.safetensors: "));
    assert!(refused(folder.path()).contains("neither model.safetensors nor"));
    std::fs::write(folder.path().join("pytorch_model.bin"), "x").unwrap();
    assert!(refused(folder.path()).contains("convert it once"));
    std::fs::write(folder.path().join("model.safetensors"), "").unwrap();
    assert!(refused(folder.path()).contains("0 bytes long"));
    #[cfg(unix)]
    assert!(refused(Path::new("/dev/zero")).contains("a device"));
}

/// A folder with two shards and their index.
fn sharded(index: serde_json::Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path().join("m-1.safetensors"), &[NamedTensor::f32("a", [1], &[1.0])]).unwrap();
    let second = [NamedTensor::f32("b", [1], &[2.0]), NamedTensor::f32("c", [1], &[3.0])];
    write(folder.path().join("m-2.safetensors"), &second).unwrap();
    std::fs::write(folder.path().join(INDEX), index.to_string()).unwrap();
    folder
}

#[test]
fn sharded_models_read_as_one() {
    let map = json!({"a": "m-1.safetensors", "b": "m-2.safetensors", "c": "m-2.safetensors"});
    let folder = sharded(json!({"metadata": {"total_size": 12}, "weight_map": map}));
    let tensors = Tensors::open(folder.path()).unwrap();
    let values: Vec<f32> = tensors.iter().map(|t| t.to_f32().unwrap()[0]).collect();
    assert_eq!(values, [1.0, 2.0, 3.0]);
}

#[test]
fn sharded_models_that_lie_are_refused() {
    let refused = |index: serde_json::Value| Tensors::open(sharded(index).path()).unwrap_err().to_string();
    assert!(refused(json!({})).contains("weight_map"));
    assert!(refused(json!({"weight_map": {"a": 3}})).contains("weight_map.a"));
    assert!(refused(json!({"weight_map": {"a": "m-3.safetensors"}})).contains("m-3.safetensors"));
    assert!(refused(json!({"weight_map": {"z": "m-1.safetensors"}})).contains("does not hold \"z\""));
    for outside in ["../m-1.safetensors", "/etc/passwd", "..", "a/b", "c:\\x", ""] {
        assert!(refused(json!({"weight_map": {"a": outside}})).contains("not a plain file name"), "{outside}");
    }
    let missing = refused(json!({"weight_map": {"a": "m-4.safetensors"}}));
    assert!(missing.contains("m-4.safetensors: ") && missing.contains("names it: download it again"), "{missing}");
    let folder = sharded(json!({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}));
    write(
        folder.path().join("m-2.safetensors"),
        &[NamedTensor::f32("a", [1], &[9.0]), NamedTensor::f32("b", [1], &[9.0])],
    )
    .unwrap();
    assert!(Tensors::open(folder.path()).unwrap_err().to_string().contains("holds \"a\", which another file"));
}

/// Calls every reader of an accepted file.
fn touch(tensors: &Tensors) {
    for tensor in tensors.iter() {
        let _ = (tensor.to_f32(), tensor.to_i32(), tensor.to_u32(), tensor.to_words(DType::BF16));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_never_panic(cut in 0usize..700, flips in prop::collection::vec((0usize..700, any::<u8>()), 0..4)) {
        let mut bytes = example();
        for (at, value) in flips {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        bytes.truncate(cut.max(1));
        if let Ok(tensors) = Tensors::from_bytes("m", bytes) {
            touch(&tensors);
        }
    }

    #[test]
    fn strange_headers_never_panic(
        dtype in prop::sample::select(vec!["F32", "F64", "BF16", "I64", "BOOL", "F4", "U8"]),
        shape in prop::collection::vec(prop::sample::select(vec![0u64, 1, 2, 3, 8, 1 << 32, u64::MAX]), 0..4),
        start in prop::sample::select(vec![0u64, 1, 8, u64::MAX]),
        end in prop::sample::select(vec![0u64, 1, 4, 8, 16, 64, u64::MAX - 8, u64::MAX]),
        data in 0usize..80,
    ) {
        let header = json!({"a": {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}});
        if let Ok(tensors) = Tensors::from_bytes("m", with_header(&header.to_string(), &vec![0; data])) {
            touch(&tensors);
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error() {
    let mut full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let tensors = [NamedTensor::f32("w", [1 << 20], &vec![1.0; 1 << 20])];
    let layout = Layout::new(&tensors).unwrap();
    let error = file::write_synced(&mut full, |w| layout.write_to(w)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(file::explain(error).to_string().contains("make room"));
}

/// Where a second run of this test program, under a limit on file sizes, tries to write.
const LIMITED: &str = "WGFORMER_TEST_WRITE_UNDER_LIMIT";

#[test]
#[cfg(target_os = "linux")]
fn a_write_that_the_system_stops_leaves_the_old_file() {
    if let Ok(path) = std::env::var(LIMITED) {
        let large = [NamedTensor::f32("w", [1 << 20], &vec![2.0; 1 << 20])];
        let message = write(&path, &large).unwrap_err().to_string();
        assert!(message.contains(&path) && message.contains("file size limit"), "{message}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write(&path, &[NamedTensor::f32("w", [1], &[1.0])]).unwrap();
    let name = "io::safetensors::tests::a_write_that_the_system_stops_leaves_the_old_file";
    let script = format!("trap '' XFSZ; ulimit -f 64; exec \"$0\" --exact {name} --nocapture");
    let output = std::process::Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(LIMITED, &path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(Tensors::open(&path).unwrap().expect("w").unwrap().to_f32().unwrap(), [1.0]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file was left");
}
