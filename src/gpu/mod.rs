//! Adapters, devices, buffers, uploads and readbacks: the engine's use of wgpu below the graph.

mod adapter;
mod caps;
mod dialect;
mod fault;
mod frames;
mod held;
mod meter;
mod open;
mod pipeline;
pub(crate) mod probe;
mod readback;
mod signal;
mod speed;
mod timestamps;
mod tuning;
mod upload;
mod wait;

pub use adapter::{ADAPTER_VARIABLE, AdapterChoice, AdapterSummary};
pub use caps::{AdapterClass, Caps, MatrixUnits};
pub use dialect::Dialect;
pub(crate) use frames::Room;
pub(crate) use held::Held;
pub(crate) use meter::Stopwatch;
pub use open::{GpuOptions, Polling};
pub(crate) use pipeline::BindingKind;
pub use readback::Readback;
use speed::bounded;
pub(crate) use speed::{Work, usual};
pub use timestamps::Timestamps;
pub use tuning::{TunedVariants, Tuning};
pub use upload::Uploads;

use crate::error::{Error, Result, human_bytes};
use crate::software::SharedMemory;
use fault::Faults;
use frames::Frames;
use held::Account;
use meter::Meter;
use readback::Pool;
use signal::Watcher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use upload::Ring;

/// The usage of buffers of tensors.
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
    /// A buffer for the check whether the device answers.
    #[cfg(not(target_arch = "wasm32"))]
    pulse: Mutex<Option<wgpu::Buffer>>,
    /// Allocates buffers on a CPU driver, if textures can share their memory.
    shared: Option<SharedMemory>,
    pool: Pool,
    /// Idle rings: as many as threads have written at the same time.
    rings: Mutex<Vec<Ring>>,
    #[cfg_attr(target_arch = "wasm32", expect(dead_code, reason = "a browser calls back by itself"))]
    watcher: OnceLock<Watcher>,
    buffers_created: AtomicU64,
    /// From which buffer on [`Gpu::refuse_buffers_from`] refuses them.
    refuse_from: AtomicU64,
    submissions: AtomicU64,
    readbacks: AtomicU64,
    pipelines: pipeline::Pipelines,
    checked: bool,
    polling: Polling,
    frames: Arc<Frames>,
    account: Arc<Account>,
    tuned: RwLock<TunedVariants>,
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
            refuse_from: AtomicU64::new(u64::MAX),
            submissions: AtomicU64::new(0),
            readbacks: AtomicU64::new(0),
            pipelines: Default::default(),
            checked: options.checked,
            polling: options.polling,
            frames: Arc::default(),
            account: Arc::default(),
            tuned: RwLock::default(),
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

    /// wgpu's description of the adapter.
    #[must_use]
    pub fn info(&self) -> &wgpu::AdapterInfo {
        &self.inner.info
    }

    /// The capabilities of the device, as plain data.
    #[must_use]
    pub fn caps(&self) -> &Caps {
        &self.inner.caps
    }

    /// The allocator of buffers, if it is not wgpu.
    pub(crate) fn shared_memory(&self) -> Option<&SharedMemory> {
        self.inner.shared.as_ref()
    }

    /// Whether shaders are compiled with the driver's bounds checks.
    #[must_use]
    pub fn checked(&self) -> bool {
        self.inner.checked
    }

    /// The measured speed of this device in floating-point operations per second; `None` before the first work that was long enough to
    /// measure. It is measured by the device's timestamps; without them, by the time in which the engine waits for its own work. On an
    /// application's device ([`Gpu::adopt`]) without timestamps it is not measured.
    #[must_use]
    pub fn speed(&self) -> Option<f64> {
        self.collect_times();
        self.inner.faults.speed.known()
    }

    /// Assumes a speed in floating-point operations per second, such as [`Gpu::speed`] returned in an earlier process, until measurements
    /// change it. NaN and values that no device has are replaced by the nearest plausible speed.
    pub fn assume_speed(&self, flops_per_second: f64) {
        self.inner.faults.speed.assume(bounded(self.caps().class, flops_per_second));
    }

    /// Marks the beginning of a run, if the device's speed is measured by the clock.
    pub(crate) fn work(&self) -> Option<Work> {
        Work::begin(&self.inner.faults)
    }

    /// Records that the application submits work itself, so that the clock measures nothing until the queue is empty.
    pub(crate) fn application_submits(&self) {
        self.inner.faults.speed.others();
    }

    /// The variants of this device from the tuner or [`Gpu::use_variants`].
    #[must_use]
    pub fn tuned_variants(&self) -> TunedVariants {
        self.inner.tuned.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds variants, which override existing ones, for programs that are prepared from now on.
    pub fn use_variants(&self, variants: TunedVariants) {
        self.inner.tuned.write().unwrap_or_else(PoisonError::into_inner).extend(variants);
    }

    /// Times the variants of kernels for each program that is prepared from now on. Variants may differ in rounding: to repeat a run bit for
    /// bit, keep its [`Gpu::tuned_variants`].
    pub fn tune(&self, tuning: Tuning) {
        *self.inner.tuning.write().unwrap_or_else(PoisonError::into_inner) = tuning;
    }

    /// The setting of [`Gpu::tune`].
    #[must_use]
    pub fn tuning(&self) -> Tuning {
        *self.inner.tuning.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of submissions through this `Gpu` so far.
    #[must_use]
    pub fn submissions(&self) -> u64 {
        self.inner.submissions.load(Ordering::Relaxed)
    }

    /// The number of readbacks through this `Gpu` so far.
    #[must_use]
    pub fn readbacks(&self) -> u64 {
        self.inner.readbacks.load(Ordering::Relaxed)
    }

    /// The number of buffers created through this `Gpu` so far; constant in steady state.
    #[must_use]
    pub fn buffers_created(&self) -> u64 {
        self.inner.buffers_created.load(Ordering::Relaxed)
    }

    /// Creates a buffer, zero-filled, its size rounded up to 4 bytes.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if it is larger than the device allows or there is not enough memory; [`Error::DeviceLost`].
    pub fn buffer(&self, label: &str, size: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        self.create(label, size, usage, false)
    }

    /// Creates a buffer for uploads, mapped at creation.
    fn mapped_buffer(&self, label: &str, size: u64) -> Result<wgpu::Buffer> {
        self.create(label, size, wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC, true)
    }

    /// Creates a buffer with these bytes (whole words) without a submission.
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

    /// Refuses buffers from the n-th on, as a device without memory does; `u64::MAX` refuses none. Tests let each allocation fail once.
    #[doc(hidden)]
    pub fn refuse_buffers_from(&self, nth: u64) {
        self.inner.refuse_from.store(nth, Ordering::Relaxed);
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
        if self.buffers_created() >= self.inner.refuse_from.load(Ordering::Relaxed) {
            return Err(refused("no more (refused by a test)".into(), less.into()));
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
