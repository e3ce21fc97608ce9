//! Messages as JSON, by their schema: every member by its name in camel case, numbers as numbers,
//! enumerations by name. What is not set shows its default, so that scripts find every member.

use std::sync::LazyLock;

use prost::Name;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage,
    Value,
};
use serde_json::{Map, Number, Value as Json};

use crate::DESCRIPTORS;

/// A message of this crate's schemas as JSON.
///
/// # Panics
/// For a message of another schema.
pub fn json<M: Name>(message: &M) -> Json {
    let name = format!("{}.{}", M::PACKAGE, M::NAME);
    let descriptor = POOL.get_message_by_name(&name).expect("the schemas have every message");
    let bytes = message.encode_to_vec();
    let message = DynamicMessage::decode(descriptor, &*bytes).expect("it was encoded from it");
    object(&message)
}

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(DESCRIPTORS).expect("the schemas were compiled with the program")
});

fn object(message: &DynamicMessage) -> Json {
    let mut object = Map::new();
    for field in message.descriptor().fields() {
        // A member that can be absent shows as absent: a choice has one of its kinds.
        if !field.supports_presence() || message.has_field(&field) {
            let value = member(&message.get_field(&field), &field);
            object.insert(field.json_name().to_owned(), value);
        }
    }
    Json::Object(object)
}

fn member(value: &Value, field: &FieldDescriptor) -> Json {
    match value {
        Value::List(values) if field.cardinality() == Cardinality::Repeated => {
            Json::Array(values.iter().map(|value| single(value, &field.kind())).collect())
        }
        Value::Map(values) => {
            let Kind::Message(entry) = field.kind() else {
                return Json::Null;
            };
            let of_value = entry.map_entry_value_field().kind();
            let mut members: Vec<_> =
                values.iter().map(|(k, v)| (key(k), single(v, &of_value))).collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            Json::Object(members.into_iter().collect())
        }
        value => single(value, &field.kind()),
    }
}

fn single(value: &Value, kind: &Kind) -> Json {
    match value {
        Value::Bool(flag) => Json::Bool(*flag),
        Value::I32(number) => Json::from(*number),
        Value::I64(number) => Json::from(*number),
        Value::U32(number) => Json::from(*number),
        Value::U64(number) => Json::from(*number),
        Value::F32(number) => float(f64::from(*number)),
        Value::F64(number) => float(*number),
        Value::String(text) => Json::from(text.as_str()),
        Value::Bytes(bytes) => Json::from(hexadecimal(bytes)),
        Value::EnumNumber(number) => enumerator(*number, kind),
        Value::Message(message) => object(message),
        // Lists and maps stand in members alone.
        Value::List(_) | Value::Map(_) => Json::Null,
    }
}

/// By its name; one that a newer relay added, by its number.
fn enumerator(number: i32, kind: &Kind) -> Json {
    let named = match kind {
        Kind::Enum(descriptor) => descriptor.get_value(number),
        _ => None,
    };
    named.map_or_else(|| Json::from(number), |value| Json::from(value.name()))
}

fn float(number: f64) -> Json {
    Number::from_f64(number).map_or(Json::Null, Json::Number)
}

fn key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(flag) => flag.to_string(),
        MapKey::I32(number) => number.to_string(),
        MapKey::I64(number) => number.to_string(),
        MapKey::U32(number) => number.to_string(),
        MapKey::U64(number) => number.to_string(),
        MapKey::String(text) => text.clone(),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use crate::control::v1 as proto;

    use super::*;

    #[test]
    fn members_are_there_by_name_whether_set_or_not() {
        let readiness = proto::Readiness {
            ready: false,
            reasons: vec![proto::UnreadyReason::NoKeys.into(), 999],
        };
        let answer = proto::GetReadinessResponse { readiness: Some(readiness) };
        assert_eq!(
            json(&answer).to_string(),
            r#"{"readiness":{"ready":false,"reasons":["UNREADY_REASON_NO_KEYS",999]}}"#
        );
        assert_eq!(json(&proto::GetReadinessResponse::default()).to_string(), "{}");
    }

    #[test]
    fn large_numbers_stay_numbers() {
        let shard = proto::Shard { cpu_ns: u64::MAX, ..proto::Shard::default() };
        assert!(json(&shard).to_string().contains(r#""cpuNs":18446744073709551615"#));
    }
}
