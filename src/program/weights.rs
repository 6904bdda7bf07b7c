//! The store of weights and states: name → GPU memory, shared by all programs of a model.

use super::own;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Held, TENSORS};
use crate::graph::{Graph, Storage};
use crate::shape::TensorType;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Alignment of weights in a flat range, in elements: 256 bytes of f32, the largest offset alignment of WebGPU.
const ALIGNMENT: usize = 64;

/// Weights and states by name. Cloning shares the memory.
#[derive(Clone, Debug)]
pub struct Weights {
    gpu: Gpu,
    storage: Storage,
    entries: Arc<Mutex<HashMap<String, WeightBuffer>>>,
}

/// The memory of a weight or state.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WeightBuffer {
    /// The type of its content.
    pub ty: TensorType,
    /// The buffer.
    pub buffer: wgpu::Buffer,
    /// The offset in bytes.
    pub offset: u64,
    /// The memory, unless it is the application's ([`Weights::insert`]).
    pub(super) held: Option<Arc<Held>>,
}

impl WeightBuffer {
    fn of_type(self, name: &str, ty: &TensorType) -> Result<Self> {
        if self.ty == *ty {
            return Ok(self);
        }
        Err(Error::shape(name, format!("the store holds {}, but the graph wants {ty}", self.ty)))
    }
}

impl Weights {
    /// An empty store of matrices in f32.
    #[must_use]
    pub fn new(gpu: &Gpu) -> Self {
        Self::stored_as(gpu, DType::F32)
    }

    /// An empty store of matrices in these types. Graphs that run on it are made with them: [`Graph::with_storage`].
    #[must_use]
    pub fn stored_as(gpu: &Gpu, storage: impl Into<Storage>) -> Self {
        Self { gpu: gpu.clone(), storage: storage.into(), entries: Arc::default() }
    }

    /// The types of its matrices.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// A store with the parameters of a graph, zero, in one flat range named `flat` (in elements of 4 bytes).
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the device does not have the memory.
    pub fn for_graph(gpu: &Gpu, graph: &Graph, flat: &str) -> Result<Self> {
        let store = Self::new(gpu);
        let entries: Vec<(String, TensorType)> =
            graph.parameters().map(|(name, t)| (name.to_owned(), graph.ty(t).clone())).collect();
        store.allocate(flat, &entries)?;
        Ok(store)
    }

    /// The offsets in elements at which [`Weights::allocate`] lays out tensors, and their total.
    #[must_use]
    pub fn layout(entries: &[(String, TensorType)]) -> (Vec<usize>, usize) {
        let mut total = 0;
        let offsets = entries
            .iter()
            .map(|(_, ty)| {
                let offset = total;
                total += (ty.bytes() as usize / 4).next_multiple_of(ALIGNMENT);
                offset
            })
            .collect();
        (offsets, total)
    }

    /// Adds tensors side by side in one buffer, which is itself the state `flat`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the device does not have the memory.
    pub fn allocate(&self, flat: &str, entries: &[(String, TensorType)]) -> Result<()> {
        let (offsets, total) = Self::layout(entries);
        let whole = TensorType::f32([total]);
        let held = Some(self.gpu.hold(flat, whole.bytes())?);
        let buffer = self.gpu.buffer(flat, whole.bytes(), TENSORS)?;
        let mut map = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        for ((name, ty), offset) in entries.iter().zip(offsets) {
            map.insert(
                name.clone(),
                WeightBuffer { ty: ty.clone(), buffer: buffer.clone(), offset: offset as u64 * 4, held: held.clone() },
            );
        }
        map.insert(flat.into(), WeightBuffer { ty: whole, buffer, offset: 0, held });
        Ok(())
    }

    /// Moves tensors into one buffer named `flat`, each to its offset in elements. Existing values are copied, the others are zero. Programs
    /// that were prepared before keep using the old memory.
    ///
    /// # Errors
    /// [`Error::Shape`] if the store has a tensor with another type; [`Error::OutOfMemory`].
    pub fn move_into_flat(&self, flat: &str, whole: &TensorType, layout: &[(String, TensorType, usize)]) -> Result<()> {
        let map = || self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let held = map().clone();
        if let Some((name, held, ty)) =
            layout.iter().find_map(|(n, ty, _)| held.get(n).filter(|e| e.ty != *ty).map(|e| (n, e.ty.clone(), ty)))
        {
            return Err(Error::shape(name, format!("the store holds {held}, but training wants {ty}")));
        }
        for (name, entry) in layout.iter().filter_map(|(name, ..)| Some((name, held.get(name)?))) {
            if !entry.buffer.usage().contains(wgpu::BufferUsages::COPY_SRC) {
                let message = "training moves it into a range of all weights, for which its buffer needs COPY_SRC";
                return Err(Error::input(name, message));
            }
        }
        let already_there = |entry: &WeightBuffer| {
            layout.iter().all(|(name, ty, offset)| {
                held.get(name).is_some_and(|e| e.buffer == entry.buffer && e.offset == ty.dtype.bytes(*offset))
            })
        };
        if held.get(flat).is_some_and(|entry| entry.ty == *whole && already_there(entry)) {
            return Ok(());
        }
        let memory = Some(self.gpu.hold(flat, whole.bytes())?);
        let buffer = self.gpu.buffer(flat, whole.bytes(), TENSORS)?;
        let mut encoder = self.gpu.encoder("move weights");
        let mut moved = Vec::with_capacity(layout.len() + 1);
        for (name, ty, offset) in layout {
            let offset = ty.dtype.bytes(*offset);
            if let Some(old) = held.get(name) {
                encoder.copy_buffer_to_buffer(&old.buffer, old.offset, &buffer, offset, ty.bytes());
            }
            moved.push((
                name.clone(),
                WeightBuffer { ty: ty.clone(), buffer: buffer.clone(), offset, held: memory.clone() },
            ));
        }
        moved.push((flat.to_owned(), WeightBuffer { ty: whole.clone(), buffer, offset: 0, held: memory }));
        self.gpu.submit("moving weights into a flat range", [encoder])?;
        map().extend(moved);
        Ok(())
    }

    /// The weight or state of that name, created as zero if it is missing.
    ///
    /// # Errors
    /// [`Error::Shape`] if it exists with another type; [`Error::OutOfMemory`].
    pub fn ensure(&self, name: &str, ty: &TensorType) -> Result<WeightBuffer> {
        if let Some(entry) = self.get(name) {
            return entry.of_type(name, ty);
        }
        // Whole texels, for kernels that read through textures.
        let bytes = ty.bytes().next_multiple_of(16);
        let held = Some(self.gpu.hold(name, bytes)?);
        let buffer = self.gpu.buffer(name, bytes, TENSORS)?;
        let entry = WeightBuffer { ty: ty.clone(), buffer, offset: 0, held };
        // Another thread may have added it meanwhile.
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry(name.into()).or_insert(entry).clone();
        entry.of_type(name, ty)
    }

    /// Adds a weight or state that lies in a buffer of the application from `offset` (in bytes) on, in the place of one of its name. Programs that
    /// were prepared before keep using the old memory. The application's own passes may write it between runs; training wants weights in flat
    /// ranges, and moves it there.
    ///
    /// # Errors
    /// [`Error::Input`] if the buffer lacks [`wgpu::BufferUsages::STORAGE`], the offset is not aligned to the device's
    /// `min_storage_buffer_offset_alignment`, or the tensor does not fit.
    pub fn insert(&self, name: &str, ty: &TensorType, buffer: &wgpu::Buffer, offset: u64) -> Result<()> {
        own::check(&self.gpu, &format!("weight {name}"), buffer, offset, ty.bytes(), wgpu::BufferUsages::STORAGE)?;
        let entry = WeightBuffer { ty: ty.clone(), buffer: buffer.clone(), offset, held: None };
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into(), entry);
        Ok(())
    }

    /// A new store that shares the memory of the current weights. Weights added later to one store are not in the other.
    #[must_use]
    pub fn share(&self) -> Self {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self { gpu: self.gpu.clone(), storage: self.storage.clone(), entries: Arc::new(Mutex::new(entries)) }
    }

    /// The device.
    pub(crate) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The same store, with the caches of decoders in another type: f32, f16 or q8_0.
    #[must_use]
    pub fn with_cache(mut self, dtype: DType) -> Self {
        self.storage.cache = dtype;
        self
    }

    /// The weight or state of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<WeightBuffer> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The names, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.entries.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        names.sort();
        names
    }

    fn expect(&self, name: &str) -> Result<WeightBuffer> {
        self.get(name).ok_or_else(|| Error::input(name, "the store has no weight or state of this name"))
    }

    /// Writes raw words to a weight or state; they must be as many bytes as it has.
    ///
    /// # Errors
    /// [`Error::Input`] if the name is unknown or the size differs.
    pub fn upload(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let entry = self.expect(name)?;
        if bytes.len() as u64 != entry.ty.bytes() {
            let message = format!("{} takes {} bytes, got {}", entry.ty, entry.ty.bytes(), bytes.len());
            return Err(Error::input(name, message));
        }
        self.gpu.write(&entry.buffer, entry.offset, bytes)
    }

    /// Reads a byte range of a weight or state back; both ends are multiples of 4.
    ///
    /// # Errors
    /// [`Error::Input`] if the name is unknown or the range is outside; [`Error::DeviceLost`].
    pub fn download_part(&self, name: &str, part: Range<u64>) -> Result<Vec<u8>> {
        let entry = self.expect(name)?;
        if part.start > part.end || part.end > entry.ty.bytes() {
            return Err(Error::input(
                name,
                format!("bytes {part:?} are outside {}, which has {} bytes", entry.ty, entry.ty.bytes()),
            ));
        }
        self.gpu.read(&entry.buffer, entry.offset + part.start, part.end - part.start)
    }

    /// Reads a weight or state back.
    ///
    /// # Errors
    /// [`Error::Input`] if the name is unknown; [`Error::DeviceLost`].
    pub fn download(&self, name: &str) -> Result<Vec<u8>> {
        let entry = self.expect(name)?;
        self.gpu.read(&entry.buffer, entry.offset, entry.ty.bytes())
    }

    /// The async form of [`Weights::download`].
    ///
    /// # Errors
    /// As [`Weights::download`].
    pub async fn download_async(&self, name: &str) -> Result<Vec<u8>> {
        let entry = self.expect(name)?;
        self.gpu.read_async(&entry.buffer, entry.offset, entry.ty.bytes()).await
    }
}
