//! Devices that an application opened.

use super::{DATA, all_calls_tell_of_the_loss, bytes, lost, on_every_adapter};
use std::time::Duration;
use wgformer::Gpu;
use wgformer::gpu::{GpuOptions, Polling};
use wgpu::BufferUsages as Usage;

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

/// The number of the engine's threads that wait for signals in this process.
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
        let options = GpuOptions::default().with_polling(Polling::Application);
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
