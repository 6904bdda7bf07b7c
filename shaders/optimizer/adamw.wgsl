// adamw: one step of Adam with decoupled weight decay over a flat range, in place.
//
//   g = coefficient * grad      m <- (1 - a1) m + a1 g      v <- (1 - a2) v + a2 g^2      a1 = 1 - beta1, a2 = 1 - beta2
//   x <- x - lr (m / c1 / (sqrt(v / c2) + eps) + wd x)
//
// in        grad (4 n) f32 as vec4   table (blocks) vec2f: learning-rate and decay multiplier of 64 elements each
//           control (16) f32: what optimizer_control wrote
// out       x, m, v (4 n) f32 as vec4, updated
// grid      one invocation for one vec4
// numerics  f32; a skipped step (control[8]) changes nothing
// paper     Loshchilov and Hutter, arXiv:1711.05101

struct Params { base: u32, groups: u32, vectors: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> grad: array<vec4f>;            // (n)
@group(0) @binding(2) var<storage, read> table: array<vec2f>;           // (n / 16)
@group(0) @binding(3) var<storage, read> control: array<f32>;           // (16)
@group(0) @binding(4) var<storage, read_write> x: array<vec4f>;         // (n)
@group(0) @binding(5) var<storage, read_write> m: array<vec4f>;         // (n)
@group(0) @binding(6) var<storage, read_write> v: array<vec4f>;         // (n)

@compute @workgroup_size(64)
fn adamw(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 64u + lane;
    if (i >= p.vectors || control[8] != 0.0) { return; }
    let a1 = control[4];
    let a2 = control[5];
    let multipliers = table[i / 16u];
    let g = grad[i] * control[0];
    let m1 = (1.0 - a1) * m[i] + a1 * g;
    let v1 = (1.0 - a2) * v[i] + a2 * g * g;
    let direction = (m1 / control[2]) / (sqrt(v1 / control[3]) + control[6]);
    let before = x[i];
    x[i] = before - control[1] * multipliers.x * (direction + control[7] * multipliers.y * before);
    m[i] = m1;
    v[i] = v1;
}
