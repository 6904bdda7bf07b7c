//! Hostile bytes for everything that parses a file or a request, on stable Rust: files of this project with random changes, for a short time or,
//! by `FUZZ_SECONDS`, a long one. The targets are those of `cargo fuzz` (`fuzz/targets.rs`).
//!
//! Each target runs in a process of its own, which is watched: a crash, a panic, an input that takes more than ten seconds, and memory above 2 GiB
//! are failures that leave the input in `target/tmp`.
#![cfg(all(feature = "serve", target_os = "linux"))]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[allow(unreachable_pub, reason = "it belongs to cargo fuzz as well")]
#[path = "../fuzz/targets.rs"]
mod targets;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use targets::TARGETS;

/// The environment of a child: its target, and the seconds that it runs.
const TARGET: &str = "FUZZ_TARGET";
const SECONDS: &str = "FUZZ_SECONDS";
/// The most time for an input.
const SLOW: Duration = Duration::from_secs(10);
/// The most memory.
const MEMORY: u64 = 2 << 30;
/// The longest input that grows further.
const LONGEST: usize = 1 << 17;

#[test]
fn hostile_bytes_are_errors() {
    let seconds = std::env::var(SECONDS).unwrap_or_else(|_| "3".into());
    let only = std::env::var("FUZZ_ONLY").unwrap_or_default();
    for (name, _) in TARGETS.iter().filter(|(name, _)| only.is_empty() || *name == only) {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "child", "--nocapture", "--test-threads=1"]).env(TARGET, name).env(SECONDS, &seconds);
        let output = child.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let input = input_of(name);
        assert!(
            output.status.success(),
            "{name} fails on {}: {said}\n{}",
            input.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        let count = said.lines().find(|line| line.contains(" inputs")).unwrap_or_default();
        assert!(!count.is_empty(), "{name} did not run: {said}");
        println!("{count}");
        let _ = fs::remove_file(input);
    }
}

/// The control: a fault is found.
#[test]
fn a_fault_is_found() {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "child", "--nocapture"]).env(TARGET, "none").env(SECONDS, "5");
    assert!(!child.output().unwrap().status.success());
}

/// Where a target's current input lies.
fn input_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"))
}

/// Runs one target, if this is the process for it.
#[test]
fn child() {
    let Ok(name) = std::env::var(TARGET) else { return };
    let time = Duration::from_secs(std::env::var(SECONDS).unwrap().parse().unwrap());
    let broken: targets::Target = ("none", |data: &[u8]| assert!(data.len() < 50, "a fault"));
    let (name, target) = *TARGETS.iter().chain([&broken]).find(|(target, _)| *target == name).expect("no such target");
    let mut seeds = seeds(name);
    seeds.retain(|seed| !seed.is_empty());
    assert!(!seeds.is_empty());
    let seed = std::env::var("FUZZ_SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (begin, path) = (Instant::now(), input_of(name));
    let mut count = 0_u64;
    while begin.elapsed() < time {
        let input = if count < seeds.len() as u64 { seeds[count as usize].clone() } else { changed(&seeds, &mut rng) };
        fs::write(&path, &input).unwrap();
        let start = Instant::now();
        target(&input);
        assert!(start.elapsed() < SLOW, "an input took {:?}", start.elapsed());
        assert!(resident() < MEMORY, "{} bytes of memory", resident());
        count += 1;
    }
    println!("{name}: {count} inputs");
}

/// Bytes that this process has in memory.
fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// Files of a target's kind.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let files = |wanted: &dyn Fn(&Path) -> bool, most: u64| {
        let mut found = Vec::new();
        let mut folders = vec![root.join("cases"), root.join("goldens"), root.join("chat"), root.join("gguf")];
        while let Some(folder) = folders.pop() {
            let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            entries.sort();
            for path in entries {
                if path.is_dir() {
                    folders.push(path);
                } else if wanted(&path) && fs::metadata(&path).unwrap().len() < most {
                    found.push(fs::read(path).unwrap());
                }
            }
        }
        found
    };
    let ends = |ends: &'static str| move |path: &Path| path.to_string_lossy().ends_with(ends);
    match name {
        "safetensors" => files(&ends(".safetensors"), 60_000),
        "gguf" => files(&ends(".gguf"), 60_000),
        "config" => files(&ends("config.json"), 20_000),
        "tokenizer" => files(&|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("tokenizer") && n.to_string_lossy().ends_with(".json")), 60_000),
        "vocabulary" => {
            let kinds = [".model", "spiece.model", "vocab.txt", "vocab.json"];
            let of_kind = |(kind, name): (usize, &'static str)| {
                files(&ends(name), 200_000).into_iter().map(move |file| [vec![kind as u8], file].concat())
            };
            kinds.into_iter().enumerate().flat_map(of_kind).collect()
        }
        "template" => files(&|path| path.to_string_lossy().contains("/chat/"), 60_000)
            .iter()
            .filter_map(|file| {
                let value: serde_json::Value = serde_json::from_slice(file).ok()?;
                let found = ["template", "chat_template"].iter().find_map(|key| value.get(*key)?.as_str().map(str::to_owned));
                found.map(String::into_bytes)
            })
            .chain(["{% for m in messages %}{{ m.role + ': ' + m.content|trim }}\n{% endfor %}{{ strftime_now('%d') }}".into()])
            .collect(),
        "pickle" => files(&ends(".bin"), 200_000),
        "requests" => [
            r#"{"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "stream": true, "stop": ["\n"]}"#,
            r#"{"model": "m", "prompt": [1, 2, 3], "temperature": 0.5, "top_p": 0.9, "n": 2, "seed": 7, "logit_bias": {"5": -100}}"#,
            r#"{"model": "m", "input": ["a", "b"], "encoding_format": "base64"}"#,
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec(),
        "examples" => [
            "0text,label\n\"a, \"\"b\"\"\",x\nc;d,y\n",
            "1text\tlabel\na\tb\n",
            "2[{\"text\": \"a\", \"label\": 1}, {\"text\": \"b\"}]",
            "3{\"data\": [{\"paragraphs\": [{\"context\": \"c\", \"qas\": [{\"id\": 1, \"question\": \"q\", \"answers\": []}]}]}]}",
            "4-DOCSTART- O\n\nJane B-PER\nAusten I-PER\n\n#begin document (a); part 0\na 0 0 Jane NNP * - - - - * (0)\n#end document\n",
            "5a\tb\n\u{feff}c\td\r\n",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec(),
        _ => vec![vec![7; 100]],
    }
}

/// A file with up to eight changes: other bits, numbers at their limits, pieces cut, doubled, moved from another file.
fn changed(seeds: &[Vec<u8>], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = seeds.choose(rng).unwrap().clone();
    for _ in 0..rng.random_range(1..=8) {
        if bytes.is_empty() {
            break;
        }
        // Headers decide most.
        let near = if rng.random_bool(0.5) { bytes.len().min(256) } else { bytes.len() };
        let at = rng.random_range(0..near);
        let end = (at + rng.random_range(1..=64)).min(bytes.len());
        match rng.random_range(0..8) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = rng.random(),
            2 => {
                let limits =
                    [0_u64, 1, 0x7f, 0xff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, u64::MAX / 4, u64::MAX - 7, u64::MAX];
                let word = limits.choose(rng).unwrap().to_le_bytes();
                let width = [1, 2, 4, 8][rng.random_range(0..4)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&word[..width]);
            }
            3 => drop(bytes.drain(at..end)),
            4 if bytes.len() < LONGEST => {
                let piece = bytes[at..end].to_vec();
                let times = if rng.random_bool(0.1) { 200 } else { 1 };
                drop(bytes.splice(at..at, piece.repeat(times)));
            }
            5 if bytes.len() < LONGEST => {
                let other = seeds.choose(rng).unwrap();
                let from = rng.random_range(0..other.len());
                let piece = other[from..(from + 64).min(other.len())].to_vec();
                drop(bytes.splice(at..at, piece));
            }
            6 => bytes.truncate(at),
            _ => {
                let words = [
                    "-1",
                    "1e999",
                    "99999999999999999999",
                    "null",
                    "{}",
                    "[",
                    "\"\"",
                    "0",
                    "4294967296",
                    "18446744073709551615",
                    "true",
                    "\u{0}",
                ];
                let word = words.choose(rng).unwrap().bytes();
                drop(bytes.splice(at..end.min(at + 4), word));
            }
        }
    }
    bytes
}
