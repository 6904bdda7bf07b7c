//! The `wgformer` command.

fn main() {}
