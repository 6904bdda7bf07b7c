//! Rotary and sinusoidal positions.
