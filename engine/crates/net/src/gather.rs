//! Puts together the replies of a command that went to several workers.

use std::collections::HashMap;

use mrtc_core::error::Error;
use mrtc_core::event::{Event, Reply};
use mrtc_core::id::CommandId;
use serde_json::Value;

#[derive(Debug)]
struct Part {
    missing: usize,
    merged: Value,
    error: Option<Error>,
}

/// Replies that are not complete yet.
#[derive(Debug, Default)]
pub(crate) struct Gather(HashMap<CommandId, Part>);

impl Gather {
    /// Expects that many replies to a command.
    pub(crate) fn expect(&mut self, command: CommandId, count: usize) {
        self.0.insert(command, Part { missing: count, merged: Value::Null, error: None });
    }

    /// Takes an event; gives it back if it concerns one worker only, or the joint reply when the last part is here.
    pub(crate) fn take(&mut self, event: Event) -> Option<Event> {
        let Event::Reply { command, result } = event else { return Some(event) };
        let Some(part) = self.0.get_mut(&command) else { return Some(Event::Reply { command, result }) };
        part.missing -= 1;
        match result {
            Ok(Reply::Json(json)) => merge(&mut part.merged, serde_json::from_str(&json).unwrap_or(Value::Null)),
            Ok(_) => {}
            Err(error) => part.error = Some(error),
        }
        if part.missing > 0 {
            return None;
        }
        let part = self.0.remove(&command)?;
        let result = part.error.map_or_else(|| Ok(Reply::Json(part.merged.to_string())), Err);
        Some(Event::Reply { command, result })
    }
}

/// Lists are joined, objects merged key by key, counts added; of other values the first one stays.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (into @ Value::Null, from) => *into = from,
        (Value::Array(into), Value::Array(from)) => into.extend(from),
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Number(into), Value::Number(from)) => {
            if let (Some(a), Some(b)) = (into.as_u64(), from.as_u64()) {
                *into = a.saturating_add(b).into();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(result: Result<Reply, Error>) -> Event {
        Event::Reply { command: CommandId(1), result }
    }

    fn json(text: &str) -> Event {
        reply(Ok(Reply::Json(text.into())))
    }

    #[test]
    fn parts_are_joined() {
        let mut gather = Gather::default();
        gather.expect(CommandId(1), 2);
        assert!(gather.take(json(r#"{"room":"r","tracks":[{"id":"a","n":1}],"packets":5}"#)).is_none());
        let Some(Event::Reply { result: Ok(Reply::Json(text)), .. }) =
            gather.take(json(r#"{"room":"r","tracks":[{"id":"b","n":2}],"packets":6}"#))
        else {
            panic!()
        };
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["tracks"].as_array().unwrap().len(), 2);
        assert_eq!((value["room"].as_str(), value["packets"].as_u64()), (Some("r"), Some(11)));
        assert!(gather.0.is_empty());
    }

    #[test]
    fn one_error_is_the_result() {
        let mut gather = Gather::default();
        gather.expect(CommandId(1), 2);
        assert!(gather.take(reply(Err(Error::BadRequest("x".into())))).is_none());
        assert!(matches!(gather.take(json("[]")), Some(Event::Reply { result: Err(_), .. })));
    }

    #[test]
    fn others_pass() {
        let mut gather = Gather::default();
        assert!(gather.take(reply(Ok(Reply::Done))).is_some());
        assert!(gather.take(Event::RelayUp { relay: "r".into() }).is_some());
    }
}
