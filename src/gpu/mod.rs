//! Adapters, devices, buffers: everything the engine asks of wgpu before there is a graph.

mod pipeline;

use crate::error::{Error, Result, human_bytes};
use crate::kernel::{AdapterClass, Caps};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

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
    lost: Arc<Mutex<Option<String>>>,
    pipelines: pipeline::Pipelines,
    checked: bool,
    /// Measured floating-point operations per second, as the bits of an f64; 0 before the first measurement.
    speed: AtomicU64,
}

impl Gpu {
    /// All adapters of all backends on this machine.
    #[must_use]
    pub fn adapters() -> Vec<wgpu::Adapter> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            flags: wgpu::InstanceFlags::default() - wgpu::InstanceFlags::VALIDATION_INDIRECT_CALL,
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()))
    }

    /// Opens an adapter's device with the limits and features that the adapter really has.
    ///
    /// # Errors
    /// [`Error::Validation`] with the driver's words if it refuses.
    pub fn open(adapter: &wgpu::Adapter) -> Result<Self> {
        let wanted = wgpu::Features::SUBGROUP
            | wgpu::Features::SHADER_F16
            | wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS
            | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES
            | wgpu::Features::PIPELINE_CACHE;
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("wgformer"),
            required_features: adapter.features() & wanted,
            required_limits: adapter.limits(),
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|e| Error::Validation { what: "opening the device".into(), message: e.to_string() })?;
        Self::adopt(adapter, device, queue)
    }

    /// Takes an adapter, device and queue that the application already owns.
    ///
    /// # Errors
    /// None today.
    pub fn adopt(adapter: &wgpu::Adapter, device: wgpu::Device, queue: wgpu::Queue) -> Result<Self> {
        let info = adapter.get_info();
        let caps = caps(&device, &info);
        let lost = Arc::new(Mutex::new(None));
        Ok(Self {
            inner: Arc::new(Inner {
                device,
                queue,
                info,
                caps,
                lost,
                pipelines: Default::default(),
                checked: false,
                speed: AtomicU64::new(0),
            }),
        })
    }

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

    /// What the adapter can do, as plain data.
    #[must_use]
    pub fn caps(&self) -> &Caps {
        &self.inner.caps
    }

    /// Whether shaders are compiled with the driver's bounds checks.
    #[must_use]
    pub fn checked(&self) -> bool {
        self.inner.checked
    }

    /// Floating-point operations per second that programs have reached on this device; `None` before the first run.
    #[must_use]
    pub fn speed(&self) -> Option<f64> {
        Some(f64::from_bits(self.inner.speed.load(Ordering::Relaxed))).filter(|s| *s > 0.0)
    }

    /// Notes a speed that was measured.
    pub(crate) fn measured(&self, flops_per_second: f64) {
        self.inner.speed.store(flops_per_second.to_bits(), Ordering::Relaxed);
    }

    /// Creates a buffer, zero-filled.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if it is larger than the device allows or the memory is not there.
    pub fn buffer(&self, label: &str, size: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        let oom = |available: String| Error::OutOfMemory {
            what: format!("buffer \"{label}\""),
            needed: human_bytes(size),
            available,
            hint: "Lower the batch, the sequence length or the model size".into(),
        };
        if size > self.caps().max_buffer_bytes {
            return Err(oom(format!("{} a buffer", human_bytes(self.caps().max_buffer_bytes))));
        }
        let scope = self.device().push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let size = size.next_multiple_of(4).max(4);
        let buffer = self.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage,
            mapped_at_creation: false,
        });
        match pollster::block_on(scope.pop()) {
            None => Ok(buffer),
            Some(error) => Err(oom(error.to_string())),
        }
    }

    /// Reads bytes of a buffer back, waiting for the work submitted so far.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] if the device went away.
    pub fn read(&self, buffer: &wgpu::Buffer, offset: u64, size: u64) -> Result<Vec<u8>> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = self.buffer("readback", size, usage)?;
        let mut encoder = self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(buffer, offset, &staging, 0, size);
        self.queue().submit([encoder.finish()]);
        staging.slice(..).map_async(wgpu::MapMode::Read, |_| {});
        self.device()
            .poll(wgpu::PollType::wait_indefinitely())
            .map_err(|e| Error::DeviceLost { reason: e.to_string() })?;
        let bytes =
            staging.slice(..size).get_mapped_range().map_err(|e| Error::DeviceLost { reason: e.to_string() })?;
        Ok(bytes.to_vec())
    }
}

fn caps(device: &wgpu::Device, info: &wgpu::AdapterInfo) -> Caps {
    let (limits, features) = (device.limits(), device.features());
    let fixed_subgroup =
        info.subgroup_min_size == info.subgroup_max_size && features.contains(wgpu::Features::SUBGROUP);
    Caps {
        name: info.name.clone(),
        class: if info.device_type == wgpu::DeviceType::Cpu { AdapterClass::Cpu } else { AdapterClass::Gpu },
        subgroup: fixed_subgroup.then_some(info.subgroup_min_size),
        f16: features.contains(wgpu::Features::SHADER_F16),
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES),
        max_invocations: limits.max_compute_invocations_per_workgroup,
        workgroup_memory: limits.max_compute_workgroup_storage_size,
        storage_bindings: limits.max_storage_buffers_per_shader_stage,
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_buffer_bytes: limits.max_buffer_size,
        offset_alignment: u64::from(limits.min_storage_buffer_offset_alignment),
        max_groups: limits.max_compute_workgroups_per_dimension,
    }
}
