//! Wrong calls, exhausted memory, lost devices.

use super::{DATA, all_calls_tell_of_the_loss, lost, on_every_adapter, on_every_gpu};
use wgformer::{Error, Gpu};
use wgpu::BufferUsages as Usage;

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

#[test]
fn a_lost_device_is_an_error_and_never_a_panic() {
    on_every_adapter(|adapter| all_calls_tell_of_the_loss(&Gpu::open(adapter).unwrap()));
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
        // The message of `Device::poll`'s panic when the driver fails during a wait.
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
