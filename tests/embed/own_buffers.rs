//! Buffers of the application as inputs, outputs and weights.

use super::alone;
use wgformer::ops::{self, WeightLayout};
use wgformer::program::OwnBuffers;
use wgformer::{DType, Error, Gpu, Graph, Program, TensorType, Weights};
use wgpu::BufferUsages as Usage;

const ROWS: usize = 37;
const INNER: usize = 64;
const OUT: usize = 20;

pub(super) fn on_every_device(test: impl Fn(&Gpu)) {
    let adapters = Gpu::adapters();
    assert!(!adapters.is_empty(), "no adapter: install a Vulkan driver (mesa-vulkan-drivers)");
    for adapter in adapters {
        let descriptor = wgpu::DeviceDescriptor { required_limits: adapter.limits(), ..Default::default() };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
        device.on_uncaptured_error(std::sync::Arc::new(|error: wgpu::Error| panic!("an uncaptured error: {error}")));
        eprintln!("[{:?} {}]", adapter.get_info().backend, adapter.get_info().name);
        test(&Gpu::adopt(device, queue).unwrap());
    }
}

/// `out = x · weight`, and what depends on it.
fn graph() -> Graph {
    let mut g = Graph::new();
    let x = g.input("x", [ROWS, INNER], DType::F32).unwrap();
    let weight = g.parameter("weight", [INNER, OUT], DType::F32).unwrap();
    let out = ops::linear(&mut g, x, weight, None, WeightLayout::InOut).unwrap();
    let tanh = ops::activation(&mut g, out, ops::Activation::Tanh).unwrap();
    g.output("out", out).unwrap();
    g.output("tanh", tanh).unwrap();
    g
}

fn buffer(gpu: &Gpu, size: u64, usage: Usage) -> wgpu::Buffer {
    let descriptor = wgpu::BufferDescriptor { label: Some("own"), size, usage, mapped_at_creation: false };
    gpu.device().create_buffer(&descriptor)
}

/// A pass of the application over a range of a buffer: `body` changes `data[i]`.
fn pass(gpu: &Gpu, body: &str, buffer: &wgpu::Buffer, offset: u64, size: u64) {
    let device = gpu.device();
    let text = format!(
        "@group(0) @binding(0) var<storage, read_write> data: array<f32>;
        @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {{
            let i = id.x;
            if (i < arrayLength(&data)) {{ data[i] = {body}; }}
        }}"
    );
    let source = wgpu::ShaderSource::Wgsl(text.into());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: None,
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    let resource =
        wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size: std::num::NonZeroU64::new(size) });
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry { binding: 0, resource }],
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.set_pipeline(&pipeline);
    pass.set_bind_group(0, &group, &[]);
    pass.dispatch_workgroups((size as u32 / 4).div_ceil(64), 1, 1);
    drop(pass);
    gpu.queue().submit([encoder.finish()]);
}

/// The product in f64 of what the passes below write.
fn product(scale: f64) -> Vec<f64> {
    let x = |i: usize| f64::from((i % 13) as u32) * 0.25 - 1.0;
    let weight = |i: usize| (f64::from((i % 7) as u32) * 0.125 - 0.5) * scale;
    let sum = |row: usize, column: usize| (0..INNER).map(|k| x(row * INNER + k) * weight(k * OUT + column)).sum();
    (0..ROWS * OUT).map(|i| sum(i / OUT, i % OUT)).collect()
}

fn close(found: &[f32], wanted: &[f64]) {
    assert_eq!(found.len(), wanted.len());
    for (index, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        assert!((f64::from(*found) - wanted).abs() <= 1e-4, "{index}: {found}, not {wanted}");
    }
}

#[test]
fn inputs_weights_and_outputs_lie_in_buffers_of_the_application() {
    let _alone = alone();
    on_every_device(|gpu| {
        let g = graph();
        let (x_size, w_size, size) = ((ROWS * INNER * 4) as u64, (INNER * OUT * 4) as u64, (ROWS * OUT * 4) as u64);
        // The tensors end where the buffers end; nothing is there for whoever reads on.
        let x = buffer(gpu, 512 + x_size, Usage::STORAGE);
        let w = buffer(gpu, 256 + w_size, Usage::STORAGE);
        let results = [0, 4096].map(|first| buffer(gpu, first + size, Usage::STORAGE | Usage::COPY_SRC));
        let weights = Weights::new(gpu);
        weights.insert("weight", &TensorType::f32([INNER, OUT]), &w, 256).unwrap();
        let own = OwnBuffers::new().input("x", &x, 512).output("out", &results[0], 0).output("tanh", &results[1], 4096);
        let program = Program::preparing(gpu, &g, &weights, &own).unwrap().finish().unwrap();
        assert!(program.has_input("x") && program.plan().peak() == 0, "{:?}", program.plan());
        assert_eq!(program.output_buffer("tanh").unwrap(), (&results[1], 4096, size));
        assert_eq!(program.input_buffer("x").unwrap(), (&x, 512, x_size));
        pass(gpu, "f32(i % 13u) * 0.25 - 1.0", &x, 512, x_size);
        pass(gpu, "f32(i % 7u) * 0.125 - 0.5", &w, 256, w_size);
        program.run().unwrap();
        close(&program.read_f32("out").unwrap(), &product(1.0));
        let tanh: Vec<f64> = product(1.0).into_iter().map(f64::tanh).collect();
        close(&program.read_f32("tanh").unwrap(), &tanh);
        // A pass of the application updates the weights.
        pass(gpu, "data[i] * 2.0", &w, 256, w_size);
        program.run().unwrap();
        close(&program.read_f32("out").unwrap(), &product(2.0));
        let message = program.write("x", &[0; 4]).unwrap_err().to_string();
        assert!(message.contains("application's own"), "{message}");
        // Memory of the engine's gives the same.
        let engine = Weights::new(gpu);
        let plain = Program::new(gpu, &g, &engine).unwrap();
        let (to, offset, bytes) = plain.input_buffer("x").unwrap();
        pass(gpu, "f32(i % 13u) * 0.25 - 1.0", to, offset, bytes);
        let to = engine.get("weight").unwrap();
        pass(gpu, "f32(i % 7u) * 0.25 - 1.0", &to.buffer, to.offset, w_size);
        plain.run().unwrap();
        close(&plain.read_f32("out").unwrap(), &product(2.0));
    });
}

#[test]
fn outputs_are_vertices_uniforms_arguments_and_texels() {
    let _alone = alone();
    on_every_device(|gpu| {
        let device = gpu.device();
        let mut g = Graph::new();
        let corners = g.input("corners", [4, 4], DType::F32).unwrap();
        let moved = ops::scale(&mut g, corners, 2.0).unwrap();
        g.output("vertices", moved).unwrap();
        let colour = g.input("colour", [4], DType::F32).unwrap();
        let colour = ops::scale(&mut g, colour, 0.5).unwrap();
        g.output("colour", colour).unwrap();
        // An output that is an input, and is copied.
        let arguments = g.input("arguments", [4], DType::U32).unwrap();
        g.output("arguments", arguments).unwrap();
        let texels = g.input("texels", [8, 64], DType::F32).unwrap();
        let texels = ops::scale(&mut g, texels, 3.0).unwrap();
        g.output("texels", texels).unwrap();
        let indirect = buffer(gpu, 20, Usage::INDIRECT | Usage::COPY_DST);
        let own = OwnBuffers::new()
            .output_usage("vertices", Usage::VERTEX)
            .output_usage("colour", Usage::UNIFORM)
            .output("arguments", &indirect, 4);
        let program = Program::preparing(gpu, &g, &Weights::new(gpu), &own).unwrap().finish().unwrap();
        let write = |name: &str, values: &[f32]| program.write(name, bytemuck::cast_slice(values)).unwrap();
        // A strip that covers the left half.
        let [low, high, end] = [-0.5, 0.5, 0.5_f32];
        write("corners", &[low, low, 0., end, 0., low, 0., end, low, high, 0., end, 0., high, 0., end]);
        write("colour", &[0.5, 2.0, 0.0, 2.0]);
        program.write("arguments", bytemuck::cast_slice(&[4_u32, 1, 0, 0])).unwrap();
        write("texels", &(0..512).map(|i| i as f32).collect::<Vec<_>>());

        let source = "
            @group(0) @binding(0) var<uniform> colour: vec4f;
            @vertex fn vertex(@location(0) at: vec4f) -> @builtin(position) vec4f { return at; }
            @fragment fn fragment() -> @location(0) vec4f { return colour; }";
        let source = wgpu::ShaderSource::Wgsl(source.into());
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
        let attributes = wgpu::vertex_attr_array![0 => Float32x4];
        let layout = wgpu::VertexBufferLayout {
            array_stride: 16,
            step_mode: wgpu::VertexStepMode::Vertex,
            attributes: &attributes,
        };
        let pipeline = device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
            label: None,
            layout: None,
            vertex: wgpu::VertexState {
                module: &module,
                entry_point: Some("vertex"),
                compilation_options: Default::default(),
                buffers: &[Some(layout)],
            },
            primitive: wgpu::PrimitiveState { topology: wgpu::PrimitiveTopology::TriangleStrip, ..Default::default() },
            depth_stencil: None,
            multisample: Default::default(),
            fragment: Some(wgpu::FragmentState {
                module: &module,
                entry_point: Some("fragment"),
                compilation_options: Default::default(),
                targets: &[Some(wgpu::TextureFormat::Rgba8Unorm.into())],
            }),
            multiview_mask: None,
            cache: None,
        });
        let (uniform, offset, size) = program.output_buffer("colour").unwrap();
        let size = std::num::NonZeroU64::new(size);
        let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: uniform, offset, size });
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry { binding: 0, resource }],
        });
        let texture = |format, usage| {
            device.create_texture(&wgpu::TextureDescriptor {
                label: None,
                size: wgpu::Extent3d { width: 64, height: 8, depth_or_array_layers: 1 },
                mip_level_count: 1,
                sample_count: 1,
                dimension: wgpu::TextureDimension::D2,
                format,
                usage: usage | wgpu::TextureUsages::COPY_SRC,
                view_formats: &[],
            })
        };
        let target = texture(wgpu::TextureFormat::Rgba8Unorm, wgpu::TextureUsages::RENDER_ATTACHMENT);
        let copied = texture(wgpu::TextureFormat::R32Float, wgpu::TextureUsages::COPY_DST);
        let read = [(); 2].map(|()| buffer(gpu, 256 * 8, Usage::COPY_DST | Usage::COPY_SRC));

        let mut encoder = device.create_command_encoder(&Default::default());
        program.encode(&mut encoder).unwrap();
        let view = target.create_view(&Default::default());
        let mut pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
            color_attachments: &[Some(wgpu::RenderPassColorAttachment {
                view: &view,
                depth_slice: None,
                resolve_target: None,
                ops: wgpu::Operations { load: wgpu::LoadOp::Clear(wgpu::Color::BLUE), store: wgpu::StoreOp::Store },
            })],
            ..Default::default()
        });
        let (vertices, offset, size) = program.output_buffer("vertices").unwrap();
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.set_vertex_buffer(0, vertices.slice(offset..offset + size));
        pass.draw_indirect(&indirect, 4);
        drop(pass);
        let (texels, offset, _) = program.output_buffer("texels").unwrap();
        let layout = |offset| wgpu::TexelCopyBufferLayout { offset, bytes_per_row: Some(256), rows_per_image: None };
        let info = wgpu::TexelCopyBufferInfo { buffer: texels, layout: layout(offset) };
        encoder.copy_buffer_to_texture(info, copied.as_image_copy(), copied.size());
        for (texture, buffer) in [&target, &copied].into_iter().zip(&read) {
            let info = wgpu::TexelCopyBufferInfo { buffer, layout: layout(0) };
            encoder.copy_texture_to_buffer(texture.as_image_copy(), info, texture.size());
        }
        gpu.queue().submit([encoder.finish()]);
        let pixels = gpu.read(&read[0], 0, 2048).unwrap();
        for (index, pixel) in pixels.chunks_exact(4).enumerate() {
            let wanted = if index % 64 < 32 { [64, 255, 0, 255] } else { [0, 0, 255, 255] };
            let near = pixel.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) <= 1);
            assert!(near, "pixel {index} is {pixel:?}, not {wanted:?}");
        }
        let texels: Vec<f32> = bytemuck::pod_collect_to_vec(&gpu.read(&read[1], 0, 2048).unwrap());
        assert!(texels.iter().enumerate().all(|(i, x)| *x == 3.0 * i as f32), "{texels:?}");
    });
}

#[test]
fn buffers_that_do_not_fit_are_refused() {
    let _alone = alone();
    on_every_device(|gpu| {
        let g = graph();
        let (x_size, size) = ((ROWS * INNER * 4) as u64, (ROWS * OUT * 4) as u64);
        let storage = buffer(gpu, 1 << 16, Usage::STORAGE | Usage::COPY_DST);
        let other = buffer(gpu, 1 << 16, Usage::STORAGE | Usage::COPY_DST);
        let vertices = buffer(gpu, 1 << 16, Usage::VERTEX | Usage::COPY_DST);
        let small = buffer(gpu, x_size - 4, Usage::STORAGE);
        let refused = |own: OwnBuffers, words: &[&str]| {
            let error = Program::preparing(gpu, &g, &Weights::new(gpu), &own)
                .and_then(wgformer::program::Preparation::finish)
                .unwrap_err();
            let (message, input) = (error.to_string(), matches!(error, Error::Input { .. }));
            assert!(input && words.iter().all(|word| message.contains(word)), "{message}");
        };
        refused(OwnBuffers::new().input("x", &vertices, 0), &["input x", "STORAGE", "VERTEX"]);
        refused(OwnBuffers::new().input("x", &storage, 4), &["input x", "offset 4", "multiple of"]);
        refused(OwnBuffers::new().input("x", &small, 0), &["input x", "do not fit a buffer of 9.2 KiB"]);
        refused(OwnBuffers::new().input("x", &storage, !255), &["input x", "do not fit"]);
        refused(OwnBuffers::new().input("y", &storage, 0), &["own input y", "it has: x"]);
        refused(OwnBuffers::new().output("y", &storage, 0), &["own output y", "it has: out, tanh"]);
        refused(OwnBuffers::new().output("out", &vertices, 0), &["output out", "STORAGE"]);
        let twice = OwnBuffers::new().output("out", &storage, 0).output("tanh", &storage, size / 512 * 256);
        refused(twice, &["output tanh", "are those of output out"]);
        let mixed = OwnBuffers::new().input("x", &storage, 0).output("out", &storage, 1 << 15);
        refused(mixed, &["in one buffer", "buffers of their own"]);
        let weights = Weights::new(gpu);
        let ty = TensorType::f32([INNER, OUT]);
        for (buffer, offset, word) in
            [(&vertices, 0, "STORAGE"), (&storage, 128 + 4, "multiple"), (&small, 1 << 14, "fit")]
        {
            let message = weights.insert("weight", &ty, buffer, offset).unwrap_err().to_string();
            assert!(message.starts_with("weight weight: ") && message.contains(word), "{message}");
        }
        weights.insert("weight", &ty, &storage, 0).unwrap();
        let message = weights.download("weight").unwrap_err().to_string();
        assert!(message.contains("COPY_SRC"), "{message}");
        let own = OwnBuffers::new().output("out", &storage, 1 << 15);
        let message = Program::preparing(gpu, &g, &weights, &own)
            .and_then(wgformer::program::Preparation::finish)
            .unwrap_err()
            .to_string();
        assert!(message.contains("reads weight and writes"), "{message}");
        let own = OwnBuffers::new().output("out", &other, 0);
        Program::preparing(gpu, &g, &weights, &own).and_then(wgformer::program::Preparation::finish).unwrap();
        gpu.check().unwrap();
    });
}
