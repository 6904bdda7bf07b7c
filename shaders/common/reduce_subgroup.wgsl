// reduce_subgroup: the functions of reduce_workgroup for a workgroup that is one subgroup: no memory, no barriers.
//
// use       sum_over_workgroup(x, lane), max_over_workgroup(x, lane) in uniform control flow; all invocations get the result
// needs     subgroups of LANES invocations, always
// numerics  the order of the sum is the driver's, the same on every run

fn sum_over_workgroup(x: f32, lane: u32) -> f32 { return subgroupAdd(x); }

fn max_over_workgroup(x: f32, lane: u32) -> f32 { return subgroupMax(x); }
