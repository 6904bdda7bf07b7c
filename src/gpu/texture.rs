//! Textures that hold a tensor in the order of its memory, for kernels that read it through them.

use super::Gpu;
use crate::error::Result;

/// Texels of a row.
const WIDTH: u32 = 1024;
/// Texels behind each row, a cache line, that nothing reads: rows of a matrix would lie a power of two apart, and share few
/// lines of the cache.
const PADDING: u32 = 4;
/// Bytes of a texel: four words.
const TEXEL: u64 = 16;
/// Words, whatever they mean: kernels cast them.
pub(super) const TEXEL_FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Rgba32Uint;
/// Bytes of a row.
pub(super) const TEXTURE_ROW: u64 = WIDTH as u64 * TEXEL;

impl Gpu {
    /// A texture for tensors of up to `bytes`, of four words a texel.
    pub(crate) fn operand_texture(&self, bytes: u64) -> Result<wgpu::Texture> {
        // A kernel may look at the texel behind the last element.
        let height = (bytes / TEXTURE_ROW + 1) as u32;
        self.scoped("a texture for operands", || {
            self.device().create_texture(&wgpu::TextureDescriptor {
                label: Some("operands"),
                size: wgpu::Extent3d { width: WIDTH + PADDING, height, depth_or_array_layers: 1 },
                mip_level_count: 1,
                sample_count: 1,
                dimension: wgpu::TextureDimension::D2,
                format: TEXEL_FORMAT,
                usage: wgpu::TextureUsages::COPY_DST
                    | match self.caps().textures {
                        super::Textures::Storage => wgpu::TextureUsages::STORAGE_BINDING,
                        super::Textures::None | super::Textures::Sampled => wgpu::TextureUsages::TEXTURE_BINDING,
                    },
                view_formats: &[],
            })
        })
    }
}

/// Encodes the copy of `bytes` of a buffer from `offset` (a multiple of 16) on to the beginning of a texture, and up to 12
/// more, so that the last texel is whole.
pub(crate) fn fill_texture(
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
