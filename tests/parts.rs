//! Models whose files are read part by part, as in a browser: the same weights as from whole files, and never more than a tensor at a time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use pollster::block_on;
use std::ops::Range;
use std::path::{Path, PathBuf};
use wgformer::io::{ModelFolder, NamedTensor, Tensors, gguf, safetensors};
use wgformer::{Error, Gpu, Result, Weights, models};

/// A file that is read in ranges.
struct Remote {
    bytes: Vec<u8>,
    /// The longest range so far, and the number of all.
    longest: usize,
    reads: usize,
}

impl Remote {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, longest: 0, reads: 0 }
    }

    fn read(&mut self, range: Range<u64>) -> Result<Vec<u8>> {
        self.longest = self.longest.max((range.end - range.start) as usize);
        self.reads += 1;
        Ok(self.bytes[range.start as usize..range.end as usize].to_vec())
    }

    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }
}

fn folders() -> Vec<PathBuf> {
    let all = std::fs::read_dir("tests/goldens").unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = all.filter(|path| path.join("model.safetensors").is_file()).collect();
    folders.sort();
    folders
}

/// Loads a model by parts and whole, and compares all weights, as they are in the file and in f16.
fn compare(gpu: &Gpu, whole: &ModelFolder, parts: &ModelFolder, remote: &mut Remote) {
    for dtype in [None, Some(wgformer::DType::F16)] {
        let (model, expected) = models::load_model(gpu, whole, dtype).unwrap();
        let mut told = Vec::new();
        remote.longest = 0;
        let mut read = async |range| remote.read(range);
        let loaded = block_on(models::load_model_async(gpu, parts, dtype, &mut read, &mut |bytes| told.push(bytes)));
        let (_, got) = loaded.unwrap_or_else(|error| panic!("{}: {error}", whole.path.display()));
        assert_eq!(got.names(), expected.names());
        for name in expected.names() {
            assert_eq!(got.download(&name).unwrap(), expected.download(&name).unwrap(), "{name}");
        }
        let largest = whole.tensors.iter().map(|tensor| tensor.bytes.len()).max().unwrap();
        assert!(remote.longest <= largest, "{} bytes at a time, the largest tensor has {largest}", remote.longest);
        assert!(told.is_sorted() && told.len() == model.parameters().unwrap().len(), "{told:?}");
    }
}

#[test]
fn folders_are_the_same_by_parts() {
    let gpu = Gpu::choose(None).unwrap();
    let folders = folders();
    assert!(folders.len() > 30, "{} folders", folders.len());
    for path in folders.iter().filter(|path| !path.join("adapter_config.json").exists()) {
        let whole = ModelFolder::open(path).unwrap();
        let mut remote = Remote::new(std::fs::read(path.join("model.safetensors")).unwrap());
        let length = remote.length();
        let tensors = block_on(Tensors::open_async(path, length, &mut async |range| remote.read(range))).unwrap();
        assert_eq!(remote.reads, 2, "the length of the header, and the header");
        let file = |name: &str| std::fs::read_to_string(path.join(name)).ok();
        let parts = ModelFolder::from_files(path, &file, tensors).unwrap();
        assert_eq!(parts.config.value(), whole.config.value());
        compare(&gpu, &whole, &parts, &mut remote);
    }
}

#[test]
fn gguf_files_are_the_same_by_parts() {
    let gpu = Gpu::choose(None).unwrap();
    let all = std::fs::read_dir("tests/gguf/files").unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = all.filter(|path| path.extension().is_some_and(|end| end == "gguf")).collect();
    paths.sort();
    let (mut compared, mut aside) = (0, 0);
    for path in &paths {
        let bytes = std::fs::read(path).unwrap();
        let whole = gguf::from_bytes(path, bytes.clone());
        let mut remote = Remote::new(bytes);
        let length = remote.length();
        let parts = block_on(gguf::open_async(path, length, &mut async |range| remote.read(range)));
        let (whole, parts) = match (whole, parts) {
            (Ok(whole), Ok(parts)) => (whole, parts),
            (Err(whole), Err(parts)) => {
                assert_eq!(whole.to_string(), parts.to_string());
                continue;
            }
            (whole, parts) => panic!("{}: {whole:?}, but by parts {parts:?}", path.display()),
        };
        compared += 1;
        aside += usize::from(remote.reads > 1);
        assert_eq!(parts.config.value(), whole.config.value());
        assert_eq!(parts.tokenizer.is_some(), whole.tokenizer.is_some());
        let names: Vec<&str> = whole.tensors.names().collect();
        assert_eq!(parts.tensors.names().collect::<Vec<_>>(), names);
        if models::model_of(&whole).is_ok() && !names.is_empty() {
            compare(&gpu, &whole, &parts, &mut remote);
        }
    }
    assert!(compared > 3, "{compared} of {} files", paths.len());
    println!("{aside} files of {compared} were longer than what is read first");
}

#[test]
fn what_is_not_read_is_an_error_and_no_zeros() {
    let path = Path::new("tests/goldens/llama");
    let mut remote = Remote::new(std::fs::read(path.join("model.safetensors")).unwrap());
    let length = remote.length();
    let tensors = block_on(Tensors::open_async(path, length, &mut async |range| remote.read(range))).unwrap();
    let first = tensors.iter().next().unwrap();
    let message = first.to_f32().unwrap_err().to_string();
    assert!(message.contains("load_weights_async") && message.contains(first.name), "{message}");
    let gpu = Gpu::choose(None).unwrap();
    let model = models::model(&wgformer::io::Config::read(path.join("config.json")).unwrap()).unwrap();
    let weights = Weights::new(&gpu);
    let message = models::load_weights(model.as_ref(), &tensors, &weights).unwrap_err().to_string();
    assert!(message.contains("load_weights_async"), "{message}");

    let mut short = async |range: Range<u64>| remote.read(range.start..range.end - 1);
    let loaded = block_on(models::load_weights_async(model.as_ref(), &tensors, &weights, &mut short, &mut |_| ()));
    let message = loaded.unwrap_err().to_string();
    assert!(message.contains("load it again"), "{message}");
    let mut broken = async |_: Range<u64>| Err(Error::input("server", "went away"));
    let loaded = block_on(models::load_weights_async(model.as_ref(), &tensors, &weights, &mut broken, &mut |_| ()));
    assert_eq!(loaded.unwrap_err().to_string(), "server: went away");
}

#[test]
fn damaged_files_are_refused_with_the_words_for_whole_ones() {
    let whole = std::fs::read("tests/goldens/llama/model.safetensors").unwrap();
    let damages: [&dyn Fn(&mut Vec<u8>); 6] = [
        &|bytes| bytes.clear(),
        &|bytes| bytes.truncate(5),
        &|bytes| bytes.truncate(100),
        &|bytes| bytes[7] = 0x7f,
        &|bytes| bytes.truncate(bytes.len() - 1),
        &|bytes| *bytes = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n".to_vec(),
    ];
    for damage in damages {
        let mut bytes = whole.clone();
        damage(&mut bytes);
        let expected = Tensors::from_bytes("m", bytes.clone()).unwrap_err().to_string();
        let mut remote = Remote::new(bytes);
        let length = remote.length();
        let opened = block_on(Tensors::open_async("m", length, &mut async |range| remote.read(range)));
        assert_eq!(opened.unwrap_err().to_string(), expected);
        assert!(remote.longest < 1 << 20, "{} bytes were read of a damaged file", remote.longest);
    }
}

#[test]
fn copies_that_differ_are_refused() {
    let path = Path::new("tests/goldens/gpt2");
    let whole = ModelFolder::open(path).unwrap();
    let table = whole.tensors.iter().find(|tensor| tensor.name.ends_with("wte.weight")).unwrap();
    let changed = |change: f32| {
        let all = whole.tensors.iter().map(|tensor| (tensor.name, tensor.shape.clone(), tensor.to_f32().unwrap()));
        let mut head = table.to_f32().unwrap();
        head[3] += change;
        let all = all.chain([("lm_head.weight", table.shape.clone(), head)]);
        let tensors: Vec<NamedTensor<'_>> =
            all.map(|(name, shape, values)| NamedTensor::f32(name, shape, &values)).collect();
        safetensors::to_bytes(&tensors).unwrap()
    };
    let gpu = Gpu::choose(None).unwrap();
    let model = models::model(&whole.config).unwrap();
    let load = |bytes: Vec<u8>| {
        let mut remote = Remote::new(bytes);
        let length = remote.length();
        let mut read = async |range| remote.read(range);
        let tensors = block_on(Tensors::open_async(path, length, &mut read)).unwrap();
        let weights = Weights::new(&gpu);
        block_on(models::load_weights_async(model.as_ref(), &tensors, &weights, &mut read, &mut |_| ()))
    };
    load(changed(0.0)).unwrap();
    let message = load(changed(1.0)).unwrap_err().to_string();
    assert!(
        message.contains("lm_head.weight differs from") && message.contains("although the config ties"),
        "{message}"
    );
}
