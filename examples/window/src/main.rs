//! A window that trains a small GPT on a text while it draws the loss, the model's attention and its weights straight from the engine's
//! buffers, and a panel in which the model continues texts meanwhile. All of it on the window's own device, within a share of each frame.
//!
//! ```sh
//! cargo run --release -- [TEXT.txt]
//! cargo run --release -- --frames 300 --screenshot window.png   # says in JSON what came of so many frames, and ends
//! ```

mod app;
mod engine;
mod pictures;

use app::{App, Test};
use std::path::PathBuf;
use std::sync::Arc;
use wgformer::Gpu;

/// What the model learns where no file is given.
const TEXT: &str = include_str!("text.txt");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut text, mut frames, mut screenshot) = (TEXT.to_owned(), None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--frames" => frames = Some(value()?.parse::<usize>()?),
            "--screenshot" => screenshot = Some(PathBuf::from(value()?)),
            "-h" | "--help" => {
                println!("Usage: wgformer-window [TEXT.txt] [--frames N [--screenshot FILE.png]]");
                return Ok(());
            }
            path if !path.starts_with('-') => {
                text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
            }
            unknown => return Err(format!("unknown option {unknown} (--help lists all)").into()),
        }
    }
    let test = frames.map(|frames| Test::new(frames, screenshot));
    let mut options = eframe::NativeOptions {
        viewport: egui::ViewportBuilder::default().with_title("wgformer").with_inner_size([960.0, 600.0]),
        ..Default::default()
    };
    // The window's device, with what makes the engine fast on it; the engine makes do with any other.
    if let egui_wgpu::WgpuSetup::CreateNew(setup) = &mut options.wgpu_options.wgpu_setup {
        setup.device_descriptor = Arc::new(|adapter| wgpu::DeviceDescriptor {
            required_features: adapter.features() & Gpu::wanted_features(),
            required_limits: adapter.limits(),
            ..Default::default()
        });
    }
    eframe::run_native("wgformer", options, Box::new(move |context| Ok(Box::new(App::new(context, text, test)?))))?;
    Ok(())
}
