//! Compares two reports.

use super::report::{Report, Row};

/// A row that both reports have.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Change {
    /// The row's name.
    pub name: String,
    /// Seconds of the older report.
    pub old_seconds: f64,
    /// Seconds of the newer one.
    pub new_seconds: f64,
    /// Share of the ceiling in the older report.
    pub old_share: f64,
    /// Share of the ceiling in the newer one.
    pub new_share: f64,
    /// The ratio of times, each relative to the ceilings measured at the same time.
    pub ratio: f64,
    /// Whether the ratio is above the threshold.
    pub slower: bool,
    /// Whether the middle halves of the old and new shares do not overlap; if they do, the result may be noise.
    pub clear: bool,
}

/// The common rows of two reports, and the rows that only one of them has.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Comparison {
    /// Rows of both.
    pub changes: Vec<Change>,
    /// Names of rows only in the older report.
    pub gone: Vec<String>,
    /// Names of rows only in the newer report.
    pub added: Vec<String>,
}

impl Comparison {
    /// Compares shares of the ceiling, measured next to each run, so that a slower or busier machine does not look like slower code.
    #[must_use]
    pub fn new(old: &Report, new: &Report, threshold: f64) -> Self {
        let change = |row: &Row| old.row(&row.name).map(|before| Change::new(before, row, threshold));
        let lacks = |report: &Report, row: &&Row| report.row(&row.name).is_none();
        let names = |rows: Vec<&Row>| rows.iter().map(|row| row.name.clone()).collect();
        Self {
            changes: new.rows.iter().filter_map(change).collect(),
            gone: names(old.rows.iter().filter(|row| lacks(new, row)).collect()),
            added: names(new.rows.iter().filter(|row| lacks(old, row)).collect()),
        }
    }

    /// Whether anything got slower.
    #[must_use]
    pub fn slower(&self) -> bool {
        self.changes.iter().any(|change| change.slower)
    }
}

impl Change {
    fn new(old: &Row, new: &Row, threshold: f64) -> Self {
        let ratio = old.share / new.share;
        let noise = (old.share * old.share_spread + new.share * new.share_spread) / 2.0;
        Self {
            name: new.name.clone(),
            old_seconds: old.seconds,
            new_seconds: new.seconds,
            old_share: old.share,
            new_share: new.share,
            ratio,
            // A ratio of NaN must not pass.
            slower: !(ratio <= threshold),
            clear: (old.share - new.share).abs() > noise,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::*;
    use super::*;
    use crate::gpu::AdapterClass;

    fn report(rows: &[(&str, f64, f64)]) -> Report {
        let ceiling = || Ceiling { per_second: 1e9, variant: String::new() };
        let row = |&(name, seconds, share): &(&str, f64, f64)| Row {
            name: name.into(),
            kind: Kind::Kernel,
            seconds,
            fastest: seconds,
            spread: 0.1,
            runs: 5,
            flops: 1.0,
            bytes: 1.0,
            tokens: None,
            bound: Bound::Memory,
            rate: 1.0,
            unit: "B/s".into(),
            share,
            share_spread: 0.1,
        };
        Report {
            format: FORMAT,
            version: String::new(),
            debug_build: false,
            time: 0,
            adapter: Adapter {
                name: String::new(),
                backend: String::new(),
                driver: String::new(),
                class: AdapterClass::Cpu,
            },
            ceilings: Ceilings { arithmetic: ceiling(), memory: ceiling() },
            kernel_clock: "gpu".into(),
            rows: rows.iter().map(row).collect(),
            first_step: None,
            kernels: Vec::new(),
            scaling: None,
        }
    }

    #[test]
    fn a_slower_machine_is_not_slower_code() {
        let old = report(&[("machine", 1.0, 0.5), ("code", 1.0, 0.5), ("gone", 1.0, 0.5)]);
        let new = report(&[("machine", 3.0, 0.5), ("code", 1.0, 0.3), ("added", 1.0, 0.5)]);
        let comparison = Comparison::new(&old, &new, 1.25);
        let found: Vec<_> = comparison.changes.iter().map(|c| (c.name.as_str(), c.slower)).collect();
        assert_eq!(found, [("machine", false), ("code", true)]);
        assert!((comparison.changes[1].ratio - 0.5 / 0.3).abs() < 1e-12);
        assert_eq!((comparison.gone, comparison.added), (vec!["gone".to_owned()], vec!["added".to_owned()]));
        assert_eq!(comparison.changes.iter().map(|c| c.clear).collect::<Vec<_>>(), [false, true]);
        assert!(!Comparison::new(&old, &new, 2.0).slower());
        assert!(Comparison::new(&old, &report(&[("code", 1.0, f64::NAN)]), 1e9).slower());
    }

    #[test]
    fn a_report_survives_json() {
        let report = report(&[("a", 1.0 / 3.0, 0.1)]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        std::fs::write(&path, serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!(Report::read(&path).unwrap(), report);
        std::fs::write(&path, "{\"format\": 99}").unwrap();
        assert!(Report::read(&path).unwrap_err().to_string().contains("format 1"));
    }
}
