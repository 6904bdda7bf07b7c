//! Rotary positions.

use crate::check::{Case, Feed};
use crate::dtype::DType;
use crate::ops::{self, RopeOptions, RopeScaling};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let llama3 =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_position: 64 };
    for (shape, rotary_dim, scaling) in [
        ([1, 1, 1, 2], None, RopeScaling::None),
        ([2, 31, 3, 6], None, RopeScaling::None),
        ([1, 33, 2, 64], None, llama3),
        ([2, 7, 3, 24], Some(16), RopeScaling::Linear { factor: 4.0 }),
        ([1, 9, 5, 11], Some(6), RopeScaling::None),
    ] {
        for interleaved in [false, true] {
            let options = RopeOptions { theta: 500.0, rotary_dim, max_positions: 257, scaling, interleaved };
            let count = shape[0] * shape[1];
            let positions = (0..count).map(|i| (i * 29 % 257) as f64);
            let feeds =
                vec![Feed::normal("x", shape), Feed::given("positions", [shape[0], shape[1]], DType::U32, positions)];
            let name = format!("rope {shape:?} turned {rotary_dim:?} interleaved {interleaved}");
            cases.push(Case::new(name, feeds, move |g, x| {
                let table = ops::rope_table(g, shape[3], &options)?;
                Ok(vec![ops::rope(g, x[0], x[1], table, &options)?])
            }));
        }
    }
    cases
}
