//! The `wgformer` command. All logic is in the library.

fn main() -> std::process::ExitCode {
    wgformer::cli::main()
}
