//! A report of the suite on several devices, which is sent and merged: what ran where, how far off it was, in JSON and as tables.

use super::suite::DeviceReport;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::path::Path;

/// The results of the suite on devices, perhaps of several machines. It names adapters, drivers and the kind of system, and nothing of the user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CheckReport {
    /// The version of this crate.
    pub version: String,
    /// The operating system and the processor's architecture.
    pub system: String,
    /// The seed of the inputs.
    pub seed: u64,
    /// The devices.
    pub devices: Vec<DeviceReport>,
}

impl CheckReport {
    /// A report of no device yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let system = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
        Self { version: env!("CARGO_PKG_VERSION").into(), system, seed, devices: Vec::new() }
    }

    /// Whether everything is right on each device.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.devices.is_empty() && self.devices.iter().all(DeviceReport::passed)
    }

    /// Reads a report that was written as JSON.
    ///
    /// # Errors
    /// [`Error::Format`] if the text is no report.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        serde_json::from_str(text)
            .map_err(|error| Error::format(path, format!("this is no report of `wgformer check --json`: {error}")))
    }

    /// Adds the devices of another report. A device that is in both is taken from the other one.
    pub fn merge(&mut self, other: Self) {
        for device in other.devices {
            let same = |known: &DeviceReport| {
                [&known.adapter, &known.backend, &known.driver, &known.driver_info, &known.mode]
                    == [&device.adapter, &device.backend, &device.driver, &device.driver_info, &device.mode]
            };
            self.devices.retain(|known| !same(known));
            self.devices.push(device);
        }
    }

    /// The report as tables in Markdown: the devices, and the largest errors of each op on each of them.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "| | adapter | driver | cases | runs | missed | known | not run | largest error forward | backward |\n|-|-|-|-|-|-|-|-|-|-|\n",
        );
        let worst = |device: &DeviceReport, of: fn(&super::SuiteRow) -> f64| {
            device.rows.iter().map(of).fold(0.0, |m: f64, x| if x > m || x.is_nan() { x } else { m })
        };
        for (number, device) in self.devices.iter().enumerate() {
            let sum = |of: fn(&super::SuiteRow) -> usize| device.rows.iter().map(of).sum::<usize>();
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {:.1e} | {:.1e} |",
                letter(number),
                cell(&name(device)),
                cell(format!("{} {}", device.driver, device.driver_info).trim()),
                device.cases(),
                device.runs(),
                device.missed(),
                sum(|row| row.known.len()),
                sum(|row| row.unsupported.len()),
                worst(device, |row| row.forward[1]),
                worst(device, |row| row.backward[1]),
            );
        }
        text += "\n| op | inputs |";
        for number in 0..self.devices.len() {
            let _ = write!(text, " {} |", letter(number));
        }
        text += "\n|-|-|";
        text += &"-|".repeat(self.devices.len());
        text.push('\n');
        for (op, dtype) in self.ops() {
            let _ = write!(text, "| {op} | {dtype} |");
            for device in &self.devices {
                let row = device.rows.iter().find(|row| row.op == op && row.dtype == dtype);
                let _ = write!(text, " {} |", row.map_or_else(|| "-".into(), errors));
            }
            text.push('\n');
        }
        text
    }

    /// All ops with their types, sorted.
    #[must_use]
    pub fn ops(&self) -> Vec<(&str, &str)> {
        let rows = self.devices.iter().flat_map(|device| &device.rows);
        let mut ops: Vec<(&str, &str)> = rows.map(|row| (row.op.as_str(), row.dtype.as_str())).collect();
        ops.sort_unstable();
        ops.dedup();
        ops
    }
}

/// A device's name for people.
fn name(device: &DeviceReport) -> String {
    let mode = if device.mode.is_empty() { String::new() } else { format!(", {}", device.mode) };
    format!("{} ({}){mode}", device.adapter, device.backend)
}

/// The largest errors of outputs and gradients, and what missed.
fn errors(row: &super::SuiteRow) -> String {
    if row.cases == 0 && row.missed.is_empty() {
        return "not run".into();
    }
    let missed = if row.missed.is_empty() { String::new() } else { format!(" **{} missed**", row.missed.len()) };
    format!("{:.0e} / {:.0e}{missed}", row.forward[1], row.backward[1])
}

/// A, B, …, Z, A2, …
fn letter(number: usize) -> String {
    let letter = char::from(b'A' + (number % 26) as u8);
    if number < 26 { letter.into() } else { format!("{letter}{}", number / 26 + 1) }
}

/// A text in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}
