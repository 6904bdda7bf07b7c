// element: what an elementwise kernel computes at a time: one f32.

alias Element = f32;
