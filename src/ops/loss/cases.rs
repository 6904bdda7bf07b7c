//! Cross-entropy, alone and fused with the output projection.

use super::cross_entropy::CrossEntropy;
use super::linear_cross_entropy::LinearCrossEntropy;
use crate::case::{Case, Feed};
use crate::dtype::DType;
use crate::ops::rows::RowVariant;
use crate::ops::{self, CrossEntropyOptions, WeightLayout};

const PLAIN: CrossEntropyOptions = CrossEntropyOptions { label_smoothing: 0.0, z_loss: 0.0, soft_cap: None };
const FULL: CrossEntropyOptions = CrossEntropyOptions { label_smoothing: 0.1, z_loss: 0.01, soft_cap: None };
const CAPPED: CrossEntropyOptions = CrossEntropyOptions { label_smoothing: 0.1, z_loss: 0.01, soft_cap: Some(2.5) };

/// Labels of all classes, every fifth row ignored.
fn labels(shape: &[usize], classes: usize) -> Feed {
    let count: usize = shape.iter().product();
    let label = |i: usize| if i % 5 == 3 { -100.0 } else { ((i * 37 + 11) % classes) as f64 };
    Feed::given("labels", shape, DType::I32, (0..count).map(label))
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (shape, classes) in [(vec![], 5), (vec![1], 2), (vec![3, 11], 33), (vec![33], 256), (vec![2, 5], 2051)] {
        for (options, variant) in
            [(PLAIN, RowVariant::Threads), (FULL, RowVariant::Threads), (CAPPED, RowVariant::Threads)]
                .into_iter()
                .chain([RowVariant::Workgroup, RowVariant::Subgroup].map(|variant| (FULL, variant)))
                .chain([(CAPPED, RowVariant::Workgroup)])
        {
            let mut dims = shape.clone();
            dims.push(classes);
            let feeds = vec![Feed::normal_scaled("logits", dims.clone(), 1.0, 3.0), labels(&shape, classes)];
            let smoothing = options.label_smoothing;
            let capped = if options.soft_cap.is_some() { " capped" } else { "" };
            let name = format!("cross_entropy{capped} {dims:?} smoothing {smoothing} {variant:?}");
            cases.push(Case::new(name, feeds, move |g, x| {
                Ok(vec![g.put1(CrossEntropy { options, variant: Some(variant) }, x)?])
            }));
        }
    }
    let far = Feed::normal_scaled("logits", [7, 12], 0.0, 1.0e3);
    cases.push(Case::new("cross_entropy of far logits", vec![far, labels(&[7], 12)], |g, x| {
        Ok(vec![ops::cross_entropy(g, x[0], x[1], &PLAIN)?])
    }));
    let none = Feed::given("labels", [9], DType::I32, [-1.0; 9]);
    cases.push(Case::new("cross_entropy without labels", vec![Feed::normal("logits", [9, 4]), none], |g, x| {
        Ok(vec![ops::cross_entropy(g, x[0], x[1], &FULL)?])
    }));
    cases.extend(fused());
    cases
}

fn fused() -> Vec<Case> {
    let mut cases = Vec::new();
    let shapes = [(vec![3], 5, 7, false), (vec![2, 65], 33, 31, true), (vec![200], 16, 64, true)];
    for (shape, columns, classes, bias) in shapes {
        for layout in [WeightLayout::InOut, WeightLayout::OutIn] {
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                if dtype != DType::F32 && columns != 33 {
                    continue;
                }
                let mut dims = shape.clone();
                dims.push(columns);
                let weight = if layout == WeightLayout::InOut { [columns, classes] } else { [classes, columns] };
                let mut feeds = vec![
                    Feed::normal("x", dims.clone()),
                    Feed::normal_scaled("weight", weight, 0.0, 0.3).stored_as(dtype),
                    labels(&shape, classes),
                ];
                if bias {
                    feeds.push(Feed::normal("bias", [classes]));
                }
                let name = format!("linear_cross_entropy {dims:?} to {classes} {layout:?} {dtype}");
                cases.push(Case::new(name, feeds, move |g, x| {
                    let op = LinearCrossEntropy { options: FULL, layout, bias, rows: Some(64) };
                    Ok(vec![g.put1(op, x)?])
                }));
            }
        }
    }
    for layout in [WeightLayout::InOut, WeightLayout::OutIn] {
        let weight = if layout == WeightLayout::InOut { [5, 31] } else { [31, 5] };
        let feeds = vec![Feed::normal("x", [70, 5]), Feed::normal("weight", weight), labels(&[70], 31)];
        cases.push(Case::new(format!("linear_cross_entropy capped {layout:?}"), feeds, move |g, x| {
            let op = LinearCrossEntropy { options: CAPPED, layout, bias: false, rows: Some(64) };
            Ok(vec![g.put1(op, x)?])
        }));
    }
    // A gradient of the weight alone, and the form that stores the logits.
    let feeds = || vec![Feed::normal("x", [70, 9]).fixed(), Feed::normal("weight", [11, 9]), labels(&[70], 11)];
    cases.push(Case::new("linear_cross_entropy, weight only", feeds(), |g, x| {
        let op = LinearCrossEntropy { options: PLAIN, layout: WeightLayout::OutIn, bias: false, rows: Some(64) };
        Ok(vec![g.put1(op, x)?])
    }));
    cases.push(Case::new("linear_cross_entropy, stored", feeds(), |g, x| {
        Ok(vec![ops::linear_cross_entropy(g, x[0], x[1], None, WeightLayout::OutIn, x[2], &PLAIN)?])
    }));
    cases
}
