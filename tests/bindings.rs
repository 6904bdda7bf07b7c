//! The header of C and the functions and structs behind it agree: names, order and types, and the numbers of errors. `scripts/bindings.sh` builds and runs
//! them; this reads their texts.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const SOURCES: [&str; 5] = ["gpu", "model", "options", "text", "train"];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bindings").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

/// The header without comments and lines of the preprocessor, its white space single.
fn header() -> String {
    let mut text = read("c/include/wgformer.h");
    while let Some(begin) = text.find("/*") {
        let end = begin + text[begin..].find("*/").unwrap() + 2;
        text.replace_range(begin..end, " ");
    }
    let mut macro_goes_on = false;
    let lines = text.lines().filter(|line| {
        let skipped = macro_goes_on || line.starts_with('#');
        macro_goes_on = skipped && line.ends_with('\\');
        !skipped
    });
    lines.collect::<Vec<_>>().join(" ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A type of Rust as the header writes it, without spaces.
fn as_c(rust: &str) -> String {
    let rust = rust.trim();
    if let Some(inner) = rust.strip_prefix("*const ") {
        let inner = as_c(inner);
        return if inner.ends_with('*') { format!("{inner}const*") } else { format!("const{inner}*") };
    }
    if let Some(inner) = rust.strip_prefix("*mut ") {
        return format!("{}*", as_c(inner));
    }
    let known = [
        ("c_char", "char"),
        ("c_void", "void"),
        ("usize", "size_t"),
        ("u64", "uint64_t"),
        ("u32", "uint32_t"),
        ("i64", "int64_t"),
        ("i32", "int32_t"),
        ("f32", "float"),
        ("f64", "double"),
    ];
    if let Some((_, c)) = known.iter().find(|(name, _)| *name == rust) {
        return (*c).to_owned();
    }
    let mut name = String::new();
    for c in rust.chars() {
        if c.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(c.to_lowercase());
    }
    name
}

/// Type and name of a parameter or field of C, the type without spaces.
fn of_c(declaration: &str) -> (String, String) {
    let declaration = declaration.trim();
    let end = declaration.rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |at| at + 1);
    (declaration[..end].replace(' ', ""), declaration[end..].to_owned())
}

fn of_rust(declaration: &str) -> (String, String) {
    let (name, ty) = declaration.split_once(':').unwrap_or_else(|| panic!("{declaration:?} has no type"));
    let name = name.trim().trim_start_matches("pub(crate) ").to_owned();
    (as_c(ty), name)
}

type Declared = BTreeMap<String, (String, Vec<(String, String)>)>;

fn list(text: &str, separator: char, of: fn(&str) -> (String, String)) -> Vec<(String, String)> {
    let parts = text.split(separator).map(str::trim).filter(|part| !part.is_empty() && *part != "void");
    parts.map(of).collect()
}

/// Functions of the header by name: what they return, and their parameters.
fn c_functions(header: &str) -> Declared {
    let mut found = Declared::new();
    for statement in header.split(';').map(str::trim).filter(|s| !s.contains("typedef") && s.contains('(')) {
        // Braces of structs and of `extern "C"` in front.
        let statement = statement.rsplit(['{', '}']).next().unwrap().trim();
        let (front, parameters) = statement.split_once('(').unwrap();
        let (returns, name) = of_c(front);
        let returns = returns.replace("wgf_status", "int32_t");
        found.insert(name, (returns, list(parameters.trim_end_matches(')'), ',', of_c)));
    }
    found
}

fn rust_functions(source: &str) -> Declared {
    let mut found = Declared::new();
    for part in source.split("#[unsafe(no_mangle)]").skip(1) {
        let part = part.split_once("extern \"C\" fn ").unwrap().1;
        let (name, rest) = part.split_once('(').unwrap();
        let (parameters, rest) = rest.split_once(')').unwrap();
        let returns = rest.split('{').next().unwrap().trim().trim_start_matches("->").trim();
        let returns = if returns.is_empty() { "void".to_owned() } else { as_c(returns) };
        found.insert(name.to_owned(), (returns, list(parameters, ',', of_rust)));
    }
    found
}

fn c_structs(header: &str) -> Declared {
    let mut found = Declared::new();
    for part in header.split("typedef struct ").skip(1) {
        let Some((name, rest)) = part.split_once('{').filter(|(name, _)| !name.contains(';')) else { continue };
        let fields = rest.split_once('}').unwrap().0;
        found.insert(name.trim().to_owned(), (String::new(), list(fields, ';', of_c)));
    }
    found
}

fn rust_structs(source: &str) -> Declared {
    let mut found = Declared::new();
    for part in source.split("#[repr(C)]\npub struct ").skip(1) {
        let (name, rest) = part.split_once('{').unwrap();
        let fields = rest.split_once('}').unwrap().0;
        found.insert(as_c(name), (String::new(), list(fields, ',', of_rust)));
    }
    found
}

#[test]
fn the_header_declares_what_there_is() {
    let header = header();
    let source: String = SOURCES.map(|name| read(&format!("c/src/{name}.rs"))).concat();
    let (declared, exported) = (c_functions(&header), rust_functions(&source));
    assert!(exported.len() > 20, "{:?}", exported.keys());
    assert_eq!(declared, exported);
    let (declared, defined) = (c_structs(&header), rust_structs(&source));
    assert!(defined.len() > 5, "{:?}", defined.keys());
    assert_eq!(declared, defined);
    // No other file exports a name.
    let all = fs::read_dir(path("c/src")).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    assert_eq!(all.map(|text| text.matches("no_mangle").count()).sum::<usize>(), exported.len());
}

/// `NAME = 1` or `const NAME: i32 = 1;` of a text, by the name in upper case without underscores.
fn numbers(text: &str, prefix: &str, separator: &str) -> BTreeMap<String, i32> {
    let one = |line: &str| {
        let (name, number) = line.trim().strip_prefix(prefix)?.split_once(separator)?;
        let number = number.trim().trim_end_matches([',', ';']).parse().ok()?;
        Some((name.trim().replace('_', "").to_uppercase(), number))
    };
    text.lines().filter_map(one).collect()
}

#[test]
fn the_numbers_of_errors_are_those_of_the_header() {
    let mut wanted = numbers(&read("core/src/kind.rs"), "", " = ");
    wanted.extend(numbers(&read("c/src/failure.rs"), "const ", ": i32 = "));
    assert_eq!(wanted.remove("OK"), Some(0));
    let declared = numbers(&read("c/include/wgformer.h"), "#define WGF_ERROR_", " ");
    assert!(declared.len() > 10, "{declared:?}");
    assert_eq!(declared, wanted);
}
