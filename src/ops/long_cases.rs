//! Loops beyond the iteration limit of CPU drivers: the default kernels must split them.

use crate::DType;
use crate::case::{Case, Feed, Tolerance};
use crate::ops::{self, CrossEntropyOptions, Matmul, WeightLayout, matmul::Form};

/// As many classes as GPT-2 has tokens: an odd number.
const VOCABULARY: usize = 50_257;
/// Enough rows for one invocation each.
const ROWS: usize = 9;
/// Products use four elements per iteration, so this exceeds the limit by 2,000 iterations.
const DEEP: usize = 270_001;
/// Differences of this many small gradients are less exact than others.
const BACKWARD: Tolerance = Tolerance { nmse: 1e-8, worst: 2e-4 };
const FORWARD: Tolerance = Tolerance { nmse: 1e-11, worst: 5e-6 };

pub(super) fn cases() -> Vec<Case> {
    let options = CrossEntropyOptions { label_smoothing: 0.1, z_loss: 0.01, soft_cap: None };
    let labels = || Feed::given("labels", [ROWS], DType::I32, (0..ROWS).map(|i| (i * 5_471 + 1_009) as f64));
    let wide = |columns: usize| Feed::normal("x", [ROWS, columns]);
    let mut cases = vec![
        Case::new("cross_entropy of a large vocabulary", vec![wide(VOCABULARY), labels()], move |g, x| {
            Ok(vec![ops::cross_entropy(g, x[0], x[1], &options)?])
        })
        .tolerance(FORWARD, BACKWARD),
        Case::new("softmax of a large vocabulary", vec![wide(VOCABULARY)], |g, x| Ok(vec![ops::softmax(g, x[0])?])),
        Case::new("layer_norm of long rows", vec![wide(70_001), Feed::normal("gain", [70_001])], |g, x| {
            Ok(vec![ops::layer_norm(g, x[0], x[1], None, 1e-5)?])
        }),
    ];
    let feeds = vec![Feed::normal("x", [ROWS, 3]), Feed::normal_scaled("weight", [VOCABULARY, 3], 0.0, 0.3), labels()];
    let fused = Case::new("linear_cross_entropy of a large vocabulary", feeds, move |g, x| {
        Ok(vec![ops::linear_cross_entropy(g, x[0], x[1], None, WeightLayout::OutIn, x[2], &options)?])
    });
    cases.push(fused.tolerance(FORWARD, BACKWARD));
    for (form, a, b) in
        [(Form::Nn, [1, DEEP], [DEEP, 2]), (Form::Nt, [2, DEEP], [1, DEEP]), (Form::Tn, [DEEP, 5], [DEEP, 1])]
    {
        let feeds = vec![Feed::normal("a", a), Feed::normal("b", b)];
        cases.push(Case::new(format!("matmul {form:?} of a deep product"), feeds, move |g, x| {
            Ok(vec![g.put1(Matmul::new(form), &[x[0], x[1]])?])
        }));
    }
    cases
}
