//! The shader files: headers, a case that launches each, and the gallery page.

use super::{for_every_dispatch, stem};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Whether a file holds a text that kernels share, and no kernel.
fn is_shared(file: &str) -> bool {
    file.starts_with("common/")
}

/// The shader files: path below `shaders/` without the ending, and text.
fn files() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let mut found = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).expect("the folder of shaders can be read");
        let paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        for path in paths {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "wgsl") {
                let name = path.strip_prefix(&root).expect("below the root").with_extension("");
                let name = name.to_str().expect("a plain name").replace('\\', "/");
                found.insert(name, std::fs::read_to_string(&path).expect("a text"));
            }
        }
    }
    found
}

#[test]
fn every_file_says_what_it_does_and_is_short() {
    for (name, text) in files() {
        let stem = stem(&name);
        assert!(text.starts_with(&format!("// {stem}: ")), "{name}.wgsl does not begin with a comment on {stem}");
        assert!(text.lines().count() <= 200, "{name}.wgsl has {} lines, more than 200", text.lines().count());
        assert!(!text.contains("enable subgroups"), "{name}.wgsl: naga rejects that line");
        if is_shared(&name) {
            assert!(!text.contains("@compute"), "{name}.wgsl is a shared text and must have no entry point");
        } else {
            assert!(text.contains("// grid "), "the header of {name}.wgsl does not say what the grid is");
        }
    }
}

#[test]
fn kernels_have_names_of_their_own() {
    let mut names = BTreeMap::new();
    for file in files().into_keys().filter(|file| !is_shared(file)) {
        assert!(file.contains('/'), "{file}.wgsl lies in no folder");
        if let Some(other) = names.insert(stem(&file), file.clone()) {
            panic!("{file}.wgsl and {other}.wgsl have one name");
        }
    }
}

#[test]
fn every_file_is_launched_by_a_case() {
    // By text, since a kernel and a shared text may have one name.
    let mut unused: BTreeMap<String, String> = files().into_iter().map(|(name, text)| (text, name)).collect();
    for_every_dispatch(|launched| {
        for part in launched.dispatch.snippets.iter().chain([&launched.dispatch.kernel]).filter(|_| launched.by_suite) {
            unused.remove(part.source);
        }
        Ok(())
    });
    let unused: Vec<String> = unused.into_values().collect();
    assert!(unused.is_empty(), "no case of the suite launches {unused:?}");
}

/// The use of a kernel in the dispatches of the suite.
#[derive(Default)]
struct Use {
    ops: BTreeSet<String>,
    constants: BTreeMap<&'static str, BTreeSet<String>>,
    snippets: BTreeSet<String>,
}

/// `shaders/README.md` is made of the headers of the files and of the suite's launches. To make it anew:
/// `UPDATE_GALLERY=1 cargo test --test shaders gallery`.
#[test]
fn the_gallery_is_up_to_date() {
    let mut uses: BTreeMap<String, Use> = BTreeMap::new();
    for_every_dispatch(|launched| {
        if !launched.by_suite {
            return Ok(());
        }
        let used = uses.entry(launched.dispatch.kernel.name.into()).or_default();
        let label = &launched.dispatch.label;
        used.ops.insert(label.rsplit('.').next().unwrap_or(label).to_owned());
        for (name, value) in &launched.dispatch.constants {
            used.constants.entry(name).or_default().insert(value.to_string());
        }
        used.snippets.extend(launched.dispatch.snippets.iter().map(|s| s.name.to_owned()));
        Ok(())
    });
    let wanted = gallery(&files(), &uses);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders/README.md");
    if std::env::var_os("UPDATE_GALLERY").is_some() {
        std::fs::write(&path, &wanted).expect("shaders/README.md can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "shaders/README.md is out of date: UPDATE_GALLERY=1 cargo test --test shaders gallery");
}

const INTRODUCTION: &str = "# The kernels

One WGSL file a kernel, named like its entry point, in a folder of the name that its op's has in `src/ops`; `common/` holds the
texts that several share. Plain WGSL without a preprocessor: the host puts constants in front, then shared texts, then the file
(`src/kernel/assemble.rs`). A variant of a kernel is another constant, another shared text with the same functions, or another
file. The header of each file gives the formula, the bindings with their shapes, the grid, what it needs, and how it rounds.

This page is made by `UPDATE_GALLERY=1 cargo test --test shaders gallery` from those headers and from what the conformance
suite launches on adapters of every kind; the test fails when it is out of date.

";

fn gallery(files: &BTreeMap<String, String>, uses: &BTreeMap<String, Use>) -> String {
    let mut page = INTRODUCTION.to_owned();
    let none = Use::default();
    let list = |names: &BTreeSet<String>| names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    let mut folder = "";
    for (file, text) in files.iter().filter(|(file, _)| !is_shared(file)) {
        let name = stem(file);
        let its_folder = file.split('/').next().unwrap_or_default();
        if its_folder != folder {
            folder = its_folder;
            let _ = writeln!(page, "{}## {folder}\n", if page.ends_with("\n\n") { "" } else { "\n" });
            page += "| kernel | what it computes | ops | grid | constants | built from |\n|---|---|---|---|---|---|\n";
        }
        let used = uses.get(&name).unwrap_or(&none);
        let constants: Vec<String> = used.constants.iter().map(|(name, values)| constant(name, values)).collect();
        let (what, grid) = (cell(&header(text, &format!("{name}:"))), cell(&header(text, "grid ")));
        let (ops, parts) = (list(&used.ops), list(&used.snippets));
        let _ =
            writeln!(page, "| [{name}]({file}.wgsl) | {what} | {ops} | {grid} | {} | {parts} |", constants.join("; "));
    }
    page += "\n## Shared texts\n\n| text | what it gives |\n|---|---|\n";
    for (name, text) in files.iter().filter(|(name, _)| is_shared(name)) {
        let what = cell(&header(text, &format!("{}:", stem(name))));
        let _ = writeln!(page, "| [{}]({name}.wgsl) | {what} |", stem(name));
    }
    page
}

/// The text of the header after `key`, up to a line that is not indented further.
fn header(text: &str, key: &str) -> String {
    let mut lines = text.lines().map_while(|line| line.strip_prefix("//"));
    let Some(first) = lines.find_map(|line| line.trim_start().strip_prefix(key)) else { return String::new() };
    let more = lines.take_while(|line| line.starts_with("      ") && !key.ends_with(':'));
    std::iter::once(first).chain(more).map(str::trim).collect::<Vec<_>>().join(" ")
}

/// A text as a cell of a table.
fn cell(text: &str) -> String {
    text.trim_end_matches('.').replace('|', "\\|")
}

/// A constant and its values, of which only few are spelled out.
fn constant(name: &str, values: &BTreeSet<String>) -> String {
    let mut values: Vec<&str> = values.iter().map(|v| v.trim_end_matches('u')).collect();
    values.sort_by_key(|v| (v.len(), v.to_string()));
    if values.len() > 7 {
        return format!("`{name}`");
    }
    format!("`{name}` {}", values.join(" "))
}
