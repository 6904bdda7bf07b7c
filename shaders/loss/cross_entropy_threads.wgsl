// cross_entropy_threads: log-sum-exp and loss of each row of logits; one invocation a row.
//
//   z = capped(logits),  lse = ln Σ_v e^(z_v),  loss = (1 − ε)(lse − z_label) + ε(lse − mean_v z_v) + c·lse²
//   a row whose label is no class (negative: to be ignored) has the loss 0
//
// in        logits (rows, columns) f32   labels (all rows) i32: those of the logits begin at first_row
// out       lse, losses (all rows) f32
// grid      workgroups of LANES rows
// needs     the constant LANES; common/elements4 or elements1, `columns` in units of Element; common/soft_cap or
//           soft_cap_none
// numerics  the largest logit is subtracted first, so any finite row is safe

struct Params { base: u32, groups: u32, rows: u32, columns: u32, first_row: u32, smoothing: f32, z_loss: f32 }

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
fn cross_entropy_threads(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let row = group * LANES + lane;
    if (row >= p.rows) { return; }
    let first = row * p.columns;
    var top = logit(first);
    var sum = Element();
    for (var c = 0u; c < p.columns; c++) {
        top = max(top, logit(first + c));
        sum += logit(first + c);
    }
    let m = largest(top);
    var exps = Element();
    for (var c = 0u; c < p.columns; c++) {
        exps += exp(max(logit(first + c) - m, Element(-100.0)));
    }
    let log_sum = m + log(total(exps));
    lse[p.first_row + row] = log_sum;
    let classes = p.columns * WIDTH;
    let label = labels[p.first_row + row];
    var loss = 0.0;
    if (label >= 0 && u32(label) < classes) {
        let hit = part_of(logit(first + u32(label) / WIDTH), u32(label) % WIDTH);
        loss = (1.0 - p.smoothing) * (log_sum - hit) + p.smoothing * (log_sum - total(sum) / f32(classes))
            + p.z_loss * log_sum * log_sum;
    }
    losses[p.first_row + row] = loss;
}
