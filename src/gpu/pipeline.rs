//! Compute pipelines, compiled once for each text and kept as long as the device.

use super::Gpu;
use crate::error::Result;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

#[derive(Debug, Default)]
pub(super) struct Pipelines {
    /// By shader text and by which bindings are read only.
    known: Mutex<HashMap<(String, Vec<bool>), wgpu::ComputePipeline>>,
    layouts: Mutex<HashMap<Vec<bool>, wgpu::PipelineLayout>>,
    /// The driver's own, which outlives the process if its data is kept.
    cache: Mutex<Option<wgpu::PipelineCache>>,
}

/// Why a text did not become a pipeline.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The line of the text, from 1, if the compiler named one.
    pub(crate) line: Option<usize>,
    /// The compiler's words.
    pub(crate) message: String,
}

impl Gpu {
    /// The pipeline of a text with entry point `entry`: a uniform at binding 0, then storage buffers, `read_only` or not.
    pub(crate) fn pipeline(
        &self,
        entry: &str,
        text: &str,
        read_only: &[bool],
    ) -> std::result::Result<wgpu::ComputePipeline, Refused> {
        let key = (text.to_owned(), read_only.to_vec());
        let mut known = self.inner.pipelines.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = known.get(&key) {
            return Ok(pipeline.clone());
        }
        let pipeline = self.compile(entry, text, read_only)?;
        known.insert(key, pipeline.clone());
        Ok(pipeline)
    }

    /// Has the driver compile into a cache, which begins with what [`Gpu::pipeline_data`] gave an earlier process; false if
    /// the device has no such caches. Data of another driver is not used.
    pub(crate) fn cache_pipelines(&self, data: Option<&[u8]>) -> Result<bool> {
        if !self.device().features().contains(wgpu::Features::PIPELINE_CACHE) {
            return Ok(false);
        }
        let descriptor = wgpu::PipelineCacheDescriptor { label: Some("wgformer"), data, fallback: true };
        #[allow(unsafe_code, reason = "the only way to a pipeline cache")]
        let cache = self.scoped("a pipeline cache", || {
            // SAFETY: the caller has checked that the bytes are those that `pipeline_data` gave for the same driver.
            unsafe { self.device().create_pipeline_cache(&descriptor) }
        })?;
        *self.inner.pipelines.cache.lock().unwrap_or_else(PoisonError::into_inner) = Some(cache);
        Ok(true)
    }

    /// What the driver has compiled since [`Gpu::cache_pipelines`], and before.
    pub(crate) fn pipeline_data(&self) -> Option<Vec<u8>> {
        let cache = self.inner.pipelines.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.as_ref().and_then(wgpu::PipelineCache::get_data)
    }

    /// The layout of these bindings: one for all pipelines that have it, so that a pass that changes from one to another has
    /// less to compare.
    fn layout(&self, read_only: &[bool]) -> wgpu::PipelineLayout {
        let mut known = self.inner.pipelines.layouts.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(read_only.to_vec()).or_insert_with(|| self.new_layout(read_only)).clone()
    }

    fn new_layout(&self, read_only: &[bool]) -> wgpu::PipelineLayout {
        let label = Some("uniforms and storage");
        let entries: Vec<wgpu::BindGroupLayoutEntry> = std::iter::once(wgpu::BufferBindingType::Uniform)
            .chain(read_only.iter().map(|&read_only| wgpu::BufferBindingType::Storage { read_only }))
            .enumerate()
            .map(|(binding, ty)| wgpu::BindGroupLayoutEntry {
                binding: binding as u32,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
                count: None,
            })
            .collect();
        let group =
            self.device().create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
        self.device().create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&group)],
            immediate_size: 0,
        })
    }

    fn compile(
        &self,
        entry: &str,
        text: &str,
        read_only: &[bool],
    ) -> std::result::Result<wgpu::ComputePipeline, Refused> {
        let device = self.device();
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let source = wgpu::ShaderSource::Wgsl(text.into());
        let descriptor = wgpu::ShaderModuleDescriptor { label: Some(entry), source };
        #[allow(unsafe_code, reason = "unchecked modules are much faster, and wgpu calls them unsafe")]
        let module = if self.checked() {
            device.create_shader_module(descriptor)
        } else {
            // SAFETY: the kernels guard every index themselves; the conformance suite runs them with checks as well.
            unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
        };
        if let Some(error) = pollster::block_on(scope.pop()) {
            let info = pollster::block_on(module.get_compilation_info());
            let line = info.messages.iter().find_map(|m| m.location).map(|l| l.line_number as usize);
            return Err(Refused { line, message: error.to_string() });
        }
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let layout = self.layout(read_only);
        let cache = self.inner.pipelines.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(entry),
            layout: Some(&layout),
            module: &module,
            entry_point: Some(entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: cache.as_ref(),
        });
        match pollster::block_on(scope.pop()) {
            None => Ok(pipeline),
            Some(error) => Err(Refused { line: None, message: error.to_string() }),
        }
    }
}
