//! The engine in an application, on every adapter: the embedding examples equal plain arithmetic and an undivided run; buffers of the
//! application's own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "../../examples/adapter.rs"]
#[expect(dead_code, reason = "the example's main is not called")]
mod adapter;
mod devices;
#[path = "../../examples/embed.rs"]
#[expect(dead_code, reason = "the example's main is not called")]
mod embed;
mod examples;
#[path = "../../examples/frames.rs"]
#[expect(dead_code, reason = "the example's main is not called")]
mod frames;
mod own_buffers;
#[path = "../../examples/search.rs"]
#[expect(dead_code, reason = "the example's main is not called")]
mod search;
#[path = "../../examples/service.rs"]
#[expect(dead_code, reason = "the example's main is not called")]
mod service;

use std::sync::{Mutex, MutexGuard, PoisonError};
use wgformer::Gpu;

/// One test at a time: software drivers share the cores, and one of the tests measures times.
fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn the_example_computes_what_it_says_on_every_adapter() {
    let _alone = alone();
    let adapters = Gpu::adapters();
    assert!(!adapters.is_empty(), "no adapter: install a Vulkan driver (mesa-vulkan-drivers)");
    let (rows, inner, columns) = (31, 33, 17);
    let input = |row: usize, k: usize| (f64::from((row * inner + k) as u32) * 0.01).sin();
    for adapter in adapters {
        let out = embed::run(&adapter).unwrap();
        assert_eq!(out.len(), rows * columns);
        for row in 0..rows {
            for column in 0..columns {
                let weight = |k: usize| f64::from(embed::weight_value(k * columns + column));
                let x: f64 = (0..inner).map(|k| input(row, k) * weight(k)).sum();
                let gelu = 0.5 * x * (1.0 + (0.797_884_560_8 * (x + 0.044_715 * x.powi(3))).tanh());
                let got = f64::from(out[row * columns + column]);
                // The application's sine is WGSL's, which may be off by 2^-11.
                assert!(
                    (got + gelu).abs() < 5e-3,
                    "{}: {row},{column}: {got} against {}",
                    adapter.get_info().name,
                    -gelu
                );
            }
        }
    }
}

#[test]
fn a_run_in_pieces_between_frames_gives_the_same_bits_on_every_adapter() {
    let _alone = alone();
    for adapter in Gpu::adapters() {
        let shown = frames::run(&adapter).unwrap();
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert!(bits(&shown.out) == bits(&shown.whole), "{}", adapter.get_info().name);
        assert!(shown.out.iter().any(|v| *v != 0.0));
        eprintln!("{}: {} pieces in {} frames", adapter.get_info().name, shown.pieces, shown.frames);
        // Two products of 2 * 256^3 operations, by pieces of 3 ms of 2e9 operations a second, or of 1e11.
        let least = if adapter.get_info().device_type == wgpu::DeviceType::Cpu { 6 } else { 2 };
        assert!(shown.pieces >= least && shown.frames >= shown.pieces, "{} in {}", shown.pieces, shown.frames);
    }
}

#[test]
fn frames_stay_on_time_while_a_model_generates() {
    let _alone = alone();
    for adapter in Gpu::adapters() {
        let name = adapter.get_info().name;
        // Other programs of the machine may disturb a measurement, but hardly five.
        let passed = (0..5).any(|_| {
            let times = frames::generate(&adapter, 60).unwrap();
            let [without, with] = [&times.without, &times.with].map(|times| frames::percentile(times, 0.95));
            eprintln!("{name}: 95 % within {without:.1} ms without, {with:.1} ms with {} tokens", times.tokens);
            assert!(times.preparing >= 5 && times.tokens > 1, "{times:?}");
            assert!(times.first.iter().all(|id| *id < 97));
            with <= 1.2 * without
        });
        assert!(passed, "{name}: generation makes frames late");
    }
}
