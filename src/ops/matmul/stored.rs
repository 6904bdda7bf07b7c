//! The snippets that decode stored weights.

use crate::dtype::DType;
use crate::kernel::{Snippet, kernel};

macro_rules! snippets {
    ($($name:ident = $file:literal;)*) => {
        $(const $name: Snippet = kernel!(concat!("common/", $file));)*
    };
}

snippets! {
    F16 = "weight_f16";
    BF16 = "weight_bf16";
    Q8_0 = "weight_q8_0";
    Q4_0 = "weight_q4_0";
    Q4_1 = "weight_q4_1";
    Q5_0 = "weight_q5_0";
    Q5_1 = "weight_q5_1";
    Q2_K = "weight_q2_k";
    Q3_K = "weight_q3_k";
    Q4_K = "weight_q4_k";
    Q5_K = "weight_q5_k";
    Q6_K = "weight_q6_k";
    IQ4_NL = "weight_iq4_nl";
    IQ4_XS = "weight_iq4_xs";
    MXFP4 = "weight_mxfp4";
    NIBBLES = "weights_nibbles";
    BY_32 = "weights_by_32";
    BY_16 = "weights_by_16";
    STEPS_Q5 = "steps_q5";
    STEPS_IQ4 = "steps_iq4";
    SCALES_SIGNED = "scales_signed";
    SCALES_WITH_MINIMA = "scales_with_minima";
}

/// The snippets that decode the words of a stored type; f32 needs none.
pub(in crate::ops) fn weight_snippets(dtype: DType) -> &'static [&'static Snippet] {
    match dtype {
        DType::F32 | DType::U32 | DType::I32 => &[],
        DType::F16 => &[&F16],
        DType::BF16 => &[&BF16],
        DType::Q8_0 => &[&Q8_0],
        DType::Q4_0 => &[&NIBBLES, &Q4_0],
        DType::Q4_1 => &[&NIBBLES, &Q4_1],
        DType::Q5_0 => &[&BY_32, &STEPS_Q5, &Q5_0],
        DType::Q5_1 => &[&BY_32, &STEPS_Q5, &Q5_1],
        DType::Q2K => &[&BY_16, &Q2_K],
        DType::Q3K => &[&BY_16, &SCALES_SIGNED, &Q3_K],
        DType::Q4K => &[&NIBBLES, &SCALES_WITH_MINIMA, &Q4_K],
        DType::Q5K => &[&BY_32, &STEPS_Q5, &SCALES_WITH_MINIMA, &Q5_K],
        DType::Q6K => &[&BY_16, &SCALES_SIGNED, &Q6_K],
        DType::IQ4NL => &[&BY_32, &STEPS_IQ4, &IQ4_NL],
        DType::IQ4XS => &[&BY_32, &STEPS_IQ4, &IQ4_XS],
        DType::MXFP4 => &[&BY_32, &MXFP4],
    }
}
