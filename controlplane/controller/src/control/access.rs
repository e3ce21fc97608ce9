//! Who may make which call.

use std::fmt;

use relay_link::Caller;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use tokio::sync::watch;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::ControlAccess;

/// What a caller may do. An operator may do all that a reader may.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Role {
    /// Calls that change nothing.
    Reader,
    /// Every call.
    Operator,
}

/// Who makes a call. Its `Debug` shows no digest of a token.
#[derive(Clone)]
pub(crate) struct Who {
    pub(super) caller: Caller,
    /// What they may do; nothing, if they are nobody.
    pub(super) role: Option<Role>,
    /// Digest of the token they are known by.
    pub(super) token: Option<[u8; 32]>,
}

impl fmt::Debug for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Who");
        shown.field("caller", &self.caller).field("role", &self.role).finish_non_exhaustive()
    }
}

/// Judges tokens.
#[derive(Debug)]
pub(crate) struct Access {
    /// The tokens in force, and who has to hear of others: streams that go on.
    known: watch::Sender<Known>,
}

/// Digests of tokens, so that a comparison tells nothing about them, their length included. Its
/// `Debug` shows none.
#[derive(Eq, PartialEq)]
struct Known(Vec<(Role, [u8; 32])>);

impl Access {
    pub(crate) fn new(access: &ControlAccess) -> Self {
        Self { known: watch::Sender::new(Known::of(access)) }
    }

    /// Other tokens in the place of these, from the next call on.
    pub(crate) fn replace(&self, access: &ControlAccess) {
        let new = Known::of(access);
        self.known.send_if_modified(|known| {
            let is_other = *known != new;
            *known = new;
            is_other
        });
    }

    /// Completes when somebody who could make such calls may not any more, with what they are told.
    pub(super) async fn withdrawn(&self, who: &Who, needed: Role) -> Status {
        let mut changes = self.known.subscribe();
        loop {
            if let Err(status) = self.known.borrow().again(who).permits(needed) {
                return status;
            }
            // The other end lives as long as this does.
            let _ = changes.changed().await;
        }
    }

    /// Who this caller is.
    ///
    /// A path's permissions decide about those who come through it. Others need a token where there
    /// are any; where there are none, the program saw to it that the port is on loopback or that
    /// certificates are checked.
    pub(crate) fn identify(&self, caller: &Caller, head: &MetadataMap) -> Who {
        self.known.borrow().identify(caller, shown_token(head).map(digest))
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Known(..)")
    }
}

impl Known {
    fn of(access: &ControlAccess) -> Self {
        let readers = access.readers.iter().map(|token| (Role::Reader, digest(token.expose())));
        let operators =
            access.operators.iter().map(|token| (Role::Operator, digest(token.expose())));
        Self(readers.chain(operators).collect())
    }

    fn identify(&self, caller: &Caller, shown: Option<[u8; 32]>) -> Who {
        let caller = caller.clone();
        if matches!(caller, Caller::Local { .. }) || self.0.is_empty() {
            return Who { caller, role: Some(Role::Operator), token: None };
        }
        let role = shown.and_then(|shown| self.role_of(&shown));
        Who { caller, role, token: shown.filter(|_| role.is_some()) }
    }

    /// Who somebody is by the tokens that are in force now.
    fn again(&self, who: &Who) -> Who {
        self.identify(&who.caller, who.token)
    }

    /// Takes as long whichever token it is, and whether it is one.
    fn role_of(&self, shown: &[u8; 32]) -> Option<Role> {
        let mut is_reader = Choice::from(0);
        let mut is_operator = Choice::from(0);
        for (role, known) in &self.0 {
            let is_same = shown.ct_eq(known);
            match role {
                Role::Reader => is_reader |= is_same,
                Role::Operator => is_operator |= is_same,
            }
        }
        match (is_operator.into(), is_reader.into()) {
            (true, _) => Some(Role::Operator),
            (false, true) => Some(Role::Reader),
            (false, false) => None,
        }
    }
}

impl Who {
    /// Whether they may make such calls.
    ///
    /// # Errors
    /// UNAUTHENTICATED for nobody, PERMISSION_DENIED for somebody with too little.
    pub(super) fn permits(&self, needed: Role) -> Result<(), Status> {
        match self.role {
            Some(role) if role >= needed => Ok(()),
            Some(_) => Err(Status::permission_denied(
                "the token is a reader's; this call needs that of an operator",
            )),
            None => Err(Status::unauthenticated(
                "no token of this relay's: send the metadata `authorization: Bearer <token>`",
            )),
        }
    }

    /// As the audit log shows them.
    pub(super) fn shown(&self) -> Value {
        let mut shown = json!({ "role": self.role.map_or("nobody", Role::name) });
        match &self.caller {
            Caller::Local { uid, pid } => {
                shown["via"] = "unix".into();
                shown["uid"] = (*uid).into();
                if let Some(pid) = pid {
                    shown["pid"] = (*pid).into();
                }
            }
            Caller::Remote { address, certificate_sha256 } => {
                shown["via"] = "tcp".into();
                shown["address"] = address.to_string().into();
                if let Some(digest) = certificate_sha256 {
                    shown["certificate"] = fingerprint(digest).into();
                }
            }
        }
        if let Some(digest) = &self.token {
            shown["token"] = fingerprint(digest).into();
        }
        shown
    }
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
        }
    }
}

/// Enough of a digest to tell who it was among those who are known.
fn fingerprint(digest: &[u8; 32]) -> String {
    let start: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{start}")
}

/// The token of `authorization: Bearer <token>`.
fn shown_token(head: &MetadataMap) -> Option<&str> {
    let text = head.get("authorization")?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("Bearer") && !token.is_empty()).then_some(token)
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use relay_contract::Secret;
    use tonic::Code;

    use super::*;

    const LOCAL: Caller = Caller::Local { uid: 0, pid: None };

    fn remote() -> Caller {
        let address = (Ipv4Addr::LOCALHOST, 4000).into();
        Caller::Remote { address, certificate_sha256: None }
    }

    fn access() -> Access {
        Access::new(&ControlAccess {
            readers: vec![Secret::from("read"), Secret::from("read-before")],
            operators: vec![Secret::from("operate"), Secret::from("operate-before")],
        })
    }

    fn head(authorization: Option<&str>) -> MetadataMap {
        let mut head = MetadataMap::new();
        if let Some(text) = authorization {
            head.insert("authorization", text.parse().unwrap());
        }
        head
    }

    fn judged(authorization: Option<&str>) -> Option<Role> {
        access().identify(&remote(), &head(authorization)).role
    }

    #[test]
    fn a_token_says_what_its_bearer_may_do_and_so_does_the_one_before_it() {
        for (token, role) in [
            ("read", Role::Reader),
            ("read-before", Role::Reader),
            ("operate", Role::Operator),
            ("operate-before", Role::Operator),
        ] {
            assert_eq!(judged(Some(&format!("Bearer {token}"))), Some(role), "{token}");
        }
        assert_eq!(judged(Some("bearer  operate ")), Some(Role::Operator));
    }

    #[test]
    fn debug_shows_no_digest() {
        let who = access().identify(&remote(), &head(Some("Bearer operate")));
        let Some(digest) = who.token else {
            panic!("it is known by its token");
        };
        let shown = format!("{:?} {who:?}", access());
        assert!(shown.contains("Known(..)") && shown.contains("role: Some(Operator)"), "{shown}");
        assert!(
            !shown.contains(&format!("{}, {}, {}", digest[0], digest[1], digest[2])),
            "{shown}"
        );
    }

    #[test]
    fn nothing_or_something_else_is_nobody() {
        for shown in
            [None, Some("Bearer "), Some("operate"), Some("Basic operate"), Some("Bearer operat")]
        {
            assert_eq!(judged(shown), None, "{shown:?}");
        }
        let nobody = access().identify(&remote(), &head(None));
        assert_eq!(nobody.permits(Role::Reader).unwrap_err().code(), Code::Unauthenticated);
    }

    #[test]
    fn who_may_open_the_path_needs_no_token() {
        assert_eq!(access().identify(&LOCAL, &head(None)).role, Some(Role::Operator));
    }

    #[test]
    fn without_tokens_the_way_in_decides() {
        let access = Access::new(&ControlAccess::default());
        assert_eq!(access.identify(&remote(), &head(None)).role, Some(Role::Operator));
    }

    #[test]
    fn tokens_are_replaced_and_the_old_ones_end() {
        let access = access();
        let readers = vec![Secret::from("read-next"), Secret::from("read")];
        access.replace(&ControlAccess { readers, operators: vec![Secret::from("operate")] });
        let role =
            |token: &str| access.identify(&remote(), &head(Some(&format!("Bearer {token}")))).role;
        for (token, expected) in [
            ("read-next", Some(Role::Reader)),
            ("read", Some(Role::Reader)),
            ("read-before", None),
            ("operate", Some(Role::Operator)),
            ("operate-before", None),
        ] {
            assert_eq!(role(token), expected, "{token}");
        }
    }

    #[tokio::test]
    async fn who_has_a_token_that_ends_hears_of_it_and_nobody_else_does() {
        let access = access();
        let who = |token: &str| access.identify(&remote(), &head(Some(&format!("Bearer {token}"))));
        let (old, new, local) =
            (who("read-before"), who("read"), access.identify(&LOCAL, &head(None)));
        let [mut ending, mut staying, mut here] =
            [&old, &new, &local].map(|who| Box::pin(access.withdrawn(who, Role::Reader)));
        for waiting in [&mut ending, &mut staying, &mut here] {
            assert!(now_or_never(waiting).await.is_none());
        }
        let readers = vec![Secret::from("read")];
        access.replace(&ControlAccess { readers, operators: vec![] });
        let said = now_or_never(&mut ending).await;
        assert_eq!(said.map(|status| status.code()), Some(Code::Unauthenticated));
        assert!(now_or_never(&mut staying).await.is_none());
        assert!(now_or_never(&mut here).await.is_none());
    }

    /// What a future comes to without waiting for anything.
    async fn now_or_never<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        tokio::select! {
            biased;
            done = future => Some(done),
            () = std::future::ready(()) => None,
        }
    }

    #[test]
    fn a_reader_is_told_that_an_operator_may() {
        let reader = access().identify(&remote(), &head(Some("Bearer read")));
        assert!(reader.permits(Role::Reader).is_ok());
        assert_eq!(reader.permits(Role::Operator).unwrap_err().code(), Code::PermissionDenied);
    }

    #[test]
    fn who_it_was_is_shown_without_the_token() {
        let shown = access().identify(&remote(), &head(Some("Bearer operate"))).shown();
        assert_eq!(
            shown,
            json!({
                "role": "operator", "via": "tcp", "address": "127.0.0.1:4000",
                "token": "sha256:2c29d39181de8f85",
            })
        );
        let shown = access().identify(&remote(), &head(Some("Bearer a-typed-password"))).shown();
        assert_eq!(
            shown.to_string(),
            r#"{"address":"127.0.0.1:4000","role":"nobody","via":"tcp"}"#,
            "of what is no token of ours nothing is kept"
        );
    }

    #[test]
    fn no_token_is_shown_by_debug() {
        let access = ControlAccess { readers: vec![Secret::from("hush")], operators: vec![] };
        assert!(!format!("{access:?}").contains("hush"));
    }
}
