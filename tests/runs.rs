//! Concurrent runs of programs: threads, callbacks of wgpu, errors in between, and a device without a waiter. On every adapter
//! of this machine.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::time::{Duration, Instant};
use wgformer::gpu::{AdapterClass, GpuOptions, Tuning};
use wgformer::program::{Budget, Pieces};
use wgformer::{DType, Error, Gpu, Graph, Program, TensorType, Weights, ops};

/// Devices are opened one test at a time: software drivers share the cores with all tests.
static LOCK: Mutex<()> = Mutex::new(());

fn on_every_gpu(test: impl Fn(Gpu)) {
    let _lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let adapters = Gpu::adapters();
    assert!(!adapters.is_empty(), "no adapter: install a Vulkan driver, e.g. apt-get install mesa-vulkan-drivers");
    for adapter in adapters {
        let info = adapter.get_info();
        eprintln!("[{:?} {}]", info.backend, info.name);
        test(Gpu::open(&adapter).unwrap());
    }
}

/// x doubled `count` times, one launch each.
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

/// A product that a device of 1e9 operations a second needs some hundred milliseconds for, and what goes in.
fn product(gpu: &Gpu) -> Program {
    let mut g = Graph::new();
    let x = g.input("x", [704, 704], DType::F32).unwrap();
    let y = ops::matmul(&mut g, x, x).unwrap();
    let y = ops::scale(&mut g, y, 0.125).unwrap();
    let out = ops::matmul(&mut g, y, x).unwrap();
    g.output("out", out).unwrap();
    let program = Program::new(gpu, &g, &Weights::new(gpu)).unwrap();
    let values: Vec<f32> = (0..704 * 704).map(|i| (i as f32 * 0.37).sin()).collect();
    program.write("x", bytemuck::cast_slice(&values)).unwrap();
    program
}

#[test]
fn launches_follow_the_speed_of_the_device_and_results_stay() {
    on_every_gpu(|gpu| {
        gpu.assume_speed(1e15);
        let program = product(&gpu);
        let whole = program.launches();
        assert_eq!(whole, program.recording().dispatches().len(), "fast: nothing is cut");
        program.run().unwrap();
        let wanted = program.read("out").unwrap();
        // New launches do not disturb runs in flight.
        let mut flying = Vec::new();
        // The lowest assumed speed of a device: 2e9 on a GPU, 4e7 on a CPU.
        gpu.assume_speed(0.0);
        flying.extend(program.run_reading(&["out"]).unwrap());
        let cut = program.launches();
        // Two products of 704^3 multiplications and additions each, in launches of a quarter of a second, or of four.
        assert!(cut >= whole + 2, "{cut} launches");
        gpu.assume_speed(f64::INFINITY);
        flying.extend(program.run_reading(&["out"]).unwrap());
        assert_eq!(program.launches(), whole, "fast again");
        gpu.assume_speed(f64::NAN);
        flying.extend(program.run_reading(&["out"]).unwrap());
        for readback in flying {
            assert!(readback.wait().unwrap() == wanted, "the same bits however it is cut");
        }
    });
}

/// Encodes and submits the next piece.
fn piece(gpu: &Gpu, pieces: &mut Pieces<'_>) -> bool {
    let mut encoder = gpu.encoder("piece");
    let more = pieces.encode(&mut encoder).unwrap();
    gpu.submit("piece", [encoder]).unwrap();
    more
}

#[test]
fn a_run_in_pieces_is_a_run() {
    on_every_gpu(|gpu| {
        let program = doubling(&gpu, 1 << 16, 9);
        program.write("x", &ones(1 << 16, 3.0)).unwrap();
        program.run().unwrap();
        let wanted = program.read("out").unwrap();
        program.write("x", &ones(1 << 16, 1.0)).unwrap();
        program.run().unwrap();
        // Nine launches of 2^16 numbers, in twice as many pieces, of which no two fit into one.
        let whole: f64 = program.recording().dispatches().iter().map(wgformer::program::cost).sum();
        let budget = Budget::of(whole / 18.0);
        program.write("x", &ones(1 << 16, 3.0)).unwrap();
        let mut pieces = program.pieces(budget).unwrap();
        assert_eq!(pieces.progress(), 0.0);
        // Inputs written after the first piece belong to the next run.
        let mut count = 1;
        assert!(piece(&gpu, &mut pieces) && pieces.progress() > 0.0);
        program.write("x", &ones(1 << 16, 4.0)).unwrap();
        while piece(&gpu, &mut pieces) {
            count += 1;
        }
        assert!(count >= 17 && pieces.is_done() && pieces.progress() == 1.0, "{count} pieces");
        assert!(program.read("out").unwrap() == wanted, "the same bits");
        let message = pieces.encode(&mut gpu.encoder("one too many")).unwrap_err().to_string();
        assert!(message.contains("all pieces"), "{message}");
        program.run().unwrap();
        assert_eq!(program.read_f32("out").unwrap()[0], 4.0 * 512.0);
        // Pieces again make nothing anew.
        gpu.wait(None).unwrap();
        let created = gpu.buffers_created();
        for _ in 0..5 {
            let mut pieces = program.pieces(budget).unwrap();
            while piece(&gpu, &mut pieces) {}
        }
        assert_eq!(gpu.buffers_created(), created);
    });
}

#[test]
fn pieces_that_are_left_half_way_harm_nothing() {
    on_every_gpu(|gpu| {
        let program = doubling(&gpu, 1 << 10, 3);
        program.write("x", &ones(1 << 10, 3.0)).unwrap();
        let mut pieces = program.pieces(Budget::of(1.0)).unwrap();
        // The encoder that has the inputs is not even submitted.
        assert!(pieces.encode(&mut gpu.encoder("dropped")).unwrap());
        program.run().unwrap();
        assert_eq!(program.read_f32("out").unwrap(), [24.0; 1 << 10], "the inputs were sent again");
        let message = pieces.encode(&mut gpu.encoder("late")).unwrap_err().to_string();
        assert!(message.contains("another run of the program began"), "{message}");
        let mut again = program.pieces(Budget::of(1.0)).unwrap();
        assert!(piece(&gpu, &mut again));
        drop(again);
        program.run().unwrap();
        assert_eq!(program.read_f32("out").unwrap(), [24.0; 1 << 10]);
        // Invalid budgets.
        for budget in [f64::NAN, -1.0, 0.0, f64::INFINITY] {
            let mut pieces = program.pieces(Budget::of(budget)).unwrap();
            while piece(&gpu, &mut pieces) {}
            assert_eq!(program.read_f32("out").unwrap(), [24.0; 1 << 10], "{budget}");
        }
    });
}

/// Runs a program, sleeps for a while, and waits; returns the seconds of all that.
fn run_and_sleep(gpu: &Gpu, program: &Program) -> f64 {
    let start = Instant::now();
    program.run().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    gpu.wait(None).unwrap();
    start.elapsed().as_secs_f64()
}

/// Runs a program and waits for it; returns the seconds.
fn run_and_wait(gpu: &Gpu, program: &Program) -> f64 {
    let start = Instant::now();
    program.run().unwrap();
    gpu.wait(None).unwrap();
    start.elapsed().as_secs_f64()
}

#[test]
fn speed_is_learnt_from_work_though_nobody_polls() {
    on_every_gpu(|gpu| {
        let (program, timed) = (product(&gpu), gpu.device().features().contains(wgpu::Features::TIMESTAMP_QUERY));
        if !timed {
            return eprintln!("no timestamps: the next test is about this");
        }
        let cost: f64 = program.recording().dispatches().iter().map(wgformer::program::cost).sum();
        let slept = run_and_sleep(&gpu, &program);
        let speed = gpu.speed().unwrap();
        let quick = run_and_wait(&gpu, &program);
        eprintln!("{cost:e} operations in less than {slept} s, then {quick} s: {speed:e} a second");
        // One measurement makes a device at most four times as fast.
        let most = 4.0 * if gpu.caps().class == AdapterClass::Cpu { 2e9 } else { 1e11 };
        assert!(speed >= (0.9 * cost / slept).min(most) && speed <= most, "{speed:e}");
        if quick < 0.7 && slept < 2.0 {
            assert!(speed > 1.2 * cost / slept, "sleeping was taken for work: {speed:e}");
        }
    });
}

#[test]
fn without_timestamps_speed_is_learnt_from_waiting_and_on_an_adopted_device_not_at_all() {
    let _lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    for adapter in Gpu::adapters() {
        let timestamps = wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS
            | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES;
        let features = Gpu::wanted_features() - timestamps;
        let gpu = Gpu::open_with(&adapter, &GpuOptions::default().with_features(features)).unwrap();
        let program = product(&gpu);
        let cost: f64 = program.recording().dispatches().iter().map(wgformer::program::cost).sum();
        let slept = run_and_sleep(&gpu, &program);
        if slept < 5.0 {
            assert_eq!(gpu.speed(), None, "learnt from {slept} s, of which it slept through 1.5");
        }
        // Work that the application submits is unknown, so it is not measured.
        let mut encoder = gpu.encoder("the application's");
        program.encode(&mut encoder).unwrap();
        gpu.submit("the application's", [encoder]).unwrap();
        gpu.wait(None).unwrap();
        assert!(slept >= 5.0 || gpu.speed().is_none(), "{:?}", gpu.speed());
        let times = [(); 3].map(|()| run_and_wait(&gpu, &program));
        let (speed, longest) = (gpu.speed(), times.into_iter().fold(0.0, f64::max));
        eprintln!("[{}] {cost:e} operations in {times:?} s: {speed:?} a second", gpu.info().name);
        // Very short work is not measured.
        let moment = if gpu.caps().class == AdapterClass::Cpu { 0.08 } else { 0.005 };
        assert!(speed.is_some_and(|speed| speed >= 0.5 * (cost / longest).min(8e9)) || longest < moment, "{speed:?}");

        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap();
        let gpu = Gpu::adopt(device, queue).unwrap();
        run_and_wait(&gpu, &product(&gpu));
        assert_eq!(gpu.speed(), None, "adopted");
        gpu.assume_speed(3e10);
        assert_eq!(gpu.speed(), Some(3e10));
    }
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
    let more = || threads().zip(before).map_or(0, |(now, before)| now.saturating_sub(before));
    // Devices of other tests come and go; leaked memory stays.
    let began = Instant::now();
    while more() >= 8 && began.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(100));
    }
    let more = more();
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
