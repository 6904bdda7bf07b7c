//! What the crate depends on, by the rules of `deny.toml`: licences that permit any use, one registry, no client of a network. And where it says
//! `unsafe`.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Licences that permit use in applications of any licence.
const PERMISSIVE: [&str; 12] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "CC0-1.0",
    "0BSD",
    "BSL-1.0",
    "Unlicense",
];

/// Unchanged, its licence asks nothing of an application: it is of files.
const EXCEPTION: (&str, &str) = ("option-ext", "MPL-2.0");
/// Crates that open connections.
const BANNED: [&str; 3] = ["openssl-sys", "reqwest", "ureq"];

/// Whether an expression of licences leaves a permissive choice. Slashes are old for OR.
fn permits(expression: &str) -> bool {
    let mut depth = 0_usize;
    let mut parts: Vec<String> = vec![String::new()];
    // AND outside of parentheses binds all parts together.
    for word in expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ").split_whitespace() {
        match word {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            "AND" if depth == 0 => parts.push(String::new()),
            word => *parts.last_mut().unwrap() += &format!(" {word}"),
        }
    }
    parts
        .iter()
        .all(|part| part.split(" OR ").any(|choice| choice.split(" AND ").all(|one| PERMISSIVE.contains(&one.trim()))))
}

#[test]
fn all_dependencies_are_allowed() {
    assert!(permits("MIT OR GPL-3.0") && permits("(MIT OR Apache-2.0) AND Unicode-3.0") && permits("MIT/Apache-2.0"));
    assert!(!permits("GPL-3.0") && !permits("MIT AND GPL-3.0") && !permits(""));
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--locked", "--offline", "--all-features", "--format-version", "1", "--filter-platform"]);
    let output = cargo.arg("x86_64-unknown-linux-gnu").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 50, "{} packages", packages.len());
    let refused: Vec<String> = packages
        .iter()
        .filter(|package| {
            let text = |key: &str| package[key].as_str().unwrap_or_default();
            let own = text("name") == env!("CARGO_PKG_NAME");
            let from = "registry+https://github.com/rust-lang/crates.io-index";
            let permitted = permits(text("license")) || (text("name"), text("license")) == EXCEPTION;
            !permitted || BANNED.contains(&text("name")) || (text("source") != from && !own)
        })
        .map(|p| format!("{} {}: {} from {}", p["name"], p["version"], p["license"], p["source"]))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

/// Each place in `src` and `bindings` that says `unsafe` is in the guide's list, and each of the list is there.
#[test]
fn the_guide_lists_all_unsafe_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut found, mut folders) = (
        BTreeMap::new(),
        ["src", "bindings/core/src", "bindings/c/src", "bindings/python/src"].map(|folder| root.join(folder)).to_vec(),
    );
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let count = std::fs::read_to_string(&path).unwrap().matches("allow(unsafe_code").count();
            if count > 0 {
                found.insert(path.strip_prefix(root).map(PathBuf::from).unwrap(), count);
            }
        }
    }
    let guide = std::fs::read_to_string(root.join("docs/guide/security.md")).unwrap();
    let mut listed = BTreeMap::new();
    for line in guide.lines().filter(|line| line.starts_with("| `src/") || line.starts_with("| `bindings/")) {
        let path = line.split('`').nth(1).unwrap();
        *listed.entry(PathBuf::from(path)).or_insert(0) += 1;
    }
    assert_eq!(found, listed);
}

/// Who depends on the crate does not fetch its tests, models and guides.
#[test]
fn the_package_holds_what_users_build() {
    let mut cargo = Command::new(env!("CARGO"));
    let output = cargo.args(["package", "--list", "--locked", "--offline", "--allow-dirty"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list = String::from_utf8(output.stdout).unwrap();
    let folders = ["src/", "shaders/", "examples/"];
    let is_kept = |path: &&str| folders.iter().any(|folder| path.starts_with(folder)) || !path.contains('/');
    let others: Vec<&str> = list.lines().filter(|path| !is_kept(path)).collect();
    assert!(others.is_empty(), "not for users: {others:?}");
    assert!(list.lines().any(|path| path == "src/lib.rs"), "{list}");
    // 1.1 MiB as a package.
    let bytes: u64 = list.lines().filter_map(|path| std::fs::metadata(path).ok()).map(|file| file.len()).sum();
    assert!(bytes < 5 << 20, "{bytes} bytes");
}
