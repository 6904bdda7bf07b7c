//! Textures in the memory of buffers, on Vulkan CPU drivers: kernels read a tensor through a texture without a copy.
//!
//! WebGPU has no such feature, so buffers and images are created by Vulkan calls and passed to wgpu, which tracks and frees them. An image
//! with linear tiling has its texels in memory order (Vulkan 1.3, 12.5, "Image subresource layout"), row by row at a pitch that the driver
//! reports; where that is the pitch of the tensor, both have the same bytes.
//!
//! wgpu does not know that a texture changes when a kernel writes the buffer, and sets no barrier between the two. CPU drivers need none:
//! a dispatch ends before the next one begins, and all of them see one memory. Unreachable for other drivers: see [`SharedMemory::new`].

#![allow(unsafe_code, reason = "Vulkan's calls are unsafe")]

use super::Textures;
use super::quirks::TEXTURE_ROW;
use super::texture::{TEXEL_FORMAT, WIDTH, descriptor, rows};
use crate::gpu::{Caps, TENSORS};
use ash::vk;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use wgpu::hal::api::Vulkan;

/// Bytes after a buffer: an image has whole rows, and drivers round the number of rows up to four.
const SLACK: u64 = 4 * TEXTURE_ROW;

/// Creates buffers and textures in their memory, for a device that supports them.
pub(crate) struct SharedMemory {
    device: Arc<ash::Device>,
    memory_type: u32,
    usage: (vk::ImageUsageFlags, wgpu::TextureUses, wgpu::TextureUsages),
    regions: Mutex<HashMap<vk::Buffer, Weak<Region>>>,
}

/// The memory of a buffer. It lives as long as the buffer and the textures in it.
struct Region {
    device: Arc<ash::Device>,
    memory: vk::DeviceMemory,
    buffer: vk::Buffer,
    size: u64,
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: created by this device; every user of them held the region.
        unsafe {
            self.device.destroy_buffer(self.buffer, None);
            self.device.free_memory(self.memory, None);
        }
    }
}

/// An image in a region.
struct Image {
    raw: vk::Image,
    region: Arc<Region>,
}

impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: created by this device; wgpu drops it when no view of it is left and no work uses it.
        unsafe { self.region.device.destroy_image(self.raw, None) };
    }
}

impl std::fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedMemory").finish_non_exhaustive()
    }
}

impl SharedMemory {
    /// For a device with textures in the memory of buffers; `None` for others, all GPUs included.
    pub(crate) fn new(device: &wgpu::Device, caps: &Caps) -> Option<Self> {
        let usage = match caps.quirks.textures {
            Textures::None => return None,
            Textures::Storage => (
                vk::ImageUsageFlags::STORAGE,
                wgpu::TextureUses::STORAGE_READ_ONLY,
                wgpu::TextureUsages::STORAGE_BINDING,
            ),
            Textures::Sampled => {
                (vk::ImageUsageFlags::SAMPLED, wgpu::TextureUses::RESOURCE, wgpu::TextureUsages::TEXTURE_BINDING)
            }
        };
        // SAFETY: nothing is destroyed through the handle.
        let hal = unsafe { device.as_hal::<Vulkan>() }?;
        let raw = hal.raw_device();
        // SAFETY: the physical device is that of the instance.
        let memory = unsafe {
            hal.shared_instance().raw_instance().get_physical_device_memory_properties(hal.raw_physical_device())
        };
        let wanted = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
        let memory_type = memory.memory_types_as_slice().iter().position(|ty| ty.property_flags.contains(wanted))?;
        let shared =
            Self { device: Arc::new(raw.clone()), memory_type: memory_type as u32, usage, regions: Mutex::default() };
        // Try it at an offset that tensors can have.
        let region = Arc::new(shared.region(caps.offset_alignment + 1).ok()?);
        shared.image(&region, caps.offset_alignment, rows(1))?;
        Some(shared)
    }

    /// A zero-filled buffer whose memory textures can share; or the driver's error.
    pub(crate) fn buffer(&self, device: &wgpu::Device, label: &str, size: u64) -> Result<wgpu::Buffer, String> {
        let region = Arc::new(self.region(size).map_err(|error| error.to_string())?);
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        regions.retain(|_, region| region.strong_count() > 0);
        regions.insert(region.buffer, Arc::downgrade(&region));
        let buffer = region.buffer;
        // SAFETY: the buffer belongs to this device, has this size, is zero-filled, and lives until the callback drops it.
        unsafe {
            let buffer = wgpu::hal::vulkan::Buffer::from_raw_externally_owned(buffer, Box::new(move || drop(region)));
            let descriptor =
                wgpu::BufferDescriptor { label: Some(label), size, usage: TENSORS, mapped_at_creation: false };
            Ok(device.create_buffer_from_hal::<Vulkan>(buffer, &descriptor))
        }
    }

    /// A texture of a buffer's bytes from an offset on; `None` if the buffer is not from [`SharedMemory::buffer`], the offset is not aligned
    /// or the driver refuses.
    pub(super) fn texture(
        &self,
        device: &wgpu::Device,
        buffer: &wgpu::Buffer,
        offset: u64,
        bytes: u64,
    ) -> Option<wgpu::Texture> {
        // SAFETY: nothing is destroyed through the handles.
        let (hal, raw) = unsafe { (device.as_hal::<Vulkan>()?, buffer.as_hal::<Vulkan>()?.raw_handle()) };
        let region = self.regions.lock().unwrap_or_else(PoisonError::into_inner).get(&raw)?.upgrade()?;
        let rows = rows(bytes);
        let image = self.image(&region, offset, rows)?;
        let raw = image.raw;
        let (_, uses, usage) = self.usage;
        let hal_descriptor = wgpu::hal::TextureDescriptor {
            label: Some("shared operands"),
            size: wgpu::Extent3d { width: WIDTH, height: rows, depth_or_array_layers: 1 },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: TEXEL_FORMAT,
            usage: uses,
            memory_flags: wgpu::hal::MemoryFlags::empty(),
            view_formats: Vec::new(),
        };
        let released = Box::new(move || drop(image));
        // SAFETY: the image belongs to this device, is created as described, and lives until the callback drops it. Before its first use wgpu
        // gives it a layout, and Vulkan allows that to change its content; a CPU driver changes nothing.
        unsafe {
            let texture =
                hal.texture_from_raw(raw, &hal_descriptor, Some(released), wgpu::hal::vulkan::TextureMemory::External);
            Some(device.create_texture_from_hal::<Vulkan>(
                texture,
                &descriptor(WIDTH, rows, usage),
                wgpu::TextureUses::UNINITIALIZED,
            ))
        }
    }

    /// Memory of at least `bytes`, zero-filled, with a buffer in it.
    fn region(&self, bytes: u64) -> Result<Region, vk::Result> {
        let refused = vk::Result::ERROR_OUT_OF_DEVICE_MEMORY;
        let size = bytes.checked_add(SLACK).ok_or(refused)?;
        let usage = vk::BufferUsageFlags::STORAGE_BUFFER
            | vk::BufferUsageFlags::TRANSFER_SRC
            | vk::BufferUsageFlags::TRANSFER_DST;
        let info = vk::BufferCreateInfo::default().size(bytes).usage(usage);
        let allocation = vk::MemoryAllocateInfo::default().allocation_size(size).memory_type_index(self.memory_type);
        // SAFETY: plain calls; created objects are freed when a later call fails.
        unsafe {
            let memory = self.device.allocate_memory(&allocation, None)?;
            let created = self.device.create_buffer(&info, None);
            let buffer = created.inspect_err(|_| self.device.free_memory(memory, None))?;
            let region = Region { device: self.device.clone(), memory, buffer, size };
            let needs = self.device.get_buffer_memory_requirements(buffer);
            if needs.size > size || needs.memory_type_bits >> self.memory_type & 1 == 0 {
                return Err(refused);
            }
            let start = self.device.map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty())?;
            start.cast::<u8>().write_bytes(0, bytes as usize);
            self.device.unmap_memory(memory);
            self.device.bind_buffer_memory(buffer, memory, 0)?;
            Ok(region)
        }
    }

    /// An image of the bytes of a region from an offset on, with the rows of the textures for copies.
    fn image(&self, region: &Arc<Region>, offset: u64, rows: u32) -> Option<Image> {
        let info = vk::ImageCreateInfo::default()
            .image_type(vk::ImageType::TYPE_2D)
            .format(vk::Format::R32G32B32A32_UINT)
            .extent(vk::Extent3D { width: WIDTH, height: rows, depth: 1 })
            .mip_levels(1)
            .array_layers(1)
            .samples(vk::SampleCountFlags::TYPE_1)
            .tiling(vk::ImageTiling::LINEAR)
            .usage(self.usage.0);
        let texels = vk::ImageSubresource::default().aspect_mask(vk::ImageAspectFlags::COLOR);
        // SAFETY: plain calls; the image is destroyed with its owner when a later call fails.
        unsafe {
            let image = Image { raw: self.device.create_image(&info, None).ok()?, region: region.clone() };
            let needs = self.device.get_image_memory_requirements(image.raw);
            let layout = self.device.get_image_subresource_layout(image.raw, texels);
            let fits = offset.checked_add(needs.size)? <= region.size
                && offset.is_multiple_of(needs.alignment)
                && needs.memory_type_bits >> self.memory_type & 1 == 1
                && (layout.offset, layout.row_pitch) == (0, TEXTURE_ROW);
            if !fits {
                return None;
            }
            self.device.bind_image_memory(image.raw, region.memory, offset).ok()?;
            Some(image)
        }
    }
}
