//! Chromium, and the server of the page.

use crate::native::{self, Plan};
use libtest_mimic::Failed;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

/// What `scripts/web.sh` makes.
const PAGE: &str = "target/web/page";
/// The longest silence between two parts.
const PATIENCE: Duration = Duration::from_secs(300);
/// Programs that are Chromium.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// What the page posted, part by part.
pub(crate) struct Results(Vec<Value>);

impl Results {
    pub(crate) fn part(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|part| part["name"] == name).map(|part| &part["value"])
    }

    /// How it ended.
    pub(crate) fn end(&self) -> String {
        self.part("done").map_or_else(|| "it said nothing more".into(), Value::to_string)
    }
}

/// Killed when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn chromium() -> Option<PathBuf> {
    let named = std::env::var_os("WGFORMER_CHROMIUM").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = || {
        let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
        NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|path| path.is_file())
    };
    named.or_else(found)
}

/// Why the browser cannot be asked.
pub(crate) fn missing() -> Option<String> {
    if chromium().is_none() {
        return Some("there is no Chromium: scripts/setup.sh --browser installs it".into());
    }
    let built = Path::new(PAGE).join("wgformer_web_bg.wasm").metadata().and_then(|metadata| metadata.modified());
    let Ok(built) = built else { return Some(format!("there is no {PAGE}: scripts/web.sh makes it")) };
    let sources = ["src", "shaders", "web"].map(|folder| newest(Path::new(folder)));
    let newest = sources.into_iter().flatten().max();
    let stale = newest.is_some_and(|newest| newest > built);
    stale.then(|| format!("{PAGE} is older than its sources: scripts/web.sh makes it anew"))
}

fn newest(path: &Path) -> Option<SystemTime> {
    if path.is_dir() {
        return path.read_dir().ok()?.filter_map(Result::ok).filter_map(|entry| newest(&entry.path())).max();
    }
    path.metadata().and_then(|metadata| metadata.modified()).ok()
}

/// Serves the page, opens it in the browser, does the same natively meanwhile, and waits for what the page says.
pub(crate) fn run() -> Result<(Results, Plan), Failed> {
    let scratch = tempfile::tempdir()?;
    let models = scratch.path().join("models");
    std::fs::create_dir(&models)?;
    native::make(&models)?;

    let mut serve = Command::new("python3");
    serve.args(["web/server.py", "--results", PAGE, "test=web/test"]);
    serve.arg(format!("models={}", models.display()));
    if let Some(folder) = native::real_gguf().as_deref().and_then(Path::parent) {
        serve.arg(format!("gguf={}", folder.display()));
    }
    let mut server = Process(serve.stdout(Stdio::piped()).spawn()?);
    let mut lines = BufReader::new(server.0.stdout.take().ok_or("the server has no output")?).lines();
    let address = lines.next().ok_or("web/server.py did not start")??;
    let (sender, results) = mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));

    let mut browse = Command::new(chromium().ok_or("there is no Chromium")?);
    browse.args(["--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"]);
    browse.args(["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--enable-unsafe-webgpu"]);
    browse
        .arg("--use-webgpu-adapter=swiftshader")
        .arg(format!("--user-data-dir={}", scratch.path().join("profile").display()));
    browse.arg(format!("{address}test/")).stdout(Stdio::null()).stderr(Stdio::null());
    let browser = Process(browse.spawn()?);

    let plan = native::plan(&models)?;
    let mut parts = Vec::new();
    loop {
        let line = results.recv_timeout(PATIENCE).map_err(|_| format!("the page said nothing after {parts:?}"))?;
        let part: Value = serde_json::from_str(&line)?;
        let done = part["name"] == "done";
        parts.push(part);
        if done {
            break;
        }
    }
    drop(browser);
    Ok((Results(parts), plan))
}
