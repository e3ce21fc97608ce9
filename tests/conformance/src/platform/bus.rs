//! The platform's frame bus.

use serde_json::{Map, Value, json};

use crate::members::Members;

/// Frames in the order of their ids, which count from 1.
#[derive(Debug, Default)]
pub(crate) struct Bus {
    frames: Vec<BusFrame>,
}

#[derive(Clone, Debug)]
struct BusFrame {
    /// The relay a scenario wants it delivered to, whatever the frame says.
    deliver_to: Option<String>,
    members: Members<Value>,
}

/// What a relay asks for.
#[derive(Clone, Debug)]
pub(crate) struct Pull {
    pub(crate) relay_id: String,
    pub(crate) since_id: u64,
    pub(crate) limit: usize,
}

impl Bus {
    pub(crate) fn append(&mut self, deliver_to: Option<String>, members: Members<Value>) {
        self.frames.push(BusFrame { deliver_to, members });
    }

    /// Appends the last frame again; `None` when there is none.
    pub(crate) fn replay(&mut self) -> Option<()> {
        self.frames.push(self.frames.last()?.clone());
        Some(())
    }

    /// The frames meant for a relay, each with its id.
    pub(crate) fn pull(&self, pull: &Pull) -> Vec<Value> {
        let numbered = (1_u64..).zip(&self.frames);
        numbered
            .filter(|(id, frame)| *id > pull.since_id && frame.is_for(&pull.relay_id))
            .take(pull.limit)
            .map(|(id, frame)| frame.with_id(id))
            .collect()
    }
}

impl BusFrame {
    fn is_for(&self, relay_id: &str) -> bool {
        if let Some(deliver_to) = &self.deliver_to {
            return deliver_to == relay_id;
        }
        let text = |name| self.members.get(name).and_then(Value::as_str).unwrap_or_default();
        let target = text("targetRelayId");
        (target.is_empty() || target == relay_id) && text("sourceRelayId") != relay_id
    }

    fn with_id(&self, id: u64) -> Value {
        let members = self.members.iter().map(|(name, value)| (name.to_owned(), value.clone()));
        let mut frame: Map<_, _> = members.collect();
        frame.insert("id".to_owned(), json!(id));
        Value::Object(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(source: &str, target: &str) -> Members<Value> {
        let mut members = Members::default();
        members.set("sourceRelayId", json!(source));
        members.set("targetRelayId", json!(target));
        members
    }

    fn ids(bus: &Bus, relay_id: &str, since_id: u64, limit: usize) -> Vec<u64> {
        let frames = bus.pull(&Pull { relay_id: relay_id.to_owned(), since_id, limit });
        frames.iter().map(|frame| frame["id"].as_u64().unwrap()).collect()
    }

    #[test]
    fn a_relay_pulls_what_is_meant_for_it() {
        let mut bus = Bus::default();
        bus.append(None, frame("b", "a"));
        bus.append(None, frame("a", ""));
        bus.append(None, frame("b", ""));
        bus.append(None, frame("b", "c"));
        bus.append(Some("a".to_owned()), frame("a", "c"));
        bus.replay().unwrap();
        assert_eq!(ids(&bus, "a", 0, 10), [1, 3, 5, 6]);
        assert_eq!(ids(&bus, "a", 1, 2), [3, 5]);
        assert_eq!(ids(&bus, "c", 0, 10), [2, 3, 4]);
    }
}
