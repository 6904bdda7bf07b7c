//! The capabilities of a device, as plain data.

use crate::software::{Driver, Quirks};
use derive_setters::Setters;

/// The kind of adapter, for the choice of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum AdapterClass {
    /// A graphics processor.
    Gpu,
    /// A CPU driver: Mesa's llvmpipe and lavapipe, and SwiftShader run shaders on the CPU.
    Cpu,
}

impl AdapterClass {
    /// The class of an adapter unless [`super::GpuOptions::class`] sets one: a GPU, unless its driver is a CPU driver known by name.
    #[must_use]
    pub fn of(info: &wgpu::AdapterInfo) -> Self {
        let software = cfg!(feature = "software-drivers") && Driver::of(info).is_some();
        if software { Self::Cpu } else { Self::Gpu }
    }
}

/// Matrix units of a GPU: products of SIZE × SIZE matrices that the invocations of a subgroup hold together, with f32 sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct MatrixUnits {
    /// Rows and columns of all three matrices: 8 or 16.
    pub size: u32,
    /// Whether the factors are rounded to f16; else they are f32.
    pub half: bool,
}

impl MatrixUnits {
    /// The units of an adapter that the kernels use, the fastest first.
    pub(super) fn of(adapter: &wgpu::Adapter) -> Option<Self> {
        use wgpu::CooperativeScalarType::{F16, F32};
        let needed = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::SUBGROUP);
        if !adapter.features().contains(needed) {
            return None;
        }
        let listed = adapter.cooperative_matrix_properties();
        let f16 = adapter.features().contains(wgpu::Features::SHADER_F16);
        let has = |units: &Self| {
            let factors = if units.half { F16 } else { F32 };
            let fits = |p: &wgpu::CooperativeMatrixProperties| {
                [p.m_size, p.n_size, p.k_size] == [units.size; 3] && p.ab_type == factors && p.cr_type == F32
            };
            (f16 || !units.half) && listed.iter().any(fits)
        };
        let units = |size, half| Self { size, half };
        [units(16, true), units(8, false), units(8, true)].into_iter().find(has)
    }
}

/// The capabilities of an adapter: plain data, so that a step can be recorded for an adapter that is not on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct Caps {
    /// The adapter's name.
    pub name: String,
    /// GPU or CPU.
    pub class: AdapterClass,
    /// The subgroup size, if subgroup functions exist and the size is fixed.
    pub subgroup: Option<u32>,
    /// The smallest and the largest size of subgroups, if subgroup functions exist.
    #[serde(default)]
    pub subgroup_sizes: Option<[u32; 2]>,
    /// The vendor id, usually from the PCI registry; 0 if it is not known.
    #[serde(default)]
    pub vendor: u32,
    /// 16-bit float arithmetic in shaders.
    pub f16: bool,
    /// Matrix units, if [`super::GpuOptions::matrix_units`] asks for them and the adapter has some.
    #[serde(default)]
    pub matrix_units: Option<MatrixUnits>,
    /// 64-bit integers in shaders.
    #[serde(default)]
    pub int64: bool,
    /// Timestamps inside a pass.
    pub timestamps: bool,
    /// The most invocations of a workgroup.
    pub max_invocations: u32,
    /// Bytes of workgroup memory.
    pub workgroup_memory: u32,
    /// The most storage buffers of a shader.
    pub storage_bindings: u32,
    /// The most bytes of one storage binding.
    pub max_binding_bytes: u64,
    /// The most bytes of one buffer.
    pub max_buffer_bytes: u64,
    /// Alignment of binding offsets in bytes.
    pub offset_alignment: u64,
    /// The most workgroups in one dimension of a dispatch.
    pub max_groups: u32,
    /// Adaptations for a CPU driver.
    #[doc(hidden)]
    #[serde(default)]
    pub quirks: Quirks,
}

impl Caps {
    /// The minimum of every WebGPU adapter: the portable variants of all kernels fit it.
    #[must_use]
    pub fn baseline() -> Self {
        Self {
            name: "baseline".into(),
            class: AdapterClass::Gpu,
            subgroup: None,
            subgroup_sizes: None,
            vendor: 0,
            f16: false,
            matrix_units: None,
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
    /// The most iterations of all loops of one invocation together.
    pub(crate) fn max_loop_iterations(&self) -> usize {
        self.quirks.max_loop_iterations.map_or(usize::MAX, |most| most as usize)
    }

    /// The capabilities of a device or adapter with these limits and features, treated as one of that class.
    pub(super) fn of(
        limits: &wgpu::Limits,
        features: wgpu::Features,
        info: &wgpu::AdapterInfo,
        class: AdapterClass,
    ) -> Self {
        let quirks = Driver::of(info).map(|driver| match class {
            AdapterClass::Cpu => Quirks::of(driver, info, limits),
            AdapterClass::Gpu => Quirks::of_results(),
        });
        let sizes = [info.subgroup_min_size, info.subgroup_max_size];
        let plausible = sizes.iter().all(|size| size.is_power_of_two()) && sizes[0] <= sizes[1];
        let subgroup_sizes = (features.contains(wgpu::Features::SUBGROUP) && plausible).then_some(sizes);
        Self {
            name: info.name.clone(),
            class,
            subgroup: subgroup_sizes.filter(|[least, most]| least == most).map(|[least, _]| least),
            subgroup_sizes,
            vendor: info.vendor,
            f16: features.contains(wgpu::Features::SHADER_F16),
            matrix_units: None,
            int64: features.contains(wgpu::Features::SHADER_INT64),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES),
            max_invocations: limits.max_compute_invocations_per_workgroup,
            workgroup_memory: limits.max_compute_workgroup_storage_size,
            storage_bindings: limits.max_storage_buffers_per_shader_stage,
            // Some drivers report 2 GiB less one byte. Only whole words are usable, and kernels count them in 32 bits.
            max_binding_bytes: limits.max_storage_buffer_binding_size.min(u32::MAX.into()) / 4 * 4,
            max_buffer_bytes: limits.max_buffer_size / 4 * 4,
            offset_alignment: u64::from(limits.min_storage_buffer_offset_alignment),
            max_groups: limits.max_compute_workgroups_per_dimension,
            quirks: quirks.unwrap_or_default(),
        }
    }
}
