//! Writes the JavaScript of a WebAssembly file for pages: `wgformer-web-glue FILE FOLDER`.

use std::path::PathBuf;
use wasm_bindgen_cli_support::Bindgen;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [file, folder] = std::env::args_os()
        .skip(1)
        .map(PathBuf::from)
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| "give a file and a folder")?;
    Bindgen::new().input_path(file).web(true)?.typescript(true).omit_default_module_path(false).generate(folder)?;
    Ok(())
}
