//! What a device can do, as plain data.

use crate::software::{Driver, Quirks};

/// The kind of adapter, as far as the choice of kernels goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterClass {
    /// A graphics processor.
    Gpu,
    /// A driver that is known to run shaders on the CPU: Mesa's llvmpipe and lavapipe, and SwiftShader.
    Cpu,
}

impl AdapterClass {
    /// What an adapter is taken for unless [`super::GpuOptions::class`] says otherwise: a GPU, if its driver is not known, by name, to
    /// compute on the CPU.
    #[must_use]
    pub fn of(info: &wgpu::AdapterInfo) -> Self {
        let software = cfg!(feature = "software-drivers") && Driver::of(info).is_some();
        if software { Self::Cpu } else { Self::Gpu }
    }
}

/// What an adapter can do: plain data, so that a step can be recorded for an adapter that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Caps {
    /// The adapter's name.
    pub name: String,
    /// GPU or CPU.
    pub class: AdapterClass,
    /// The subgroup size, if subgroup functions are there and the size is the same everywhere.
    pub subgroup: Option<u32>,
    /// 16-bit float arithmetic in shaders.
    pub f16: bool,
    /// 64-bit integers in shaders.
    #[serde(default)]
    pub int64: bool,
    /// Timestamps inside a pass.
    pub timestamps: bool,
    /// Invocations of a workgroup.
    pub max_invocations: u32,
    /// Bytes of workgroup memory.
    pub workgroup_memory: u32,
    /// Storage buffers of a shader.
    pub storage_bindings: u32,
    /// Bytes of one storage binding.
    pub max_binding_bytes: u64,
    /// Bytes of one buffer.
    pub max_buffer_bytes: u64,
    /// Alignment of binding offsets in bytes.
    pub offset_alignment: u64,
    /// Workgroups in one dimension of a dispatch.
    pub max_groups: u32,
    /// What a driver that computes on the CPU wants to have done differently.
    #[doc(hidden)]
    #[serde(default)]
    pub quirks: Quirks,
}

impl Caps {
    /// The least that any WebGPU adapter offers: the portable variants of all kernels fit.
    #[must_use]
    pub fn baseline() -> Self {
        Self {
            name: "baseline".into(),
            class: AdapterClass::Gpu,
            subgroup: None,
            f16: false,
            int64: false,
            timestamps: false,
            max_invocations: 256,
            workgroup_memory: 16384,
            storage_bindings: 8,
            max_binding_bytes: 128 << 20,
            max_buffer_bytes: 256 << 20,
            offset_alignment: 256,
            max_groups: 65535,
            quirks: Quirks::default(),
        }
    }
}

impl Caps {
    /// The most turns that the loops of one invocation may take in all.
    pub(crate) fn most_turns(&self) -> usize {
        self.quirks.most_turns.map_or(usize::MAX, |turns| turns as usize)
    }

    /// What a device, or an adapter, with these limits and features can do, if it is taken for one of that class.
    pub(super) fn of(
        limits: &wgpu::Limits,
        features: wgpu::Features,
        info: &wgpu::AdapterInfo,
        class: AdapterClass,
    ) -> Self {
        let quirks = Driver::of(info).map(|driver| match class {
            AdapterClass::Cpu => Quirks::of(driver, info.backend, limits),
            AdapterClass::Gpu => Quirks::of_results(),
        });
        let subgroups = features.contains(wgpu::Features::SUBGROUP) && info.subgroup_min_size == info.subgroup_max_size;
        Self {
            name: info.name.clone(),
            class,
            subgroup: subgroups.then_some(info.subgroup_min_size),
            f16: features.contains(wgpu::Features::SHADER_F16),
            int64: features.contains(wgpu::Features::SHADER_INT64),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES),
            max_invocations: limits.max_compute_invocations_per_workgroup,
            workgroup_memory: limits.max_compute_workgroup_storage_size,
            storage_bindings: limits.max_storage_buffers_per_shader_stage,
            // Some drivers say 2 GiB less one byte; whole words are what can be used, and kernels count them in 32 bits.
            max_binding_bytes: limits.max_storage_buffer_binding_size.min(u32::MAX.into()) / 4 * 4,
            max_buffer_bytes: limits.max_buffer_size / 4 * 4,
            offset_alignment: u64::from(limits.min_storage_buffer_offset_alignment),
            max_groups: limits.max_compute_workgroups_per_dimension,
            quirks: quirks.unwrap_or_default(),
        }
    }
}
