//! Textures that hold a tensor in memory order, for kernels that read it through them.

use super::quirks::TEXTURE_ROW;
use super::{Quirks, Textures};
use crate::error::{Error, Result};
use crate::gpu::Gpu;

/// Texels of a row.
pub(super) const WIDTH: u32 = 1024;
/// Unused texels after each row, a cache line: otherwise rows of a matrix would be a power of two apart and compete for few lines of the
/// cache.
const PADDING: u32 = 4;
/// Bytes of a texel: four words.
const TEXEL: u64 = 16;
/// Untyped words, which kernels cast.
pub(super) const TEXEL_FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Rgba32Uint;

/// A texture for copies of tensors of up to `bytes`, of four words a texel.
pub(super) fn operand_texture(gpu: &Gpu, bytes: u64) -> Result<wgpu::Texture> {
    let usage = wgpu::TextureUsages::COPY_DST
        | match gpu.caps().quirks.textures {
            Textures::Storage => wgpu::TextureUsages::STORAGE_BINDING,
            Textures::None | Textures::Sampled => wgpu::TextureUsages::TEXTURE_BINDING,
        };
    let descriptor = descriptor(WIDTH + PADDING, rows(bytes), usage);
    gpu.scoped("a texture for operands", || gpu.device().create_texture(&descriptor))
}

/// A texture of `bytes` of a buffer from an offset on, without a copy; for [`super::Quirks::shared_textures`].
pub(super) fn shared_texture(gpu: &Gpu, buffer: &wgpu::Buffer, offset: u64, bytes: u64) -> Result<wgpu::Texture> {
    let what = "a texture in the memory of a buffer";
    let shared = gpu.shared_memory();
    let texture = gpu.scoped(what, || shared.and_then(|shared| shared.texture(gpu.device(), buffer, offset, bytes)))?;
    texture.ok_or_else(|| Error::Validation {
        what: what.into(),
        message: format!("{bytes} bytes at offset {offset}: the driver refused, or the buffer is of another `Gpu`"),
    })
}

/// The type of a texture binding.
pub(crate) fn texture_binding(quirks: &Quirks) -> wgpu::BindingType {
    let view_dimension = wgpu::TextureViewDimension::D2;
    match quirks.textures {
        Textures::Storage => wgpu::BindingType::StorageTexture {
            access: wgpu::StorageTextureAccess::ReadOnly,
            format: TEXEL_FORMAT,
            view_dimension,
        },
        Textures::None | Textures::Sampled => wgpu::BindingType::Texture {
            sample_type: wgpu::TextureSampleType::Uint,
            view_dimension,
            multisampled: false,
        },
    }
}

/// The rows of a texture for a tensor. A kernel may load the texel after the last element.
pub(super) fn rows(bytes: u64) -> u32 {
    (bytes / TEXTURE_ROW + 1) as u32
}

pub(super) fn descriptor(width: u32, height: u32, usage: wgpu::TextureUsages) -> wgpu::TextureDescriptor<'static> {
    wgpu::TextureDescriptor {
        label: Some("operands"),
        size: wgpu::Extent3d { width, height, depth_or_array_layers: 1 },
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format: TEXEL_FORMAT,
        usage,
        view_formats: &[],
    }
}

/// Encodes the copy of `bytes` of a buffer from `offset` (a multiple of 16) to the beginning of a texture, and of up to 12 more bytes to
/// fill the last texel.
pub(super) fn fill_texture(
    encoder: &mut wgpu::CommandEncoder,
    buffer: &wgpu::Buffer,
    offset: u64,
    bytes: u64,
    texture: &wgpu::Texture,
) {
    let (rows, rest) = ((bytes / TEXTURE_ROW) as u32, (bytes % TEXTURE_ROW).div_ceil(TEXEL) as u32);
    let whole = (0, WIDTH, rows);
    let part = (rows, rest, u32::from(rest > 0));
    for (y, width, height) in [whole, part].into_iter().filter(|(_, _, height)| *height > 0) {
        let layout = wgpu::TexelCopyBufferLayout {
            offset: offset + u64::from(y) * TEXTURE_ROW,
            bytes_per_row: Some(TEXTURE_ROW as u32),
            rows_per_image: None,
        };
        let origin = wgpu::Origin3d { x: 0, y, z: 0 };
        encoder.copy_buffer_to_texture(
            wgpu::TexelCopyBufferInfo { buffer, layout },
            wgpu::TexelCopyTextureInfo { origin, ..texture.as_image_copy() },
            wgpu::Extent3d { width, height, depth_or_array_layers: 1 },
        );
    }
}
