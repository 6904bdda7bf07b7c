//! Pictures of tensors where they lie: a fragment shader reads the engine's buffer.

use crate::engine::Shown;
use egui_wgpu::{CallbackResources, CallbackTrait, RenderState, ScreenDescriptor};
use std::num::NonZeroU64;

const SHADER: &str = "
    // rows, columns; what is drawn: 0 numbers of both signs, 1 probabilities, 2 a curve; how many numbers of the curve there are.
    struct Picture { rows: u32, columns: u32, kind: u32, count: u32, scale: f32, offset: u32, height: f32, _b: u32 }
    @group(0) @binding(0) var<uniform> p: Picture;
    @group(0) @binding(1) var<storage, read> data: array<f32>;

    struct Corner { @builtin(position) at: vec4f, @location(0) uv: vec2f }
    @vertex fn vertex(@builtin(vertex_index) i: u32) -> Corner {
        let uv = vec2f(f32(i & 1u), f32(i >> 1u));
        return Corner(vec4f(uv.x * 2.0 - 1.0, 1.0 - uv.y * 2.0, 0.0, 1.0), uv);
    }
    fn value(i: u32) -> f32 { return data[p.offset + i]; }
    @fragment fn fragment(corner: Corner) -> @location(0) vec4f {
        let uv = clamp(corner.uv, vec2f(0.0), vec2f(0.99999));
        let back = vec3f(0.09, 0.10, 0.12);
        if (p.kind == 2u) {
            if (p.count < 2u) { return vec4f(back, 1.0); }
            // Between two steps the curve is a line; it covers the pixels whose distance from it is less than one and a half.
            let x = uv.x * f32(p.count - 1u);
            let i = min(u32(x), p.count - 2u);
            // The ring's oldest loss is the next to be overwritten.
            let first = select(0u, p.rows % p.columns, p.rows > p.columns);
            let a = value((first + i) % p.columns);
            let b = value((first + i + 1u) % p.columns);
            let y = 1.0 - clamp(mix(a, b, fract(x)) * p.scale, 0.0, 1.0);
            let slope = abs(b - a) * p.scale * f32(p.count - 1u) / max(p.height, 1.0);
            let far = abs(uv.y - y) * p.height / (1.5 + slope * p.height * 0.004);
            let grid = select(0.0, 0.05, fract(uv.y * 4.0) < 4.0 / p.height);
            return vec4f(mix(vec3f(0.35, 0.75, 1.0), back + grid, clamp(far, 0.0, 1.0)), 1.0);
        }
        let cell = vec2u(u32(uv.x * f32(p.columns)), u32(uv.y * f32(p.rows)));
        let x = value(cell.y * p.columns + cell.x) * p.scale;
        if (p.kind == 1u) { return vec4f(mix(back, vec3f(1.0, 0.85, 0.4), sqrt(clamp(x, 0.0, 1.0))), 1.0); }
        let colour = select(vec3f(0.35, 0.6, 1.0), vec3f(1.0, 0.45, 0.3), x > 0.0);
        return vec4f(mix(back, colour, clamp(abs(x), 0.0, 1.0)), 1.0);
    }
";

/// What a picture shows.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Numbers of both signs, up to this size.
    Signed(f32),
    /// Numbers from 0 to 1.
    Probabilities,
    /// The latest of so many numbers, up to this one, in a ring.
    Curve(u64, f32),
}

/// The pipeline, among the renderer's resources.
struct Pipeline {
    pipeline: wgpu::RenderPipeline,
    alignment: u64,
}

/// Makes the pipeline of all pictures.
pub fn prepare(window: &RenderState) {
    let device = &window.device;
    let source = wgpu::ShaderSource::Wgsl(SHADER.into());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some("pictures"), source });
    let pipeline = device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
        label: Some("pictures"),
        layout: None,
        vertex: wgpu::VertexState {
            module: &module,
            entry_point: Some("vertex"),
            compilation_options: Default::default(),
            buffers: &[],
        },
        primitive: wgpu::PrimitiveState { topology: wgpu::PrimitiveTopology::TriangleStrip, ..Default::default() },
        depth_stencil: None,
        multisample: Default::default(),
        fragment: Some(wgpu::FragmentState {
            module: &module,
            entry_point: Some("fragment"),
            compilation_options: Default::default(),
            targets: &[Some(window.target_format.into())],
        }),
        multiview_mask: None,
        cache: None,
    });
    let alignment = u64::from(device.limits().min_storage_buffer_offset_alignment);
    window.renderer.write().callback_resources.insert(Pipeline { pipeline, alignment });
}

/// Draws a tensor into the rest of a row.
pub fn show(ui: &mut egui::Ui, size: egui::Vec2, shown: &Shown, kind: Kind) {
    let (rect, _) = ui.allocate_exact_size(size, egui::Sense::hover());
    let picture =
        Picture { shown: shown.clone(), kind, height: size.y * ui.ctx().pixels_per_point(), group: Default::default() };
    ui.painter().add(egui_wgpu::Callback::new_paint_callback(rect, picture));
}

struct Picture {
    shown: Shown,
    kind: Kind,
    height: f32,
    group: std::sync::OnceLock<wgpu::BindGroup>,
}

impl CallbackTrait for Picture {
    fn prepare(
        &self,
        device: &wgpu::Device,
        _: &wgpu::Queue,
        _: &ScreenDescriptor,
        _: &mut wgpu::CommandEncoder,
        resources: &mut CallbackResources,
    ) -> Vec<wgpu::CommandBuffer> {
        let Some(Pipeline { pipeline, alignment }) = resources.get() else { return Vec::new() };
        let Shown { buffer, offset, rows, columns } = &self.shown;
        // A binding begins at an aligned offset; the shader adds the rest.
        let start = offset / alignment * alignment;
        let skipped = (offset - start) / 4;
        let (kind, count, scale) = match self.kind {
            Kind::Signed(most) => (0, 0, 1.0 / most),
            Kind::Probabilities => (1, 0, 1.0),
            Kind::Curve(count, most) => (2, count.min(*columns as u64) as u32, 1.0 / most),
        };
        let rows = if let Kind::Curve(count, _) = self.kind { count as u32 } else { *rows as u32 };
        let elements = if kind == 2 { *columns } else { self.shown.rows * columns };
        let words = [rows, *columns as u32, kind, count, f32::to_bits(scale), skipped as u32, self.height.to_bits(), 0];
        let uniform = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("picture"),
            size: 32,
            usage: wgpu::BufferUsages::UNIFORM,
            mapped_at_creation: true,
        });
        if let Ok(mut view) = uniform.get_mapped_range_mut(..) {
            view.copy_from_slice(bytemuck::cast_slice(&words));
        }
        uniform.unmap();
        let size = NonZeroU64::new((skipped + elements as u64) * 4);
        let data = wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: start, size });
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("picture"),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[
                wgpu::BindGroupEntry { binding: 0, resource: uniform.as_entire_binding() },
                wgpu::BindGroupEntry { binding: 1, resource: data },
            ],
        });
        let _ = self.group.set(group);
        Vec::new()
    }

    fn paint(&self, _: egui::PaintCallbackInfo, pass: &mut wgpu::RenderPass<'static>, resources: &CallbackResources) {
        if let (Some(Pipeline { pipeline, .. }), Some(group)) = (resources.get(), self.group.get()) {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, group, &[]);
            pass.draw(0..4, 0..1);
        }
    }
}
