//! The embedding example is a test: its numbers are those of plain arithmetic, on every adapter.

#[path = "../examples/embed.rs"]
#[expect(dead_code, reason = "the example's main is not called")]
mod embed;

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
