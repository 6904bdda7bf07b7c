//! The window: pictures, a conversation, and a mode for tests.

use crate::engine::{CURVE, Engine, HEADS, LAYERS, Shown};
use crate::pictures::{self, Kind};
use serde_json::json;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Frames without the engine, to compare with.
const IDLE: usize = 60;

pub struct App {
    engine: Engine,
    prompt: String,
    test: Option<Test>,
    drawn: usize,
    last: Option<Instant>,
}

/// What a test looks at.
pub struct Test {
    frames: usize,
    screenshot: Option<PathBuf>,
    image: Arc<Mutex<Option<Arc<egui::ColorImage>>>>,
    asked: bool,
    idle: Vec<f64>,
    busy: Vec<f64>,
}

impl Test {
    pub fn new(frames: usize, screenshot: Option<PathBuf>) -> Self {
        Self { frames, screenshot, image: Arc::default(), asked: false, idle: Vec::new(), busy: Vec::new() }
    }
}

impl App {
    pub fn new(
        context: &eframe::CreationContext<'_>,
        text: String,
        test: Option<Test>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let window = context.wgpu_render_state.as_ref().ok_or("the window has no wgpu device")?;
        pictures::prepare(window);
        let engine = Engine::new(window.device.clone(), window.queue.clone(), &text)?;
        let prompt = text.split_whitespace().take(5).collect::<Vec<_>>().join(" ");
        Ok(Self { engine, prompt, test, drawn: 0, last: None })
    }

    fn pictures(&self, ui: &mut egui::Ui) {
        let state = self.engine.state.borrow();
        let width = ui.available_width();
        let last = state.losses.last().copied();
        let losses = last.map_or_else(String::new, |loss| format!("step {}: loss {loss:.3}", state.losses.len()));
        ui.horizontal(|ui| {
            ui.strong("Loss");
            ui.label(losses);
        });
        let curve = Shown { buffer: self.engine.curve.clone(), offset: 0, rows: 1, columns: CURVE as usize };
        let most = state.losses.first().copied().unwrap_or(1.0);
        pictures::show(ui, egui::vec2(width, 130.0), &curve, Kind::Curve(state.losses.len() as u64, most));
        ui.add_space(6.0);
        ui.strong("Attention of each head to the text's beginning");
        let side = (width - 8.0 * 3.0) / (LAYERS * HEADS) as f32;
        ui.horizontal(|ui| {
            ui.spacing_mut().item_spacing.x = 3.0;
            for head in &state.attention {
                pictures::show(ui, egui::vec2(side, side), head, Kind::Probabilities);
            }
        });
        ui.add_space(6.0);
        ui.strong("Weights of queries, keys and values in the first layer");
        if let Some(weights) = &state.weights {
            pictures::show(
                ui,
                egui::vec2(width, ui.available_height().clamp(40.0, 300.0)),
                weights,
                Kind::Signed(0.15),
            );
        }
    }

    fn conversation(&mut self, ui: &mut egui::Ui) {
        let mut learns = self.engine.learns();
        if ui.checkbox(&mut learns, "learn").changed() {
            self.engine.learn(learns);
        }
        ui.separator();
        ui.strong("Continue");
        ui.add(egui::TextEdit::multiline(&mut self.prompt).desired_rows(2).desired_width(f32::INFINITY));
        let answering = self.engine.state.borrow().answering;
        if ui.add_enabled(!answering, egui::Button::new("Go on")).clicked() {
            self.engine.ask(&self.prompt);
        }
        let state = self.engine.state.borrow();
        ui.label(&state.answer);
        ui.separator();
        if let Some((what, share)) = state.preparing {
            ui.add(egui::ProgressBar::new(share as f32).text(format!("preparing {what}")));
        }
        ui.small(format!("{} tokens", state.tokens));
        ui.small(&self.engine.gpu.info().name);
        if let Some(error) = &state.error {
            ui.colored_label(egui::Color32::LIGHT_RED, error);
        }
    }

    /// Notes a frame of a test; says what came of it, and ends, when all are drawn.
    fn note(&mut self, context: &egui::Context, seconds: Option<f64>) -> Result<(), Box<dyn std::error::Error>> {
        let Some(test) = &mut self.test else { return Ok(()) };
        if let Some(seconds) = seconds {
            if self.drawn < IDLE { &mut test.idle } else { &mut test.busy }.push(seconds * 1e3);
        }
        let state = self.engine.state.borrow();
        let asked = state.tokens > 0 || state.answering;
        // The conversation is prepared when the model has learned a little.
        let ask = self.drawn >= test.frames * 3 / 4 && !state.losses.is_empty() && !asked;
        drop(state);
        if ask {
            self.engine.ask(&self.prompt);
        }
        let test = self.test.as_mut().ok_or("it is there")?;
        if self.drawn < test.frames {
            return Ok(());
        }
        if let (Some(_), false) = (&test.screenshot, test.asked) {
            test.asked = true;
            let image = test.image.clone();
            let taken = egui::ScreenshotCallback::new(move |taken| {
                if let Ok(mut image) = image.lock() {
                    *image = Some(taken);
                }
            });
            context.send_viewport_cmd(egui::ViewportCommand::Screenshot(taken));
        }
        let taken = test.image.lock().map_err(|_| "a thread panicked")?.take();
        match (&test.screenshot, taken) {
            (Some(path), Some(image)) => save(path, &image)?,
            (Some(_), None) => return Ok(()),
            (None, _) => (),
        }
        let state = self.engine.state.borrow();
        let mean = |losses: &[f32]| losses.iter().map(|x| f64::from(*x)).sum::<f64>() / losses.len().max(1) as f64;
        let part = state.losses.len().min(10);
        let said = json!({
            "adapter": self.engine.gpu.info().name,
            "backend": self.engine.gpu.info().backend.to_str(),
            "frames": self.drawn,
            "steps": state.losses.len(),
            "first_losses": mean(&state.losses[..part]),
            "last_losses": mean(&state.losses[state.losses.len() - part..]),
            "tokens": state.tokens,
            "answer": state.answer,
            "error": state.error,
            "frame_ms": { "without": percentiles(&mut test.idle), "with": percentiles(&mut test.busy) },
        });
        println!("{said}");
        context.send_viewport_cmd(egui::ViewportCommand::Close);
        Ok(())
    }
}

impl eframe::App for App {
    fn ui(&mut self, ui: &mut egui::Ui, _: &mut eframe::Frame) {
        let now = Instant::now();
        let seconds = self.last.replace(now).map(|last| now.duration_since(last).as_secs_f64());
        self.drawn += 1;
        if self.test.is_none() || self.drawn > IDLE {
            self.engine.frame();
        }
        egui::Panel::right("conversation").exact_size(280.0).show(ui, |ui| self.conversation(ui));
        egui::CentralPanel::default().show(ui, |ui| self.pictures(ui));
        let context = ui.ctx().clone();
        if let Err(error) = self.note(&context, seconds) {
            eprintln!("error: {error}");
            std::process::exit(1);
        }
        context.request_repaint();
    }
}

/// The middle and the 95th percentile of times in milliseconds.
fn percentiles(times: &mut [f64]) -> serde_json::Value {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times.get(((times.len() as f64 - 1.0) * share).round() as usize).copied();
    json!({ "median": at(0.5), "p95": at(0.95) })
}

/// Saves a picture of the window.
fn save(path: &std::path::Path, image: &egui::ColorImage) -> Result<(), Box<dyn std::error::Error>> {
    let mut encoder = png::Encoder::new(
        std::io::BufWriter::new(std::fs::File::create(path)?),
        u32::try_from(image.size[0])?,
        u32::try_from(image.size[1])?,
    );
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::High);
    let pixels: Vec<u8> = image.pixels.iter().flat_map(|pixel| [pixel.r(), pixel.g(), pixel.b()]).collect();
    Ok(encoder.write_header()?.write_image_data(&pixels)?)
}
