//! Compute pipelines: each text is compiled once and kept as long as the device.

use super::Gpu;
use crate::software::texture_binding;
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};

#[derive(Debug, Default)]
pub(super) struct Pipelines {
    /// By shader text, kinds of bindings, and whether it is checked.
    known: Mutex<HashMap<(String, Vec<BindingKind>, bool), wgpu::ComputePipeline>>,
    layouts: Mutex<HashMap<Vec<Slot>, wgpu::PipelineLayout>>,
    /// The driver's pipeline cache, whose data can be saved between processes.
    cache: Mutex<Option<wgpu::PipelineCache>>,
}

/// The kind of a binding from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum BindingKind {
    /// A storage buffer.
    Storage {
        /// Whether it is only read.
        read_only: bool,
    },
    /// A texture, on a CPU driver.
    Texture,
}

/// A binding and its minimum size, if that is known.
type Slot = (BindingKind, Option<NonZeroU64>);

/// The size of one element of each storage binding from 1 on, as the text declares it. Without a minimum size in the layout, wgpu checks
/// sizes at every dispatch, which takes a sixth of the time of encoding it.
fn least_sizes(text: &str, bindings: usize) -> Vec<Option<NonZeroU64>> {
    let mut sizes = vec![None; bindings];
    let declared =
        text.lines().filter_map(|line| line.strip_prefix("@group(0) @binding(")?.split_once(") var<storage"));
    for (binding, rest) in declared {
        let element = rest.split_once("array<").and_then(|(_, rest)| rest.split_once(">;"));
        if let (Ok(binding), Some((element, _))) = (binding.parse::<usize>(), element)
            && let Some(slot) = binding.checked_sub(1).and_then(|index| sizes.get_mut(index))
        {
            *slot = size_of_element(text, element);
        }
    }
    sizes
}

/// The constants that make a text a variant, on one line.
fn constants(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix("const ")?.strip_suffix(';'));
    lines.collect::<Vec<_>>().join(", ")
}

/// The size of a type by its name or by its alias; `None` for types that are not listed here.
fn size_of_element(text: &str, name: &str) -> Option<NonZeroU64> {
    let alias = text.lines().find_map(|line| line.strip_prefix("alias ")?.strip_prefix(name)?.strip_prefix(" = "));
    let size = match alias.map_or(name, |rest| rest.trim_end_matches(';')) {
        "f32" | "u32" | "i32" => 4,
        "vec2f" | "vec2u" => 8,
        "vec4f" | "vec4u" => 16,
        "vec4<u64>" => 32,
        _ => return None,
    };
    NonZeroU64::new(size)
}

/// Why a text did not become a pipeline.
#[derive(Debug)]
pub(crate) struct CompileError {
    /// The line of the text, from 1, if the compiler reported one.
    pub(crate) line: Option<usize>,
    /// The compiler's message.
    pub(crate) message: String,
}

impl Gpu {
    /// The pipeline of a text with entry point `entry`: a uniform at binding 0, then `bound`. Compiled without wgpu's checks if the text is
    /// trusted and the device was not opened with checks.
    pub(crate) fn pipeline(
        &self,
        entry: &str,
        text: &str,
        bound: &[BindingKind],
        trusted: bool,
    ) -> Result<wgpu::ComputePipeline, CompileError> {
        let checked = !trusted || self.checked();
        let key = (text.to_owned(), bound.to_vec(), checked);
        let mut known = self.inner.pipelines.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = known.get(&key) {
            return Ok(pipeline.clone());
        }
        // Before it is compiled, so that the last line of a log names what a compiler hangs in.
        log::debug!("compiling {entry}: {}", constants(text));
        log::trace!("{text}");
        let start = web_time::Instant::now();
        let pipeline = self.compile(entry, text, bound, checked)?;
        log::debug!("compiled {entry} in {:.3} s", start.elapsed().as_secs_f64());
        known.insert(key, pipeline.clone());
        Ok(pipeline)
    }

    /// Enables the driver's pipeline cache, initialised with the data of [`Gpu::pipeline_data`] from an earlier process; false if the device
    /// has no pipeline caches. The data of another driver is ignored.
    #[cfg(feature = "files")]
    pub(crate) fn cache_pipelines(&self, data: Option<&[u8]>) -> crate::error::Result<bool> {
        if !self.device().features().contains(wgpu::Features::PIPELINE_CACHE) {
            return Ok(false);
        }
        let descriptor = wgpu::PipelineCacheDescriptor { label: Some("wgformer"), data, fallback: true };
        #[allow(unsafe_code, reason = "the only way to a pipeline cache")]
        let cache = self.scoped("a pipeline cache", || {
            // SAFETY: the caller has checked that the bytes come from `pipeline_data` with the same driver.
            unsafe { self.device().create_pipeline_cache(&descriptor) }
        })?;
        *self.inner.pipelines.cache.lock().unwrap_or_else(PoisonError::into_inner) = Some(cache);
        Ok(true)
    }

    /// The data of the driver's pipeline cache.
    #[cfg(feature = "files")]
    pub(crate) fn pipeline_data(&self) -> Option<Vec<u8>> {
        let cache = self.inner.pipelines.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.as_ref().and_then(wgpu::PipelineCache::get_data)
    }

    /// Creates the bind group of a launch.
    pub(crate) fn bind_group(
        &self,
        label: &str,
        pipeline: &wgpu::ComputePipeline,
        entries: &[wgpu::BindGroupEntry<'_>],
    ) -> crate::error::Result<wgpu::BindGroup> {
        self.scoped(&format!("the bindings of {label}"), || {
            let layout = &pipeline.get_bind_group_layout(0);
            self.device().create_bind_group(&wgpu::BindGroupDescriptor { label: Some(label), layout, entries })
        })
    }

    /// The layout of these bindings, shared by all pipelines that have it, so that switching pipelines in a pass costs less.
    fn layout(&self, slots: &[Slot]) -> Result<wgpu::PipelineLayout, wgpu::Error> {
        let mut known = self.inner.pipelines.layouts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(layout) = known.get(slots) {
            return Ok(layout.clone());
        }
        match self.caught(|| self.new_layout(slots)) {
            (layout, None) => Ok(known.entry(slots.to_vec()).or_insert(layout).clone()),
            (_, Some(error)) => Err(error),
        }
    }

    fn new_layout(&self, slots: &[Slot]) -> wgpu::PipelineLayout {
        let label = Some("uniforms and storage");
        let buffer =
            |ty, min_binding_size| wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size };
        let uniform = buffer(wgpu::BufferBindingType::Uniform, None);
        let entries: Vec<wgpu::BindGroupLayoutEntry> = std::iter::once(uniform)
            .chain(slots.iter().map(|&(bound, least)| match bound {
                BindingKind::Storage { read_only } => buffer(wgpu::BufferBindingType::Storage { read_only }, least),
                BindingKind::Texture => texture_binding(&self.caps().quirks),
            }))
            .enumerate()
            .map(|(binding, ty)| wgpu::BindGroupLayoutEntry {
                binding: binding as u32,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty,
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
        bound: &[BindingKind],
        checked: bool,
    ) -> Result<wgpu::ComputePipeline, CompileError> {
        let device = self.device();
        let source = wgpu::ShaderSource::Wgsl(text.into());
        let descriptor = wgpu::ShaderModuleDescriptor { label: Some(entry), source };
        #[allow(unsafe_code, reason = "unchecked modules are much faster, and wgpu calls them unsafe")]
        let (module, error) = self.caught(|| {
            if checked {
                device.create_shader_module(descriptor)
            } else {
                // SAFETY: the author of the text vouches for it (`Kernel::trusted`, `kernel!`).
                unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
            }
        });
        if let Some(error) = error {
            let info = pollster::block_on(module.get_compilation_info());
            let line = info.messages.iter().find_map(|m| m.location).map(|l| l.line_number as usize);
            return Err(CompileError { line, message: error.to_string() });
        }
        let refused = |error: wgpu::Error| CompileError { line: None, message: error.to_string() };
        let slots: Vec<Slot> = bound.iter().copied().zip(least_sizes(text, bound.len())).collect();
        let layout = self.layout(&slots).map_err(refused)?;
        let cache = self.inner.pipelines.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let (pipeline, error) = self.caught(|| {
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(entry),
                layout: Some(&layout),
                module: &module,
                entry_point: Some(entry),
                compilation_options: wgpu::PipelineCompilationOptions {
                    zero_initialize_workgroup_memory: checked,
                    ..Default::default()
                },
                cache: cache.as_ref(),
            })
        });
        error.map_or(Ok(pipeline), |error| Err(refused(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minimum_size_is_that_of_a_declared_element() {
        let text = "alias Element = vec4f;\n\
                    @group(0) @binding(0) var<uniform> p: Params;\n\
                    @group(0) @binding(1) var<storage, read> a: array<Element>;\n\
                    @group(0) @binding(2) var<storage, read_write> b: array<u32>;\n\
                    @group(0) @binding(BIAS_BINDING) var<storage, read> c: array<f32>;\n\
                    @group(0) @binding(4) var<storage, read> d: array<Other>;\n\
                    @group(0) @binding(9) var<storage, read> e: array<f32>;\n";
        let sizes: Vec<u64> = least_sizes(text, 4).into_iter().map(|size| size.map_or(0, NonZeroU64::get)).collect();
        assert_eq!(sizes, [16, 4, 0, 0]);
    }
}
