//! The same elements elsewhere: shapes, pieces, the order of axes.

mod detach;
pub(super) mod layout;
pub(crate) mod transpose;

pub use detach::detach;
pub use layout::{concat, reshape, slice, split, zeros};
pub use transpose::transpose;
