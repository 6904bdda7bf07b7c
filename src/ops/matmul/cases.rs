//! Matrix products: every form, size, epilogue, weight type and kernel.

use super::{Form, Variant};
use crate::DType;
use crate::case::{Case, Feed, Tolerance};
use crate::kernel::AdapterClass;
use crate::ops::{self, Activation, LinearOptions, Matmul, WeightLayout};

const FORMS: [Form; 3] = [Form::Nn, Form::Nt, Form::Tn];

fn case(
    name: String,
    feeds: Vec<Feed>,
    build: impl Fn(&mut crate::Graph, &[crate::Tensor]) -> crate::Result<Vec<crate::Tensor>> + Send + Sync + 'static,
) -> Case {
    let tolerance = Tolerance { nmse: 1e-12, worst: 2e-6 };
    Case::new(name, feeds, build).tolerance(tolerance, tolerance)
}

/// The shapes of a product's operands in memory.
fn operands(form: Form, lead: &[usize], [m, n, k]: [usize; 3]) -> (Vec<usize>, Vec<usize>) {
    let with = |rows: usize, columns: usize| [lead, &[rows, columns]].concat();
    let a = if form.a_transposed() { with(k, m) } else { with(m, k) };
    let b = if form.b_transposed() { with(n, k) } else { with(k, n) };
    (a, b)
}

fn sizes() -> impl Iterator<Item = Case> {
    let small = [[1, 1, 1], [31, 33, 257], [257, 31, 33], [64, 64, 64], [65, 127, 129], [1, 33, 257], [3, 260, 68]];
    // Rows at a stride of whole pages, of B, of A or of both, in one form or another.
    let strided = [[257, 1024, 5], [1024, 257, 5], [257, 9, 1024], [9, 260, 1024]];
    let sizes = small.into_iter().chain(strided);
    FORMS.iter().flat_map(move |&form| {
        sizes.clone().map(move |size| {
            let (a, b) = operands(form, &[], size);
            let feeds = vec![Feed::normal("a", a), Feed::normal("b", b)];
            case(format!("matmul {form:?} {size:?}"), feeds, move |g, x| {
                Ok(vec![g.put1(Matmul::new(form), &[x[0], x[1]])?])
            })
        })
    })
}

fn batches() -> impl Iterator<Item = Case> {
    FORMS.iter().flat_map(|&form| {
        [[33, 5, 7], [4, 36, 64]].into_iter().map(move |size| {
            let (a, b) = operands(form, &[2, 3], size);
            let feeds = vec![Feed::normal("a", a), Feed::normal("b", b)];
            case(format!("matmul {form:?} batch [2, 3] of {size:?}"), feeds, move |g, x| {
                Ok(vec![g.put1(Matmul::new(form), &[x[0], x[1]])?])
            })
        })
    })
}

/// Every kernel with every form. If the adapter lacks a kernel, the default runs instead.
fn variants() -> impl Iterator<Item = Case> {
    Variant::ALL.iter().flat_map(|&variant| {
        FORMS.iter().flat_map(move |&form| {
            let small = [[36, 68, 72], [67, 37, 41], [7, 36, 40], [2, 37, 43]];
            // Several of the larger tiles, and edges of them.
            let large =
                [[257, 33, 31], [132, 260, 36]].into_iter().filter(move |_| variant.entry().class == AdapterClass::Gpu);
            small.into_iter().chain(large).map(move |size| {
                let (a, b) = operands(form, &[2], size);
                let feeds = vec![Feed::normal("a", a).fixed(), Feed::normal("b", b).fixed()];
                let name = format!("matmul {form:?} {size:?} by {} where legal, else the default", variant.name());
                variant.case(case(name, feeds, move |g, x| {
                    let op = Matmul { variant: Some(variant), alpha: 0.5, ..Matmul::new(form) };
                    Ok(vec![g.put1(op, &[x[0], x[1]])?])
                }))
            })
        })
    })
}

/// Products that are split along k where the adapter's kernels can, with an epilogue and quantised weights as well.
fn split() -> impl Iterator<Item = Case> {
    let plain = FORMS.into_iter().flat_map(|form| {
        [[33, 36, 2080], [9, 65, 1543]].into_iter().map(move |size| {
            let (a, b) = operands(form, &[], size);
            let feeds = vec![Feed::normal("a", a).fixed(), Feed::normal("b", b).fixed()];
            case(format!("matmul {form:?} {size:?} by split_k"), feeds, move |g, x| {
                let op = Matmul { variant: Some(Variant::SplitK), ..Matmul::new(form) };
                Ok(vec![g.put1(op, &[x[0], x[1]])?])
            })
        })
    });
    // Where blocks are of 256, parts end within one.
    let types = [(DType::F16, 36, 1600), (DType::Q8_0, 35, 1600), (DType::Q4K, 35, 1792), (DType::Q2K, 36, 1792)];
    let fused = types.into_iter().map(|(dtype, n, k)| {
        let feeds = vec![
            Feed::normal("a", [17, k]).fixed(),
            Feed::normal("b", [n, k]).stored_as(dtype).fixed(),
            Feed::normal("bias", [n]).fixed(),
            Feed::normal("residual", [17, n]).fixed(),
        ];
        case(format!("matmul {dtype} with an epilogue by split_k"), feeds, |g, x| {
            let op = Matmul {
                variant: Some(Variant::SplitK),
                alpha: 0.25,
                bias: true,
                activation: Some(Activation::Silu),
                residual: true,
                ..Matmul::new(Form::Nt)
            };
            Ok(vec![g.put1(op, x)?])
        })
    });
    plain.chain(fused)
}

/// Few rows of every type that is no block, as in decoding, with rows of whole loads of 16 bytes and of others.
fn few_rows() -> impl Iterator<Item = Case> {
    [Form::Nt, Form::Nn].into_iter().flat_map(|form| {
        [DType::F32, DType::F16, DType::BF16].into_iter().flat_map(move |dtype| {
            [[1, 264, 136], [3, 40, 260], [8, 72, 520], [5, 33, 31]].into_iter().map(move |size| {
                let (a, b) = operands(form, &[2], size);
                let feeds = vec![Feed::normal("a", a).fixed(), Feed::normal("b", b).stored_as(dtype).fixed()];
                case(format!("matmul {form:?} {size:?} {dtype}"), feeds, move |g, x| {
                    Ok(vec![g.put1(Matmul { alpha: 0.5, ..Matmul::new(form) }, &[x[0], x[1]])?])
                })
            })
        })
    })
}

fn linears() -> impl Iterator<Item = Case> {
    let layouts = [WeightLayout::InOut, WeightLayout::OutIn];
    layouts.into_iter().flat_map(|layout| {
        [DType::F32, DType::F16, DType::BF16].into_iter().flat_map(move |dtype| {
            [[33, 31], [64, 68]].into_iter().map(move |[inputs, outputs]| {
                let weight = if layout == WeightLayout::InOut { [inputs, outputs] } else { [outputs, inputs] };
                let feeds = vec![
                    Feed::normal("x", [2, 5, inputs]),
                    Feed::normal("weight", weight).stored_as(dtype),
                    Feed::normal("bias", [outputs]),
                ];
                case(format!("linear matmul {layout:?} {dtype} {weight:?}"), feeds, move |g, x| {
                    Ok(vec![ops::linear(g, x[0], x[1], Some(x[2]), layout)?])
                })
            })
        })
    })
}

/// Quantised weights: every kernel, both layouts of the weight, sizes that are no multiples of tiles, and the gradient of x.
fn quantised() -> impl Iterator<Item = Case> {
    let types = DType::QUANTISED;
    let variants = types.into_iter().flat_map(|dtype| {
        Variant::ALL.into_iter().flat_map(move |variant| {
            let whole = |extent: usize| extent.next_multiple_of(dtype.block());
            let few = [(Form::Nt, [7, 33, whole(64)]), (Form::Nt, [1, 257, whole(544)])];
            let more = [(Form::Nt, [70, 67, whole(96)]), (Form::Nn, [5, whole(96), 41])];
            let sizes = if variant.name().starts_with("row") { few } else { more };
            sizes.into_iter().map(move |(form, size)| {
                let (a, b) = operands(form, &[2], size);
                let feeds = vec![Feed::normal("a", a).fixed(), Feed::normal("b", b).stored_as(dtype)];
                let name = format!("matmul {form:?} {size:?} {dtype} by {} where legal", variant.name());
                variant.case(case(name, feeds, move |g, x| {
                    let op = Matmul { variant: Some(variant), alpha: 0.5, ..Matmul::new(form) };
                    Ok(vec![g.put1(op, &[x[0], x[1]])?])
                }))
            })
        })
    });
    let linears = types.into_iter().flat_map(|dtype| {
        [(1, 32, 32), (31, 288, 64), (3, 64, 2560)].into_iter().map(move |(rows, inputs, outputs)| {
            let inputs = usize::next_multiple_of(inputs, dtype.block());
            let feeds = vec![
                Feed::normal("x", [rows, inputs]),
                Feed::normal("weight", [outputs, inputs]).stored_as(dtype),
                Feed::normal("bias", [outputs]),
                Feed::normal("residual", [rows, outputs]),
            ];
            case(format!("linear matmul {dtype} [{outputs}, {inputs}] of {rows} rows"), feeds, |g, x| {
                let (bias, residual) = (Some(x[2]), Some(x[3]));
                Ok(vec![ops::linear_fused(g, x[0], x[1], LinearOptions { bias, residual, ..Default::default() })?])
            })
        })
    });
    variants.chain(linears)
}

fn epilogues() -> impl Iterator<Item = Case> {
    [[31, 33, 20], [32, 36, 20]].into_iter().map(|size @ [m, n, k]| {
        let feeds = vec![
            Feed::normal("a", [m, k]),
            Feed::normal("b", [k, n]),
            Feed::normal("bias", [n]),
            Feed::normal("residual", [m, n]),
        ];
        case(format!("matmul {size:?} with factor, bias and residual"), feeds, |g, x| {
            let op = Matmul { alpha: 0.25, bias: true, residual: true, ..Matmul::new(Form::Nn) };
            Ok(vec![g.put1(op, x)?])
        })
    })
}

/// The fused linear layer with every activation, in both widths; without a gradient `pre` is not stored.
fn fused() -> impl Iterator<Item = Case> {
    Activation::ALL.into_iter().flat_map(|kind| {
        [(33, true), (36, false)].into_iter().map(move |(n, gradient)| {
            let feeds = vec![
                Feed::normal("x", [2, 9, 20]),
                Feed::normal_scaled("weight", [20, n], 0.0, 0.3),
                Feed::normal("bias", [n]),
                Feed::normal("residual", [2, 9, n]),
            ];
            let feeds = if gradient { feeds } else { feeds.into_iter().map(Feed::fixed).collect() };
            let stored = if gradient { "and gradients" } else { "alone" };
            case(format!("linear matmul {kind:?} to {n} {stored}"), feeds, move |g, x| {
                let options = LinearOptions {
                    bias: Some(x[2]),
                    layout: WeightLayout::InOut,
                    activation: Some(kind),
                    residual: Some(x[3]),
                    lengths: None,
                };
                Ok(vec![ops::linear_fused(g, x[0], x[1], options)?])
            })
        })
    })
}

/// A product, an activation and a sum, which become one kernel when they are recorded.
fn fusions() -> impl Iterator<Item = Case> {
    [33, 36].into_iter().map(|n| {
        let feeds = vec![Feed::normal("a", [7, 20]), Feed::normal("b", [20, n]), Feed::normal("residual", [7, n])];
        let feeds = feeds.into_iter().map(Feed::fixed).collect();
        case(format!("matmul to {n}, then Silu, then a sum"), feeds, |g, x| {
            let product = ops::matmul(g, x[0], x[1])?;
            let active = ops::activation(g, product, Activation::Silu)?;
            Ok(vec![ops::add(g, active, x[2])?])
        })
    })
}

/// Rows up to a length, in every kernel: none, some, all, more than exist.
fn ragged() -> impl Iterator<Item = Case> {
    let kernels = Variant::ALL.into_iter().filter(|variant| variant.takes_groups());
    kernels.flat_map(|variant| {
        let few = [(Form::Nt, [5, 36, 40]), (Form::Nn, [5, 36, 40])];
        let more = [(Form::Nt, [70, 36, 40]), (Form::Nn, [33, 31, 37]), (Form::Nt, [1, 68, 33])];
        more.into_iter().chain(few).map(move |(form, size)| {
            let [rows, outputs, inputs] = size;
            let (_, weight) = operands(form, &[], size);
            let lengths = [0.0, (rows / 2 + 1) as f64, rows as f64, 1e6];
            let feeds = vec![
                Feed::normal("x", [4, rows, inputs]),
                Feed::normal("weight", weight),
                Feed::given("lengths", [4], DType::U32, lengths),
                Feed::normal("bias", [outputs]),
            ];
            let name = format!("linear of ragged rows {form:?} {size:?} by {}", variant.name());
            variant.case(case(name, feeds, move |g, x| {
                let op = Matmul { variant: Some(variant), bias: true, ragged: true, ..Matmul::new(form) };
                Ok(vec![g.put1(op, &[x[0], x[1], x[2], x[3]])?])
            }))
        })
    })
}

/// Masks of rows by themselves.
fn masks() -> impl Iterator<Item = Case> {
    [[3, 1, 5], [2, 33, 4], [5, 7, 1]].into_iter().map(|shape @ [batch, times, _]| {
        let lengths = (0..batch).map(|b| (b * times / 2) as f64);
        let feeds = vec![
            Feed::normal("x", shape),
            Feed::given("lengths", [batch], DType::U32, lengths),
            Feed::given("ids", shape, DType::U32, (0..shape.iter().product()).map(|i: usize| i as f64)),
        ];
        case(format!("mask_rows {shape:?}"), feeds, |g, x| {
            Ok(vec![ops::mask_rows(g, x[0], x[1])?, ops::fill_rows(g, x[2], x[1], 77)?])
        })
    })
}

pub(super) fn cases() -> Vec<Case> {
    sizes()
        .chain(batches())
        .chain(variants())
        .chain(few_rows())
        .chain(split())
        .chain(linears())
        .chain(quantised())
        .chain(epilogues())
        .chain(fused())
        .chain(fusions())
        .chain(ragged())
        .chain(masks())
        .collect()
}
