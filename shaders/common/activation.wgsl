// activation: the activation functions and their derivatives, four elements at a time.
//
//   relu       max(x, 0)                    gelu_tanh  x σ(2u), u = √(2/π) (x + 0.044715 x³), which is x ½(1 + tanh u)
//   gelu_erf   x Φ(x)                       silu       x σ(x)
//   tanh       tanh x                       sigmoid    σ(x) = 1 / (1 + e^-x)
//
// use       activate4(ACTIVATION, x), d_activate4(ACTIVATION, x) with a constant `ACTIVATION`, which the compiler folds;
//           activate and d_activate for a single element
// numerics  every exp has an argument in [-80, 0] or is clamped, the driver's tanh is never called (it gives NaN for large
//           arguments, and 1e-5 of error is allowed to it), 1 - σ is computed without cancellation; errors near 1e-7
// papers    GELU: Hendrycks and Gimpel 2016, arXiv 1606.08415. SiLU: Elfwing et al. 2017, arXiv 1702.03118.

const ACTIVATION_NONE: u32 = 0u;
const ACTIVATION_RELU: u32 = 1u;
const ACTIVATION_GELU_TANH: u32 = 2u;
const ACTIVATION_GELU_ERF: u32 = 3u;
const ACTIVATION_SILU: u32 = 4u;
const ACTIVATION_TANH: u32 = 5u;
const ACTIVATION_SIGMOID: u32 = 6u;

// σ(x) and 1 - σ(x), both to full relative accuracy.
struct Sigmoid4 { value: vec4f, rest: vec4f }

fn sigmoid_both4(x: vec4f) -> Sigmoid4 {
    let e = exp(-min(abs(x), vec4f(80.0)));
    let large = 1.0 / (1.0 + e);
    let small = e * large;
    let positive = x >= vec4f(0.0);
    return Sigmoid4(select(small, large, positive), select(large, small, positive));
}

fn sigmoid4(x: vec4f) -> vec4f { return sigmoid_both4(x).value; }

fn d_sigmoid4(x: vec4f) -> vec4f {
    let s = sigmoid_both4(x);
    return s.value * s.rest;
}

fn relu4(x: vec4f) -> vec4f { return max(x, vec4f(0.0)); }

fn d_relu4(x: vec4f) -> vec4f { return select(vec4f(0.0), vec4f(1.0), x > vec4f(0.0)); }

fn silu4(x: vec4f) -> vec4f { return x * sigmoid4(x); }

fn d_silu4(x: vec4f) -> vec4f {
    let s = sigmoid_both4(x);
    return s.value * (1.0 + x * s.rest);
}

// An odd polynomial (Chebyshev fit, relative error 4e-8) up to 0.625, from there 1 - 2 / (e^2|x| + 1).
fn tanh4(x: vec4f) -> vec4f {
    let a = min(abs(x), vec4f(15.0));
    let z = min(a, vec4f(0.625)) * min(a, vec4f(0.625));
    let p = (((-0.0060967142 * z + 0.020997179) * z - 0.053850910) * z + 0.13332770) * z - 0.33333329;
    let near = a + a * z * p;
    let far = 1.0 - 2.0 / (exp(2.0 * a) + 1.0);
    return sign(x) * select(far, near, a < vec4f(0.625));
}

// 1 - tanh² x = 4 σ(2x) σ(-2x)
fn d_tanh4(x: vec4f) -> vec4f { return 4.0 * d_sigmoid4(2.0 * x); }

const GELU_SCALE: f32 = 0.7978845608;   // √(2/π)
const GELU_CUBE: f32 = 0.044715;

// 2u, where x beyond ±30 changes nothing any more
fn gelu_argument4(x: vec4f) -> vec4f {
    let c = clamp(x, vec4f(-30.0), vec4f(30.0));
    return 2.0 * GELU_SCALE * c * (1.0 + GELU_CUBE * c * c);
}

fn gelu_tanh4(x: vec4f) -> vec4f { return x * sigmoid4(gelu_argument4(x)); }

fn d_gelu_tanh4(x: vec4f) -> vec4f {
    let c = clamp(x, vec4f(-30.0), vec4f(30.0));
    let s = sigmoid_both4(gelu_argument4(x));
    return s.value * (1.0 + 2.0 * c * s.rest * GELU_SCALE * (1.0 + 3.0 * GELU_CUBE * c * c));
}

// Φ(x), the normal distribution function. With z = |x|/√2: ½ erfc z = ½ e^-z² t P(t), t = 1 / (1 + 0.4 z), P a Chebyshev fit
// of e^z² erfc(z) / t for z ≤ 9 (relative error 3e-8).
fn normal_cdf4(x: vec4f) -> vec4f {
    let z = min(abs(x), vec4f(12.6)) * 0.70710678;
    let t = 1.0 / (1.0 + 0.4 * z);
    var p = 0.036117135 * t - 0.11546941;
    p = ((p * t + 0.032907275) * t + 0.14608031) * t + 0.039828976;
    p = (((p * t + 0.21031394) * t + 0.19757745) * t + 0.22704545) * t + 0.22559891;
    let tail = 0.5 * t * p * exp(-z * z);
    return select(tail, 1.0 - tail, x >= vec4f(0.0));
}

fn gelu_erf4(x: vec4f) -> vec4f { return x * normal_cdf4(x); }

// Φ(x) + x φ(x), φ the normal density
fn d_gelu_erf4(x: vec4f) -> vec4f {
    let c = clamp(x, vec4f(-12.6), vec4f(12.6));
    return normal_cdf4(x) + c * 0.39894228 * exp(-0.5 * c * c);
}

fn activate4(kind: u32, x: vec4f) -> vec4f {
    switch (kind) {
        case ACTIVATION_RELU: { return relu4(x); }
        case ACTIVATION_GELU_TANH: { return gelu_tanh4(x); }
        case ACTIVATION_GELU_ERF: { return gelu_erf4(x); }
        case ACTIVATION_SILU: { return silu4(x); }
        case ACTIVATION_TANH: { return tanh4(x); }
        case ACTIVATION_SIGMOID: { return sigmoid4(x); }
        default: { return x; }
    }
}

fn d_activate4(kind: u32, x: vec4f) -> vec4f {
    switch (kind) {
        case ACTIVATION_RELU: { return d_relu4(x); }
        case ACTIVATION_GELU_TANH: { return d_gelu_tanh4(x); }
        case ACTIVATION_GELU_ERF: { return d_gelu_erf4(x); }
        case ACTIVATION_SILU: { return d_silu4(x); }
        case ACTIVATION_TANH: { return d_tanh4(x); }
        case ACTIVATION_SIGMOID: { return d_sigmoid4(x); }
        default: { return vec4f(1.0); }
    }
}

fn activate(kind: u32, x: f32) -> f32 { return activate4(kind, vec4f(x)).x; }

fn d_activate(kind: u32, x: f32) -> f32 { return d_activate4(kind, vec4f(x)).x; }
