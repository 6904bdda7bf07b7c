// draw_limit: the limit from which on a row's largest logits have a number, or a share of the probability.
//
// use       weight(bits, largest, scale): e^((x − largest) scale)
//           limit_of(row, lane, count, largest, scale, by_mass, goal, least): the highest limit of keys, from `least` on, above which there
//           are `goal` of the first `count` tokens of the row, or with by_mass that share of the sum of their weights; `least` where
//           there are none. Under uniform control, the arguments but `lane` the same in all invocations
//           parts: 2,048 words that the kernel may use in between; they stay where there are no tokens
//
// The kernel has the logits x as bits, `ordered`, NONE, and p with vocabulary and steps. A limit is found three bits of its key at a time:
// each step sums over what lies above eight limits at once. The number of steps is a parameter, so that compilers do not unroll them with
// their barriers.

var<workgroup> parts: array<u32, 2048>;
var<workgroup> chunks: array<f32, 64>;

fn weight(bits: u32, largest: f32, scale: f32) -> f32 {
    return exp(max((bitcast<f32>(bits) - largest) * scale, -100.0));
}

fn limit_of(row: u32, lane: u32, count: u32, largest: f32, scale: f32, by_mass: bool, goal: f32, least: u32) -> u32 {
    var target_sum = goal;
    var limit = 0u;
    for (var step = 0u; step < p.steps; step++) {
        let shift = 30u - 3u * step;
        var low = array<u32, 8>();
        for (var j = 0u; j < 8u; j++) {
            // The highest three bits are only two.
            low[j] = select(limit | (j << shift), NONE, step == 0u && j > 3u);
        }
        if (count > 0u) {
            let low_a = vec4u(low[0], low[1], low[2], low[3]);
            let low_b = vec4u(low[4], low[5], low[6], low[7]);
            var sum_a = vec4f(0.0);
            var sum_b = vec4f(0.0);
            for (var i = lane; i < count; i += 256u) {
                let bits = x[row * p.vocabulary + i];
                let key = ordered(bits);
                if (key < least) { continue; }
                var w = 1.0;
                if (by_mass) { w = weight(bits, largest, scale); }
                sum_a += select(vec4f(0.0), vec4f(w), vec4u(key) >= low_a);
                sum_b += select(vec4f(0.0), vec4f(w), vec4u(key) >= low_b);
            }
            parts[lane] = bitcast<u32>(sum_a.x);
            parts[256u + lane] = bitcast<u32>(sum_a.y);
            parts[512u + lane] = bitcast<u32>(sum_a.z);
            parts[768u + lane] = bitcast<u32>(sum_a.w);
            parts[1024u + lane] = bitcast<u32>(sum_b.x);
            parts[1280u + lane] = bitcast<u32>(sum_b.y);
            parts[1536u + lane] = bitcast<u32>(sum_b.z);
            parts[1792u + lane] = bitcast<u32>(sum_b.w);
        }
        workgroupBarrier();
        if (lane < 64u && count > 0u) {
            var sum = 0.0;
            for (var i = 0u; i < 32u; i++) { sum += bitcast<f32>(parts[lane * 32u + i]); }
            chunks[lane] = sum;
        }
        workgroupBarrier();
        var digit = 0u;
        for (var j = 0u; j < 8u && count > 0u; j++) {
            var sum = 0.0;
            for (var i = 0u; i < 8u; i++) { sum += chunks[j * 8u + i]; }
            if (step == 0u && j == 0u && by_mass) { target_sum = goal * sum; }
            if (sum >= target_sum) { digit = j; }
        }
        limit |= digit << shift;
        workgroupBarrier();
    }
    return select(max(limit, least), least, count == 0u);
}
