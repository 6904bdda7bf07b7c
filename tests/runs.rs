//! Runs of programs that meet: threads, callbacks of wgpu, errors in between, and a device that nobody waits for. On every adapter
//! of this machine.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::time::Duration;
use wgformer::gpu::Tuning;
use wgformer::{DType, Error, Gpu, Graph, Program, TensorType, Weights, ops};

/// Devices are opened one test at a time: software drivers share two cores with everybody.
static TURN: Mutex<()> = Mutex::new(());

fn on_every_gpu(test: impl Fn(Gpu)) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let adapters = Gpu::adapters();
    assert!(!adapters.is_empty(), "no adapter: install a Vulkan driver, e.g. apt-get install mesa-vulkan-drivers");
    for adapter in adapters {
        let info = adapter.get_info();
        eprintln!("[{:?} {}]", info.backend, info.name);
        test(Gpu::open(&adapter).unwrap());
    }
}

/// x doubled so many times, one launch each.
fn doubling(gpu: &Gpu, elements: usize, times: usize) -> Program {
    let mut g = Graph::new();
    let mut x = g.input("x", [elements], DType::F32).unwrap();
    for _ in 0..times {
        x = ops::scale(&mut g, x, 2.0).unwrap();
    }
    g.output("out", x).unwrap();
    Program::new(gpu, &g, &Weights::new(gpu)).unwrap()
}

fn ones(elements: usize, value: f32) -> Vec<u8> {
    bytemuck::cast_slice(&vec![value; elements]).to_vec()
}

#[test]
fn runs_of_several_submissions_by_two_threads_do_not_mix() {
    on_every_gpu(|gpu| {
        // More than a device of unknown speed gets in one submission.
        let (elements, times) = (1 << 22, 70);
        let program = doubling(&gpu, elements, times);
        program.write("x", &ones(elements, 1.0)).unwrap();
        let before = gpu.submissions();
        let start = Barrier::new(2);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    start.wait();
                    let read = program.run_reading(&["out"]).unwrap().remove(0).wait().unwrap();
                    let values: Vec<f32> = bytemuck::pod_collect_to_vec(&read);
                    let wrong = values.iter().filter(|v| **v != 2f32.powi(times as i32)).count();
                    assert_eq!(wrong, 0, "values of {elements} that are wrong; the first is {}", values[0]);
                });
            }
        });
        assert!(gpu.submissions() - before > 2, "each was one submission, which says nothing");
    });
}

#[test]
fn a_run_that_failed_loses_no_input() {
    on_every_gpu(|gpu| {
        let program = doubling(&gpu, 33, 1);
        program.write("x", &ones(33, 1.0)).unwrap();
        program.run().unwrap();
        program.write("x", &ones(33, 5.0)).unwrap();
        assert!(matches!(program.run_reading(&["out", "typo"]), Err(Error::Input { .. })));
        program.run().unwrap();
        assert_eq!(program.read_f32("out").unwrap(), [10.0; 33]);
    });
}

#[test]
fn callbacks_of_wgpu_may_write_and_run() {
    on_every_gpu(|gpu| {
        let program = Arc::new(doubling(&gpu, 257, 1));
        program.write("x", &ones(257, 1.0)).unwrap();
        program.run().unwrap();
        let buffer = gpu.buffer("data", 1 << 20, wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC).unwrap();
        let (sender, receiver) = channel();
        let (in_callback, own, target) = (gpu.clone(), program.clone(), buffer.clone());
        gpu.queue().on_submitted_work_done(move || {
            let written = in_callback.write(&target, 0, &[7; 4]);
            let run = own.write("x", &ones(257, 3.0)).and_then(|()| own.run());
            sender.send(written.and(run)).unwrap();
        });
        // One of these finds that the callback is due, in the middle of what it does.
        for _ in 0..20 {
            gpu.write(&buffer, 4, &vec![1; (1 << 20) - 4]).unwrap();
        }
        gpu.wait(None).unwrap();
        receiver.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
        assert_eq!(program.read_f32("out").unwrap(), [6.0; 257]);
        assert_eq!(gpu.read(&buffer, 0, 4).unwrap(), [7; 4]);
    });
}

#[test]
fn threads_that_ask_for_one_state_get_one() {
    on_every_gpu(|gpu| {
        for _ in 0..100 {
            let (weights, start) = (Weights::new(&gpu), Barrier::new(2));
            let ensure = || {
                start.wait();
                weights.ensure("state", &TensorType::f32([64])).unwrap().buffer
            };
            let (one, other) = std::thread::scope(|scope| {
                let other = scope.spawn(ensure);
                (ensure(), other.join().unwrap())
            });
            assert!(one == other && weights.get("state").unwrap().buffer == one);
        }
    });
}

#[test]
fn a_device_that_nobody_waits_for_is_freed() {
    let threads = || std::fs::read_dir("/proc/self/task").map(Iterator::count).ok();
    let mut before = None;
    for _ in 0..5 {
        on_every_gpu(|gpu| {
            let program = doubling(&gpu, 1024, 1);
            program.write("x", &ones(1024, 1.0)).unwrap();
            program.run().unwrap();
        });
        std::thread::sleep(Duration::from_millis(300));
        before = before.or_else(threads);
    }
    let more = threads().zip(before).map_or(0, |(now, before)| now.saturating_sub(before));
    assert!(more < 8, "{more} threads more after four more devices of each adapter");
}

#[test]
fn the_longest_time_to_tune_is_no_limit() {
    on_every_gpu(|gpu| {
        gpu.tune(Tuning::Within(Duration::MAX));
        let program = doubling(&gpu, 33, 1);
        program.run().unwrap();
    });
}
