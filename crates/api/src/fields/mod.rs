//! Reading a body or a query string field by field.
//!
//! It goes on after a bad field, so that a client learns of all of them at once. What it hands back
//! for a bad one is never used: [`Fields::finish`] fails before that.

mod rules;

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::problem::{FieldError, Problem};

pub(crate) use rules::{
    Rule, any_text, array, boolean, email, object, one_of, tags, text, timestamp, url, uuid,
};

/// The fields of one request.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    values: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Fields {
    /// The parameters of a query string, all of them text.
    pub(crate) fn of_query(query: Option<&str>) -> Self {
        let mut fields = Self::default();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            fields.add(name.into_owned(), value.into_owned().into());
        }
        fields
    }

    /// Of two fields of one name, whoever checks one may use the other.
    fn add(&mut self, name: String, value: Value) {
        if self.values.contains_key(&name) {
            self.error(&name, "is given more than once");
        } else {
            self.values.insert(name, value);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All fields as they were given, in an order that does not depend on the client's.
    pub(crate) fn canonical(&self) -> Vec<u8> {
        sorted(&Value::Object(self.values.clone())).to_string().into_bytes()
    }

    pub(crate) fn error(&mut self, field: &str, message: impl Into<String>) {
        self.errors.push(FieldError { field: shortened(field), message: message.into() });
    }

    /// A field that must be there.
    pub(crate) fn required<T: Default>(&mut self, field: &str, rule: impl Rule<T>) -> T {
        if !self.values.contains_key(field) {
            self.error(field, "is missing");
            return T::default();
        }
        self.optional(field, rule).unwrap_or_default()
    }

    /// A field that may be left out, and is not `null`.
    pub(crate) fn optional<T>(&mut self, field: &str, rule: impl Rule<T>) -> Option<T> {
        let value = self.values.shift_remove(field)?;
        self.checked(field, value, rule)
    }

    /// A field that may be left out (`None`) and may be `null` (`Some(None)`).
    pub(crate) fn nullable<T>(&mut self, field: &str, rule: impl Rule<T>) -> Option<Option<T>> {
        match self.values.shift_remove(field)? {
            Value::Null => Some(None),
            value => self.checked(field, value, rule).map(Some),
        }
    }

    /// All fields were read: those that are left are unknown.
    pub(crate) fn finish(mut self) -> Result<(), Problem> {
        let unknown: Vec<String> = self.values.keys().take(Problem::MAX_FIELDS).cloned().collect();
        for field in unknown {
            self.error(&field, "can't be given here");
        }
        self.errors.truncate(Problem::MAX_FIELDS);
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::fields(self.errors)) }
    }

    fn checked<T>(&mut self, field: &str, value: Value, rule: impl Rule<T>) -> Option<T> {
        // PostgreSQL stores no NUL, neither in text nor in jsonb.
        if has_nul(&value) {
            self.error(field, "holds a NUL character");
            return None;
        }
        rule(value).map_err(|message| self.error(field, message)).ok()
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Fields::default();
                while let Some((name, value)) = map.next_entry()? {
                    fields.add(name, value);
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Object)
    }
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Object(fields) => {
            let mut fields: Vec<_> =
                fields.iter().map(|(name, v)| (name.clone(), sorted(v))).collect();
            fields.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(fields.into_iter().collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(fields) => {
            fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn shortened(field: &str) -> String {
    const MAX_CHARS: usize = 80;
    field.chars().take(MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        serde_json::from_value(value).unwrap()
    }

    fn shown(fields: Fields) -> String {
        serde_json::to_string(&fields.errors).unwrap()
    }

    #[test]
    fn every_bad_field_is_reported() {
        let mut read = fields(json!({"a": 1, "b": null, "c": "x\0", "d": {"e": ["\0"]}}));
        read.required("a", text(5));
        read.optional("b", boolean);
        read.optional("c", text(5));
        read.optional("d", object(100));
        read.required("f", text(5));
        insta::assert_snapshot!(shown(read), @r#"[{"field":"a","message":"must be text"},{"field":"b","message":"must be true or false"},{"field":"c","message":"holds a NUL character"},{"field":"d","message":"holds a NUL character"},{"field":"f","message":"is missing"}]"#);
    }

    #[test]
    fn the_order_of_fields_means_nothing_and_their_values_do() {
        let read = |text: &str| serde_json::from_str::<Fields>(text).unwrap().canonical();
        assert_eq!(
            read(r#"{"a": {"c": [1], "b": 2}, "d": ""}"#),
            read(r#"{"d":"","a":{"b":2,"c":[1]}}"#)
        );
        assert_ne!(read(r#"{"a": [1, 2]}"#), read(r#"{"a": [2, 1]}"#));
        assert_ne!(read(r#"{"a": 1}"#), read(r#"{"a": "1"}"#));
        assert_ne!(read(r#"{"a": null}"#), read("{}"));
    }

    #[test]
    fn absent_and_null_are_two_things() {
        let mut read = fields(json!({"null": null, "set": "x"}));
        assert_eq!(read.nullable("absent", text(5)), None);
        assert_eq!(read.nullable("null", text(5)), Some(None));
        assert_eq!(read.nullable("set", text(5)), Some(Some("x".to_owned())));
        assert!(read.finish().is_ok());
    }

    #[test]
    fn a_flood_of_unknown_fields_gets_a_short_answer() {
        let many: Map<_, _> =
            (0..10_000).map(|n| (format!("{n}{}", "x".repeat(500)), Value::Null)).collect();
        let problem = fields(many.into()).finish().unwrap_err();
        assert!(format!("{problem:?}").len() < 20_000);
    }

    #[test]
    fn a_repeated_field_is_refused() {
        let mut read: Fields = serde_json::from_str(r#"{"a": 1, "a": "x", "b": "y"}"#).unwrap();
        assert_eq!(read.optional("b", text(5)), Some("y".to_owned()));
        insta::assert_snapshot!(shown(read), @r#"[{"field":"a","message":"is given more than once"}]"#);
    }

    #[test]
    fn a_repeated_parameter_is_refused() {
        let mut read = Fields::of_query(Some("a=1&a=2&b=%20x"));
        assert_eq!(read.optional("b", text(5)), Some(" x".to_owned()));
        insta::assert_snapshot!(shown(read), @r#"[{"field":"a","message":"is given more than once"}]"#);
    }
}
