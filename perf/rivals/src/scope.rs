//! Who is connected in one workspace and target, and where a frame goes.
//!
//! The same for every Rust rival; `O` is what that rival sends with. A frame must be JSON as a
//! whole, and of its members type, session and request are looked at.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;

use crate::admission::Role;

/// One end, and what is sent to it with.
#[derive(Clone, Debug)]
pub(crate) struct Member<O> {
    /// Different for every connection of the process.
    pub(crate) id: u64,
    pub(crate) role: Role,
    pub(crate) outbox: O,
}

/// The ends of one workspace and target.
#[derive(Debug)]
pub(crate) struct Scope<O> {
    daemon: Option<Member<O>>,
    /// The client that each session belongs to.
    owners: HashMap<String, Member<O>>,
    /// The client that each open key exchange was begun by.
    askers: HashMap<String, Member<O>>,
}

/// What is looked at in a frame. Borrowed unless a string has escapes in it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    session_id: Cow<'a, str>,
    #[serde(borrow, default)]
    request_id: Cow<'a, str>,
}

/// Where a frame goes.
#[derive(Debug)]
pub(crate) enum Route<'a, O> {
    To(&'a O),
    /// No daemon is there, or the session is somebody else's or over.
    Nowhere,
}

/// The frame is not JSON, or lacks its type.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct NoEnvelope;

impl<O> Default for Scope<O> {
    fn default() -> Self {
        Self { daemon: None, owners: HashMap::new(), askers: HashMap::new() }
    }
}

impl<O: Clone> Scope<O> {
    /// Lets an end in. False for a second daemon.
    pub(crate) fn join(&mut self, member: &Member<O>) -> bool {
        match member.role {
            Role::Client => true,
            Role::WorkspaceDaemon if self.daemon.is_some() => false,
            Role::WorkspaceDaemon => {
                self.daemon = Some(member.clone());
                true
            }
        }
    }

    /// Forgets an end, and with a daemon its sessions.
    pub(crate) fn leave(&mut self, member: &Member<O>) {
        match member.role {
            Role::WorkspaceDaemon => {
                self.daemon = None;
                self.owners.clear();
                self.askers.clear();
            }
            Role::Client => {
                self.owners.retain(|_, owner| owner.id != member.id);
                self.askers.retain(|_, asker| asker.id != member.id);
            }
        }
    }

    /// Where a frame of `from` goes. A key exchange on its way makes its client known by its
    /// request, and the answer to it makes that client the session's owner.
    pub(crate) fn route(
        &mut self,
        from: &Member<O>,
        text: &str,
    ) -> Result<Route<'_, O>, NoEnvelope> {
        let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|_| NoEnvelope)?;
        let to = match from.role {
            Role::Client => {
                let owner = self.owners.get(&*envelope.session_id);
                let owns = owner.is_some_and(|owner| owner.id == from.id);
                if envelope.kind == KEY_EXCHANGE_INIT {
                    self.askers.insert(envelope.request_id.into_owned(), from.clone());
                } else if !owns {
                    return Ok(Route::Nowhere);
                }
                self.daemon.as_ref()
            }
            Role::WorkspaceDaemon => {
                if envelope.kind == KEY_EXCHANGE_RESPONSE
                    && let Some(asker) = self.askers.remove(&*envelope.request_id)
                {
                    self.owners.insert(envelope.session_id.clone().into_owned(), asker);
                }
                self.owners.get(&*envelope.session_id)
            }
        };
        Ok(to.map_or(Route::Nowhere, |to| Route::To(&to.outbox)))
    }
}

const KEY_EXCHANGE_INIT: &str = "relay_key_exchange_init";
const KEY_EXCHANGE_RESPONSE: &str = "relay_key_exchange_response";

#[cfg(test)]
mod tests {
    use super::*;

    const INIT: &str = r#"{"type":"relay_key_exchange_init","requestId":"r"}"#;
    const RESPONSE: &str =
        r#"{"type":"relay_key_exchange_response","requestId":"r","sessionId":"s"}"#;
    const FRAME: &str = r#"{"type":"e2ee","sessionId":"s","ciphertext":"AAAA"}"#;

    fn member(id: u64, role: Role) -> Member<&'static str> {
        let outbox = if role == Role::Client { "client" } else { "daemon" };
        Member { id, role, outbox }
    }

    fn to(scope: &mut Scope<&'static str>, from: &Member<&'static str>, text: &str) -> String {
        match scope.route(from, text) {
            Ok(Route::To(outbox)) => (*outbox).to_owned(),
            Ok(Route::Nowhere) => "nowhere".to_owned(),
            Err(NoEnvelope) => "no envelope".to_owned(),
        }
    }

    #[test]
    fn a_session_belongs_to_the_client_that_began_it_until_it_leaves() {
        let mut scope = Scope::default();
        let daemon = member(0, Role::WorkspaceDaemon);
        let (client, other) = (member(1, Role::Client), member(2, Role::Client));
        assert!(scope.join(&daemon) && scope.join(&client) && scope.join(&other));
        assert_eq!(to(&mut scope, &client, FRAME), "nowhere");
        assert_eq!(to(&mut scope, &client, INIT), "daemon");
        assert_eq!(to(&mut scope, &daemon, RESPONSE), "client");
        assert_eq!(to(&mut scope, &client, FRAME), "daemon");
        assert_eq!(to(&mut scope, &other, FRAME), "nowhere");
        assert_eq!(to(&mut scope, &daemon, FRAME), "client");
        scope.leave(&client);
        assert_eq!(to(&mut scope, &daemon, FRAME), "nowhere");
    }

    #[test]
    fn a_scope_has_one_daemon_and_ends_its_sessions_with_it() {
        let mut scope = Scope::default();
        let (daemon, client) = (member(0, Role::WorkspaceDaemon), member(1, Role::Client));
        assert!(scope.join(&daemon) && scope.join(&client));
        assert!(!scope.join(&member(2, Role::WorkspaceDaemon)));
        to(&mut scope, &client, INIT);
        to(&mut scope, &daemon, RESPONSE);
        scope.leave(&daemon);
        assert!(scope.join(&member(3, Role::WorkspaceDaemon)));
        assert_eq!(to(&mut scope, &client, FRAME), "nowhere");
    }

    #[test]
    fn a_frame_is_json_to_its_end() {
        let mut scope = Scope::default();
        let client = member(1, Role::Client);
        for text in ["", "{}", "[]", r#"{"type":"e2ee""#, r#"{"type":"e2ee","x":[1,}"#] {
            assert_eq!(to(&mut scope, &client, text), "no envelope", "{text}");
        }
    }
}
