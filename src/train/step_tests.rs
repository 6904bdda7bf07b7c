//! Tests of training steps: options out of range, weight decay, parameters without gradients.

use super::*;

fn parameters() -> Vec<(String, TensorType)> {
    vec![("w".into(), TensorType::f32([3, 5])), ("b".into(), TensorType::f32([5]))]
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let bad = StepOptions { adam: AdamOptions { beta2: 1.0, ..Default::default() }, ..Default::default() };
    let error = TrainStep::new(&parameters(), &Caps::baseline(), bad).unwrap_err().to_string();
    assert!(error.contains("beta2: it must be in [0, 1)"), "{error}");
    let bad = StepOptions { accumulation: 0, ..Default::default() };
    assert!(bad.check().unwrap_err().to_string().contains("accumulation: it must be 1 or greater"));
    let bad = StepOptions { max_norm: f32::NAN, ..Default::default() };
    assert!(bad.check().unwrap_err().to_string().contains("max_norm"));
}

#[test]
fn vectors_do_not_decay_and_rates_go_by_name() {
    let options =
        StepOptions { rates: vec![("router".into(), 0.1)], no_decay: vec!["wte".into()], ..Default::default() };
    let of = |name: &str, dims: &[usize]| {
        let slot = ParameterSlot { name: name.into(), ty: TensorType::f32(dims), offset: 0 };
        options.multipliers(&slot)
    };
    assert_eq!(of("h.0.weight", &[3, 3]), [1.0, 1.0]);
    assert_eq!(of("h.0.bias", &[3]), [1.0, 0.0]);
    assert_eq!(of("wte.weight", &[3, 3]), [1.0, 0.0]);
    assert_eq!(of("router.weight", &[3, 3]), [f64::from(0.1_f32), 1.0]);
}

#[test]
fn a_parameter_the_loss_does_not_reach_is_named() {
    let step = TrainStep::new(&parameters(), &Caps::baseline(), StepOptions::default()).unwrap();
    let build = |g: &mut Graph| g.parameter("w", [3, 5], DType::F32);
    let error = step.graph(Part::Whole, build).unwrap_err().to_string();
    assert!(error.contains("the model has no parameter \"b\" of type f32[5]"), "{error}");
}
