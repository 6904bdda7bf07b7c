//! Every shader that the conformance suite launches, on any kind of adapter, assembled and checked without a GPU.
#![allow(clippy::expect_used, reason = "a test that cannot go on fails")]

use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, ImageClass, Module, ScalarKind, StorageAccess, StorageFormat, TypeInner};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use wgformer::check::cases;
use wgformer::kernel::{Access, AdapterClass, Caps, Dispatch, Textures, assemble};

/// Adapters of every kind for which kernels differ.
fn adapters() -> Vec<Caps> {
    let baseline = Caps::baseline();
    let named = |name: &str, class, subgroup| Caps { name: name.into(), class, subgroup, ..Caps::baseline() };
    let textured = |name: &str, subgroup, textures| Caps {
        textures,
        max_texture_bytes: 128 << 20,
        max_textures: 8,
        texture_work: 0,
        ..named(name, AdapterClass::Cpu, subgroup)
    };
    let roomy =
        Caps { max_invocations: 1024, workgroup_memory: 32768, storage_bindings: 16, f16: true, ..baseline.clone() };
    vec![
        named("GPU with subgroups of 32", AdapterClass::Gpu, Some(32)),
        named("CPU without subgroups", AdapterClass::Cpu, None),
        named("CPU with subgroups of 4", AdapterClass::Cpu, Some(4)),
        named("CPU with subgroups of 8", AdapterClass::Cpu, Some(8)),
        Caps { int64: true, ..named("CPU with 64-bit integers", AdapterClass::Cpu, Some(8)) },
        textured("CPU with storage textures", Some(8), Textures::Storage),
        textured("CPU with sampled textures", Some(4), Textures::Sampled),
        Caps { name: "GPU with higher limits".into(), subgroup: Some(32), ..roomy },
        baseline,
    ]
}

/// A dispatch, the case and the adapter that it was recorded for, and its shader text.
struct Launched {
    caps: Arc<Caps>,
    case: Arc<str>,
    dispatch: Dispatch,
    text: Arc<str>,
}

/// Every dispatch of every case on every adapter; or why a case could not be recorded.
fn launched() -> &'static [Result<Launched, String>] {
    static ALL: OnceLock<Vec<Result<Launched, String>>> = OnceLock::new();
    ALL.get_or_init(|| {
        let adapters: Vec<Arc<Caps>> = adapters().into_iter().map(Arc::new).collect();
        let mut texts: HashSet<Arc<str>> = HashSet::new();
        let mut all = Vec::new();
        for case in cases::all() {
            let name: Arc<str> = case.name.as_str().into();
            for caps in &adapters {
                let recording = match case.recording(caps) {
                    Ok(recording) => recording,
                    Err(error) => {
                        all.push(Err(format!("case \"{name}\" on {}: {error}", caps.name)));
                        continue;
                    }
                };
                for dispatch in recording.dispatches {
                    // Most texts come again and again: one copy of each is kept.
                    let text: Arc<str> = assemble(&dispatch).text.into();
                    let text = texts.get(&text).cloned().unwrap_or_else(|| {
                        texts.insert(text.clone());
                        text
                    });
                    all.push(Ok(Launched { caps: caps.clone(), case: name.clone(), dispatch, text }));
                }
            }
        }
        all
    })
}

/// Calls `check` with every dispatch; all complaints make one failure.
fn for_every_dispatch(mut check: impl FnMut(&Launched) -> Result<(), String>) {
    let mut complaints = BTreeSet::new();
    for launched in launched() {
        let complaint = match launched {
            Err(complaint) => Some(complaint.clone()),
            Ok(launched) => check(launched).err().map(|complaint| {
                let kernel = launched.dispatch.kernel.name;
                format!("{kernel} of case \"{}\" on {}: {complaint}", launched.case, launched.caps.name)
            }),
        };
        complaints.extend(complaint);
    }
    let shown: Vec<String> = complaints.iter().take(20).cloned().collect();
    assert!(complaints.is_empty(), "{} complaints, such as\n{}", complaints.len(), shown.join("\n"));
}

/// What naga makes of a text, with no capability beyond WebGPU's but subgroups and 64-bit integers where the adapter has them.
fn parse(launched: &Launched) -> Result<Module, String> {
    let text: &str = &launched.text;
    let module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    // unpack2x16float is part of WebGPU; wgpu marks only the oldest OpenGL drivers as without.
    let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    capabilities.set(Capabilities::SUBGROUP, launched.caps.subgroup.is_some());
    capabilities.set(Capabilities::SHADER_INT64, launched.caps.int64);
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    validator.validate(&module).map_err(|e| e.emit_to_string(text))?;
    Ok(module)
}

#[test]
fn every_shader_is_valid_and_agrees_with_its_dispatch() {
    let mut modules: HashMap<(Arc<str>, bool, bool), Result<Module, String>> = HashMap::new();
    for_every_dispatch(|launched| {
        let key = (launched.text.clone(), launched.caps.subgroup.is_some(), launched.caps.int64);
        let module = modules.entry(key).or_insert_with(|| parse(launched)).as_ref()?;
        entry_point(launched, module)?;
        params(launched, module)?;
        bindings(launched, module)
    });
    println!("{} shader texts", modules.len());
    assert!(modules.len() > 50, "the suite launched hardly anything");
}

/// The entry point is the file's, and its workgroup fits the adapter.
fn entry_point(launched: &Launched, module: &Module) -> Result<(), String> {
    let [entry] = module.entry_points.as_slice() else {
        return Err(format!("{} entry points", module.entry_points.len()));
    };
    if entry.name != launched.dispatch.kernel.name {
        return Err(format!("the entry point is called {}", entry.name));
    }
    let invocations: u32 = entry.workgroup_size.iter().product();
    if invocations > launched.caps.max_invocations {
        return Err(format!("{invocations} invocations, the adapter allows {}", launched.caps.max_invocations));
    }
    let shared = module.global_variables.iter().filter(|(_, v)| v.space == AddressSpace::WorkGroup);
    let bytes: u32 = shared.map(|(_, v)| module.types[v.ty].inner.size(module.to_ctx())).sum();
    if bytes > launched.caps.workgroup_memory {
        return Err(format!(
            "{bytes} bytes of workgroup memory, the adapter allows {}",
            launched.caps.workgroup_memory
        ));
    }
    Ok(())
}

/// `Params` begins with base and groups, has 4-byte members and as many as the dispatch has words.
fn params(launched: &Launched, module: &Module) -> Result<(), String> {
    let uniform = module.global_variables.iter().find(|(_, v)| v.space == AddressSpace::Uniform);
    let (_, variable) = uniform.ok_or("no uniform")?;
    if variable.binding.as_ref().map(|b| (b.group, b.binding)) != Some((0, 0)) {
        return Err("the uniform is not at binding 0".into());
    }
    let TypeInner::Struct { members, .. } = &module.types[variable.ty].inner else {
        return Err("the uniform is no struct".into());
    };
    let names: Vec<&str> = members.iter().filter_map(|m| m.name.as_deref()).collect();
    if !names.starts_with(&["base", "groups"]) || names.len() != 2 + launched.dispatch.params.len() {
        return Err(format!("Params is {names:?}, the dispatch has {} words", launched.dispatch.params.len()));
    }
    let word = |inner: &TypeInner| matches!(inner, TypeInner::Scalar(s) if s.width == 4 && s.kind != ScalarKind::Bool);
    if members.iter().all(|m| word(&module.types[m.ty].inner)) {
        Ok(())
    } else {
        Err("Params has a member that is not a word".into())
    }
}

/// The bindings are those of the dispatch: as many, read or written as it says, of a type that the tensor fills.
fn bindings(launched: &Launched, module: &Module) -> Result<(), String> {
    let mut declared = BTreeMap::new();
    for (_, variable) in module.global_variables.iter() {
        if let (AddressSpace::Storage { access }, Some(binding)) = (variable.space, &variable.binding) {
            let name = variable.name.clone().unwrap_or_default();
            declared.insert(binding.binding, (name, Some(access), variable.ty));
        }
        if let (AddressSpace::Handle, Some(binding)) = (variable.space, &variable.binding) {
            declared.insert(binding.binding, (variable.name.clone().unwrap_or_default(), None, variable.ty));
        }
    }
    let bound = &launched.dispatch.bindings;
    let buffers = declared.values().filter(|(_, access, _)| access.is_some()).count();
    if buffers > launched.caps.storage_bindings as usize {
        return Err(format!("{buffers} storage bindings, the adapter allows {}", launched.caps.storage_bindings));
    }
    if !declared.keys().copied().eq(1..=bound.len() as u32) {
        return Err(format!("declares the bindings {:?}, the dispatch has {}", declared.keys(), bound.len()));
    }
    for (binding, (name, access, ty)) in bound.iter().zip(declared.values()) {
        if access.is_none() != matches!(binding.access, Access::Texture { .. }) {
            return Err(format!("{name} is declared {access:?} and bound as {:?}", binding.access));
        }
        let Some(access) = access else {
            texture(launched, &module.types[*ty].inner, binding.access).map_err(|what| format!("{name}: {what}"))?;
            continue;
        };
        let writes = access.contains(StorageAccess::STORE);
        if writes != (binding.access != Access::Read) {
            return Err(format!("{name} is declared {access:?} and bound as {:?}", binding.access));
        }
        let stride = match module.types[*ty].inner {
            TypeInner::Array { stride, .. } => u64::from(stride),
            ref inner => u64::from(inner.size(module.to_ctx())),
        };
        if binding.view.bytes() % stride != 0 {
            let what = format!("{} of {} bytes in elements of {stride}", binding.view.shape, binding.view.bytes());
            return Err(format!("{name} would not reach the end of its tensor: {what}"));
        }
    }
    Ok(())
}

/// A texture is of the adapter's kind, and of words.
fn texture(launched: &Launched, ty: &TypeInner, access: Access) -> Result<(), String> {
    let (TypeInner::Image { class, .. }, Access::Texture { storage, .. }) = (ty, access) else {
        return Err("is no texture".into());
    };
    let wanted = match storage {
        true => ImageClass::Storage { format: StorageFormat::Rgba32Uint, access: StorageAccess::LOAD },
        false => ImageClass::Sampled { kind: ScalarKind::Uint, multi: false },
    };
    match *class == wanted && storage == (launched.caps.textures == Textures::Storage) {
        true => Ok(()),
        false => Err(format!("{class:?} where the adapter has {:?}", launched.caps.textures)),
    }
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
        let stem = name.rsplit('/').next().unwrap_or(&name);
        assert!(text.starts_with(&format!("// {stem}: ")), "{name}.wgsl does not begin with a comment on {stem}");
        assert!(text.lines().count() <= 200, "{name}.wgsl has {} lines, more than 200", text.lines().count());
        assert!(!text.contains("enable subgroups"), "{name}.wgsl: naga rejects that line");
        if name.contains('/') {
            assert!(!text.contains("@compute"), "{name}.wgsl is a shared text and must have no entry point");
        } else {
            assert!(text.contains("// grid "), "the header of {name}.wgsl does not say what the grid is");
        }
    }
}

#[test]
fn every_file_is_launched_by_a_case() {
    let mut unused: BTreeSet<String> = files().keys().map(|name| stem(name)).collect();
    for_every_dispatch(|launched| {
        for part in launched.dispatch.snippets.iter().chain([&launched.dispatch.kernel]) {
            unused.remove(&stem(part.name));
        }
        Ok(())
    });
    assert!(unused.is_empty(), "no case of the suite launches {unused:?}");
}

fn stem(name: &str) -> String {
    name.rsplit('/').next().unwrap_or(name).to_owned()
}

/// What is known of a kernel from the dispatches of the suite.
#[derive(Default)]
struct Use {
    ops: BTreeSet<String>,
    constants: BTreeMap<&'static str, BTreeSet<String>>,
    snippets: BTreeSet<String>,
}

/// `shaders/README.md` is made from the headers of the files and from what the suite launches. To renew it:
/// `UPDATE_GALLERY=1 cargo test --test shaders gallery`.
#[test]
fn the_gallery_is_up_to_date() {
    let mut uses: BTreeMap<String, Use> = BTreeMap::new();
    for_every_dispatch(|launched| {
        let used = uses.entry(launched.dispatch.kernel.name.into()).or_default();
        let label = &launched.dispatch.label;
        used.ops.insert(label.rsplit('.').next().unwrap_or(label).to_owned());
        for (name, value) in &launched.dispatch.constants {
            used.constants.entry(name).or_default().insert(value.to_string());
        }
        used.snippets.extend(launched.dispatch.snippets.iter().map(|s| stem(s.name)));
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

One WGSL file a kernel, named like its entry point; `common/` holds the texts that several share. Plain WGSL without a
preprocessor: the host puts constants in front, then shared texts, then the file (`src/kernel/assemble.rs`). A variant of a
kernel is another constant, another shared text with the same functions, or another file. The header of each file gives the
formula, the bindings with their shapes, the grid, what it needs, and how it rounds.

This page is made by `UPDATE_GALLERY=1 cargo test --test shaders gallery` from those headers and from what the conformance
suite launches on adapters of every kind; the test fails when it is out of date.

";

fn gallery(files: &BTreeMap<String, String>, uses: &BTreeMap<String, Use>) -> String {
    let mut page = INTRODUCTION.to_owned();
    page += "| kernel | what it computes | ops | grid | constants | built from |\n|---|---|---|---|---|---|\n";
    let none = Use::default();
    let list = |names: &BTreeSet<String>| names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    for (name, text) in files.iter().filter(|(name, _)| !name.contains('/')) {
        let used = uses.get(name).unwrap_or(&none);
        let constants: Vec<String> = used.constants.iter().map(|(name, values)| constant(name, values)).collect();
        let (what, grid) = (cell(&header(text, &format!("{name}:"))), cell(&header(text, "grid ")));
        let (ops, parts) = (list(&used.ops), list(&used.snippets));
        let _ =
            writeln!(page, "| [{name}]({name}.wgsl) | {what} | {ops} | {grid} | {} | {parts} |", constants.join("; "));
    }
    page += "\n## Shared texts\n\n| text | what it gives |\n|---|---|\n";
    for (name, text) in files.iter().filter(|(name, _)| name.contains('/')) {
        let what = cell(&header(text, &format!("{}:", stem(name))));
        let _ = writeln!(page, "| [{}]({name}.wgsl) | {what} |", stem(name));
    }
    page
}

/// What the header says after `key`, up to a line that is not indented further.
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

/// Tint, the compiler of Chromium, refuses some things that naga accepts. Where its command is installed, it is asked too.
#[test]
fn tint_accepts_every_shader() {
    if std::process::Command::new("tint").arg("--version").output().is_err() {
        println!("skipped: the command `tint` is not installed, so nothing was checked");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut seen = HashSet::new();
    for_every_dispatch(|launched| {
        // As it is in a browser: parameters are not copied first there.
        let text = assemble(&Dispatch { params_first: false, ..launched.dispatch.clone() }).text;
        if launched.caps.int64 {
            // No browser has 64-bit integers.
            return Ok(());
        }
        if !seen.insert(text.clone()) {
            return Ok(());
        }
        // wgpu passes no such line on; a browser wants it.
        let enable = if text.contains("subgroup") { "enable subgroups;\n" } else { "" };
        let path = folder.path().join(format!("{}.wgsl", seen.len()));
        std::fs::write(&path, format!("{enable}{text}")).map_err(|e| e.to_string())?;
        let tint = std::process::Command::new("tint").args(["--format", "wgsl"]).arg(&path).output();
        let tint = tint.map_err(|e| e.to_string())?;
        if tint.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&tint.stderr).into_owned()) }
    });
}
