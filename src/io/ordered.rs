//! JSON as values of a template: mappings keep the order of their keys, as Python's do.

use minijinja::Value;
use minijinja::value::{Enumerator, Object, ObjectRepr};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::sync::Arc;

/// A mapping in the order in which it was written.
#[derive(Debug)]
struct Ordered(Vec<(Value, Value)>);

impl Object for Ordered {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.iter().map(|(name, _)| name.clone()).collect())
    }
}

/// A mapping of these pairs; of equal keys the last counts.
pub(super) fn mapping<K: Into<Value>>(pairs: impl IntoIterator<Item = (K, Value)>) -> Value {
    let mut kept: Vec<(Value, Value)> = Vec::new();
    for (key, value) in pairs {
        let key = key.into();
        match kept.iter_mut().find(|(name, _)| *name == key) {
            Some((_, before)) => *before = value,
            None => kept.push((key, value)),
        }
    }
    Value::from_object(Ordered(kept))
}

/// JSON that was read.
pub(super) struct Json(pub(super) Value);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json(Value::from(())))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json(Value::from(value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Json, E> {
        Ok(Json(Value::from(value)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Json, E> {
        Ok(Json(Value::from(value)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
        Ok(Json(Value::from(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Json, E> {
        Ok(Json(Value::from(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(Json(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(Json(Value::from(values)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut pairs: Vec<(String, Value)> = Vec::new();
        while let Some((key, Json(value))) = items.next_entry()? {
            pairs.push((key, value));
        }
        Ok(Json(mapping(pairs)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_order_and_the_last_of_equal_ones_counts() {
        let Json(value) = serde_json::from_str(r#"{"z": 1, "a": [null, true, -2, 1.5, "x"], "z": {"b": 3}}"#).unwrap();
        let keys: Vec<String> = value.try_iter().unwrap().map(|key| key.to_string()).collect();
        assert_eq!(keys, ["z", "a"]);
        assert_eq!(value.get_attr("z").unwrap().get_attr("b").unwrap(), Value::from(3));
        assert_eq!(value.get_attr("a").unwrap().len(), Some(5));
        assert!(value.get_attr("none").unwrap().is_undefined());
    }
}
