//! Programs on devices of all kinds.

use super::{DATA, lost, on_every_adapter, on_every_gpu};
use wgformer::gpu::GpuOptions;
use wgformer::{DType, Error, Gpu, Graph, Program, Recording, Weights, ops};

/// A graph with an input `x` and the output `twice`, prepared for a device.
fn doubling(gpu: &Gpu) -> Result<Program, Error> {
    let mut graph = Graph::new();
    let x = graph.input("x", [3], DType::F32)?;
    let twice = ops::add(&mut graph, x, x)?;
    graph.output("twice", twice)?;
    Program::new(gpu, &graph, &Weights::new(gpu))
}

fn floats(values: [f32; 3]) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

#[test]
fn programs_run_on_the_weakest_device_and_with_checks() {
    on_every_adapter(|adapter| {
        let gpu = Gpu::open_with(adapter, &GpuOptions::portable().with_checked(true)).unwrap();
        let program = doubling(&gpu).unwrap();
        program.write("x", &floats([1.0, -2.0, 3.5])).unwrap();
        program.run().unwrap();
        assert_eq!(program.read_f32("twice").unwrap(), [2.0, -4.0, 7.0]);
        gpu.check().unwrap();
    });
}

#[test]
fn a_write_beside_a_tensor_is_seen() {
    on_every_gpu(|gpu| {
        let mut g = Graph::new();
        let x = g.input("x", [3], DType::F32).unwrap();
        let y = ops::add(&mut g, x, x).unwrap();
        g.output("twice", y).unwrap();
        let recording = Recording::new(&g, gpu.caps()).unwrap();
        let program = Program::prepare_apart(gpu, recording, &Weights::new(gpu)).unwrap();
        program.fill_temporaries(7).unwrap();
        program.write("x", &floats([1.0, -2.0, 3.5])).unwrap();
        program.run().unwrap();
        assert_eq!(program.read_f32("twice").unwrap(), [2.0, -4.0, 7.0]);
        assert_eq!(program.written_outside(7).unwrap(), None);
        let (buffer, offset, size) = program.output_buffer("twice").unwrap();
        for beside in [offset - 4, offset + size, offset + size + 128] {
            gpu.write(buffer, beside, &[1; 4]).unwrap();
            assert!(program.written_outside(7).unwrap().is_some(), "{beside} of {offset} and {size}");
            gpu.write(buffer, beside, &7_u32.to_le_bytes()).unwrap();
        }
        assert_eq!(program.written_outside(7).unwrap(), None);
    });
}

#[test]
fn an_application_runs_a_program_within_its_own_encoder() {
    on_every_adapter(|adapter| {
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap();
        device
            .on_uncaptured_error(std::sync::Arc::new(|error: wgpu::Error| panic!("the application was told: {error}")));
        let program = doubling(&Gpu::adopt(device.clone(), queue.clone()).unwrap()).unwrap();
        program.write("x", &floats([0.5, 1.5, -1.0])).unwrap();
        let own = program.gpu().buffer("the application's", 12, DATA).unwrap();
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        program.encode(&mut encoder).unwrap();
        let (buffer, offset, size) = program.output_buffer("twice").unwrap();
        encoder.copy_buffer_to_buffer(buffer, offset, &own, 0, size);
        let mut readback = program.readback(&mut encoder, "twice").unwrap();
        queue.submit([encoder.finish()]);
        let arrived = loop {
            // The application's own loop may poll the device as it likes.
            device.poll(wgpu::PollType::Poll).unwrap();
            if let Some(bytes) = readback.try_get().unwrap() {
                break bytes;
            }
        };
        assert_eq!(arrived, floats([1.0, 3.0, -2.0]));
        assert_eq!(program.gpu().read(&own, 0, 12).unwrap(), arrived);
    });
}

#[test]
fn a_program_on_a_lost_device_says_so() {
    on_every_adapter(|adapter| {
        let gpu = &Gpu::open(adapter).unwrap();
        let program = doubling(gpu).unwrap();
        program.write("x", &floats([1.0; 3])).unwrap();
        program.run().unwrap();
        gpu.device().destroy();
        lost(program.run(), "run");
        lost(program.read("twice").map(drop), "read");
        lost(doubling(gpu).map(drop), "prepare");
        let gpu = &Gpu::open(adapter).unwrap();
        gpu.device().destroy();
        lost(doubling(gpu).map(drop), "compile");
    });
}
