//! Layer norm and RMS norm, alone and with a fused residual add.
