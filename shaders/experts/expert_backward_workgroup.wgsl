// expert_backward_workgroup: between the products of an expert's backward pass; one workgroup a row.
//
//   a = f(gate) up      dweights[order[i]] = Σ_c b a      da = w b      dup = da f(gate)      dgate = da up f'(gate)      b becomes w a
//
// in        b (rows, columns) f32, dy through the down projection   gate, up (rows, columns) f32   order (rows) u32
//           weights (slots) f32, w = weights[order[i]]
// out       b   dgate, dup (rows, columns) f32   dweights (slots) f32
// grid      one workgroup of LANES invocations for a row
// needs     the constants LANES, ACTIVATION; common/activation; common/reduce_workgroup or reduce_subgroup; common/elements4 or elements1, `columns` in units of Element
// numerics  f32 sums in a fixed order
// paper     Guo et al. 2025, arXiv 2512.14080

struct Params { base: u32, groups: u32, columns: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> b: array<Element>;
@group(0) @binding(2) var<storage, read> gate: array<Element>;
@group(0) @binding(3) var<storage, read> up: array<Element>;
@group(0) @binding(4) var<storage, read> order: array<u32>;
@group(0) @binding(5) var<storage, read> weights: array<f32>;
@group(0) @binding(6) var<storage, read_write> dgate: array<Element>;
@group(0) @binding(7) var<storage, read_write> dup: array<Element>;
@group(0) @binding(8) var<storage, read_write> dweights: array<f32>;

@compute @workgroup_size(LANES)
fn expert_backward_workgroup(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let row = p.base + w.x + w.y * n.x;
    if (row >= p.groups) { return; }
    let slot = order[row];
    let weight = weights[slot];
    var part: Element;
    for (var c = lane; c < p.columns; c += LANES) {
        let i = row * p.columns + c;
        let x = widen(gate[i]);
        let opened = narrow(activate4(ACTIVATION, x));
        let d = weight * b[i];
        part += b[i] * opened * up[i];
        dgate[i] = d * up[i] * narrow(d_activate4(ACTIVATION, x));
        dup[i] = d * opened;
        b[i] = weight * opened * up[i];
    }
    let sum = sum_over_workgroup(total(part), lane);
    if (lane == 0u) { dweights[slot] = sum; }
}
