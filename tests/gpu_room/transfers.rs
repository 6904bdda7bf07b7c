//! Writing, reading and uploading, with and without waiting.

use super::{DATA, bytes, on_every_gpu};
use std::time::Duration;

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
        // When the CPU runs ahead of the GPU, the ring blocks instead of filling the memory.
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
        // While another thread polls, this call may return "not yet".
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
