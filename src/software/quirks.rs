//! Properties of CPU drivers, as plain data.

use derive_setters::Setters;
use serde::{Deserialize, Serialize};

/// Bytes of a texture row: 1024 texels of four words.
pub(super) const TEXTURE_ROW: u64 = 1024 * 16;
/// [`Quirks::texture_work`] where textures are copies.
pub(super) const TEXTURE_WORK: u64 = 1 << 17;

/// A CPU driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Driver {
    /// Mesa's: lavapipe for Vulkan, llvmpipe for OpenGL.
    Mesa,
    /// Google's SwiftShader.
    SwiftShader,
}

impl Driver {
    /// The CPU driver of an adapter, if it is one of these. Other software drivers (for example that of Windows) are not included.
    #[must_use]
    pub fn of(info: &wgpu::AdapterInfo) -> Option<Self> {
        if info.backend == wgpu::Backend::BrowserWebGpu {
            return None;
        }
        let names = format!("{} {}", info.name, info.driver).to_lowercase();
        let is = |name: &str| names.contains(name);
        match () {
            () if is("llvmpipe") || is("lavapipe") => Some(Self::Mesa),
            () if is("swiftshader") => Some(Self::SwiftShader),
            () => None,
        }
    }
}

/// The kind of texture through which kernels read tensors.
///
/// GPUs load from buffers at least as fast. CPU drivers load from textures with vector instructions and from buffers lane by lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Textures {
    /// None: tensors are read from buffers.
    #[default]
    None,
    /// Storage textures.
    Storage,
    /// Sampled textures.
    Sampled,
}

/// Adaptations for a CPU driver. The default is a GPU, without adaptations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, Setters)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct Quirks {
    /// The kind of textures through which kernels may read tensors.
    pub textures: Textures,
    /// Whether textures share the memory of buffers, so that nothing is copied; known only of an open device.
    pub shared_textures: bool,
    /// The most bytes of one texture.
    pub max_texture_bytes: u64,
    /// The most textures of one shader.
    pub max_textures: u32,
    /// The least work (operations, or elements written) of a dispatch for which copies into textures pay.
    pub texture_work: u64,
    /// Whether kernels copy their parameters to registers before anything else.
    pub params_first: bool,
    /// Whether a waiting thread spins for a while.
    #[serde(rename = "awake")]
    pub spin: bool,
    /// The most iterations of all loops of one invocation together: Mesa silently leaves loops after 65,535.
    #[serde(rename = "most_turns")]
    pub max_loop_iterations: Option<u32>,
}

impl Quirks {
    /// The quirks of a driver on an adapter or device with these limits.
    #[must_use]
    pub fn of(driver: Driver, info: &wgpu::AdapterInfo, limits: &wgpu::Limits) -> Self {
        if cfg!(not(feature = "software-drivers")) {
            return Self::of_results();
        }
        // Mesa reads storage textures faster, but wgpu refuses them in a layout with OpenGL. SwiftShader reads sampled textures faster.
        let textures = match driver {
            // Its functions for textures end the process there, so that no probe could tell.
            Driver::Mesa if vector_bits(&info.name).is_some_and(|bits| bits > register_bits()) => Textures::None,
            Driver::Mesa if info.backend == wgpu::Backend::Vulkan => Textures::Storage,
            Driver::Mesa | Driver::SwiftShader => Textures::Sampled,
        };
        Self {
            textures,
            max_texture_bytes: u64::from(limits.max_texture_dimension_2d - 1) * TEXTURE_ROW,
            max_textures: match textures {
                Textures::Storage => limits.max_storage_textures_per_shader_stage,
                Textures::None | Textures::Sampled => limits.max_sampled_textures_per_shader_stage,
            },
            texture_work: TEXTURE_WORK,
            params_first: true,
            spin: true,
            ..Self::of_results()
        }
    }

    /// The quirks that results depend on, whatever the class of the adapter.
    #[must_use]
    pub fn of_results() -> Self {
        Self { max_loop_iterations: Some(65_535), ..Self::default() }
    }

    /// The quirks with the options of tests, on a device with or without textures in the memory of buffers.
    #[must_use]
    pub(crate) fn with(self, shared_textures: bool, options: Options) -> Self {
        let work = if shared_textures { 0 } else { self.texture_work };
        Self { shared_textures, texture_work: options.texture_work.unwrap_or(work), ..self }
    }

    /// The most bytes of a window of an elementwise op: those of one binding or shared texture, and 4 MiB for textures with memory of their
    /// own.
    pub(crate) fn window(&self, binding: u64) -> u64 {
        const TEXTURE: u64 = 4 << 20;
        match self.textures {
            Textures::None => binding,
            _ if self.shared_textures => binding.min(self.max_texture_bytes),
            _ => binding.min(TEXTURE),
        }
    }
}

/// The bits of Mesa's vectors, which end the name of its adapter: "llvmpipe (LLVM 19.1.7, 256 bits)".
fn vector_bits(adapter: &str) -> Option<u32> {
    adapter.strip_suffix(" bits)")?.rsplit(' ').next()?.parse().ok()
}

/// The bits of this CPU's vector registers, as far as it is known.
fn register_bits() -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        match () {
            () if std::arch::is_x86_feature_detected!("avx512f") => 512,
            () if std::arch::is_x86_feature_detected!("avx") => 256,
            () => 128,
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        u32::MAX
    }
}

/// Options for tests, which override the best choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Setters)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct Options {
    /// The least work (operations, or elements written) for which kernels read through textures: 0 always, [`u64::MAX`] never.
    pub texture_work: Option<u64>,
    /// Copy into textures even where they could share the memory of buffers.
    pub copied_textures: bool,
    /// The assumed sizes of subgroups, the smallest and the largest, right or wrong.
    pub claimed_subgroups: Option<[u32; 2]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_wider_than_registers_read_no_textures() {
        assert_eq!(vector_bits("llvmpipe (LLVM 15.0.6, 256 bits)"), Some(256));
        assert_eq!(vector_bits("SwiftShader Device (LLVM 16.0.0)"), None);
        let mut info = wgpu::AdapterInfo::new(wgpu::DeviceType::Cpu, wgpu::Backend::Vulkan);
        let mut textures = |bits: u32| {
            info.name = format!("llvmpipe (LLVM 19.1.7, {bits} bits)");
            Quirks::of(Driver::Mesa, &info, &wgpu::Limits::default()).textures
        };
        let known = cfg!(feature = "software-drivers");
        assert_eq!(textures(128), if known { Textures::Storage } else { Textures::None });
        if cfg!(target_arch = "x86_64") {
            assert_eq!(textures(1024), Textures::None);
        }
    }
}
