//! Attention, and what goes with it: positions that turn queries and keys, the cache of keys and values.

mod attention;
mod backward;
mod cache;
mod forward;
mod position;
mod reference;
mod setting;
mod variant;
mod visible;

pub use attention::{AttentionDropout, AttentionOptions, attention};
pub use cache::cache_write;
pub use position::{RopeOptions, RopeScaling, rope, rope_table, sinusoidal_table, sinusoidal_table_halves};
pub use variant::AttentionVariant;
