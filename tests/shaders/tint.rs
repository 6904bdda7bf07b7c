//! What Chromium's compiler says of the texts.

use super::for_every_dispatch;
use std::collections::HashSet;
use wgformer::kernel::assemble;

/// Tint, the compiler of Chromium, refuses some things that naga accepts. Where its command is installed, it is asked too.
#[test]
fn tint_accepts_every_shader() {
    if std::process::Command::new("tint").arg("--version").output().is_err() {
        println!("skipped: the command `tint` is not installed, so nothing was checked");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut seen = HashSet::new();
    for_every_dispatch(|launched| {
        // As it is in a browser: parameters are not copied first there.
        let mut dispatch = launched.dispatch.clone();
        dispatch.params_first = false;
        let text = assemble(&dispatch).text;
        if launched.caps.int64 {
            // No browser has 64-bit integers.
            return Ok(());
        }
        if !seen.insert(text.clone()) {
            return Ok(());
        }
        // wgpu passes no such line on; a browser wants it.
        let enable = if text.contains("subgroup") { "enable subgroups;\n" } else { "" };
        let path = folder.path().join(format!("{}.wgsl", seen.len()));
        std::fs::write(&path, format!("{enable}{text}")).map_err(|e| e.to_string())?;
        let tint = std::process::Command::new("tint").args(["--format", "wgsl"]).arg(&path).output();
        let tint = tint.map_err(|e| e.to_string())?;
        if tint.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&tint.stderr).into_owned()) }
    });
}
