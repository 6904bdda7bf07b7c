//! JSON configurations with access by key and precise errors: missing, of another type, out of range.

#[cfg(feature = "files")]
use super::file;
use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Display;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};

/// A JSON object and its source.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    source: PathBuf,
    /// Where in the file, with a dot at its end: `rope_scaling.`
    prefix: String,
    value: Value,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read, [`Error::Format`] if it is not a JSON object.
    #[cfg(feature = "files")]
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::new(path, file::read_json(path)?)
    }

    /// A configuration that is in memory; `source` stands for its path in messages.
    ///
    /// # Errors
    /// [`Error::Format`] if it is not a JSON object.
    pub fn new(source: impl Into<PathBuf>, value: Value) -> Result<Self> {
        let source = source.into();
        if value.is_object() {
            Ok(Self { source, prefix: String::new(), value })
        } else {
            Err(Error::format(source, "is JSON, but not an object {\"key\": value, …}"))
        }
    }

    /// The same place with other keys.
    pub(crate) fn with_value(&self, value: Value) -> Self {
        Self { source: self.source.clone(), prefix: self.prefix.clone(), value }
    }

    /// The object.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The path or label it came from.
    #[must_use]
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// An error about a key of this configuration.
    pub fn refuse(&self, key: &str, message: impl Display) -> Error {
        Error::format(&self.source, format!("\"{}{key}\" {message}", self.prefix))
    }

    /// Whether the key exists and is not null.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.value.get(key).is_some_and(|v| !v.is_null())
    }

    /// The value of a key, or `None` if it is missing or null.
    ///
    /// # Errors
    /// [`Error::Format`] if it has another type.
    pub fn optional<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        match self.value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => T::deserialize(value).map(Some).map_err(|e| self.refuse(key, format!("is not usable: {e}"))),
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`Error::Format`] if it is missing or of another type.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        self.any(&[key])
    }

    /// The value of a key, or a default when it is missing or null.
    ///
    /// # Errors
    /// [`Error::Format`] if it has another type.
    pub fn get_or<T: DeserializeOwned>(&self, key: &str, default: T) -> Result<T> {
        Ok(self.optional(key)?.unwrap_or(default))
    }

    /// The value of the first of several keys that exists: model families use different names.
    ///
    /// # Errors
    /// [`Error::Format`] if none exists or the first has another type.
    pub fn any<T: DeserializeOwned>(&self, keys: &[&str]) -> Result<T> {
        for key in keys {
            if let Some(value) = self.optional(key)? {
                return Ok(value);
            }
        }
        let names: Vec<String> = keys.iter().map(|key| format!("\"{}{key}\"", self.prefix)).collect();
        Err(Error::format(&self.source, format!("has no {}", names.join(" or "))))
    }

    /// The value of a key, which must lie in a range.
    ///
    /// # Errors
    /// [`Error::Format`] if it is missing, of another type or outside.
    pub fn within<T>(&self, key: &str, range: impl RangeBounds<T> + std::fmt::Debug) -> Result<T>
    where
        T: DeserializeOwned + PartialOrd + Display,
    {
        let value: T = self.get(key)?;
        // `contains` is false for NaN.
        if range.contains(&value) {
            Ok(value)
        } else {
            Err(self.refuse(key, format!("is {value}, outside of {range:?}")))
        }
    }

    /// An object inside this one, if it exists.
    ///
    /// # Errors
    /// [`Error::Format`] if it exists and is not an object.
    pub fn section(&self, key: &str) -> Result<Option<Self>> {
        match self.value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) if value.is_object() => {
                let prefix = format!("{}{key}.", self.prefix);
                Ok(Some(Self { source: self.source.clone(), prefix, value: value.clone() }))
            }
            Some(_) => Err(self.refuse(key, "is not an object")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config() -> Config {
        let rope = json!({"factor": "eight"});
        let value =
            json!({"n_layer": 12, "rate": 0.1, "name": "gpt2", "minus": -1, "none": null, "rope": rope, "eos": [1, 2]});
        Config::new("m/config.json", value).unwrap()
    }

    #[test]
    fn values_are_read_by_type() {
        let c = config();
        assert_eq!(c.get::<usize>("n_layer").unwrap(), 12);
        assert_eq!(c.get::<f32>("n_layer").unwrap(), 12.0);
        assert_eq!(c.get::<f64>("rate").unwrap(), 0.1);
        assert_eq!(c.get::<String>("name").unwrap(), "gpt2");
        assert_eq!(c.get::<Vec<u32>>("eos").unwrap(), [1, 2]);
        assert_eq!(c.any::<usize>(&["num_layers", "n_layer"]).unwrap(), 12);
        assert_eq!(c.optional::<usize>("none").unwrap(), None);
        assert_eq!(c.get_or("none", 5usize).unwrap(), 5);
        assert!(c.has("rate") && !c.has("none") && !c.has("nothing"));
        assert_eq!(c.within("n_layer", 1..=100usize).unwrap(), 12);
        assert!(c.section("none").unwrap().is_none());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let c = config();
        let said = |e: Error| e.to_string();
        assert_eq!(said(c.get::<usize>("depth").unwrap_err()), "m/config.json: has no \"depth\"");
        assert_eq!(said(c.any::<usize>(&["a", "b"]).unwrap_err()), "m/config.json: has no \"a\" or \"b\"");
        let message = said(c.get::<usize>("name").unwrap_err());
        assert_eq!(message, "m/config.json: \"name\" is not usable: invalid type: string \"gpt2\", expected usize");
        assert!(said(c.get::<usize>("minus").unwrap_err()).contains("integer `-1`"));
        assert!(said(c.get::<usize>("rate").unwrap_err()).contains("floating point `0.1`"));
        assert_eq!(
            said(c.within("n_layer", 1..=8usize).unwrap_err()),
            "m/config.json: \"n_layer\" is 12, outside of 1..=8"
        );
        let rope = c.section("rope").unwrap().unwrap();
        assert!(said(rope.get::<f32>("factor").unwrap_err()).contains("\"rope.factor\" is not usable"));
        assert!(said(c.section("name").unwrap_err()).contains("not an object"));
        assert!(said(Config::new("x", json!([1])).unwrap_err()).contains("not an object"));
    }
}
