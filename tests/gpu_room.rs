//! The room `gpu/` on every adapter of this machine. Without an adapter these tests fail.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::sync::Mutex;
use std::time::Duration;
use wgformer::gpu::{AdapterClass, AdapterSummary, Caps, GpuOptions, Polling, Timestamps};
use wgformer::software::{Driver, Options, Quirks};
use wgformer::{DType, Error, Gpu, Graph, Program, Weights, ops};
use wgpu::BufferUsages as Usage;

const DATA: Usage = Usage::STORAGE.union(Usage::COPY_SRC).union(Usage::COPY_DST);

/// Devices are opened one test at a time: software drivers share two cores with everybody.
static LOCK: Mutex<()> = Mutex::new(());

fn on_every_adapter(test: impl Fn(&wgpu::Adapter)) {
    let _lock = LOCK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let adapters = Gpu::adapters();
    assert!(!adapters.is_empty(), "no adapter: install a Vulkan driver, e.g. apt-get install mesa-vulkan-drivers");
    for adapter in adapters {
        let info = adapter.get_info();
        eprintln!("[{:?} {}]", info.backend, info.name);
        test(&adapter);
    }
}

fn on_every_gpu(test: impl Fn(&Gpu)) {
    on_every_adapter(|adapter| {
        let gpu = Gpu::open(adapter).unwrap();
        test(&gpu);
        gpu.check().unwrap();
    });
}

fn bytes(count: usize, seed: u32) -> Vec<u8> {
    (0..count as u32).map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) as u8).collect()
}

#[test]
fn what_is_written_is_read_back() {
    on_every_gpu(|gpu| {
        // 20 MiB is more than one window of a read and one batch of a write.
        for size in [4, 4096, 100_004, 20 << 20] {
            let buffer = gpu.buffer("data", size as u64 + 8, DATA).unwrap();
            let data = bytes(size, 1);
            gpu.write(&buffer, 4, &data).unwrap();
            assert!(gpu.read(&buffer, 4, size as u64).unwrap() == data, "blocking, {size} bytes");
            let read = pollster::block_on(gpu.read_async(&buffer, 4, size as u64)).unwrap();
            assert!(read == data, "async, {size} bytes");
            assert_eq!(gpu.read(&buffer, 0, 4).unwrap(), [0; 4], "in front of what was written");
            assert_eq!(gpu.read(&buffer, size as u64 + 4, 3).unwrap(), [0; 3], "behind what was written");
        }
        let buffer = gpu.buffer("data", 8, DATA).unwrap();
        assert_eq!(gpu.read(&buffer, 0, 0).unwrap(), [0; 0]);
    });
}

#[test]
fn a_readback_that_is_not_ready_does_not_block() {
    on_every_gpu(|gpu| {
        let buffer = gpu.buffer("data", 1 << 20, DATA).unwrap();
        let data = bytes(1 << 20, 2);
        gpu.write(&buffer, 0, &data).unwrap();
        let mut encoder = gpu.encoder("copy");
        let mut readback = gpu.readback(&mut encoder, &buffer, 0, 1 << 20).unwrap();
        assert!(readback.try_get().unwrap().is_none(), "nothing was submitted");
        gpu.submit("copy", [encoder]).unwrap();
        let read = loop {
            if let Some(read) = readback.try_get().unwrap() {
                break read;
            }
            std::thread::yield_now();
        };
        assert!(read == data);
        let message = readback.try_get().unwrap_err().to_string();
        assert!(message.contains("taken already"), "{message}");
    });
}

#[test]
fn steady_work_creates_no_buffers() {
    on_every_gpu(|gpu| {
        let buffer = gpu.buffer("data", 4096, DATA).unwrap();
        let mut uploads = wgformer::gpu::Uploads::new(gpu, 8192);
        let step = |uploads: &mut wgformer::gpu::Uploads, seed| {
            let data = bytes(4096, seed);
            let mut encoder = gpu.encoder("step");
            uploads.write(&mut encoder, &buffer, 0, &data[..2048]).unwrap();
            uploads.write(&mut encoder, &buffer, 2048, &data[2048..]).unwrap();
            let readback = gpu.readback(&mut encoder, &buffer, 0, 4096).unwrap();
            uploads.finish(&encoder).unwrap();
            let submission = gpu.submit("step", [encoder]).unwrap();
            (readback.after(&submission), data)
        };
        let mut created = 0;
        for seed in 0..100 {
            let (readback, data) = step(&mut uploads, seed);
            assert!(readback.wait().unwrap() == data, "step {seed}");
            if seed == 10 {
                created = gpu.buffers_created();
            }
        }
        assert_eq!(gpu.buffers_created(), created, "buffers after 10 steps and after 100");
        // The CPU running ahead of the GPU is held back by the ring instead of filling the memory.
        let ahead: Vec<_> = (0..100).map(|seed| step(&mut uploads, seed)).collect();
        for (seed, (readback, data)) in ahead.into_iter().enumerate() {
            assert!(readback.wait().unwrap() == data, "step {seed} of many in flight");
        }
        let rings = gpu.buffers_created() - created;
        assert!(rings <= 100 + 4, "100 readbacks in flight and a ring of at most 5 took {rings} buffers");
    });
}

#[test]
fn uploads_larger_than_a_chunk_and_encoders_that_are_never_submitted() {
    on_every_gpu(|gpu| {
        let buffer = gpu.buffer("data", 10_000, DATA).unwrap();
        let mut uploads = wgformer::gpu::Uploads::new(gpu, 1000);
        let data = bytes(10_000, 3);
        for _ in 0..3 {
            let mut lost = gpu.encoder("never submitted");
            uploads.write(&mut lost, &buffer, 0, &bytes(5_000, 4)).unwrap();
            uploads.finish(&lost).unwrap();
        }
        let mut encoder = gpu.encoder("step");
        uploads.write(&mut encoder, &buffer, 0, &data).unwrap();
        uploads.finish(&encoder).unwrap();
        gpu.submit("step", [encoder]).unwrap();
        assert!(gpu.read(&buffer, 0, 10_000).unwrap() == data);
        // A ring that is dropped half way leaves a valid encoder behind.
        let mut encoder = gpu.encoder("step");
        uploads.write(&mut encoder, &buffer, 0, &[7; 8]).unwrap();
        drop(uploads);
        gpu.submit("step", [encoder]).unwrap();
        assert_eq!(gpu.read(&buffer, 0, 8).unwrap(), [7; 8]);
    });
}

#[test]
fn futures_of_readbacks_wake_without_anybody_polling() {
    on_every_gpu(|gpu| {
        let buffer = gpu.buffer("data", 64, DATA).unwrap();
        gpu.write(&buffer, 0, &[5; 64]).unwrap();
        let mut encoder = gpu.encoder("late");
        let early = gpu.readback(&mut encoder, &buffer, 0, 64).unwrap();
        let other = gpu.clone();
        let late = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            other.submit("late", [encoder]).unwrap();
        });
        assert_eq!(pollster::block_on(early).unwrap(), [5; 64], "awaited before it was submitted");
        late.join().unwrap();
        let mut encoder = gpu.encoder("two");
        let first = gpu.readback(&mut encoder, &buffer, 0, 4).unwrap();
        let second = gpu.readback(&mut encoder, &buffer, 60, 4).unwrap();
        gpu.submit("two", [encoder]).unwrap();
        let both = pollster::block_on(async { futures::future::join(first, second).await });
        assert_eq!((both.0.unwrap(), both.1.unwrap()), (vec![5; 4], vec![5; 4]));
        pollster::block_on(gpu.wait_async()).unwrap();
        // A thread that polls for somebody else makes this one say "not yet".
        let start = std::time::Instant::now();
        while !gpu.poll().unwrap() {
            assert!(start.elapsed() < Duration::from_secs(1), "something is in flight after the wait");
        }
        let mut encoder = gpu.encoder("never");
        let never = gpu.readback(&mut encoder, &buffer, 0, 64).unwrap();
        drop(encoder);
        let message = pollster::block_on(never).unwrap_err().to_string();
        assert!(message.contains("dropped without submission"), "{message}");
    });
}

#[test]
fn wrong_calls_are_errors_with_words() {
    on_every_gpu(|gpu| {
        let told = |result: Result<(), Error>, words: &str| {
            let message = result.unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        };
        let buffer = gpu.buffer("data", 16, DATA).unwrap();
        let mut encoder = gpu.encoder("wrong");
        told(gpu.read(&buffer, 8, 12).map(drop), "do not fit a buffer of 16 B");
        told(gpu.read(&buffer, 4, u64::MAX).map(drop), "do not fit");
        told(pollster::block_on(gpu.read_async(&buffer, 0, u64::MAX - 8)).map(drop), "do not fit");
        told(gpu.read(&buffer, 2, 4).map(drop), "multiples of 4");
        told(gpu.write(&buffer, 0, &[0; 3]), "multiples of 4");
        told(gpu.write(&buffer, u64::MAX - 3, &[0; 8]), "do not fit");
        let deaf = gpu.buffer("deaf", 16, Usage::STORAGE).unwrap();
        told(gpu.read(&deaf, 0, 4).map(drop), "COPY_SRC");
        told(gpu.write(&deaf, 0, &[0; 4]), "COPY_DST");
        told(gpu.buffer("no use", 16, Usage::empty()).map(drop), "buffer \"no use\"");
        told(gpu.readback(&mut encoder, &buffer, 0, 4).unwrap().wait().map(drop), "submit its encoder");
        // An encoder with a mistake in it is refused as a whole, and the next one works.
        let mut wrong = gpu.encoder("wrong");
        wrong.copy_buffer_to_buffer(&deaf, 0, &buffer, 0, 4);
        told(gpu.submit("a wrong copy", [wrong]).map(drop), "wgpu refused a wrong copy");
        gpu.write(&buffer, 0, &[1; 4]).unwrap();
    });
}

#[test]
fn too_much_memory_is_an_error_that_says_how_much() {
    on_every_gpu(|gpu| {
        for size in [gpu.caps().max_buffer_bytes.saturating_add(4), u64::MAX] {
            let error = gpu.buffer("huge", size, DATA).unwrap_err();
            assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
            assert!(error.to_string().contains("buffer \"huge\" needs"), "{error}");
        }
        gpu.buffer("small", 4, DATA).unwrap();
    });
}

#[test]
fn an_error_outside_any_scope_is_told_once() {
    on_every_gpu(|gpu| {
        let _ = gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("nobody looks"),
            size: 4,
            usage: Usage::empty(),
            mapped_at_creation: false,
        });
        let error = gpu.check().unwrap_err();
        assert!(matches!(error, Error::Validation { .. }) && error.to_string().contains("nobody looks"), "{error}");
        gpu.check().unwrap();
    });
}

fn lost(result: Result<(), Error>, what: &str) {
    match result {
        Err(Error::DeviceLost { .. }) => {}
        Err(other) => panic!("{what} on a lost device: {other}"),
        Ok(()) => panic!("{what} on a lost device went through"),
    }
}

/// Everything that can be asked of a device, after it was lost.
fn all_calls_tell_of_the_loss(gpu: &Gpu) {
    let buffer = gpu.buffer("data", 1 << 20, DATA).unwrap();
    let mut uploads = wgformer::gpu::Uploads::new(gpu, 1024);
    let mut encoder = gpu.encoder("before");
    uploads.write(&mut encoder, &buffer, 0, &[1; 16]).unwrap();
    uploads.finish(&encoder).unwrap();
    let mut flying = gpu.readback(&mut encoder, &buffer, 0, 1 << 20).unwrap();
    let second = gpu.readback(&mut encoder, &buffer, 0, 4).unwrap();
    let third = gpu.readback(&mut encoder, &buffer, 0, 4).unwrap();
    gpu.submit("before", [encoder]).unwrap();
    let mut unsubmitted = gpu.encoder("open at the loss");
    uploads.write(&mut unsubmitted, &buffer, 0, &[1; 16]).unwrap();
    let never = gpu.readback(&mut unsubmitted, &buffer, 0, 4).unwrap();

    gpu.device().destroy();

    lost(gpu.check(), "check");
    // What was in flight may have arrived in time; it must not hang or panic.
    for result in [flying.try_get(), second.wait().map(Some), pollster::block_on(third).map(Some)] {
        assert!(matches!(result, Ok(_) | Err(Error::DeviceLost { .. })), "{result:?}");
    }
    let _ = uploads.finish(&unsubmitted);
    lost(gpu.submit("after", [unsubmitted]).map(drop), "submit");
    lost(never.wait().map(drop), "wait");
    let mut encoder = gpu.encoder("after");
    lost(uploads.write(&mut encoder, &buffer, 0, &[1; 2048]), "upload");
    lost(gpu.readback(&mut encoder, &buffer, 0, 8 << 10).map(drop), "readback");
    lost(gpu.submit("after", [encoder]).map(drop), "submit");
    lost(gpu.buffer("late", 16, DATA).map(drop), "buffer");
    lost(gpu.read(&buffer, 0, 4).map(drop), "read");
    lost(pollster::block_on(gpu.read_async(&buffer, 0, 4)).map(drop), "read_async");
    lost(gpu.write(&buffer, 0, &[1; 4]), "write");
    lost(gpu.wait(None), "wait");
    lost(pollster::block_on(gpu.wait_async()), "wait_async");
    lost(gpu.poll().map(drop), "poll");
    lost(gpu.check(), "check");
}

#[test]
fn a_lost_device_is_an_error_and_never_a_panic() {
    on_every_adapter(|adapter| all_calls_tell_of_the_loss(&Gpu::open(adapter).unwrap()));
}

#[test]
fn an_adopted_device_keeps_its_handlers() {
    on_every_adapter(|adapter| {
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap();
        let (sender, seen) = std::sync::mpsc::channel();
        let loss = sender.clone();
        device.on_uncaptured_error(std::sync::Arc::new(move |error: wgpu::Error| drop(sender.send(error.to_string()))));
        device.set_device_lost_callback(move |reason, _| drop(loss.send(format!("{reason:?}"))));
        let gpu = Gpu::adopt(device.clone(), queue).unwrap();
        assert_eq!(gpu.caps().max_invocations, device.limits().max_compute_invocations_per_workgroup);
        assert!(gpu.buffer("no use", 16, Usage::empty()).is_err(), "the engine's own error");
        assert!(seen.try_recv().is_err(), "the application was told of the engine's error");
        let _ = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("the application's mistake"),
            size: 4,
            usage: Usage::empty(),
            mapped_at_creation: false,
        });
        assert!(seen.try_recv().unwrap().contains("the application's mistake"));
        all_calls_tell_of_the_loss(&gpu);
        // The callback comes once the queue is empty.
        device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        assert_eq!(seen.try_recv().as_deref(), Ok("Destroyed"), "the application's callback of the loss");
    });
}

#[test]
fn adopting_and_looking_at_a_device_makes_no_error() {
    on_every_adapter(|adapter| {
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap();
        device.on_uncaptured_error(std::sync::Arc::new(|error: wgpu::Error| panic!("an uncaptured error: {error}")));
        let gpu = Gpu::adopt(device.clone(), queue).unwrap();
        for _ in 0..1000 {
            gpu.check().unwrap();
        }
        // Threads that look and poll at once see no loss where there is none.
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..500).for_each(|_| gpu.check().unwrap()));
                scope.spawn(|| (0..500).all(|_| device.poll(wgpu::PollType::Poll).is_ok()));
            }
        });
        let buffer = gpu.buffer("data", 16, DATA).unwrap();
        gpu.write(&buffer, 0, &[3; 16]).unwrap();
        assert_eq!(gpu.read(&buffer, 0, 16).unwrap(), [3; 16]);
        device.destroy();
        lost(gpu.check(), "check");
    });
}

/// How many threads of the engine wait for signals in this process.
#[cfg(target_os = "linux")]
fn watching_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks
        .filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|n| n.starts_with("wgformer")))
        .count()
}

#[test]
#[cfg(target_os = "linux")]
fn an_application_that_polls_itself_is_left_to_it() {
    use futures::FutureExt;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);
    impl futures::task::ArcWake for Woken {
        fn wake_by_ref(woken: &std::sync::Arc<Self>) {
            woken.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    on_every_adapter(|adapter| {
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap();
        let options = GpuOptions { polling: Polling::Application, ..GpuOptions::default() };
        let gpu = Gpu::adopt_with(device.clone(), queue, &options).unwrap();
        let buffer = gpu.buffer("data", 3 << 20, DATA).unwrap();
        let data = bytes(3 << 20, 9);
        gpu.write(&buffer, 0, &data).unwrap();
        gpu.wait(None).unwrap();
        let mut encoder = gpu.encoder("awaited");
        let mut readback = gpu.readback(&mut encoder, &buffer, 0, 64).unwrap();
        gpu.submit("awaited", [encoder]).unwrap();
        let woken = std::sync::Arc::new(Woken::default());
        let waker = futures::task::waker(woken.clone());
        let mut context = std::task::Context::from_waker(&waker);
        let mut whole = Box::pin(gpu.read_async(&buffer, 0, 3 << 20));
        let (first, second) = (readback.poll_unpin(&mut context), whole.poll_unpin(&mut context));
        assert!(second.is_pending(), "nobody polled since it was submitted");
        // Submitting the second one may have found the first one done.
        let before = woken.0.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(watching_threads(), 0, "threads of the engine");
        assert_eq!(woken.0.load(Ordering::Relaxed), before, "woken though nobody polled");
        device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        assert!(woken.0.load(Ordering::Relaxed) > before, "the application polled");
        let ready = if first.is_pending() { readback.poll_unpin(&mut context) } else { first };
        let std::task::Poll::Ready(read) = ready else { panic!("it was polled for") };
        assert!(read.unwrap() == data[..64]);
        let read = loop {
            device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
            if let std::task::Poll::Ready(read) = whole.poll_unpin(&mut context) {
                break read.unwrap();
            }
        };
        assert!(read == data);
        let mut idle = Box::pin(gpu.wait_async());
        while idle.poll_unpin(&mut context).map(Result::unwrap).is_pending() {
            device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        }
        assert_eq!(watching_threads(), 0, "threads of the engine");
        device.destroy();
        let mut gone = Box::pin(gpu.wait_async());
        let told = loop {
            if let std::task::Poll::Ready(told) = gone.poll_unpin(&mut context) {
                break told;
            }
            device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        };
        lost(told, "wait_async");
    });
}

#[test]
fn adapters_are_chosen_by_number_backend_and_name() {
    let adapters = Gpu::summaries();
    assert!(!adapters.is_empty());
    for adapter in &adapters {
        eprintln!("{adapter}");
        let text = serde_json::to_string(adapter).unwrap();
        assert_eq!(&serde_json::from_str::<AdapterSummary>(&text).unwrap(), adapter);
        let gpu = Gpu::choose(Some(&adapter.index.to_string())).unwrap();
        assert_eq!((&gpu.info().name, gpu.info().backend.to_str()), (&adapter.name, adapter.backend.as_str()));
        // Where textures lie shows when a device is open.
        let Quirks { shared_textures, texture_work, .. } = gpu.caps().quirks;
        let quirks = Quirks { shared_textures, texture_work, ..adapter.caps.quirks.clone() };
        let caps = Caps { quirks, ..adapter.caps.clone() };
        assert_eq!(gpu.caps(), &caps, "an opened device has all that its adapter has");
        let gpu = Gpu::choose(Some(&format!("{}:{}", adapter.backend, adapter.name))).unwrap();
        assert_eq!((&gpu.info().name, gpu.info().backend.to_str()), (&adapter.name, adapter.backend.as_str()));
    }
    let message = Gpu::choose(Some("a card that nobody sells")).unwrap_err().to_string();
    assert!(message.contains(&adapters[0].to_string()), "{message}");
}

#[test]
fn a_weaker_device_than_the_adapter_can_be_asked_for() {
    on_every_adapter(|adapter| {
        let gpu = Gpu::open_with(adapter, &GpuOptions { checked: true, ..GpuOptions::portable() }).unwrap();
        let caps = gpu.caps();
        let least = Caps {
            name: caps.name.clone(),
            class: caps.class,
            quirks: Quirks {
                max_textures: caps.quirks.max_textures.min(16),
                max_texture_bytes: caps.quirks.max_texture_bytes.min(128 << 20),
                ..caps.quirks.clone()
            },
            ..Caps::baseline()
        };
        assert_eq!(caps, &least);
        assert!(gpu.checked());
        assert!(gpu.buffer("larger than portable", (256 << 20) + 4, DATA).is_err());
        assert!(Timestamps::new(&gpu, 2).unwrap().is_none());
        let few = wgpu::Limits { max_storage_buffers_per_shader_stage: 4, ..Default::default() };
        let options = GpuOptions { limits: Some(few.clone()), ..Default::default() };
        let message = Gpu::open_with(adapter, &options).unwrap_err().to_string();
        assert!(message.contains("max_storage_buffers_per_shader_stage of at least 8 (it is 4)"), "{message}");
        let descriptor = wgpu::DeviceDescriptor { required_limits: few, ..Default::default() };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
        let message = Gpu::adopt(device, queue).unwrap_err().to_string();
        assert!(message.contains("required_limits: adapter.limits()"), "{message}");
    });
}

#[test]
fn subgroups_that_are_not_as_a_device_says_are_not_used() {
    on_every_adapter(|adapter| {
        let own = Gpu::open(adapter).unwrap().caps().subgroup;
        for claimed in [2, 4, 8, 16, 32, 64] {
            let software = Options { claimed_subgroup: Some(claimed), ..Options::default() };
            let gpu = Gpu::open_with(adapter, &GpuOptions { software, ..GpuOptions::default() }).unwrap();
            assert_eq!(gpu.caps().subgroup, own.filter(|own| *own == claimed), "{claimed} of {own:?}");
            assert_eq!((gpu.submissions(), gpu.buffers_created()), (0, 0), "a probe leaves no trace");
        }
    });
}

#[test]
fn a_driver_that_computes_on_the_cpu_runs_as_a_gpu() {
    on_every_adapter(|adapter| {
        let info = adapter.get_info();
        let gpu = Gpu::open_with(adapter, &GpuOptions { class: Some(AdapterClass::Gpu), ..GpuOptions::default() });
        let gpu = gpu.unwrap();
        assert_eq!(gpu.caps().class, AdapterClass::Gpu);
        assert_eq!(gpu.caps().quirks, Driver::of(&info).map(|_| Quirks::of_results()).unwrap_or_default());
        let descriptor = wgpu::DeviceDescriptor {
            required_features: adapter.features() & Gpu::wanted_features(),
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
        let (told, seen) = std::sync::mpsc::channel();
        device.on_uncaptured_error(std::sync::Arc::new(move |error| told.send(error.to_string()).unwrap()));
        let start = std::time::Instant::now();
        let gpu =
            Gpu::adopt_with(device, queue, &GpuOptions { class: Some(AdapterClass::Gpu), ..GpuOptions::default() });
        println!("{}: adopted in {:?}", info.name, start.elapsed());
        assert_eq!(gpu.unwrap().caps().class, AdapterClass::Gpu);
        assert!(seen.try_recv().is_err(), "the application was told of an error");
    });
}

#[test]
fn a_device_that_is_lost_before_it_is_adopted_is_refused() {
    on_every_adapter(|adapter| {
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap();
        let (told, seen) = std::sync::mpsc::channel();
        device.on_uncaptured_error(std::sync::Arc::new(move |error| told.send(error.to_string()).unwrap()));
        device.destroy();
        lost(Gpu::adopt(device, queue).map(drop), "adopt");
        assert_eq!(seen.try_iter().next(), None, "the application was told of an error");
    });
}

#[test]
fn memory_that_the_driver_does_not_give_is_an_error() {
    on_every_gpu(|gpu| {
        if gpu.info().backend == wgpu::Backend::Gl {
            // OpenGL drivers on the CPU touch all of it, and take seconds to find the machine's memory used up.
            return eprintln!("not on OpenGL");
        }
        // SwiftShader refuses the size that it names as its largest; others may grant it.
        match gpu.buffer("as large as can be", gpu.caps().max_buffer_bytes, DATA) {
            Ok(_) => eprintln!("granted"),
            Err(error) => {
                assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
                assert!(error.to_string().contains("allows no more ("), "{error}");
            }
        }
        gpu.buffer("small", 4, DATA).unwrap();
    });
}

#[test]
fn wgpu_saying_by_a_panic_that_the_device_is_lost_becomes_an_error() {
    on_every_adapter(|adapter| {
        // The words with which `Device::poll` panics when the driver fails in the middle of a wait.
        let gpu = Gpu::open(adapter).unwrap();
        gpu.submit("work", [gpu.encoder("work")]).unwrap();
        gpu.queue().on_submitted_work_done(|| panic!("Error in {}: Validation Error\n\n    lost", "Device::poll"));
        lost(gpu.wait(None), "wait");
        lost(gpu.check(), "check");
        // A panic of the application's own callback is the application's.
        let gpu = Gpu::open(adapter).unwrap();
        gpu.submit("work", [gpu.encoder("work")]).unwrap();
        gpu.queue().on_submitted_work_done(|| panic!("mine"));
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| gpu.wait(None)));
        assert_eq!(waited.unwrap_err().downcast_ref(), Some(&"mine"));
        gpu.check().unwrap();
    });
}

#[test]
fn several_threads_share_a_device() {
    on_every_gpu(|gpu| {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    let buffer = gpu.buffer("own", 40_000, DATA).unwrap();
                    for round in 0..25 {
                        let data = bytes(40_000, thread * 1000 + round);
                        gpu.write(&buffer, 0, &data).unwrap();
                        let read = match round % 2 {
                            0 => gpu.read(&buffer, 0, 40_000),
                            _ => pollster::block_on(gpu.read_async(&buffer, 0, 40_000)),
                        };
                        assert!(read.unwrap() == data, "thread {thread}, round {round}");
                    }
                });
            }
        });
    });
}

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
        // On a busy machine a thread may be late for its own reasons, not for the GPU's: one attempt in five counts.
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
        let gpu = Gpu::open_with(adapter, &GpuOptions { checked: true, ..GpuOptions::portable() }).unwrap();
        let program = doubling(&gpu).unwrap();
        program.write("x", &floats([1.0, -2.0, 3.5])).unwrap();
        program.run().unwrap();
        assert_eq!(program.read_f32("twice").unwrap(), [2.0, -4.0, 7.0]);
        gpu.check().unwrap();
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
