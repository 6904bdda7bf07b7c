//! The fields of a request in JSON.

use super::fault::Fault;
use hyper::StatusCode;
use serde_json::{Map, Value};

/// The fields that a request has; those that are not asked for are ignored, and null is as good as absent.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn of(body: &[u8]) -> Result<Self, Fault> {
        let refused = |message| Fault::new(StatusCode::BAD_REQUEST, message);
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(refused("the body is JSON, but not an object".to_owned())),
            Err(error) => Err(refused(format!("the body is not valid JSON: {error}"))),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn required(&self, name: &str) -> Result<&Value, Fault> {
        self.get(name).ok_or_else(|| Fault::field(name, "it is missing"))
    }

    fn read<'a, T>(
        &'a self,
        name: &str,
        wanted: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        let refused = |value| Fault::field(name, format!("it is {}, but must be {wanted}", shown(value)));
        self.get(name).map(|value| read(value).ok_or_else(|| refused(value))).transpose()
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Fault> {
        Ok(self.read(name, "true or false", Value::as_bool)?.unwrap_or(false))
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Fault> {
        self.read(name, "a text", Value::as_str)
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f32>, Fault> {
        let number = |value: &Value| value.as_f64().map(|number| number as f32).filter(|number| number.is_finite());
        self.read(name, "a number", number)
    }

    pub(super) fn count(&self, name: &str, least: usize, most: usize) -> Result<Option<usize>, Fault> {
        let count = |value: &Value| value.as_u64().and_then(|count| usize::try_from(count).ok());
        let wanted = format!("a whole number, {least} to {most}");
        self.read(name, &wanted, |value| count(value).filter(|count| (least..=most).contains(count)))
    }

    /// A seed; what is negative counts by its bits.
    pub(super) fn seed(&self) -> Result<Option<u64>, Fault> {
        let seed = |value: &Value| value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
        self.read("seed", "a whole number of 64 bits", seed)
    }

    pub(super) fn object(&self, name: &str) -> Result<Option<&Map<String, Value>>, Fault> {
        self.read(name, "an object", Value::as_object)
    }

    /// A text, or a list of at most so many.
    pub(super) fn texts(&self, name: &str, most: usize) -> Result<Option<Vec<&str>>, Fault> {
        self.read(name, &format!("a text or a list of at most {most} texts"), |value| match value {
            Value::String(text) => Some(vec![text.as_str()]),
            Value::Array(list) if list.len() <= most => list.iter().map(Value::as_str).collect(),
            _ => None,
        })
    }
}

/// The token numbers of a list.
pub(super) fn token_ids(value: &Value) -> Option<Vec<u32>> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    value.as_array().filter(|list| !list.is_empty())?.iter().map(id).collect()
}

/// A value as messages show it.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) if text.chars().count() > 40 => "a long text".to_owned(),
        other => other.to_string(),
    }
}

/// Reads a body as requests are read, of every field that any of them has.
pub(super) fn read_body(body: &[u8]) -> Result<(), Fault> {
    let fields = Fields::of(body)?;
    for name in ["stream", "echo", "encoding_format", "user", "suffix"] {
        fields.flag(name).and_then(|_| fields.text(name).map(drop)).unwrap_or_default();
    }
    let ids = |name: &str| fields.get(name).and_then(token_ids);
    let _ = (fields.texts("stop", 4)?, ids("prompt"), ids("input"), fields.object("logit_bias")?, fields.seed()?);
    let _ = (fields.count("n", 1, 8)?, fields.count("max_tokens", 1, 100)?, fields.number("temperature")?);
    fields.required("model").map(|model| drop(shown(model)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said<T: std::fmt::Debug>(read: Result<T, Fault>) -> String {
        read.unwrap_err().message
    }

    #[test]
    fn fields_are_read_or_refused_with_their_names() {
        let body = r#"{"n": -1, "f": "yes", "t": 7, "x": 0.25, "big": 1e300, "none": null, "list": ["a", "b"], "seed": -1, "o": {}}"#;
        let fields = Fields::of(body.as_bytes()).unwrap();
        assert_eq!(said(fields.count("n", 1, 9)), "n: it is -1, but must be a whole number, 1 to 9");
        assert_eq!(fields.count("none", 1, 9), Ok(None));
        assert!(said(fields.flag("f")).starts_with("f: it is \"yes\", but must be true or false"));
        assert_eq!(said(fields.text("t")), "t: it is 7, but must be a text");
        assert_eq!((fields.number("x"), fields.flag("absent")), (Ok(Some(0.25)), Ok(false)));
        assert!(fields.number("big").is_err() && fields.number("o").is_err());
        assert_eq!(fields.texts("list", 2), Ok(Some(vec!["a", "b"])));
        assert!(said(fields.texts("list", 1)).contains("at most 1"));
        assert_eq!(fields.seed(), Ok(Some(u64::MAX)));
        assert_eq!(said(fields.required("none").map(|_| ())), "none: it is missing");
        assert!(Fields::of(b"[1]").is_err() && Fields::of(b"{\"a\": ").is_err() && Fields::of(b"\xff").is_err());
        assert_eq!(token_ids(&serde_json::json!([1, 2])), Some(vec![1, 2]));
        assert_eq!(token_ids(&serde_json::json!([1, -2])), None);
        assert_eq!(token_ids(&serde_json::json!([])), None);
    }
}
