//! Tests whether a driver reads tensors correctly through textures, both copied and in the memory of buffers.

use super::quirks::TEXTURE_WORK;
use super::texture::{fill_texture, operand_texture, shared_texture};
use super::{Quirks, Textures, text};
use crate::error::Result;
use crate::gpu::probe::{Verdict, refuted};
use crate::gpu::{BindingKind, Gpu, TENSORS};

const WRITE: &str = include_str!("probe_write.wgsl");
const READ: &str = include_str!("probe_textures.wgsl");
/// Words of the tensor: three texture rows and a part of one.
const COUNT: u32 = 3 * 4096 + 7 * 64;

/// Disables the kinds of textures that the driver reads wrong.
pub(super) fn prove(gpu: &Gpu, quirks: &mut Quirks) {
    if quirks.textures == Textures::None {
        return;
    }
    let shared = quirks.shared_textures;
    if shared && refuted(gpu, "textures in the memory of buffers", reads(gpu, true)) {
        quirks.shared_textures = false;
        quirks.texture_work = quirks.texture_work.max(TEXTURE_WORK);
    }
    // Some tensors are copied even where textures share the memory of buffers.
    if refuted(gpu, "textures", reads(gpu, false)) {
        *quirks = Quirks { textures: Textures::None, shared_textures: false, ..quirks.clone() };
    }
}

/// Compares what a launch reads through textures with what another launch wrote.
fn reads(gpu: &Gpu, shared: bool) -> Result<Verdict> {
    let caps = gpu.caps();
    let (bytes, offset) = (u64::from(COUNT) * 4, caps.offset_alignment.max(256));
    let tensor = gpu.buffer("probe", offset + bytes, TENSORS)?;
    let verdict = gpu.buffer("probe", bytes, TENSORS)?;
    let texture = match shared {
        true => shared_texture(gpu, &tensor, offset, bytes)?,
        false => operand_texture(gpu, bytes)?,
    };
    let view = texture.create_view(&Default::default());
    let written = wgpu::BufferBinding { buffer: &tensor, offset, size: None };
    let mut encoder = gpu.encoder("probe");
    let bound = [(BindingKind::Storage { read_only: false }, wgpu::BindingResource::Buffer(written))];
    gpu.probe(&mut encoder, "probe_write", WRITE, &bound, COUNT / 64)?;
    if !shared {
        fill_texture(&mut encoder, &tensor, offset, bytes, &texture);
    }
    let storage = caps.quirks.textures == Textures::Storage;
    let through = [1, 2, 3].map(|binding| (binding, storage));
    let text = text::read_through_textures(&format!("const COUNT = {COUNT}u;\n{READ}"), &[], &through);
    let read = || (BindingKind::Texture, wgpu::BindingResource::TextureView(&view));
    let bound = [read(), read(), read(), (BindingKind::Storage { read_only: false }, verdict.as_entire_binding())];
    gpu.probe(&mut encoder, "probe_textures", &text, &bound, COUNT / 64)?;
    Ok(Verdict::of(&gpu.probed(encoder, &verdict, bytes)?))
}
