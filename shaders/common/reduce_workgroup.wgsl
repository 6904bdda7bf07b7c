// reduce_workgroup: the sum and the largest of one value an invocation, over a workgroup of LANES invocations.
//
// use       sum_over_workgroup(x, lane), max_over_workgroup(x, lane) in uniform control flow; all invocations get the result
// needs     the constant LANES, a power of two; 4 LANES bytes of workgroup memory
// numerics  a fixed tree, so the same bits on every run

var<workgroup> lane_values: array<f32, LANES>;

fn sum_over_workgroup(x: f32, lane: u32) -> f32 {
    lane_values[lane] = x;
    for (var step = LANES / 2u; step > 0u; step /= 2u) {
        workgroupBarrier();
        if (lane < step) { lane_values[lane] += lane_values[lane + step]; }
    }
    workgroupBarrier();
    let sum = lane_values[0];
    // The next call must not write before all have read.
    workgroupBarrier();
    return sum;
}

fn max_over_workgroup(x: f32, lane: u32) -> f32 {
    lane_values[lane] = x;
    for (var step = LANES / 2u; step > 0u; step /= 2u) {
        workgroupBarrier();
        if (lane < step) { lane_values[lane] = max(lane_values[lane], lane_values[lane + step]); }
    }
    workgroupBarrier();
    let largest = lane_values[0];
    workgroupBarrier();
    return largest;
}
