//! Activation functions and their gated forms.
