//! Cross-entropy, alone and fused with the output projection.
