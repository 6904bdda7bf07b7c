// matmul_units8_half: matrix units of 8×8, whose factors are f16 and whose sums are f32.

alias Held = f16;
alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sum = coop_mat8x8<f32, C>;
