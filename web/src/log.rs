//! Warnings of the engine in the browser's console.

use std::sync::Once;
use wasm_bindgen::prelude::wasm_bindgen;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console)]
    pub(crate) fn error(message: &str);
    #[wasm_bindgen(js_namespace = console)]
    fn warn(message: &str);
}

struct Console;

impl log::Log for Console {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn && metadata.target().starts_with("wgformer")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            warn(&record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// Once for a page.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // What a trap of WebAssembly says by itself is "unreachable".
        std::panic::set_hook(Box::new(|panic| error(&format!("wgformer stopped, load the page again: {panic}"))));
        if log::set_logger(&Console).is_ok() {
            log::set_max_level(log::LevelFilter::Warn);
        }
    });
}
