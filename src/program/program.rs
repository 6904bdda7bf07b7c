//! A recording that is prepared for one device and run.

use super::inputs::InputBuffer;
use super::launches::SlotMemory;
use super::own::OwnMemory;
use super::pieces::Begun;
use super::recut::{Cutting, locked};
use super::{MemoryReport, Plan, Recording};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Held, Readback, Uploads};
use crate::kernel::View;
use parking_lot::{ReentrantMutex, ReentrantMutexGuard};
use std::cell::{RefCell, RefMut};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

/// A recording with its buffers, pipelines and bind groups on one device.
///
/// Everything that can be decided before a step is decided: a run encodes and submits, and creates nothing. Only when the measured speed
/// of the device changes does the next run cut long dispatches again.
#[derive(Debug)]
pub struct Program {
    pub(super) gpu: Gpu,
    pub(super) recording: Recording,
    pub(super) plan: Plan,
    pub(super) own: OwnMemory,
    pub(super) memory: SlotMemory,
    pub(super) arenas: Vec<wgpu::Buffer>,
    pub(super) input_buffer: wgpu::Buffer,
    pub(super) inputs: Mutex<InputBuffer>,
    /// Held while a run is encoded, and until its last submission if it has several. The holding thread may lock it again from a
    /// callback of wgpu.
    pub(super) running: ReentrantMutex<RefCell<Uploads>>,
    pub(super) begun: Mutex<Begun>,
    pub(super) cutting: Mutex<Cutting>,
    /// The launches as cut for [`Program::pieces`].
    pub(super) pieces: Mutex<Cutting>,
    /// Whether the budget follows the measured speed of the device.
    pub(super) follows: bool,
    /// Its memory, and that of its weights.
    pub(super) _held: Vec<Arc<Held>>,
}

impl Program {
    /// The recording.
    #[must_use]
    pub fn recording(&self) -> &Recording {
        &self.recording
    }

    /// The memory plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The sizes of the memory by kind.
    #[must_use]
    pub fn memory(&self) -> MemoryReport {
        MemoryReport::new(&self.recording, &self.plan)
    }

    /// The device.
    #[must_use]
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Whether the program has an input of this name. Inputs that no output depends on are left out.
    #[must_use]
    pub fn has_input(&self, name: &str) -> bool {
        self.input_buffer(name).is_ok()
    }

    /// Writes an input, as the bytes of GPU memory. The next run sends it.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such input, the size differs, or an id or label is out of range.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.check_written(name)?;
        self.inputs().write(name, bytes)
    }

    pub(super) fn inputs(&self) -> MutexGuard<'_, InputBuffer> {
        locked(&self.inputs)
    }

    pub(super) fn begun(&self) -> MutexGuard<'_, Begun> {
        locked(&self.begun)
    }

    /// Begins a run and returns its number. An unfinished run in pieces ends.
    pub(super) fn begin(&self) -> u64 {
        let (number, left) = self.begun().begin();
        self.inputs().take_back(left);
        number
    }

    /// Encodes and submits one run without waiting. Runs of several threads are serialised.
    ///
    /// # Errors
    /// [`Error::DeviceLost`]; [`Error::Graph`] in a callback of wgpu that is called during another run of the program.
    pub fn run(&self) -> Result<()> {
        self.run_reading(&[]).map(drop)
    }

    /// Encodes one run into the caller's encoder, between the caller's own commands. The inputs' values are taken now.
    ///
    /// The whole run goes into this encoder, however long it takes. An application that draws frames encodes [`Program::pieces`] instead.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`]; [`Error::Graph`] as [`Program::run`].
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) -> Result<()> {
        let running = self.running.lock();
        let launches = self.cut_next()?;
        let mut uploads = uploads_of(&running)?;
        self.begin();
        self.send_inputs(&mut uploads, encoder)?;
        self.gpu.application_submits();
        launches.encode(encoder, 0..launches.steps.len(), self.gpu.stopwatch());
        self.own.copy(&self.memory, encoder);
        Ok(())
    }

    /// Encodes the readback of an output at the end of the caller's encoder.
    ///
    /// # Errors
    /// As [`Program::run_reading`].
    pub fn readback(&self, encoder: &mut wgpu::CommandEncoder, output: &str) -> Result<Readback> {
        let (buffer, offset, size) = self.output_buffer(output)?;
        self.gpu.readback(encoder, buffer, offset, size)
    }

    /// Sends the inputs that were written since the last run, and returns their ranges.
    pub(super) fn send_inputs(
        &self,
        uploads: &mut Uploads,
        encoder: &mut wgpu::CommandEncoder,
    ) -> Result<Vec<Range<usize>>> {
        if !self.inputs().written() {
            return Ok(Vec::new());
        }
        // While the ring waits for a chunk, wgpu's callbacks run, which may write inputs.
        uploads.reserve()?;
        let sent = self.inputs().send(|offset, bytes| uploads.write(encoder, &self.input_buffer, offset, bytes))?;
        uploads.finish(encoder).inspect_err(|_| self.inputs().take_back(sent.clone()))?;
        Ok(sent)
    }

    /// The memory of an input: buffer, offset and size in bytes, for applications that fill it with their own passes. A pending
    /// [`Program::write`] of the input would overwrite it.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such input.
    pub fn input_buffer(&self, name: &str) -> Result<(&wgpu::Buffer, u64, u64)> {
        if let Some((buffer, offset, size)) = self.own.inputs.get(name) {
            return Ok((buffer, *offset, *size));
        }
        let (offset, size) = self.inputs().range(name)?;
        Ok((&self.input_buffer, offset, size))
    }

    fn output(&self, name: &str) -> Result<&View> {
        let found = self.recording.outputs.iter().find(|(n, _)| n == name);
        found.map(|(_, view)| view).ok_or_else(|| {
            let names: Vec<&str> = self.recording.outputs.iter().map(|(n, _)| n.as_str()).collect();
            Error::input(name, format!("the program has no output of this name; it has: {}", names.join(", ")))
        })
    }

    /// The memory of an output: buffer, offset and size in bytes. It holds the value of the last run until the next.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such output.
    pub fn output_buffer(&self, name: &str) -> Result<(&wgpu::Buffer, u64, u64)> {
        if let Some(copied) = self.own.copied(name) {
            return Ok(copied);
        }
        let view = self.output(name)?;
        let place = self.memory.slot(view.slot);
        let (buffer, offset) = place.ok_or_else(|| Error::input(name, "the output has no memory"))?;
        Ok((buffer, offset + view.dtype.bytes(view.start), view.bytes()))
    }

    /// Waits for the work submitted so far and reads an output back, as the bytes of GPU memory.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such output; [`Error::DeviceLost`].
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let (buffer, offset, size) = self.output_buffer(name)?;
        self.gpu.read(buffer, offset, size)
    }

    /// The async form of [`Program::read`].
    ///
    /// # Errors
    /// As [`Program::read`].
    pub async fn read_async(&self, name: &str) -> Result<Vec<u8>> {
        let (buffer, offset, size) = self.output_buffer(name)?;
        self.gpu.read_async(buffer, offset, size).await
    }

    /// Reads an f32 output back.
    ///
    /// # Errors
    /// As [`Program::read`].
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        Ok(bytemuck::pod_collect_to_vec(&self.read(name)?))
    }

    /// Fills all planned memory with a pattern. Tests use NaN to find elements that are never written.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn fill_temporaries(&self, pattern: u32) -> Result<()> {
        for (buffer, size) in self.arenas.iter().zip(&self.plan.arenas) {
            let words = vec![pattern; *size as usize / 4];
            self.gpu.write(buffer, 0, bytemuck::cast_slice(&words))?;
        }
        Ok(())
    }

    /// Of a program that was prepared apart ([`Program::prepare_apart`]) and filled with a pattern ([`Program::fill_temporaries`]): the temporary
    /// beside whose memory something else stands by now.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn written_outside(&self, pattern: u32) -> Result<Option<String>> {
        for (index, (buffer, size)) in self.arenas.iter().zip(&self.plan.arenas).enumerate() {
            let bytes = self.gpu.read(buffer, 0, *size)?;
            let mut owned: Vec<(usize, usize, &str)> = (self.plan.allocations.iter().zip(&self.recording.slots))
                .filter_map(|(place, slot)| Some((place.filter(|place| place.arena == index)?, slot)))
                .map(|(place, slot)| (place.offset as usize, slot.ty.bytes() as usize, slot.label.as_str()))
                .collect();
            owned.sort_unstable();
            let ends = owned.iter().map(|(start, length, label)| (start + length, *label));
            let starts = owned.iter().map(|(start, ..)| *start).skip(1).chain([bytes.len()]);
            let first = owned.first().map(|(start, _, label)| (0..*start, *label));
            let bands = ends.zip(starts).map(|((end, label), start)| (end.next_multiple_of(4)..start, label));
            for (band, label) in first.into_iter().chain(bands) {
                let words = bytes.get(band).unwrap_or_default().chunks_exact(4);
                if words.into_iter().any(|word| word != pattern.to_le_bytes()) {
                    return Ok(Some(label.to_owned()));
                }
            }
        }
        Ok(None)
    }
}

/// The uploads of a program; an error if this thread is already in a run of it.
pub(super) fn uploads_of<'a>(running: &'a ReentrantMutexGuard<'_, RefCell<Uploads>>) -> Result<RefMut<'a, Uploads>> {
    running.try_borrow_mut().map_err(|_| {
        Error::Graph(
"a callback of wgpu started a run of the program during another run of it: start the run after the callback returns"
                .into(),
        )
    })
}
