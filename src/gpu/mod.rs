//! Adapters, devices, buffers, uploads and readbacks: everything the engine asks of wgpu before there is a graph.

mod adapter;
mod caps;
mod choices;
mod dialect;
mod fault;
mod meter;
mod open;
mod pipeline;
pub(crate) mod probe;
mod readback;
mod signal;
mod speed;
mod timestamps;
mod upload;
mod wait;

pub use adapter::{ADAPTER_VARIABLE, AdapterChoice, AdapterSummary};
pub use caps::{AdapterClass, Caps};
pub use choices::{Choices, Tuning};
pub use dialect::Dialect;
pub(crate) use meter::Stopwatch;
pub use open::{GpuOptions, Polling};
pub(crate) use pipeline::Bound;
pub use readback::Readback;
use speed::bounded;
pub(crate) use speed::{Work, usual};
pub use timestamps::Timestamps;
pub use upload::Uploads;

use crate::error::{Error, Result, human_bytes};
use crate::software::SharedMemory;
use fault::Faults;
use meter::Meter;
use readback::Pool;
use signal::Watcher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use upload::Ring;

/// What buffers of tensors are used for.
pub(crate) const TENSORS: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

/// An adapter and its device, opened by the engine or adopted from the application. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Gpu {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    info: wgpu::AdapterInfo,
    caps: Caps,
    faults: Arc<Faults>,
    /// A buffer that is asked for to see whether the device answers.
    #[cfg(not(target_arch = "wasm32"))]
    pulse: Mutex<Option<wgpu::Buffer>>,
    /// Where buffers come from on a driver that computes on the CPU, if textures can lie in them.
    shared: Option<SharedMemory>,
    pool: Pool,
    /// As many as threads have written at once.
    rings: Mutex<Vec<Ring>>,
    #[cfg_attr(target_arch = "wasm32", expect(dead_code, reason = "a browser calls back by itself"))]
    watcher: OnceLock<Watcher>,
    buffers_created: AtomicU64,
    submissions: AtomicU64,
    readbacks: AtomicU64,
    pipelines: pipeline::Pipelines,
    checked: bool,
    polling: Polling,
    choices: RwLock<Choices>,
    tuning: RwLock<Tuning>,
    meter: OnceLock<Option<Meter>>,
}

impl Inner {
    fn new(
        device: wgpu::Device,
        queue: wgpu::Queue,
        info: wgpu::AdapterInfo,
        caps: Caps,
        shared: Option<SharedMemory>,
        faults: Arc<Faults>,
        options: &GpuOptions,
    ) -> Self {
        Self {
            device,
            queue,
            info,
            caps,
            faults,
            #[cfg(not(target_arch = "wasm32"))]
            pulse: Mutex::default(),
            shared,
            pool: Pool::default(),
            rings: Mutex::default(),
            watcher: OnceLock::new(),
            buffers_created: AtomicU64::new(0),
            submissions: AtomicU64::new(0),
            readbacks: AtomicU64::new(0),
            pipelines: Default::default(),
            checked: options.checked,
            polling: options.polling,
            choices: RwLock::default(),
            tuning: RwLock::default(),
            meter: OnceLock::new(),
        }
    }
}

impl Gpu {
    /// The device.
    #[must_use]
    pub fn device(&self) -> &wgpu::Device {
        &self.inner.device
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &wgpu::Queue {
        &self.inner.queue
    }

    /// What wgpu says of the adapter.
    #[must_use]
    pub fn info(&self) -> &wgpu::AdapterInfo {
        &self.inner.info
    }

    /// What the device can do, as plain data.
    #[must_use]
    pub fn caps(&self) -> &Caps {
        &self.inner.caps
    }

    /// Where buffers come from, if not from wgpu.
    pub(crate) fn shared_memory(&self) -> Option<&SharedMemory> {
        self.inner.shared.as_ref()
    }

    /// Whether shaders are compiled with the driver's bounds checks.
    #[must_use]
    pub fn checked(&self) -> bool {
        self.inner.checked
    }

    /// Floating-point operations per second that programs have reached on this device; `None` before the first work that was long enough
    /// to tell. It comes from the device's timestamps; where it has none, from the time in which the engine waited for its own work, and
    /// on an application's device ([`Gpu::adopt`]) from nothing.
    #[must_use]
    pub fn speed(&self) -> Option<f64> {
        self.collect_times();
        self.inner.faults.speed.known()
    }

    /// Takes the device to reach so many floating-point operations per second, as [`Gpu::speed`] gave them in an earlier process, until
    /// it shows otherwise. What is no speed, or none that a device has, is brought to the nearest that is.
    pub fn assume_speed(&self, flops_per_second: f64) {
        self.inner.faults.speed.assume(bounded(self.caps().class, flops_per_second));
    }

    /// A run that is handed to the device from now on, if the clock is to tell the device's speed.
    pub(crate) fn work(&self) -> Option<Work> {
        Work::begin(&self.inner.faults)
    }

    /// Notes that the application submits work itself, so that the clock does not tell for a while.
    pub(crate) fn application_submits(&self) {
        self.inner.faults.speed.others();
    }

    /// The variants that were chosen for this device, by the tuner or by [`Gpu::choose_variants`].
    #[must_use]
    pub fn choices(&self) -> Choices {
        self.inner.choices.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds choices, which win over those that are there. Programs that are prepared from now on follow them.
    pub fn choose_variants(&self, choices: Choices) {
        self.inner.choices.write().unwrap_or_else(PoisonError::into_inner).extend(choices);
    }

    /// Has every program that is prepared from now on first time the variants of its kernels. Tuned programs may differ in
    /// rounding from others, so who must repeat a run bit by bit keeps its [`Gpu::choices`].
    pub fn tune(&self, tuning: Tuning) {
        *self.inner.tuning.write().unwrap_or_else(PoisonError::into_inner) = tuning;
    }

    /// What [`Gpu::tune`] was told.
    #[must_use]
    pub fn tuning(&self) -> Tuning {
        *self.inner.tuning.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many times work was submitted through this device so far.
    #[must_use]
    pub fn submissions(&self) -> u64 {
        self.inner.submissions.load(Ordering::Relaxed)
    }

    /// How many times something was read back from this device so far.
    #[must_use]
    pub fn readbacks(&self) -> u64 {
        self.inner.readbacks.load(Ordering::Relaxed)
    }

    /// How many buffers were created through this device so far; stands still in steady state.
    #[must_use]
    pub fn buffers_created(&self) -> u64 {
        self.inner.buffers_created.load(Ordering::Relaxed)
    }

    /// Creates a buffer, zero-filled, its size rounded up to 4 bytes.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if it is larger than the device allows or the memory is not there;
    /// [`Error::DeviceLost`].
    pub fn buffer(&self, label: &str, size: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        self.create(label, size, usage, false)
    }

    /// Creates a buffer for uploads that is mapped from the start.
    fn mapped_buffer(&self, label: &str, size: u64) -> Result<wgpu::Buffer> {
        self.create(label, size, wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC, true)
    }

    /// Creates a buffer that holds these bytes, whole words, without submitting anything.
    pub(crate) fn filled_buffer(&self, label: &str, usage: wgpu::BufferUsages, bytes: &[u8]) -> Result<wgpu::Buffer> {
        let buffer = self.create(label, bytes.len() as u64, usage, true)?;
        let what = format!("filling buffer \"{label}\"");
        let filled = self.scoped(&what, || {
            let fill = |part: &[u8]| {
                buffer.get_mapped_range_mut(..part.len() as u64).map(|mut view| view.copy_from_slice(part))
            };
            let filled = if bytes.is_empty() { Ok(()) } else { fill(bytes) };
            buffer.unmap();
            filled
        })?;
        let refused = |error: wgpu::MapRangeError| {
            self.check().err().unwrap_or_else(|| Error::Validation { what: what.clone(), message: error.to_string() })
        };
        filled.map(|()| buffer).map_err(refused)
    }

    fn create(&self, label: &str, size: u64, usage: wgpu::BufferUsages, mapped: bool) -> Result<wgpu::Buffer> {
        let less = "Lower the batch, the sequence length or the model size";
        let refused = |available: String, hint: String| Error::OutOfMemory {
            what: format!("buffer \"{label}\""),
            needed: human_bytes(size),
            available,
            hint,
        };
        let rounded = size.checked_next_multiple_of(4).unwrap_or(u64::MAX).max(4);
        if rounded > self.caps().max_buffer_bytes {
            let hint = format!("{less}, or, if the device is the application's, open it with the adapter's own limits");
            return Err(refused(format!("{} a buffer", human_bytes(self.caps().max_buffer_bytes)), hint));
        }
        let created = self.scoped(&format!("buffer \"{label}\""), || match self.shared_memory() {
            Some(shared) if usage == TENSORS && !mapped => shared.buffer(self.device(), label, rounded),
            _ => Ok(self.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: rounded,
                usage,
                mapped_at_creation: mapped,
            })),
        });
        let buffer = created.map_err(|error| match error {
            Error::OutOfMemory { available, .. } => refused(available, less.into()),
            other => other,
        })?;
        let buffer = buffer.map_err(|driver| refused(format!("no more ({driver})"), less.into()))?;
        self.check()?;
        self.inner.buffers_created.fetch_add(1, Ordering::Relaxed);
        Ok(buffer)
    }
}
