//! The `wgformer` command. All logic is in the library.

// Encoding a step makes many small allocations in wgpu; with this allocator it costs a fifth less.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    wgformer::cli::main()
}
