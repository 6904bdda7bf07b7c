// cross_entropy_workgroup: log-sum-exp and loss of each row of logits; one workgroup or subgroup a row.
//
//   z = capped(logits),  lse = ln Σ_v e^(z_v),  loss = (1 − ε)(lse − z_label) + ε(lse − mean_v z_v) + c·lse²
//   a row whose label is no class (negative: to be ignored) has the loss 0
//
// in        logits (rows, columns) f32   labels (all rows) i32: those of the logits begin at first_row
// out       lse, losses (all rows) f32
// grid      one workgroup of LANES invocations for a row
// needs     the constant LANES, common/reduce_workgroup or reduce_subgroup; common/elements4 or elements1, `columns` in units
//           of Element; common/soft_cap or soft_cap_none
// numerics  the largest logit is subtracted first, so any finite row is safe; sums in a fixed order

struct Params { base: u32, groups: u32, columns: u32, first_row: u32, smoothing: f32, z_loss: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<Element>;     // (rows, columns)
@group(0) @binding(2) var<storage, read> labels: array<i32>;         // (all rows)
@group(0) @binding(3) var<storage, read_write> lse: array<f32>;      // (all rows)
@group(0) @binding(4) var<storage, read_write> losses: array<f32>;   // (all rows)

// Logits as the loss sees them.
fn logit(i: u32) -> Element { return narrow(capped(widen(logits[i]))); }

// Part k of an element; without an index into a vector, which crashes llvmpipe's GL.
fn part_of(e: Element, k: u32) -> f32 {
    let v = widen(e);
    return select(select(v.x, v.y, k == 1u), select(v.z, v.w, k == 3u), k > 1u);
}

@compute @workgroup_size(LANES)
fn cross_entropy_workgroup(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let row = p.base + w.x + w.y * n.x;
    if (row >= p.groups) { return; }
    let first = row * p.columns;
    // Every invocation starts from an element that is there, also where the row is shorter than the workgroup.
    var top = logit(first + min(lane, p.columns - 1u));
    var part = Element();
    for (var c = lane; c < p.columns; c += LANES) {
        top = max(top, logit(first + c));
        part += logit(first + c);
    }
    let m = max_over_workgroup(largest(top), lane);
    let sum = sum_over_workgroup(total(part), lane);
    var exps = Element();
    for (var c = lane; c < p.columns; c += LANES) {
        exps += exp(max(logit(first + c) - m, Element(-100.0)));
    }
    let log_sum = m + log(sum_over_workgroup(total(exps), lane));
    if (lane != 0u) { return; }
    lse[p.first_row + row] = log_sum;
    let classes = p.columns * WIDTH;
    let label = labels[p.first_row + row];
    var loss = 0.0;
    if (label >= 0 && u32(label) < classes) {
        let hit = part_of(logit(first + u32(label) / WIDTH), u32(label) % WIDTH);
        loss = (1.0 - p.smoothing) * (log_sum - hit) + p.smoothing * (log_sum - sum / f32(classes))
            + p.z_loss * log_sum * log_sum;
    }
    losses[p.first_row + row] = loss;
}
