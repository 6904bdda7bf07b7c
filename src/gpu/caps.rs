//! What a device can do, as plain data.

use super::texture::TEXTURE_ROW;

/// What [`Caps::texture_work`] is unless tests want something else.
const TEXTURE_WORK: u64 = 1 << 17;

/// The kind of adapter, as far as the choice of kernels goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterClass {
    /// A graphics processor.
    Gpu,
    /// A driver that runs shaders on the CPU.
    Cpu,
}

/// The kind of texture through which kernels read tensors on drivers that compute on the CPU.
///
/// GPUs load from buffers at least as fast; such drivers load from textures with vectors and from buffers lane by lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Textures {
    /// None: tensors are read from buffers.
    None,
    /// Storage textures.
    Storage,
    /// Sampled textures.
    Sampled,
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
    /// Through which textures kernels may read tensors.
    pub textures: Textures,
    /// Whether they lie in the memory of the buffers, so that nothing is copied.
    #[serde(default)]
    pub shared_textures: bool,
    /// Bytes that one of them holds.
    pub max_texture_bytes: u64,
    /// How many of them one shader may have.
    pub max_textures: u32,
    /// Elements that a dispatch must write, or operations that it must do, for the copies into textures to pay; 0 if there are none.
    pub texture_work: u64,
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
            textures: Textures::None,
            shared_textures: false,
            max_texture_bytes: 0,
            max_textures: 0,
            texture_work: TEXTURE_WORK,
        }
    }
}

impl Caps {
    /// The most turns that the loops of one invocation may take in all: Mesa's drivers for the CPU leave them behind 65,535, and say
    /// nothing.
    pub(crate) fn most_turns(&self) -> usize {
        match self.class {
            AdapterClass::Cpu => 65_535,
            AdapterClass::Gpu => usize::MAX,
        }
    }

    /// What a device, or an adapter, with these limits and features can do.
    pub(super) fn of(limits: &wgpu::Limits, features: wgpu::Features, info: &wgpu::AdapterInfo) -> Self {
        let class = if info.device_type == wgpu::DeviceType::Cpu { AdapterClass::Cpu } else { AdapterClass::Gpu };
        let textures = match class {
            AdapterClass::Gpu => Textures::None,
            // Mesa reads storage textures faster; with OpenGL wgpu refuses them in a layout, and SwiftShader likes the others.
            AdapterClass::Cpu if info.backend == wgpu::Backend::Vulkan && !info.name.contains("SwiftShader") => {
                Textures::Storage
            }
            AdapterClass::Cpu => Textures::Sampled,
        };
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
            textures,
            shared_textures: false,
            texture_work: TEXTURE_WORK,
            max_textures: match textures {
                Textures::None => 0,
                Textures::Storage => limits.max_storage_textures_per_shader_stage,
                Textures::Sampled => limits.max_sampled_textures_per_shader_stage,
            },
            // Less one row, for the texel behind the last element.
            max_texture_bytes: u64::from(limits.max_texture_dimension_2d - 1) * TEXTURE_ROW,
        }
    }
}
