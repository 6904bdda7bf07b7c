//! Matrix products in all transposes, with fused bias, activation and residual.
