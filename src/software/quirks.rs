//! What is to know of a driver that computes on the CPU, as plain data.

use serde::{Deserialize, Serialize};

/// Bytes of a row of a texture: 1024 texels of four words.
pub(super) const TEXTURE_ROW: u64 = 1024 * 16;
/// What [`Quirks::texture_work`] is where textures are copies.
pub(super) const TEXTURE_WORK: u64 = 1 << 17;

/// A driver that computes on the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Mesa's: lavapipe for Vulkan, llvmpipe for OpenGL.
    Mesa,
    /// Google's SwiftShader.
    SwiftShader,
}

impl Driver {
    /// The driver of an adapter, if it is one of these. Others that compute on the CPU (that of Windows, for one) are none.
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
/// GPUs load from buffers at least as fast; drivers that compute on the CPU load from textures with vectors and from buffers lane by lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Textures {
    /// None: tensors are read from buffers.
    #[default]
    None,
    /// Storage textures.
    Storage,
    /// Sampled textures.
    Sampled,
}

/// What a driver that computes on the CPU wants to have done differently; the default is a GPU, which wants nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Quirks {
    /// Through which textures kernels may read tensors.
    pub textures: Textures,
    /// Whether they lie in the memory of the buffers, so that nothing is copied; known of an open device only.
    pub shared_textures: bool,
    /// Bytes that one of them holds.
    pub max_texture_bytes: u64,
    /// How many of them one shader may have.
    pub max_textures: u32,
    /// Elements that a dispatch must write, or operations that it must do, for the copies into textures to pay.
    pub texture_work: u64,
    /// Whether kernels copy their parameters to registers before anything else.
    pub params_first: bool,
    /// Whether a thread that waits stays awake for a while.
    pub awake: bool,
    /// The most turns that the loops of one invocation may take in all: Mesa leaves them behind 65,535, and says nothing.
    pub most_turns: Option<u32>,
}

impl Quirks {
    /// Those of a driver, on an adapter or device with these limits.
    #[must_use]
    pub fn of(driver: Driver, backend: wgpu::Backend, limits: &wgpu::Limits) -> Self {
        if cfg!(not(feature = "software-drivers")) {
            return Self::of_results();
        }
        // Mesa reads storage textures faster; with OpenGL wgpu refuses them in a layout, and SwiftShader likes the others.
        let textures = match driver {
            Driver::Mesa if backend == wgpu::Backend::Vulkan => Textures::Storage,
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
            awake: true,
            ..Self::of_results()
        }
    }

    /// Those without which results are wrong, whatever a driver is taken for.
    #[must_use]
    pub fn of_results() -> Self {
        Self { most_turns: Some(65_535), ..Self::default() }
    }

    /// What tests want instead, on a device whose textures lie in the memory of buffers or don't.
    #[must_use]
    pub(crate) fn with(self, shared_textures: bool, options: Options) -> Self {
        let work = if shared_textures { 0 } else { self.texture_work };
        Self { shared_textures, texture_work: options.texture_work.unwrap_or(work), ..self }
    }

    /// The most bytes of a piece of a tensor that is gone over element by element, of those that one binding can hold: of textures that
    /// take memory of their own 4 MiB.
    pub(crate) fn window(&self, binding: u64) -> u64 {
        const TEXTURE: u64 = 4 << 20;
        match self.textures {
            Textures::None => binding,
            _ if self.shared_textures => binding.min(self.max_texture_bytes),
            _ => binding.min(TEXTURE),
        }
    }
}

/// What tests want to have done otherwise than is best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The least work (operations, or elements written) for which kernels read through textures: 0 is always, [`u64::MAX`] never.
    pub texture_work: Option<u64>,
    /// Copy into textures even where they could lie in the memory of buffers.
    pub copied_textures: bool,
    /// The size of subgroups that a device is taken to have, right or wrong.
    pub claimed_subgroup: Option<u32>,
}
