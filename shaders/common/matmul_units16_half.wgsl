// matmul_units16_half: matrix units of 16×16, whose factors are f16 and whose sums are f32.

alias Held = f16;
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sum = coop_mat16x16<f32, C>;
