//! Patterns for the names of layers, in the order of their file.

use regex_lite::Regex;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// The pairs of a JSON object in their order.
#[derive(Debug)]
pub(super) struct Patterns<T>(pub(super) Vec<(String, T)>);

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patterns<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Pairs<T> {
            type Value = Patterns<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of patterns and numbers")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Patterns::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Patterns(pairs))
            }
        }
        deserializer.deserialize_any(Pairs(PhantomData))
    }
}

/// The expression for the names that a pattern matches: the whole name, or its end after a dot.
pub(super) fn module_pattern(pattern: &str, whole: bool) -> Result<Regex, String> {
    let front = if whole { "" } else { r"(?:.*\.)?" };
    Regex::new(&format!("^{front}(?:{pattern})$")).map_err(|e| format!("holds {pattern:?}, which is no pattern: {e}"))
}

/// The value of the first pattern that matches the end of a layer's name.
pub(super) fn first_match<T: Copy>(patterns: &[(String, T)], layer: &str) -> Option<T> {
    let matches = |pattern: &str| module_pattern(pattern, false).is_ok_and(|expression| expression.is_match(layer));
    patterns.iter().find(|(pattern, _)| matches(pattern)).map(|(_, value)| *value)
}
