//! The embedding examples on every adapter: their results equal plain arithmetic and an undivided run.

#[path = "../examples/embed.rs"]
#[expect(dead_code, reason = "the example's main is not called")]
mod embed;
#[path = "../examples/frames.rs"]
#[expect(dead_code, reason = "the example's main is not called")]
mod frames;

use wgformer::Gpu;

#[test]
fn the_example_computes_what_it_says_on_every_adapter() {
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
    for adapter in Gpu::adapters() {
        let shown = frames::run(&adapter).unwrap();
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert!(bits(&shown.out) == bits(&shown.whole), "{}", adapter.get_info().name);
        assert!(shown.out.iter().any(|v| *v != 0.0));
        eprintln!("{}: {} pieces in {} frames", adapter.get_info().name, shown.pieces, shown.frames);
        // Two products of 2 * 256^3 operations, by pieces of 2 ms of 2e9 operations a second, or of 1e11.
        let least = if adapter.get_info().device_type == wgpu::DeviceType::Cpu { 9 } else { 2 };
        assert!(shown.pieces >= least && shown.frames >= shown.pieces, "{} in {}", shown.pieces, shown.frames);
    }
}
