// element4: what an elementwise kernel computes at a time: four f32.

alias Element = vec4f;
