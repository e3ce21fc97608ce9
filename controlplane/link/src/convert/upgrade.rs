//! Upgrades: what is asked for, what is granted.

use relay_contract::{
    AdmissionId, AdmissionRequest, Claims, Credential, Grant, Preflight, Profile, Refusal, Role,
    Scope, Secret, UpgradeRequest,
};
use relay_grpc::plane::v1;

use super::{BadMessage, address_in, address_out};

/// Bytes of an identifier: 128 UTF-16 units of any text.
const ID_BYTES_MAX: usize = 128 * 3;

pub(super) fn id_in(text: String, what: &'static str) -> Result<String, BadMessage> {
    match text.len() {
        1..=ID_BYTES_MAX => Ok(text),
        _ => Err(BadMessage::OutOfRange(what)),
    }
}

pub(super) fn target_in<T: From<String>>(text: Option<String>) -> Result<Option<T>, BadMessage> {
    text.map(|text| id_in(text, "target").map(T::from)).transpose()
}

pub(super) fn request_in(
    request: Option<v1::UpgradeRequest>,
) -> Result<UpgradeRequest, BadMessage> {
    let v1::UpgradeRequest { role, workspace_id, target_id } =
        request.ok_or(BadMessage::Missing("request"))?;
    Ok(UpgradeRequest {
        role: match v1::Role::try_from(role) {
            Ok(v1::Role::Daemon) => Role::Daemon,
            Ok(v1::Role::Client) => Role::Client,
            Ok(v1::Role::Worker) => Role::Worker,
            Ok(v1::Role::Unspecified) | Err(_) => return Err(BadMessage::Unknown("role")),
        },
        workspace_id: id_in(workspace_id, "workspace")?.into(),
        target_id: target_in(target_id)?,
    })
}

pub(super) fn request_out(request: UpgradeRequest) -> Option<v1::UpgradeRequest> {
    let UpgradeRequest { role, workspace_id, target_id } = request;
    let role = match role {
        Role::Daemon => v1::Role::Daemon,
        Role::Client => v1::Role::Client,
        Role::Worker => v1::Role::Worker,
    };
    Some(v1::UpgradeRequest {
        role: role.into(),
        workspace_id: workspace_id.into(),
        target_id: target_id.map(Into::into),
    })
}

pub(super) fn asked_in(
    address: &[u8],
    preflight: Option<v1::admission_asked::Preflight>,
) -> Result<Box<AdmissionRequest>, BadMessage> {
    use v1::admission_asked::Preflight as Wire;
    let preflight = match preflight.ok_or(BadMessage::Missing("preflight"))? {
        Wire::UnparsableUrl(v1::Unit {}) => Preflight::UnparsableUrl,
        Wire::OtherPath(v1::Unit {}) => Preflight::OtherPath,
        Wire::ForeignOrigin(v1::ForeignOrigin { origin }) => {
            Preflight::ForeignOrigin { origin: origin.map(Into::into) }
        }
        Wire::InvalidQuery(v1::Unit {}) => Preflight::InvalidQuery,
        Wire::MissingToken(v1::Unit {}) => Preflight::MissingToken,
        Wire::Ask(v1::Ask { request, token }) => {
            let token = Secret::new(token);
            Preflight::Ask { request: request_in(request)?, token }
        }
    };
    Ok(Box::new(AdmissionRequest { address: address_in(address)?, preflight }))
}

pub(super) fn preflight_out(preflight: Preflight) -> Option<v1::admission_asked::Preflight> {
    use v1::admission_asked::Preflight as Wire;
    Some(match preflight {
        Preflight::UnparsableUrl => Wire::UnparsableUrl(v1::Unit {}),
        Preflight::OtherPath => Wire::OtherPath(v1::Unit {}),
        Preflight::ForeignOrigin { origin } => {
            Wire::ForeignOrigin(v1::ForeignOrigin { origin: origin.map(Into::into) })
        }
        Preflight::InvalidQuery => Wire::InvalidQuery(v1::Unit {}),
        Preflight::MissingToken => Wire::MissingToken(v1::Unit {}),
        Preflight::Ask { request, token } => {
            Wire::Ask(v1::Ask { request: request_out(request), token: token.expose().to_owned() })
        }
    })
}

pub(super) fn grant_in(grant: Option<v1::Grant>) -> Result<Box<Grant>, BadMessage> {
    let v1::Grant { admission, request, claims, address, claims_digest, credential } =
        grant.ok_or(BadMessage::Missing("grant"))?;
    Ok(Box::new(Grant {
        admission: AdmissionId(admission),
        request: request_in(request)?,
        claims: claims_in(claims.ok_or(BadMessage::Missing("claims"))?)?,
        claims_digest,
        credential: credential_in(credential),
        address: address_in(&address)?,
    }))
}

pub(super) fn grant_out(grant: Grant) -> v1::Grant {
    let Grant { admission, request, claims, claims_digest, credential, address } = grant;
    v1::Grant {
        admission: admission.0,
        request: request_out(request),
        claims: Some(claims_out(claims)),
        address: address_out(address),
        claims_digest,
        credential: Some(credential_out(credential)),
    }
}

pub(super) fn credential_in(credential: Option<v1::Credential>) -> Credential {
    let credential = credential.unwrap_or_default();
    Credential {
        issuer: credential.issuer.map(Into::into),
        key_id: credential.key_id.map(Into::into),
        token_id: credential.token_id.map(Into::into),
        subject: credential.subject.map(Into::into),
        expires_at_secs: credential.expires_at_secs,
        // A digest of another form is that of a later version: the key is not known.
        key_print: credential.key_print.and_then(|print| print.try_into().ok()),
    }
}

pub(super) fn credential_out(credential: Credential) -> v1::Credential {
    v1::Credential {
        issuer: credential.issuer.map(Into::into),
        key_id: credential.key_id.map(Into::into),
        token_id: credential.token_id.map(Into::into),
        subject: credential.subject.map(Into::into),
        expires_at_secs: credential.expires_at_secs,
        key_print: credential.key_print.map(Into::into),
    }
}

fn claims_in(claims: v1::Claims) -> Result<Claims, BadMessage> {
    let scope = match v1::ClientScope::try_from(claims.scope) {
        Ok(v1::ClientScope::Unspecified) => None,
        Ok(v1::ClientScope::Runtime) => Some(Scope::Runtime),
        Ok(v1::ClientScope::Pairing) => Some(Scope::Pairing),
        Ok(v1::ClientScope::SessionEvents) => Some(Scope::SessionEvents),
        Err(_) => return Err(BadMessage::Unknown("scope")),
    };
    let e2ee_profile = match v1::Profile::try_from(claims.e2ee_profile) {
        Ok(v1::Profile::Unspecified) => None,
        Ok(v1::Profile::NoiseIk) => Some(Profile::NoiseIk),
        Ok(v1::Profile::NoiseIkpsk2) => Some(Profile::NoiseIkpsk2),
        Err(_) => return Err(BadMessage::Unknown("profile")),
    };
    let channels = |channels: v1::Channels| channels.names.into_iter().map(Into::into).collect();
    Ok(Claims {
        client_id: claims.client_id.map(Into::into),
        workspace_id: claims.workspace_id.map(Into::into),
        runtime_target_id: claims.runtime_target_id.map(Into::into),
        machine_id: claims.machine_id.map(Into::into),
        managed_executor_id: claims.managed_executor_id.map(Into::into),
        scope,
        session_channels: claims.session_channels.map(channels),
        e2ee_profile,
        daemon_issue_generation: claims.daemon_issue_generation,
        token_id: claims.token_id.map(Into::into),
        expires_at_secs: claims.expires_at_secs,
    })
}

fn claims_out(claims: Claims) -> v1::Claims {
    let scope = match claims.scope {
        None => v1::ClientScope::Unspecified,
        Some(Scope::Runtime) => v1::ClientScope::Runtime,
        Some(Scope::Pairing) => v1::ClientScope::Pairing,
        Some(Scope::SessionEvents) => v1::ClientScope::SessionEvents,
    };
    let profile = match claims.e2ee_profile {
        None => v1::Profile::Unspecified,
        Some(Profile::NoiseIk) => v1::Profile::NoiseIk,
        Some(Profile::NoiseIkpsk2) => v1::Profile::NoiseIkpsk2,
    };
    let names = |channels: Box<[Box<str>]>| channels.into_iter().map(String::from).collect();
    v1::Claims {
        client_id: claims.client_id.map(Into::into),
        workspace_id: claims.workspace_id.map(Into::into),
        runtime_target_id: claims.runtime_target_id.map(Into::into),
        machine_id: claims.machine_id.map(Into::into),
        managed_executor_id: claims.managed_executor_id.map(Into::into),
        scope: scope.into(),
        session_channels: claims
            .session_channels
            .map(|channels| v1::Channels { names: names(channels) }),
        e2ee_profile: profile.into(),
        daemon_issue_generation: claims.daemon_issue_generation,
        token_id: claims.token_id.map(Into::into),
        expires_at_secs: claims.expires_at_secs,
    }
}

pub(super) fn refusal_in(refusal: Option<v1::refuse::Refusal>) -> Result<Refusal, BadMessage> {
    use v1::refuse::Refusal as Wire;
    Ok(match refusal.ok_or(BadMessage::Missing("refusal"))? {
        Wire::Drop(v1::Unit {}) => Refusal::Drop,
        Wire::BadRequest(v1::Unit {}) => Refusal::BadRequest,
        Wire::Unauthorized(v1::Unit {}) => Refusal::Unauthorized,
        Wire::Forbidden(v1::Unit {}) => Refusal::Forbidden,
        Wire::TooManyRequests(v1::Unit {}) => Refusal::TooManyRequests,
        Wire::Full(v1::Unit {}) => Refusal::Full,
        Wire::Unavailable(secs) => Refusal::Unavailable {
            retry_after_secs: u16::try_from(secs).map_err(|_| BadMessage::OutOfRange("retry"))?,
        },
    })
}

pub(super) fn refusal_out(refusal: Refusal) -> Option<v1::refuse::Refusal> {
    use v1::refuse::Refusal as Wire;
    Some(match refusal {
        Refusal::Drop => Wire::Drop(v1::Unit {}),
        Refusal::BadRequest => Wire::BadRequest(v1::Unit {}),
        Refusal::Unauthorized => Wire::Unauthorized(v1::Unit {}),
        Refusal::Forbidden => Wire::Forbidden(v1::Unit {}),
        Refusal::TooManyRequests => Wire::TooManyRequests(v1::Unit {}),
        Refusal::Full => Wire::Full(v1::Unit {}),
        Refusal::Unavailable { retry_after_secs } => Wire::Unavailable(retry_after_secs.into()),
    })
}
