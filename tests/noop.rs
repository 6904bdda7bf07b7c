//! Devices that this machine has not, by wgpu's backend that computes nothing: every recording passes wgpu's own checks within WebGPU's default
//! limits and with subgroups of any size, and what an adapter lacks is told.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use wgformer::check::{Case, cases, models, quick_cases};
use wgformer::gpu::GpuOptions;
use wgformer::{Error, Gpu, Program, Result, Weights};
use wgpu::{DeviceType, Features, Limits};

/// A device with limits, features and sizes of subgroups.
fn device(limits: &Limits, features: Features, subgroups: Option<[u32; 2]>) -> Result<Gpu> {
    let noop = wgpu::NoopBackendOptions {
        enable: true,
        limits: Some(limits.clone()),
        features: Some(features),
        device_type: Some(DeviceType::DiscreteGpu),
        subgroup_min_size: subgroups.map(|[least, _]| least),
        subgroup_max_size: subgroups.map(|[_, most]| most),
    };
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::NOOP,
        backend_options: wgpu::BackendOptions { noop, ..wgpu::BackendOptions::default() },
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::NOOP));
    let adapter = adapters.first().expect("wgpu has no noop backend");
    Gpu::open_with(adapter, &GpuOptions::default())
}

/// Whether all is run, not a choice.
fn full() -> bool {
    std::env::var("WGFORMER_TESTS").is_ok_and(|wanted| wanted == "full")
}

/// Records, plans, prepares and runs a case.
fn validate(gpu: &Gpu, case: &Case) -> Result<()> {
    let recording = case.recording(gpu.caps())?;
    Program::prepare(gpu, recording, &Weights::new(gpu))?.run()?;
    gpu.check()
}

fn all_of(gpu: &Gpu, cases: &[Case]) -> usize {
    let failed: Vec<String> =
        cases.iter().filter_map(|case| Some(format!("{}: {}", case.name, validate(gpu, case).err()?))).collect();
    assert!(
        failed.is_empty(),
        "{} of {} failed, such as\n{}",
        failed.len(),
        cases.len(),
        failed[..failed.len().min(5)].join("\n")
    );
    cases.len()
}

#[test]
fn every_case_and_model_keeps_the_default_limits_of_webgpu() {
    let gpu = device(&Limits::default(), Features::empty(), None).unwrap();
    let mut all = if full() { cases::all() } else { quick_cases(gpu.caps()) };
    all.extend(models::small());
    assert!(all_of(&gpu, &all) > 100);
}

#[test]
fn a_recording_beyond_a_limit_would_be_found() {
    // The control: within smaller limits than those it was recorded for, a recording fails.
    let gpu = device(&Limits::default(), Features::empty(), None).unwrap();
    let mut caps = gpu.caps().clone();
    (caps.max_invocations, caps.workgroup_memory, caps.storage_bindings) = (1024, 32768, 16);
    let wrong = cases::all().into_iter().find(|case| {
        let Ok(recording) = case.recording(&caps) else { return false };
        Program::prepare(&gpu, recording, &Weights::new(&gpu)).and_then(|program| program.run()).is_err()
    });
    let beyond = gpu.buffer("too large", Limits::default().max_buffer_size + 4, wgpu::BufferUsages::STORAGE);
    assert!(wrong.is_some() || beyond.is_err(), "nothing is validated");
}

#[test]
fn subgroups_of_all_sizes_and_ranges_run() {
    let features = Features::SUBGROUP | Features::SUBGROUP_BARRIER | Features::TIMESTAMP_QUERY;
    let all = [[4, 4], [8, 32], [128, 128], [8, 8], [16, 16], [32, 32], [64, 64], [32, 64], [4, 128]];
    for subgroups in &all[..if full() { all.len() } else { 3 }] {
        let gpu = device(&Limits::default(), features, Some(*subgroups)).unwrap();
        let mut cases = quick_cases(gpu.caps());
        let mut number = 0;
        cases.retain(|_| {
            number += 1;
            full() || number % 3 == 0
        });
        assert!(all_of(&gpu, &cases) > 20, "{subgroups:?}");
    }
}

#[test]
fn an_adapter_below_the_limits_is_told_what_is_missing() {
    let few = Limits { max_storage_buffers_per_shader_stage: 4, ..Limits::default() };
    let small = Limits { max_compute_workgroup_storage_size: 8192, ..Limits::default() };
    for (limits, wanted) in [
        (few, "max_storage_buffers_per_shader_stage of at least 8 (it is 4)"),
        (small, "max_compute_workgroup_storage_size of at least 16384 (it is 8192)"),
        (Limits::downlevel_webgl2_defaults(), "max_storage_buffers_per_shader_stage of at least 8 (it is 0)"),
    ] {
        match device(&limits, Features::empty(), None) {
            Err(Error::Unsupported { needs, hint, .. }) => {
                assert!(needs.contains(wanted) && !hint.is_empty(), "{needs}; {hint}");
            }
            other => panic!("{other:?}"),
        }
    }
}
