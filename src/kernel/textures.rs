//! Tensors that kernels read through textures: the shared texts, and whether an adapter and a tensor are fit for it.

use super::{Caps, Dispatch, Snippet};
use crate::gpu::Textures;

static STORAGE: Snippet =
    Snippet::new("common/texture_storage", include_str!("../../shaders/common/texture_storage.wgsl"));
static SAMPLED: Snippet =
    Snippet::new("common/texture_sampled", include_str!("../../shaders/common/texture_sampled.wgsl"));
static ELEMENTS: Snippet =
    Snippet::new("common/texture_elements", include_str!("../../shaders/common/texture_elements.wgsl"));

/// Whether kernels may read tensors of so many f32 through textures.
#[must_use]
pub fn fits_texture(caps: &Caps, elements: usize) -> bool {
    caps.textures != Textures::None && elements as u64 * 4 <= caps.max_texture_bytes
}

/// Puts in the texts that read through textures of the adapter's kind.
#[must_use]
pub fn texture_snippets(dispatch: Dispatch, caps: &Caps) -> Dispatch {
    dispatch.snippet(if caps.textures == Textures::Sampled { &SAMPLED } else { &STORAGE }).snippet(&ELEMENTS)
}
