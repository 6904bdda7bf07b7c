//! The server as OpenAI's own client sees it.
//!
//! `scripts/setup.sh --tests` puts the client into `target/tools/openai`; another Python is named by `WGFORMER_OPENAI_PYTHON`. Where there is none,
//! the test says so and checks nothing, and fails if `REQUIRE_OPENAI` is set.

use super::client::{TestServer, gpu};
use super::vectors::{MODEL, embedder};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use wgformer::serve::ServeLimits;

/// A Python that has the client.
fn python() -> Option<Command> {
    let name = std::env::var("WGFORMER_OPENAI_PYTHON").unwrap_or_else(|_| "python3".into());
    let python = || {
        let mut command = Command::new(&name);
        command.env("PYTHONPATH", Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/openai"));
        command
    };
    if python().args(["-c", "import openai"]).output().is_ok_and(|output| output.status.success()) {
        return Some(python());
    }
    assert!(std::env::var_os("REQUIRE_OPENAI").is_none(), "{name} has no openai: scripts/setup.sh --tests");
    let _ = writeln!(std::io::stderr(), "NOT CHECKED with OpenAI's client, which scripts/setup.sh --tests fetches");
    None
}

#[test]
fn openais_client_gets_what_it_expects() {
    let Some(mut python) = python() else { return };
    let (served, tokenizer) = embedder(&gpu());
    let server = TestServer::of_tiny_on(&gpu(), ServeLimits::default().with_requests(16), 4, |server| {
        server.with_key("a secret").with_embedder(MODEL, served, &tokenizer)
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/openai_client.py");
    let run = python.arg(script).arg(format!("http://{}/v1", server.address)).arg("a secret").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success() && out.trim_end().ends_with("all as expected"), "{out}\n{err}");
}
