//! The room `gpu/` on every adapter of this machine. Without an adapter these tests fail.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod adopted;
mod devices;
mod errors;
mod programs;
mod timing;
mod transfers;

use std::sync::Mutex;
use wgformer::{Error, Gpu};
use wgpu::BufferUsages as Usage;

const DATA: Usage = Usage::STORAGE.union(Usage::COPY_SRC).union(Usage::COPY_DST);

/// Devices are opened one test at a time: software drivers share the cores with all tests.
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

fn lost(result: Result<(), Error>, what: &str) {
    match result {
        Err(Error::DeviceLost { .. }) => {}
        Err(other) => panic!("{what} on a lost device: {other}"),
        Ok(()) => panic!("{what} on a lost device went through"),
    }
}

/// Every call to a device after it was lost.
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
