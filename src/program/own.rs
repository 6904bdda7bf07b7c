//! Memory of the application's own for the inputs and outputs of a program, and further usages of the engine's.

use super::launches::SlotMemory;
use super::{Program, Recording, Source};
use crate::error::{Error, Result, human_bytes};
use crate::gpu::{Gpu, TENSORS};
use crate::kernel::{Access, View};
use std::collections::{BTreeMap, HashMap, HashSet};
use wgpu::{Buffer, BufferUsages};

/// Where the inputs and outputs of a program lie that the engine does not place: in buffers of the application, or in buffers of the
/// engine's with further usages ([`Program::preparing`]).
///
/// A buffer of the application is of the program's device and has [`BufferUsages::STORAGE`]; offsets are multiples of the device's
/// `min_storage_buffer_offset_alignment`, sizes those of the tensors. In one buffer, inputs and outputs do not lie side by side: WebGPU
/// forbids a dispatch that reads and writes one buffer. Weights of the application's own: [`super::Weights::insert`].
///
/// ```
/// # use wgformer::{DType, Error, Gpu, Graph, Program, Weights, ops};
/// # use wgformer::program::OwnBuffers;
/// # fn drawn(gpu: &Gpu, positions: &wgpu::Buffer, pass: &mut wgpu::RenderPass<'_>) -> Result<(), Error> {
/// let mut g = Graph::new();
/// let x = g.input("positions", [300, 4], DType::F32)?;
/// let moved = ops::scale(&mut g, x, 1.01)?;
/// g.output("vertices", moved)?;
/// // The input lies in a buffer of the application, the output where a render pass can read vertices.
/// let own = OwnBuffers::new().input("positions", positions, 0).output_usage("vertices", wgpu::BufferUsages::VERTEX);
/// let program = Program::preparing(gpu, &g, &Weights::new(gpu), &own)?.finish()?;
/// program.run()?;
/// let (vertices, offset, size) = program.output_buffer("vertices")?;
/// pass.set_vertex_buffer(0, vertices.slice(offset..offset + size));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct OwnBuffers {
    inputs: BTreeMap<String, Place>,
    outputs: BTreeMap<String, Place>,
}

/// Where a tensor lies.
#[derive(Clone, Debug)]
enum Place {
    /// In a buffer of the application, from an offset in bytes on.
    At(Buffer, u64),
    /// In a buffer of the engine's with these further usages.
    With(BufferUsages),
}

/// What to do with a program's memory besides.
#[derive(Debug, Default)]
pub(super) struct OwnMemory {
    /// Buffer and offset of slots.
    pub(super) slots: HashMap<usize, (Buffer, u64)>,
    /// Buffer, offset and size of inputs that the program does not write.
    pub(super) inputs: HashMap<String, (Buffer, u64, u64)>,
    /// Outputs that are copied behind a run, since they are no tensors of their own in the recording.
    copies: Vec<(String, View, Buffer, u64)>,
    /// Bytes of the engine's.
    pub(super) made: u64,
}

impl OwnBuffers {
    /// None: the engine places all.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An input that lies in a buffer of the application from `offset` (in bytes) on. The application fills it; [`Program::write`] refuses it,
    /// and indices in it are not checked: kernels guard themselves against those out of range.
    #[must_use]
    pub fn input(mut self, name: impl Into<String>, buffer: &Buffer, offset: u64) -> Self {
        self.inputs.insert(name.into(), Place::At(buffer.clone(), offset));
        self
    }

    /// An output that lies in a buffer of the application from `offset` (in bytes) on. Where the recording computes it as part of another tensor,
    /// or it is a state, an input or a weight, it is copied there at the end of a run, and the buffer needs [`BufferUsages::COPY_DST`] as well.
    #[must_use]
    pub fn output(mut self, name: impl Into<String>, buffer: &Buffer, offset: u64) -> Self {
        self.outputs.insert(name.into(), Place::At(buffer.clone(), offset));
        self
    }

    /// An input in a buffer of the engine's that has these usages as well, such as [`BufferUsages::UNIFORM`]. The application fills it
    /// ([`Program::input_buffer`]).
    #[must_use]
    pub fn input_usage(mut self, name: impl Into<String>, usages: BufferUsages) -> Self {
        self.inputs.insert(name.into(), Place::With(usages));
        self
    }

    /// An output in a buffer of the engine's that has these usages as well, such as [`BufferUsages::VERTEX`], [`BufferUsages::INDIRECT`] or
    /// [`BufferUsages::UNIFORM`] ([`Program::output_buffer`]). All outputs can be copied to buffers and textures.
    #[must_use]
    pub fn output_usage(mut self, name: impl Into<String>, usages: BufferUsages) -> Self {
        self.outputs.insert(name.into(), Place::With(usages));
        self
    }

    /// The memory of a recording's slots by these.
    pub(super) fn resolve(&self, gpu: &Gpu, recording: &Recording) -> Result<OwnMemory> {
        let mut own = OwnMemory::default();
        let mut taken: Vec<(String, Buffer, u64, u64)> = Vec::new();
        let mut take = |what: &str, name: &str, buffer: &Buffer, offset: u64, bytes: u64, usage| -> Result<()> {
            let what = format!("{what} {name}");
            check(gpu, &what, buffer, offset, bytes, usage)?;
            let other = taken.iter().find(|(_, b, at, size)| b == buffer && *at < offset + bytes && offset < at + size);
            if let Some((other, ..)) = other {
                return Err(Error::input(
                    what,
                    format!("its bytes {offset} to {} are those of {other}", offset + bytes),
                ));
            }
            taken.push((what, buffer.clone(), offset, bytes));
            Ok(())
        };
        for (name, place) in &self.inputs {
            let is_it = |source: &Source| matches!(source, Source::Input(input) if input == name);
            let found = recording.slots.iter().position(|slot| is_it(&slot.source));
            let slot = found.ok_or_else(|| unknown("input", name, recording))?;
            let bytes = recording.slots[slot].ty.bytes();
            let (buffer, offset) = place.memory(gpu, name, bytes)?;
            take("input", name, &buffer, offset, bytes, BufferUsages::STORAGE)?;
            own.inputs.insert(name.clone(), (buffer.clone(), offset, bytes));
            own.slots.insert(slot, (buffer, offset));
            own.made += place.made(bytes);
        }
        for (name, place) in &self.outputs {
            let found = recording.outputs.iter().find(|(output, _)| output == name);
            let (_, view) = found.ok_or_else(|| unknown("output", name, recording))?;
            let slot = &recording.slots[view.slot];
            let (buffer, offset) = place.memory(gpu, name, view.bytes())?;
            let whole = matches!(slot.source, Source::Temporary) && view.start == 0 && view.bytes() == slot.ty.bytes();
            own.made += place.made(view.bytes());
            let direct = whole && !own.slots.contains_key(&view.slot);
            let usage = if direct { BufferUsages::STORAGE } else { BufferUsages::COPY_DST };
            take("output", name, &buffer, offset, view.bytes(), usage)?;
            if direct {
                own.slots.insert(view.slot, (buffer, offset));
            } else {
                own.copies.push((name.clone(), view.clone(), buffer, offset));
            }
        }
        Ok(own)
    }
}

impl Place {
    fn memory(&self, gpu: &Gpu, name: &str, bytes: u64) -> Result<(Buffer, u64)> {
        match self {
            Self::At(buffer, offset) => Ok((buffer.clone(), *offset)),
            Self::With(usages) => Ok((gpu.buffer(name, bytes, TENSORS | *usages)?, 0)),
        }
    }
}

impl Place {
    fn made(&self, bytes: u64) -> u64 {
        if matches!(self, Self::With(_)) { bytes } else { 0 }
    }
}

impl OwnMemory {
    /// The slots that need no planned memory.
    pub(super) fn placed(&self) -> HashSet<usize> {
        self.slots.keys().copied().collect()
    }

    /// Buffer, offset and size of an output that is copied.
    pub(super) fn copied(&self, output: &str) -> Option<(&Buffer, u64, u64)> {
        let found = self.copies.iter().find(|(name, ..)| name == output);
        found.map(|(_, view, buffer, offset)| (buffer, *offset, view.bytes()))
    }

    /// Refuses copies that WebGPU does.
    pub(super) fn check_copies(&self, memory: &SlotMemory) -> Result<()> {
        for (name, view, to, _) in &self.copies {
            let Some((from, _)) = memory.slot(view.slot) else { continue };
            if !from.usage().contains(BufferUsages::COPY_SRC) || from == to {
                let message =
                    "it is copied from a buffer of the application's own, which must be another one, and with COPY_SRC";
                return Err(Error::input(format!("output {name}"), message));
            }
        }
        Ok(())
    }

    /// Encodes the copies of outputs, behind the last launch.
    pub(super) fn copy(&self, memory: &SlotMemory, encoder: &mut wgpu::CommandEncoder) {
        for (_, view, to, at) in &self.copies {
            if let Some((from, base)) = memory.slot(view.slot) {
                encoder.copy_buffer_to_buffer(from, base + view.dtype.bytes(view.start), to, *at, view.bytes());
            }
        }
    }
}

impl Recording {
    /// Has launches read these slots from buffers, not through textures: memory that the engine did not allocate may have nothing behind a tensor,
    /// and no textures in it.
    pub(super) fn read_as_buffers(&mut self, slots: &HashSet<usize>) {
        let bindings = self.dispatches.iter_mut().flat_map(|dispatch| &mut dispatch.bindings);
        for binding in bindings.filter(|binding| slots.contains(&binding.view.slot)) {
            if !binding.access.is_buffer() {
                binding.access = Access::Read;
            }
        }
    }
}

impl SlotMemory {
    /// Refuses launches that read one part of an application's buffer and write another: WebGPU allows one kind of use in a dispatch.
    pub(super) fn check_mixed(&self, recording: &Recording, own: &HashSet<usize>) -> Result<()> {
        for dispatch in &recording.dispatches {
            let buffers = || dispatch.bindings.iter().filter(|binding| binding.access.is_buffer());
            let memory = |slot: usize| self.slot(slot).map(|(buffer, _)| buffer);
            for read in buffers().filter(|binding| binding.access.only_reads()) {
                let (read, slots) = (read.view.slot, &recording.slots);
                let written = buffers().filter(|b| !b.access.only_reads()).map(|binding| binding.view.slot);
                let same = |&slot: &usize| memory(slot) == memory(read) && (own.contains(&slot) || own.contains(&read));
                if let Some(written) = written.into_iter().find(same) {
                    let what =
                        format!("{} reads {} and writes {}", dispatch.label, slots[read].label, slots[written].label);
                    let hint = "which lie in one buffer: WebGPU forbids that, so give them buffers of their own";
                    return Err(Error::input("own buffers", format!("{what}, {hint}")));
                }
            }
        }
        Ok(())
    }
}

/// Refuses a range of a buffer that launches cannot bind, or copies cannot write.
pub(super) fn check(
    gpu: &Gpu,
    what: &str,
    buffer: &Buffer,
    offset: u64,
    bytes: u64,
    usage: BufferUsages,
) -> Result<()> {
    if !buffer.usage().contains(usage) {
        let message = format!("its buffer must be created with {usage:?}, but it has {:?}", buffer.usage());
        return Err(Error::input(what, message));
    }
    let alignment = if usage == BufferUsages::STORAGE { gpu.caps().offset_alignment } else { 4 };
    if !offset.is_multiple_of(alignment) {
        return Err(Error::input(what, format!("its offset {offset} must be a multiple of {alignment} bytes")));
    }
    if offset.checked_add(bytes).is_none_or(|end| end > buffer.size()) {
        let (bytes, whole) = (human_bytes(bytes), human_bytes(buffer.size()));
        return Err(Error::input(what, format!("its {bytes} from offset {offset} on do not fit a buffer of {whole}")));
    }
    Ok(())
}

fn unknown(kind: &str, name: &str, recording: &Recording) -> Error {
    let outputs = recording.outputs.iter().map(|(name, _)| name.as_str());
    let inputs = recording.slots.iter().filter_map(|slot| match &slot.source {
        Source::Input(name) => Some(name.as_str()),
        _ => None,
    });
    let names: Vec<&str> = if kind == "input" { inputs.collect() } else { outputs.collect() };
    Error::input(
        format!("own {kind} {name}"),
        format!("the program has no {kind} of this name; it has: {}", names.join(", ")),
    )
}

impl Program {
    /// Refuses to write an input that lies in the application's memory.
    pub(super) fn check_written(&self, name: &str) -> Result<()> {
        match self.own.inputs.contains_key(name) {
            true => {
                Err(Error::input(name, "it lies in a buffer of the application's own (OwnBuffers): write it there"))
            }
            false => Ok(()),
        }
    }
}
