//! Every shader text that the conformance suite, models and the benchmark launch, on any kind of adapter, checked without a GPU: by naga, in
//! the languages of all drivers, and by the compilers of Direct3D 12 and of browsers.
#![allow(clippy::expect_used, reason = "a test that cannot go on fails")]

mod barriers;
mod compilers;
mod gallery;
mod launched;
mod writers;
mod zeros;

use launched::{Launched, Text, launched, texts};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, ImageClass, Module, ScalarKind, StorageAccess, StorageFormat, TypeInner};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use wgformer::kernel::Access;
use wgformer::software::Textures;

/// Calls `check` with every dispatch; all complaints make one failure.
fn for_every_dispatch(mut check: impl FnMut(&Launched) -> Result<(), String>) {
    let mut complaints = BTreeSet::new();
    for launched in launched() {
        let complaint = match launched {
            Err(complaint) => Some(complaint.clone()),
            Ok(launched) => check(launched).err().map(|complaint| {
                let kernel = launched.dispatch.kernel.name;
                format!("{kernel} of {} on {}: {complaint}", launched.from, launched.caps.name)
            }),
        };
        complaints.extend(complaint);
    }
    let shown: Vec<String> = complaints.iter().take(20).cloned().collect();
    assert!(complaints.is_empty(), "{} complaints, such as\n{}", complaints.len(), shown.join("\n"));
}

/// naga's module of a text, with WebGPU's capabilities, and with subgroups, 64-bit integers and matrix units if the adapter has them.
fn parse(text: &str, [subgroups, int64, matrices]: [bool; 3]) -> Result<(Module, ModuleInfo), String> {
    // unpack2x16float is part of WebGPU; wgpu marks only the oldest OpenGL drivers as without.
    let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    capabilities.set(Capabilities::SUBGROUP, subgroups);
    capabilities.set(Capabilities::SHADER_INT64, int64);
    capabilities.set(Capabilities::SHADER_FLOAT16 | Capabilities::COOPERATIVE_MATRIX, matrices);
    let options = naga::front::wgsl::Options { parse_doc_comments: false, capabilities: Capabilities::all() };
    let parsed = naga::front::wgsl::Frontend::new_with_options(options).parse(text);
    let module = parsed.map_err(|e| e.emit_to_string(text))?;
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
