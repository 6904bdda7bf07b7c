//! Timestamps and waits.

use super::{DATA, on_every_gpu};
use std::time::Duration;
use wgformer::Gpu;
use wgformer::gpu::Timestamps;

/// Multiplies every word by an odd number, many times.
const BUSY: &str = "
@group(0) @binding(0) var<storage, read_write> data: array<u32>;
@compute @workgroup_size(64) fn busy(@builtin(global_invocation_id) at: vec3<u32>) {
    var x = data[at.x];
    for (var i = 0u; i < 500u; i++) { x = x * 1664525u + 1013904223u; }
    data[at.x] = x;
}";

fn busy(gpu: &Gpu, words: u64) -> (wgpu::Buffer, wgpu::ComputePipeline, wgpu::BindGroup) {
    let source = wgpu::ShaderSource::Wgsl(BUSY.into());
    let module = gpu.device().create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
    let pipeline = gpu.device().create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: None,
        compilation_options: Default::default(),
        cache: None,
    });
    let buffer = gpu.buffer("busy", words * 4, DATA).unwrap();
    let group = gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry { binding: 0, resource: buffer.as_entire_binding() }],
    });
    (buffer, pipeline, group)
}

#[test]
fn timestamps_tell_the_time_of_each_dispatch() {
    on_every_gpu(|gpu| {
        let (_, pipeline, group) = busy(gpu, 1 << 16);
        // 5000 is more than one query set holds.
        for count in [5, 5000] {
            let Some(timestamps) = Timestamps::new(gpu, count).unwrap() else {
                assert!(!gpu.caps().timestamps);
                eprintln!("no timestamps inside passes");
                return;
            };
            let dispatches = 4;
            let mut encoder = gpu.encoder("timed");
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            timestamps.write(&mut pass, 0);
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &group, &[]);
            for index in 1..count {
                if index <= dispatches {
                    // The second one does sixteen times the work of the others.
                    pass.dispatch_workgroups(if index == 2 { 1024 } else { 64 }, 1, 1);
                }
                timestamps.write(&mut pass, index);
            }
            timestamps.write(&mut pass, count);
            drop(pass);
            let readback = timestamps.resolve(&mut encoder, count).unwrap();
            assert!(timestamps.resolve(&mut encoder, count + 1).is_err());
            gpu.submit("timed", [encoder]).unwrap();
            let times = timestamps.nanoseconds(&readback.wait().unwrap());
            assert_eq!(times.len(), count as usize);
            assert!(times.windows(2).all(|w| w[0] <= w[1]), "time runs backwards");
            let spans: Vec<f64> = times.windows(2).take(4).map(|w| w[1] - w[0]).collect();
            eprintln!("{spans:.0?} ns");
            assert!(times[4] > 0.0 && times[4] < 60e9, "{} ns", times[4]);
        }
    });
}

#[test]
fn a_wait_for_an_early_submission_does_not_wait_for_later_ones() {
    on_every_gpu(|gpu| {
        let (buffer, pipeline, group) = busy(gpu, 1 << 15);
        let dispatch = |encoder: &mut wgpu::CommandEncoder| {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(512, 1, 1);
        };
        // On a busy machine the thread itself may be late: one good attempt of five suffices.
        let attempts: Vec<_> = (0..5)
            .map(|_| {
                let mut encoder = gpu.encoder("early");
                let early = gpu.readback(&mut encoder, &buffer, 0, 4).unwrap();
                let submission = gpu.submit("early", [encoder]).unwrap();
                for _ in 0..4 {
                    let mut encoder = gpu.encoder("late");
                    dispatch(&mut encoder);
                    gpu.submit("late", [encoder]).unwrap();
                }
                let start = std::time::Instant::now();
                early.after(&submission).wait().unwrap();
                let early = start.elapsed();
                gpu.wait(None).unwrap();
                (early, start.elapsed())
            })
            .collect();
        eprintln!("(early, late): {attempts:?}");
        // Where submitting itself does the work (OpenGL on the CPU), there is nothing left to wait for.
        let fine = |&(early, late): &(Duration, Duration)| late.as_millis() < 20 || early < late / 2;
        assert!(attempts.iter().any(fine), "{attempts:?}");
    });
}
