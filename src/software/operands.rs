//! The textures through which a program's launches read tensors, and the copies into them.

use super::texture::{fill_texture, operand_texture, shared_texture};
use super::{Stage, Staging};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::kernel::{Access, Dispatch, View};
use crate::program::Recording;
use std::collections::HashMap;

/// Bytes of the textures for copies of a recording.
pub(crate) fn texture_bytes(recording: &Recording) -> u64 {
    Staging::new(recording).bytes()
}

/// The textures of a program.
#[derive(Debug)]
pub(crate) struct Operands {
    staging: Staging,
    copied: Vec<wgpu::Texture>,
    /// The textures in the memory of buffers, by buffer and offset.
    shared: HashMap<(wgpu::Buffer, u64), wgpu::TextureView>,
}

/// A tensor and the texture through which a kernel reads it.
#[derive(Debug)]
pub(crate) struct Copy {
    buffer: wgpu::Buffer,
    offset: u64,
    bytes: u64,
    texture: wgpu::Texture,
}

impl Copy {
    /// Encodes the copy.
    pub(crate) fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        fill_texture(encoder, &self.buffer, self.offset, self.bytes, &self.texture);
    }
}

impl Operands {
    /// The textures of a recording; `buffer_of` returns the buffer and offset of a view.
    #[expect(clippy::mutable_key_type, reason = "wgpu hashes a buffer by its identity")]
    pub(crate) fn new<'a>(
        gpu: &Gpu,
        recording: &Recording,
        buffer_of: impl Fn(&Dispatch, &View) -> Result<(&'a wgpu::Buffer, u64)>,
    ) -> Result<Self> {
        let staging = Staging::new(recording);
        let copied = staging.textures.iter().map(|&bytes| operand_texture(gpu, bytes)).collect::<Result<_>>()?;
        let shared = shared_views(gpu, recording, buffer_of)?;
        Ok(Self { staging, copied, shared })
    }

    /// The texture of each binding of dispatch `index`, if it is read through one.
    pub(crate) fn views<'a>(
        &self,
        index: usize,
        dispatch: &Dispatch,
        buffer_of: impl Fn(&Dispatch, &View) -> Result<(&'a wgpu::Buffer, u64)>,
    ) -> Result<Vec<Option<wgpu::TextureView>>> {
        let mut views = vec![None; dispatch.bindings.len()];
        for (number, binding) in dispatch.bindings.iter().enumerate() {
            if let Access::Texture { shared: true, .. } = binding.access {
                let (buffer, offset) = buffer_of(dispatch, &binding.view)?;
                views[number] = self.shared.get(&(buffer.clone(), offset)).cloned();
            }
        }
        for stage in &self.staging.stages[index] {
            views[stage.binding] = Some(self.copied[stage.texture].create_view(&Default::default()));
        }
        Ok(views)
    }

    /// The copies before dispatch `index`.
    pub(crate) fn copies<'a>(
        &self,
        index: usize,
        dispatch: &Dispatch,
        buffer_of: impl Fn(&Dispatch, &View) -> Result<(&'a wgpu::Buffer, u64)>,
    ) -> Result<Vec<Copy>> {
        let copy = |stage: &Stage| {
            let view = &dispatch.bindings[stage.binding].view;
            let (buffer, offset) = buffer_of(dispatch, view)?;
            let (buffer, texture) = (buffer.clone(), self.copied[stage.texture].clone());
            Ok(Copy { buffer, offset, bytes: view.bytes(), texture })
        };
        self.staging.stages[index].iter().filter(|stage| stage.copy).map(copy).collect()
    }
}

/// Textures in the memory of buffers. Tensors that begin at the same offset share one, as large as the largest: each texture costs CPU time
/// in a submission.
#[expect(clippy::mutable_key_type, reason = "wgpu hashes a buffer by its identity")]
fn shared_views<'a>(
    gpu: &Gpu,
    recording: &Recording,
    buffer_of: impl Fn(&Dispatch, &View) -> Result<(&'a wgpu::Buffer, u64)>,
) -> Result<HashMap<(wgpu::Buffer, u64), wgpu::TextureView>> {
    let mut sizes: HashMap<(wgpu::Buffer, u64), u64> = HashMap::new();
    for dispatch in &recording.dispatches {
        for binding in dispatch.bindings.iter().filter(|b| matches!(b.access, Access::Texture { shared: true, .. })) {
            let (buffer, offset) = buffer_of(dispatch, &binding.view)?;
            let size = sizes.entry((buffer.clone(), offset)).or_default();
            *size = binding.view.bytes().max(*size);
        }
    }
    let view = |((buffer, offset), bytes): ((wgpu::Buffer, u64), u64)| {
        let texture = shared_texture(gpu, &buffer, offset, bytes)?;
        Ok(((buffer, offset), texture.create_view(&Default::default())))
    };
    sizes.into_iter().map(view).collect()
}
