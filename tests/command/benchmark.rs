//! The command `bench`.

use super::common::*;
use serde_json::Value;
use std::fs;

#[test]
fn a_benchmark_has_every_row_and_finds_what_got_slower() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    let bench = |more: &[&str]| {
        let mut command = wgformer();
        command.args(["bench", "--quick", "--json"]).args(more);
        command
    };
    let output = run(bench(&[]).arg("--html").arg(&page));
    let (report, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}");
    // Without a terminal the progress is lines.
    assert!(told.contains(" measurements, ") && told.contains(" so far"), "{told}");
    let mut report: Value = serde_json::from_str(&report).unwrap();
    let positive = |value: &Value| value.as_f64().is_some_and(|v| v.is_finite() && v > 0.0);
    for ceiling in ["arithmetic", "memory"] {
        assert!(positive(&report["ceilings"][ceiling]["per_second"]), "{report}");
    }
    let names =
        ["matmul 256", "gemv", "attention forward", "layer_norm", "softmax", "cross_entropy", "embedding", "adamw"];
    let rows = report["rows"].as_array().unwrap();
    for name in names.iter().chain(&[
        "train 2",
        "train llama",
        "train llama 8",
        "train llama 2 rec",
        "forward",
        "prefill",
        "decode",
    ]) {
        let row = rows.iter().find(|row| row["name"].as_str().unwrap().starts_with(name));
        let row = row.unwrap_or_else(|| panic!("no {name} in {report}"));
        for key in ["seconds", "fastest", "bytes", "rate", "share"] {
            assert!(positive(&row[key]), "{key} of {row}");
        }
        for key in ["spread", "share_spread", "flops"] {
            assert!(row[key].as_f64().is_some_and(|v| v.is_finite() && v >= 0.0), "{key} of {row}");
        }
        assert!(row["runs"].as_u64().unwrap() >= 3, "{row}");
    }
    // Four rows of a GPT; one each of a Llama, one with experts and one with recursions.
    assert_eq!(rows.len(), names.len() + 7);
    for key in ["record", "plan", "prepare", "first_run", "second_run"] {
        assert!(positive(&report["first_step"][key]), "{key} of {report}");
    }
    assert!(report["kernels"].as_array().unwrap().len() > 5);
    let page = fs::read_to_string(page).unwrap();
    let pictures = page.matches("<svg").count();
    assert!(pictures == 4 && page.matches("</svg>").count() == 4 && page.ends_with("</html>\n"), "{pictures}");
    assert!(!page.contains("NaN") && !page.contains("<script") && !page.contains("href="));

    // An older report ten times as close to the ceiling, and one ten times as far.
    let old = folder.path().join("old.json");
    let shares: Vec<f64> =
        report["rows"].as_array().unwrap().iter().map(|row| row["share"].as_f64().unwrap()).collect();
    for (factor, code) in [(10.0, Some(1)), (0.1, Some(0))] {
        for (row, share) in report["rows"].as_array_mut().unwrap().iter_mut().zip(&shares) {
            row["share"] = (share * factor).into();
        }
        fs::write(&old, report.to_string()).unwrap();
        let output = run(bench(&["--only", "LAYER", "--compare"]).arg(&old));
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), code, "{said}");
        let new: Value = serde_json::from_str(&said).unwrap();
        let changes = new["comparison"]["changes"].as_array().unwrap();
        assert!(changes.len() == 1 && changes[0]["slower"].as_bool() == Some(code == Some(1)), "{said}");
        assert_eq!(new["comparison"]["gone"].as_array().unwrap().len(), names.len() + 6);
    }
}
