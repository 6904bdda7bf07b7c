//! The report of the suite as a self-contained HTML page.

use super::super::page::{STYLE, escape, section};
use crate::check::{CheckReport, DeviceReport, SuiteRow};
use std::fmt::Write;

/// The page of a report.
pub(super) fn page(report: &CheckReport) -> String {
    let verdict = if report.passed() { "Everything is right" } else { "Not everything is right" };
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>wgformer check</title>\n<style>{STYLE}td.off {{ background: #fde2e1; color: #8c1d18; }}\n</style>\n</head>\n<body>\n<main>\n\
         <h1>{verdict}</h1>\n<p>wgformer {} · {} · seed {} · this page names adapters, drivers and the kind of system, and nothing of you</p>\n",
        escape(&report.version),
        escape(&report.system),
        report.seed,
    );
    page += "<div class=\"figures\">\n";
    for device in &report.devices {
        let text = format!("{} of {} cases right", device.cases().saturating_sub(device.missed()), device.cases());
        // Writing to a string can't fail.
        let _ = writeln!(page, "<div><b>{text}</b><span>{}</span></div>", escape(&name(device)));
    }
    page += "</div>\n";
    let text = "Largest errors against the same computed in f64, of outputs / of gradients, as shares of a tensor's largest value.";
    section(&mut page, "By op and adapter", text, &matrix(report));
    for device in &report.devices {
        let lists: [(&str, fn(&SuiteRow) -> &Vec<crate::check::Miss>); 3] =
            [("Missed", |row| &row.missed), ("Known failures", |row| &row.known), ("Not run", |row| &row.unsupported)];
        for (title, of) in lists {
            let misses: Vec<_> = device.rows.iter().flat_map(of).collect();
            if misses.is_empty() {
                continue;
            }
            let mut list = String::from("<div class=\"scroll\"><table>\n");
            for miss in misses {
                let cells = [&miss.case, &miss.variants, &miss.what].map(|text| format!("<td>{}</td>", escape(text)));
                let _ = writeln!(list, "<tr>{}</tr>", cells.concat());
            }
            section(&mut page, &format!("{title}: {}", escape(&name(device))), "", &(list + "</table></div>"));
        }
        if !device.suspects.is_empty() {
            let text =
                format!("{} ran in each run that missed, and in none that was right.", device.suspects.join(", "));
            section(&mut page, &format!("Suspects: {}", escape(&name(device))), &escape(&text), "");
        }
    }
    page + "</main>\n</body>\n</html>\n"
}

fn name(device: &DeviceReport) -> String {
    let mode = if device.mode.is_empty() { String::new() } else { format!(", {}", device.mode) };
    format!("{} ({}){mode}, {} {}", device.adapter, device.backend, device.driver, device.driver_info).trim().to_owned()
}

/// Ops × devices.
fn matrix(report: &CheckReport) -> String {
    let mut text = String::from("<div class=\"scroll\"><table>\n<tr><th>op</th><th>inputs</th>");
    for device in &report.devices {
        let _ = write!(text, "<th>{}</th>", escape(&name(device)));
    }
    text += "</tr>\n";
    for (op, dtype) in report.ops() {
        let _ = write!(text, "<tr><td>{}</td><td>{}</td>", escape(op), escape(dtype));
        for device in &report.devices {
            let row = device.rows.iter().find(|row| row.op == op && row.dtype == dtype);
            let _ = match row {
                None => write!(text, "<td></td>"),
                Some(row) if !row.missed.is_empty() => {
                    write!(text, "<td class=\"off\">{} missed</td>", row.missed.len())
                }
                Some(row) if row.cases == 0 => write!(text, "<td>not run</td>"),
                Some(row) => write!(text, "<td>{:.0e} / {:.0e}</td>", row.forward[1], row.backward[1]),
            };
        }
        text += "</tr>\n";
    }
    text + "</table></div>"
}
