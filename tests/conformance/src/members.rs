//! JSON objects that keep the order of their members.
//!
//! The first relay of a scenario, the members of a bus frame and the keys of a log entry are
//! told apart by position, which a sorted or hashed map loses.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// The members of a JSON object in the order of its text. A name may occur twice.
#[derive(Clone, Debug)]
pub(crate) struct Members<T>(pub(crate) Vec<(String, T)>);

impl<T> Members<T> {
    pub(crate) fn get(&self, name: &str) -> Option<&T> {
        self.iter().find(|(member, _)| *member == name).map(|(_, value)| value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Sets a member in its place, or adds it at the end.
    pub(crate) fn set(&mut self, name: &str, value: T) {
        match self.0.iter_mut().find(|(member, _)| member == name) {
            Some(member) => member.1 = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }
}

impl<T> Default for Members<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Members<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor(PhantomData))
    }
}

struct MembersVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for MembersVisitor<T> {
    type Value = Members<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_the_order_of_the_text() {
        let mut members: Members<u8> = serde_json::from_str(r#"{"b":1,"a":2}"#).unwrap();
        members.set("b", 3);
        members.set("0", 4);
        let names: Vec<_> = members.iter().collect();
        assert_eq!(names, [("b", &3), ("a", &2), ("0", &4)]);
    }
}
