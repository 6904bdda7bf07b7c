//! naga's output of every text for the drivers: HLSL for Direct3D 12, MSL for Metal, GLSL for OpenGL and SPIR-V for Vulkan, as wgpu asks
//! for it, with and without checks.

use super::launched::{Text, in_parallel, nothing_but, texts};
use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::{AddressSpace, Module, ResourceBinding, ShaderStage, StorageAccess, TypeInner, valid::ModuleInfo};
use std::collections::HashSet;

/// The shader of a module in one of the languages, or why there is none.
type Written<T> = Result<T, String>;

/// The bindings of a module, each with whether a kernel writes to it.
fn bindings(module: &Module) -> impl Iterator<Item = (ResourceBinding, &TypeInner, bool)> {
    module.global_variables.iter().filter_map(|(_, variable)| {
        let mutable =
            matches!(variable.space, AddressSpace::Storage { access } if access.contains(StorageAccess::STORE));
        Some((variable.binding?, &module.types[variable.ty].inner, mutable))
    })
}

/// For Direct3D 12. Gives the name of the entry point too, which may have to be another.
pub(super) fn hlsl(module: &Module, info: &ModuleInfo, entry: &str, checks: bool) -> Written<(String, String)> {
    let target = |register| hlsl::BindTarget { register, ..Default::default() };
    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_6,
        binding_map: bindings(module).map(|(at, ..)| (at, target(at.binding))).collect(),
        fake_missing_bindings: false,
        // The number of workgroups comes in a buffer of its own.
        special_constants_binding: Some(target(32)),
        zero_initialize_workgroup_memory: false,
        restrict_indexing: checks,
        force_loop_bounding: checks,
        ..Default::default()
    };
    let pipeline = hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, entry.into())) };
    let mut text = String::new();
    let written = hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None);
    let names = written.map_err(|e| e.to_string())?.entry_point_names;
    let name = names.into_iter().next().ok_or("no entry point")?.map_err(|e| e.to_string())?;
    Ok((text, name))
}

fn policies(checks: bool) -> BoundsCheckPolicies {
    let policy = if checks { BoundsCheckPolicy::Restrict } else { BoundsCheckPolicy::Unchecked };
    BoundsCheckPolicies { index: policy, buffer: policy, image_load: policy, ..Default::default() }
}

fn msl(module: &Module, info: &ModuleInfo, entry: &str, checks: bool) -> Written<String> {
    let target = |at: ResourceBinding, ty: &TypeInner, mutable| {
        let slot = Some(at.binding as u8);
        let (buffer, texture) = if matches!(ty, TypeInner::Image { .. }) { (None, slot) } else { (slot, None) };
        msl::BindTarget { buffer, texture, mutable, ..Default::default() }
    };
    let resources = bindings(module).map(|(at, ty, mutable)| (at, target(at, ty, mutable))).collect();
    let resources = msl::EntryPointResources { resources, sizes_buffer: Some(30), ..Default::default() };
    let options = msl::Options {
        // macOS 11 and iOS 14; subgroup functions are older.
        lang_version: (2, 3),
        per_entry_point_map: [(entry.to_owned(), resources)].into(),
        fake_missing_bindings: false,
        bounds_check_policies: policies(checks),
        zero_initialize_workgroup_memory: false,
        force_loop_bounding: checks,
        emit_int_div_checks: checks,
        ..Default::default()
    };
    let pipeline =
        msl::PipelineOptions { entry_point: Some((ShaderStage::Compute, entry.into())), ..Default::default() };
    msl::write_string(module, info, &options, &pipeline).map(|(text, _)| text).map_err(|e| e.to_string())
}

fn glsl(module: &Module, info: &ModuleInfo, entry: &str) -> Written<String> {
    let options = glsl::Options {
        version: glsl::Version::new_gles(310),
        binding_map: bindings(module).map(|(at, ..)| (at, at.binding as u8)).collect(),
        zero_initialize_workgroup_memory: false,
        ..Default::default()
    };
    let pipeline =
        glsl::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry.into(), multiview: None };
    let mut text = String::new();
    let writer = glsl::Writer::new(&mut text, module, info, &options, &pipeline, policies(false));
    writer.and_then(|mut writer| writer.write()).map_err(|e| e.to_string())?;
    Ok(text)
}

fn spv(module: &Module, info: &ModuleInfo, text: &Text, checks: bool) -> Written<Vec<u32>> {
    use spv::Capability::*;
    let mut capabilities = vec![Shader, Matrix, ImageQuery, DerivativeControl, StorageImageExtendedFormats];
    if text.subgroups {
        capabilities.extend([
            GroupNonUniform,
            GroupNonUniformVote,
            GroupNonUniformArithmetic,
            GroupNonUniformBallot,
            GroupNonUniformShuffle,
            GroupNonUniformShuffleRelative,
            GroupNonUniformQuad,
        ]);
    }
    capabilities.extend(text.int64.then_some(Int64));
    if text.matrices {
        capabilities.extend([CooperativeMatrixKHR, VulkanMemoryModel, Float16, StorageBuffer16BitAccess]);
    }
    let options = spv::Options {
        // Vulkan 1.0, or 1.1 where there are subgroups.
        lang_version: if text.subgroups { (1, 3) } else { (1, 0) },
        flags: spv::WriterFlags::empty(),
        capabilities: Some(capabilities.into_iter().collect()),
        bounds_check_policies: policies(checks),
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: checks,
        emit_int_div_checks: checks,
        ..Default::default()
    };
    let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: text.entry.into() };
    spv::write_vec(module, info, &options, Some(&pipeline)).map_err(|e| e.to_string())
}

/// The names that an HLSL text defines twice: functions with the same name and types, structures and aliases. naga writes its helpers
/// by type, and those of a type and of its alias are the same text, which no compiler of HLSL takes.
fn defined_twice(hlsl: &str) -> Option<String> {
    let mut seen = HashSet::new();
    for line in hlsl.lines() {
        let defined = match line.split_once('(') {
            _ if line.starts_with([' ', '\t', '}', '{', '#', '[']) => continue,
            _ if line.starts_with("typedef ") => line.to_owned(),
            _ if line.starts_with("struct ") => line.trim_end_matches([' ', '{']).to_owned(),
            Some((head, rest)) if !line.ends_with([';', '}']) => {
                let name = head.rsplit(' ').next().unwrap_or(head);
                let parameters = rest.rsplit_once(')').map_or(rest, |(parameters, _)| parameters);
                // The type is before the last space.
                let types: Vec<&str> =
                    parameters.split(',').map(|p| p.trim().rsplit_once(' ').map_or("", |(ty, _)| ty)).collect();
                format!("{name}({})", types.join(", "))
            }
            _ => continue,
        };
        if !seen.insert(defined.clone()) {
            return Some(defined);
        }
    }
    None
}

#[test]
fn helpers_that_are_written_twice_are_noticed() {
    let once = "float4 ZeroValuefloat4() {\n    return (float4)0;\n}\n\nint naga_div(int lhs, int rhs) {\n}\n\
                uint naga_div(uint lhs, uint rhs) {\n}\n[numthreads(64, 1, 1)]\nvoid main(uint3 a : SV_GroupID)\n{\n    f(a);\n    f(a);\n}\n";
    assert_eq!(defined_twice(once), None);
    let twice = format!("{once}float4 ZeroValuefloat4() {{\n    return (float4)0;\n}}\n");
    assert_eq!(defined_twice(&twice).as_deref(), Some("ZeroValuefloat4()"));
    let twice = format!("{once}uint naga_div(uint x, uint y) {{\n}}\n");
    assert_eq!(defined_twice(&twice).as_deref(), Some("naga_div(uint, uint)"));
}

/// In every language that an adapter with the text's needs speaks.
fn write_all(text: &Text) -> Result<(), String> {
    let (module, info) = text.module.as_ref().map_err(Clone::clone)?;
    for checks in [false, true] {
        if !text.matrices {
            let (written, _) = hlsl(module, info, text.entry, checks).map_err(|e| format!("HLSL: {e}"))?;
            if let Some(what) = defined_twice(&written) {
                return Err(format!("HLSL: {what} is defined twice: write one type in one way in the whole text"));
            }
        }
        msl(module, info, text.entry, checks).map_err(|e| format!("MSL: {e}"))?;
        spv(module, info, text, checks).map_err(|e| format!("SPIR-V: {e}"))?;
    }
    // Without subgroups and 64-bit integers.
    if !text.subgroups && !text.int64 {
        glsl(module, info, text.entry).map_err(|e| format!("GLSL: {e}"))?;
    }
    Ok(())
}

#[test]
fn every_driver_language_can_be_written() {
    let complaint = |text: &Text| write_all(text).err().map(|what| format!("{}: {what}", text.name()));
    let complaints = in_parallel(texts(), |part| part.iter().filter_map(complaint).collect());
    nothing_but(&complaints, texts().len());
}
