//! Opens a device, or adopts the application's.

use super::fault::Faults;
use super::{AdapterClass, Caps, Gpu, Inner, MatrixUnits, probe};
use crate::error::{Error, Result};
use crate::software::{self, SharedMemory};
use derive_setters::Setters;
use std::sync::Arc;

/// Options for opening a device. The default uses all limits and features of the adapter.
#[derive(Clone, Debug, Default, Setters)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct GpuOptions {
    /// Use at most these limits; for tests of weaker adapters.
    pub limits: Option<wgpu::Limits>,
    /// Use at most these optional features.
    pub features: Option<wgpu::Features>,
    /// Compile shaders with the driver's bounds checks.
    pub checked: bool,
    /// Enables the driver's validation layers; `None` enables them in debug builds. Applies where the engine lists the adapters.
    pub validation: Option<bool>,
    /// Refuse new buffers when this share of the driver's memory budget is used. Applies where the engine lists the adapters, on drivers
    /// that report a budget.
    pub memory_budget_percent: Option<u8>,
    /// The class for the choice of kernels; `None` detects it ([`AdapterClass::of`]). With [`AdapterClass::Gpu`] a CPU driver runs the kernels
    /// of a GPU: slower, with the same results up to rounding.
    pub class: Option<AdapterClass>,
    /// Multiply matrices on the GPU's matrix units, where it has some: several times faster, with factors rounded to f16 (on Apple's GPUs
    /// f32) and sums in f32. wgpu calls them experimental. A device that is adopted has none.
    pub matrix_units: bool,
    /// The poller of the device while a future waits.
    pub polling: Polling,
    #[doc(hidden)]
    pub software: software::Options,
}

/// The poller of the device, so that callbacks run and futures ([`super::Readback`], [`Gpu::wait_async`], [`Gpu::read_async`]) complete. Blocking
/// calls ([`Gpu::wait`], [`super::Readback::wait`], [`Gpu::read`]) always poll.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Polling {
    /// The engine: the first future that waits starts a thread, which polls while any future waits and sleeps otherwise.
    #[default]
    Engine,
    /// The application, with [`wgpu::Device::poll`] or [`Gpu::poll`], in its own loop: futures, uploads and runs start no thread, poll nothing and
    /// wait for nothing. Futures wake when the application polls or submits; if it never does, they never complete.
    Application,
}

impl GpuOptions {
    /// The minimum of WebGPU: no subgroups, no f16, no timestamps, the default limits.
    #[must_use]
    pub fn portable() -> Self {
        Self { limits: Some(wgpu::Limits::default()), features: Some(wgpu::Features::empty()), ..Self::default() }
    }
}

/// Optional features that the engine uses.
const WANTED: wgpu::Features = wgpu::Features::SUBGROUP
    .union(wgpu::Features::SHADER_F16)
    .union(wgpu::Features::SHADER_INT64)
    .union(wgpu::Features::TIMESTAMP_QUERY)
    .union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS)
    .union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES)
    .union(wgpu::Features::PIPELINE_CACHE);

impl Gpu {
    /// The optional features that the engine uses where a device has them, for applications that open their own:
    /// `required_features: adapter.features() & Gpu::wanted_features()`.
    #[must_use]
    pub fn wanted_features() -> wgpu::Features {
        WANTED
    }

    /// Opens an adapter's device with the adapter's own limits and the features that the engine uses. In a browser use [`Gpu::open_async`].
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the adapter is below the minimum of the kernels; [`Error::Validation`] with the driver's message if it
    /// refuses.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(adapter: &wgpu::Adapter) -> Result<Self> {
        pollster::block_on(Self::open_async(adapter, &GpuOptions::default()))
    }

    /// As [`Gpu::open`], with options.
    ///
    /// # Errors
    /// As [`Gpu::open`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open_with(adapter: &wgpu::Adapter, options: &GpuOptions) -> Result<Self> {
        pollster::block_on(Self::open_async(adapter, options))
    }

    /// The async form of [`Gpu::open_with`].
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the adapter is below the minimum of the kernels; [`Error::Validation`] with the driver's message if it
    /// refuses.
    pub async fn open_async(adapter: &wgpu::Adapter, options: &GpuOptions) -> Result<Self> {
        let limits = match &options.limits {
            Some(most) => adapter.limits().or_worse_values_from(most),
            None => adapter.limits(),
        };
        let info = adapter.get_info();
        let hint = "Choose another adapter, or update its driver";
        sufficient(&limits, &format!("{} ({})", info.name, info.backend), hint)?;
        let matrix_units = if options.matrix_units { MatrixUnits::of(adapter) } else { None };
        let mut required_features = adapter.features() & WANTED & options.features.unwrap_or(WANTED);
        if matrix_units.is_some() {
            required_features |= wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("wgformer"),
            required_features,
            required_limits: limits,
            experimental_features: if matrix_units.is_some() {
                experimental()
            } else {
                wgpu::ExperimentalFeatures::disabled()
            },
            // The engine allocates a few large buffers: memory blocks for many buffers would stay half empty.
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let opened = adapter.request_device(&descriptor).await;
        let what = || format!("opening adapter \"{}\" ({})", info.name, info.backend);
        let (device, queue) = opened.map_err(|error| Error::Validation { what: what(), message: error.to_string() })?;
        let faults = Arc::new(Faults::default());
        let pending = faults.clone();
        device.on_uncaptured_error(Arc::new(move |error| pending.keep(error)));
        let lost = faults.clone();
        device.set_device_lost_callback(move |_, reason| lost.lose(&reason));
        let gpu = Self::new(device, queue, faults, options, matrix_units);
        if !gpu.device().features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            gpu.inner.faults.speed.by_clock(gpu.caps().class);
        }
        Ok(gpu)
    }

    /// Adopts a device and queue of the application, with the limits and features that they were opened with. The application's handlers of
    /// errors and of loss are not replaced; the engine catches its own errors.
    ///
    /// The length of launches follows the speed measured by the device's timestamps, so open it with [`wgpu::Features::TIMESTAMP_QUERY`]
    /// where the adapter has it. Without timestamps the engine cannot tell its own work from the application's, and uses a cautious speed or
    /// that of [`Gpu::assume_speed`].
    ///
    /// # Errors
    /// [`Error::Unsupported`], with the limit to request, if the device was opened below the minimum of the kernels; [`Error::DeviceLost`].
    pub fn adopt(device: wgpu::Device, queue: wgpu::Queue) -> Result<Self> {
        Self::adopt_with(device, queue, &GpuOptions::default())
    }

    /// As [`Gpu::adopt`] with the options [`GpuOptions::checked`], [`GpuOptions::class`] and [`GpuOptions::polling`]; others have no effect.
    ///
    /// # Errors
    /// As [`Gpu::adopt`].
    pub fn adopt_with(device: wgpu::Device, queue: wgpu::Queue, options: &GpuOptions) -> Result<Self> {
        let hint = "Open the device with `required_limits: adapter.limits()`, or at least this limit at this value";
        let name = format!("{} (with its device's limits)", device.adapter_info().name);
        sufficient(&device.limits(), &name, hint)?;
        let gpu = Self::new(device, queue, Arc::default(), options, None);
        gpu.check()?;
        Ok(gpu)
    }

    fn new(
        device: wgpu::Device,
        queue: wgpu::Queue,
        faults: Arc<Faults>,
        options: &GpuOptions,
        matrix_units: Option<MatrixUnits>,
    ) -> Self {
        let info = device.adapter_info();
        let class = options.class.unwrap_or_else(|| AdapterClass::of(&info));
        let mut caps = Caps::of(&device.limits(), device.features(), &info, class);
        caps.matrix_units = matrix_units;
        if let Some([least, most]) = options.software.claimed_subgroups {
            caps.subgroup = (least == most).then_some(least);
            caps.subgroup_sizes = Some([least, most]);
        }
        let shared = if options.software.copied_textures { None } else { SharedMemory::new(&device, &caps) };
        caps.quirks = caps.quirks.with(shared.is_some(), options.software);
        let open = |caps: Caps, shared: Option<SharedMemory>| {
            let (device, queue, faults) = (device.clone(), queue.clone(), faults.clone());
            Self { inner: Arc::new(Inner::new(device, queue, info.clone(), caps, shared, faults, options)) }
        };
        let gpu = open(caps, shared);
        let (proven, used) = probe::proven(&gpu);
        if !used && proven == *gpu.caps() {
            return gpu;
        }
        // Opened again, so that counters and caches do not include the probes.
        let shared = if proven.quirks.shared_textures { SharedMemory::new(&device, &proven) } else { None };
        open(proven, shared)
    }
}

/// The key to what wgpu calls experimental.
#[allow(unsafe_code, reason = "wgpu wants a promise that its experimental parts are used with care")]
fn experimental() -> wgpu::ExperimentalFeatures {
    // SAFETY: only kernels of products use them, as wgpu's documentation of the feature says; the conformance suite compares their results.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}

/// An error unless the portable variant of every kernel fits the limits.
fn sufficient(limits: &wgpu::Limits, adapter: &str, hint: &str) -> Result<()> {
    let least = Caps::baseline();
    let needs = [
        ("max_storage_buffers_per_shader_stage", limits.max_storage_buffers_per_shader_stage, least.storage_bindings),
        ("max_compute_workgroup_storage_size", limits.max_compute_workgroup_storage_size, least.workgroup_memory),
        ("max_compute_invocations_per_workgroup", limits.max_compute_invocations_per_workgroup, least.max_invocations),
        ("max_compute_workgroup_size_x", limits.max_compute_workgroup_size_x, least.max_invocations),
        ("max_bindings_per_bind_group", limits.max_bindings_per_bind_group, least.storage_bindings + 1),
    ];
    match needs.iter().find(|(_, has, needed)| has < needed) {
        None => Ok(()),
        Some((limit, has, needed)) => Err(Error::Unsupported {
            what: "the engine".into(),
            needs: format!("{limit} of at least {needed} (it is {has})"),
            adapter: adapter.into(),
            hint: hint.into(),
        }),
    }
}
