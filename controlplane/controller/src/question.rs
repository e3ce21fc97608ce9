//! Questions to the platform, told apart without keeping tokens.

use std::hash::{BuildHasher, RandomState};

use relay_contract::{Secret, UpgradeRequest};
use sha2::{Digest, Sha256};

/// Stands for one question: this token, for this role, workspace and target. Keyed with randomness
/// of this process, so it says nothing about the token to whoever reads it, and nobody can look for
/// two tokens with one print.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct QuestionPrint([u8; 16]);

/// Makes prints.
#[derive(Debug)]
pub(crate) struct Printer {
    keyed: Sha256,
}

impl Printer {
    pub(crate) fn new() -> Self {
        let mut keyed = Sha256::new();
        for _ in 0..4 {
            keyed.update(RandomState::new().hash_one(0_u64).to_le_bytes());
        }
        Self { keyed }
    }

    /// The print of a question. Cost: a SHA-256 of the token.
    pub(crate) fn print(&self, request: &UpgradeRequest, token: &Secret) -> QuestionPrint {
        // No target has an empty name, so an empty one stands for none.
        let target = request.target_id.as_ref().map_or("", |target| target.as_str());
        let (role, workspace) = (request.role.name(), request.workspace_id.as_str());
        let parts = [role, workspace, target, token.expose()].map(str::as_bytes);
        QuestionPrint(self.digest(&parts))
    }

    /// A digest of these parts, under the key of this printer.
    pub(crate) fn digest(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut sha = self.keyed.clone();
        for part in parts {
            // Lengths keep parts apart.
            sha.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            sha.update(part);
        }
        let digest: [u8; 32] = sha.finalize().into();
        let (half, _) = digest.split_first_chunk().expect("a digest has 32 bytes");
        *half
    }
}

#[cfg(test)]
mod tests {
    use relay_contract::Role;

    use super::*;

    fn request(role: Role, workspace: &str, target: Option<&str>) -> UpgradeRequest {
        UpgradeRequest { role, workspace_id: workspace.into(), target_id: target.map(Into::into) }
    }

    #[test]
    fn a_print_stands_for_token_role_workspace_and_target() {
        let printer = Printer::new();
        let token = Secret::from("token-0123456789");
        let client = request(Role::Client, "ws1", Some("rt1"));
        let print = printer.print(&client, &token);
        assert_eq!(printer.print(&client, &token), print);
        assert_ne!(printer.print(&client, &Secret::from("token-0123456780")), print);
        for other in [
            request(Role::Daemon, "ws1", Some("rt1")),
            request(Role::Client, "ws2", Some("rt1")),
            request(Role::Client, "ws1", Some("rt2")),
            request(Role::Client, "ws1", None),
            request(Role::Client, "ws1r", Some("t1")),
        ] {
            assert_ne!(printer.print(&other, &token), print, "{other:?}");
        }
    }

    #[test]
    fn another_process_makes_other_prints() {
        let token = Secret::from("token-0123456789");
        let client = request(Role::Client, "ws1", None);
        assert_ne!(Printer::new().print(&client, &token), Printer::new().print(&client, &token));
    }
}
