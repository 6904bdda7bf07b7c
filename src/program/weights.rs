//! The store of weights and states: name → GPU memory, shared by every program of a model.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, TENSORS};
use crate::graph::{Graph, Storage};
use crate::shape::TensorType;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Elements that weights in one flat range are aligned to: 256 bytes of f32, the largest offset alignment there is.
const ALIGNMENT: usize = 64;

/// Weights and states by name. Cloning shares the memory.
#[derive(Clone, Debug)]
pub struct Weights {
    gpu: Gpu,
    storage: Storage,
    entries: Arc<Mutex<HashMap<String, Entry>>>,
}

/// Where a weight or state lies.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What lies there.
    pub ty: TensorType,
    /// The buffer.
    pub buffer: wgpu::Buffer,
    /// The offset in bytes.
    pub offset: u64,
}

impl Entry {
    fn of_type(self, name: &str, ty: &TensorType) -> Result<Self> {
        if self.ty == *ty {
            return Ok(self);
        }
        Err(Error::shape(name, format!("the store holds {}, the graph wants {ty}", self.ty)))
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
        let buffer = self.gpu.buffer(flat, whole.bytes(), TENSORS)?;
        let mut map = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        for ((name, ty), offset) in entries.iter().zip(offsets) {
            map.insert(name.clone(), Entry { ty: ty.clone(), buffer: buffer.clone(), offset: offset as u64 * 4 });
        }
        map.insert(flat.into(), Entry { ty: whole, buffer, offset: 0 });
        Ok(())
    }

    /// Moves tensors into one buffer, each to its offset in elements; `flat` names the whole. Values that the store has
    /// already come along, others are zero. Programs that were prepared before keep using the old memory.
    ///
    /// # Errors
    /// [`Error::Shape`] if the store has a tensor with another type; [`Error::OutOfMemory`].
    pub fn gather(&self, flat: &str, whole: &TensorType, places: &[(String, TensorType, usize)]) -> Result<()> {
        let map = || self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let held = map().clone();
        if let Some((name, held, ty)) =
            places.iter().find_map(|(n, ty, _)| held.get(n).filter(|e| e.ty != *ty).map(|e| (n, e.ty.clone(), ty)))
        {
            return Err(Error::shape(name, format!("the store holds {held}, training wants {ty}")));
        }
        let in_place = |entry: &Entry| {
            places.iter().all(|(name, ty, offset)| {
                held.get(name).is_some_and(|e| e.buffer == entry.buffer && e.offset == ty.dtype.bytes(*offset))
            })
        };
        if held.get(flat).is_some_and(|entry| entry.ty == *whole && in_place(entry)) {
            return Ok(());
        }
        let buffer = self.gpu.buffer(flat, whole.bytes(), TENSORS)?;
        let mut encoder = self.gpu.encoder("gather");
        let mut moved = Vec::with_capacity(places.len() + 1);
        for (name, ty, offset) in places {
            let offset = ty.dtype.bytes(*offset);
            if let Some(old) = held.get(name) {
                encoder.copy_buffer_to_buffer(&old.buffer, old.offset, &buffer, offset, ty.bytes());
            }
            moved.push((name.clone(), Entry { ty: ty.clone(), buffer: buffer.clone(), offset }));
        }
        moved.push((flat.to_owned(), Entry { ty: whole.clone(), buffer, offset: 0 }));
        self.gpu.submit("gathering weights", [encoder])?;
        map().extend(moved);
        Ok(())
    }

    /// The entry of that name, created and zero if it is not there.
    ///
    /// # Errors
    /// [`Error::Shape`] if it is there with another type; [`Error::OutOfMemory`].
    pub fn ensure(&self, name: &str, ty: &TensorType) -> Result<Entry> {
        if let Some(entry) = self.get(name) {
            return entry.of_type(name, ty);
        }
        // Whole texels, for kernels that read through textures.
        let buffer = self.gpu.buffer(name, ty.bytes().next_multiple_of(16), TENSORS)?;
        let entry = Entry { ty: ty.clone(), buffer, offset: 0 };
        // Another thread may have been faster.
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry(name.into()).or_insert(entry).clone();
        entry.of_type(name, ty)
    }

    /// A store of its own with the memory of what is here now: what is added to one is not seen by the other.
    #[must_use]
    pub fn fork(&self) -> Self {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self { gpu: self.gpu.clone(), storage: self.storage.clone(), entries: Arc::new(Mutex::new(entries)) }
    }

    /// The entry of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Entry> {
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

    fn expect(&self, name: &str) -> Result<Entry> {
        self.get(name).ok_or_else(|| Error::input(name, "there is no weight or state of this name"))
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

    /// Reads a stretch of a weight or state back, from byte to byte; both are multiples of 4.
    ///
    /// # Errors
    /// [`Error::Input`] if the name is unknown or the stretch does not lie in it; [`Error::DeviceLost`].
    pub fn download_part(&self, name: &str, part: Range<u64>) -> Result<Vec<u8>> {
        let entry = self.expect(name)?;
        if part.start > part.end || part.end > entry.ty.bytes() {
            return Err(Error::input(name, format!("bytes {part:?} are wanted of {}", entry.ty)));
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
}
