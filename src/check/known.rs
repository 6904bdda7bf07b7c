//! Failures that are known: whose they are, how they look, and where they are told of.

use super::suite::DeviceReport;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A failure of an adapter or driver that is known. Empty fields fit everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct KnownFailure {
    /// A part of the adapter's name, in any case.
    pub adapter: String,
    /// `vulkan`, `metal`, `dx12`, `gl` or `webgpu`.
    pub backend: String,
    /// A part of the driver's name, in any case.
    pub driver: String,
    /// The first version of the driver that has it, as numbers between dots.
    pub from: String,
    /// The first version of the driver that has it no longer.
    pub below: String,
    /// A part of the names of the cases.
    pub case: String,
    /// A part of what is told when a case fails.
    pub message: String,
    /// Where it is reported or explained.
    pub link: String,
}

impl KnownFailure {
    /// Reads a list of known failures in JSON.
    ///
    /// # Errors
    /// [`Error::Format`] if the text is no such list, or an entry names neither a case nor a message, or has no link.
    pub fn list(path: &Path, text: &str) -> Result<Vec<Self>> {
        let found: Vec<Self> = serde_json::from_str(text).map_err(|error| Error::format(path, error.to_string()))?;
        for (number, failure) in found.iter().enumerate() {
            let missing = match failure {
                Self { case, message, .. } if case.is_empty() && message.is_empty() => "neither a case nor a message",
                Self { link, .. } if link.is_empty() => "no link that explains it",
                _ => continue,
            };
            return Err(Error::format(path, format!("entry {} has {missing}", number + 1)));
        }
        Ok(found)
    }

    /// The failures that this version of the crate knows of.
    ///
    /// # Errors
    /// None, unless the crate's own list is broken.
    pub fn own() -> Result<Vec<Self>> {
        Self::list(Path::new("known_failures.json"), include_str!("known_failures.json"))
    }

    /// Whether it is of this device.
    pub(super) fn is_of(&self, device: &DeviceReport) -> bool {
        let has = |whole: &str, part: &str| whole.to_lowercase().contains(&part.to_lowercase());
        let version = version(&device.driver_info);
        has(&device.adapter, &self.adapter)
            && (self.backend.is_empty() || self.backend == device.backend)
            && has(&device.driver, &self.driver)
            && (self.from.is_empty() || version >= self::version(&self.from))
            && (self.below.is_empty() || version < self::version(&self.below))
    }

    /// Whether a case is one of its cases.
    pub(super) fn has(&self, case: &str) -> bool {
        case.contains(&self.case)
    }

    /// Whether it explains what is told of a case.
    pub(super) fn explains(&self, case: &str, what: &str) -> bool {
        self.has(case) && what.contains(&self.message)
    }
}

/// The first numbers between dots of a text.
fn version(text: &str) -> Vec<u64> {
    let start = text.find(|c: char| c.is_ascii_digit()).unwrap_or(text.len());
    let numbers = text[start..].split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap_or_default();
    numbers.split('.').map_while(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_numbers() {
        assert_eq!(version("Mesa 22.3.6 (LLVM 15.0.6)"), [22, 3, 6]);
        assert!(version("22.10") > version("22.9.1"));
        assert_eq!(version("none"), Vec::<u64>::new());
    }

    #[test]
    fn a_list_says_what_is_wrong_with_it() {
        let read = |text: &str| KnownFailure::list(Path::new("known.json"), text).map_err(|error| error.to_string());
        assert_eq!(read(r#"[{"case": "softmax", "link": "https://example.org"}]"#).unwrap().len(), 1);
        assert!(read(r#"[{"link": "x"}]"#).unwrap_err().contains("entry 1 has neither a case nor a message"));
        assert!(read(r#"[{"case": "x"}]"#).unwrap_err().contains("no link"));
        assert!(read(r#"[{"cases": "x"}]"#).unwrap_err().contains("unknown field `cases`"));
        assert!(KnownFailure::own().is_ok());
    }
}
