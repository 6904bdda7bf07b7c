// matmul_units8_f32: matrix units of 8×8, whose factors are f32 and whose sums are f32.

alias Held = f32;
alias Left = coop_mat8x8<f32, A>;
alias Right = coop_mat8x8<f32, B>;
alias Sum = coop_mat8x8<f32, C>;
