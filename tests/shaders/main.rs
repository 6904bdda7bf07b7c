//! Every shader that the conformance suite launches, on any kind of adapter, assembled and checked without a GPU.
#![allow(clippy::expect_used, reason = "a test that cannot go on fails")]

mod gallery;
mod tint;
mod writers;

use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, ImageClass, Module, ScalarKind, StorageAccess, StorageFormat, TypeInner};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use wgformer::check::cases;
use wgformer::kernel::{Access, AdapterClass, Caps, Dispatch, assemble};
use wgformer::software::{Quirks, Textures};

/// Adapters of every kind for which kernels differ.
fn adapters() -> Vec<Caps> {
    let baseline = Caps::baseline();
    let named = |name: &str, class, subgroup| {
        let quirks = match class {
            AdapterClass::Gpu => Quirks::default(),
            AdapterClass::Cpu => Quirks { params_first: true, ..Quirks::of_results() },
        };
        Caps { name: name.into(), class, subgroup, quirks, ..Caps::baseline() }
    };
    let textured = |name: &str, subgroup, textures| Caps {
        quirks: Quirks {
            textures,
            max_texture_bytes: 128 << 20,
            max_textures: 8,
            params_first: true,
            ..Quirks::of_results()
        },
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
                for dispatch in recording.dispatches() {
                    // Most texts come again and again: one copy of each is kept.
                    let text: Arc<str> = assemble(dispatch).text.into();
                    let text = texts.get(&text).cloned().unwrap_or_else(|| {
                        texts.insert(text.clone());
                        text
                    });
                    all.push(Ok(Launched { caps: caps.clone(), case: name.clone(), dispatch: dispatch.clone(), text }));
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

/// A text that is launched somewhere, once.
struct Text {
    text: Arc<str>,
    entry: &'static str,
    /// A case and an adapter that launch it.
    from: String,
    /// Whether the adapter has subgroups, and 64-bit integers.
    subgroups: bool,
    int64: bool,
    /// What naga makes of it.
    module: Result<(Module, ModuleInfo), String>,
}

impl Text {
    fn name(&self) -> String {
        format!("{} of {}", self.entry, self.from)
    }
}

/// Every text that is launched. One that adapters with and without subgroups or 64-bit integers launch comes without.
fn texts() -> &'static [Text] {
    static ALL: OnceLock<Vec<Text>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut found: BTreeMap<&Arc<str>, (&Launched, bool, bool)> = BTreeMap::new();
        for launched in launched().iter().flatten() {
            let (subgroups, int64) = (launched.caps.subgroup.is_some(), launched.caps.int64);
            let known = found.entry(&launched.text).or_insert((launched, subgroups, int64));
            known.1 &= subgroups;
            known.2 &= int64;
        }
        let texts = found.into_iter().map(|(text, (launched, subgroups, int64))| Text {
            text: text.clone(),
            entry: launched.dispatch.kernel.name,
            from: format!("case \"{}\" on {}", launched.case, launched.caps.name),
            subgroups,
            int64,
            module: parse(text, subgroups, int64),
        });
        texts.collect()
    })
}

/// What naga makes of a text, with no capability beyond WebGPU's but subgroups and 64-bit integers where the adapter has them.
fn parse(text: &str, subgroups: bool, int64: bool) -> Result<(Module, ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    // unpack2x16float is part of WebGPU; wgpu marks only the oldest OpenGL drivers as without.
    let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    capabilities.set(Capabilities::SUBGROUP, subgroups);
    capabilities.set(Capabilities::SHADER_INT64, int64);
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    let info = validator.validate(&module).map_err(|e| e.emit_to_string(text))?;
    Ok((module, info))
}

#[test]
fn every_shader_is_valid_and_agrees_with_its_dispatch() {
    let modules: HashMap<&str, &Text> = texts().iter().map(|text| (&*text.text, text)).collect();
    for_every_dispatch(|launched| {
        let (module, _) = modules[&*launched.text].module.as_ref().map_err(Clone::clone)?;
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
    match *class == wanted && storage == (launched.caps.quirks.textures == Textures::Storage) {
        true => Ok(()),
        false => Err(format!("{class:?} where the adapter has {:?}", launched.caps.quirks.textures)),
    }
}

/// The last part of a file's path.
fn stem(name: &str) -> String {
    name.rsplit('/').next().unwrap_or(name).to_owned()
}
