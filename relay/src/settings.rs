//! The configuration, as the controller takes it.

use std::sync::Arc;
use std::time::Duration;

use relay_controller::{
    AdminAccess, Admission, BackplaneFacts, Caps, ClientCertificate, ControlAccess, JwksSettings,
    LiveSettings, PlatformTls, Settings, TlsFacts, Verify,
};

use crate::config::{AdmissionMode, Config, ControlApi, TlsVerify};
use crate::version;

/// What the controller is told: the configuration, where the relay listens, and what moves bytes.
pub(crate) fn settings(config: &Config, port: u16, driver: &'static str) -> Settings {
    let listen = &config.listen;
    let platform = &config.platform;
    Settings {
        version: version::VERSION,
        relay_id: config.relay_id.to_string(),
        mode: listen.mode.name(),
        host: listen.host.clone(),
        port,
        server_url: platform.server_url.clone(),
        platform: platform.server.clone(),
        validate_url: platform.validate.clone(),
        public_ws_url: listen.public_ws_url.clone(),
        internal_key: platform.key.clone(),
        internal_key_previous: platform.previous_key.clone(),
        admission: admission(config),
        jwks: jwks(config),
        expiry: config.admission.expiry,
        decision_cache: config.admission.decision_cache,
        revocations_file: config.admission.revocations_file.clone(),
        admission_timeout: platform.admission_timeout,
        admission_response_bytes_max: platform.admission_response_bytes_max,
        internal_timeout: platform.api_timeout,
        internal_response_bytes_max: platform.api_response_bytes_max,
        platform_tls: platform_tls(config),
        admin: admin(config),
        health_verbose: config.admin.verbose,
        state_includes_client_ids: config.admin.client_ids,
        log: config.log,
        tls: tls_facts(config),
        backplane: backplane(config),
        caps: caps(config),
        limits: Arc::new(config.limits.clone()),
        routes: Arc::new(config.routes.clone()),
        memory_budget_bytes: config.memory.budget_bytes,
        driver,
        drain: Duration::from_millis(config.engine.drain_ms),
    }
}

/// What of it can change while the relay runs.
pub(crate) fn live(config: &Config) -> LiveSettings {
    LiveSettings {
        limits: config.limits.clone(),
        routes: config.routes.clone(),
        caps: caps(config),
        log: config.log,
        admin: admin(config),
        state_includes_client_ids: config.admin.client_ids,
        internal_key: config.platform.key.clone(),
        internal_key_previous: config.platform.previous_key.clone(),
        control: Some(control_access(&config.control_api)),
        admission: admission(config),
        jwks: jwks(config),
        expiry: config.admission.expiry,
        decision_cache: config.admission.decision_cache,
        admission_timeout: config.platform.admission_timeout,
        admission_response_bytes_max: config.platform.admission_response_bytes_max,
        internal_timeout: config.platform.api_timeout,
        internal_response_bytes_max: config.platform.api_response_bytes_max,
        drain: Duration::from_millis(config.engine.drain_ms),
    }
}

/// Who may call the control API.
pub(crate) fn control_access(config: &ControlApi) -> ControlAccess {
    ControlAccess { readers: config.readers.clone(), operators: config.operators.clone() }
}

fn admission(config: &Config) -> Admission {
    match config.admission.mode {
        AdmissionMode::Validate => Admission::Validate,
        AdmissionMode::Jwks => Admission::Jwks,
        AdmissionMode::Both => Admission::Both,
    }
}

fn admin(config: &Config) -> AdminAccess {
    AdminAccess {
        enabled: config.admin.enabled,
        token: config.admin.token.clone(),
        previous_token: config.admin.previous_token.clone(),
        separate: config.admin.listen.is_some(),
    }
}

fn jwks(config: &Config) -> Option<JwksSettings> {
    let admission = &config.admission;
    (!admission.issuers.is_empty()).then(|| JwksSettings {
        issuers: admission.issuers.clone(),
        audience: admission.audience.clone(),
        leeway: Duration::from_secs(admission.leeway_secs),
        schedule: admission.schedule,
        unknown_keys: admission.unknown_keys,
        withdrawn: admission.withdrawn,
    })
}

/// TLS towards the platform, as every call to it has it.
pub(crate) fn platform_tls(config: &Config) -> PlatformTls {
    let platform = &config.platform;
    PlatformTls {
        verify: match platform.verify {
            TlsVerify::Auto => Verify::Auto,
            TlsVerify::Always => Verify::Always,
            TlsVerify::Never => Verify::Never,
        },
        ca_path: platform.authorities.clone(),
        client: platform.client_certificate.as_ref().map(|client| ClientCertificate {
            cert_path: client.certificate.clone(),
            key_path: client.key.clone(),
            passphrase: client.passphrase.clone(),
        }),
    }
}

fn tls_facts(config: &Config) -> TlsFacts {
    let tls = &config.listen.tls;
    let shown = |path: &std::path::Path| tls.enabled.then(|| path.display().to_string());
    TlsFacts {
        enabled: tls.enabled,
        host: tls.host.clone(),
        cert_path: shown(&tls.certificate),
        key_path: shown(&tls.key),
    }
}

fn backplane(config: &Config) -> BackplaneFacts {
    let backplane = &config.backplane;
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    BackplaneFacts {
        mode: backplane.mode.name(),
        bus_enabled: backplane.bus,
        client_redirect_enabled: backplane.redirect,
        bus_poll_interval_ms: millis(backplane.bus_poll_interval),
        bus_pull_limit: backplane.bus_pull_limit,
        bus_pull_wait_ms: millis(backplane.bus_pull_wait),
    }
}

fn caps(config: &Config) -> Caps {
    let Config { capacity, admission, .. } = config;
    Caps {
        connections_max: capacity.connections_max,
        connections_per_address_max: capacity.connections_per_address_max,
        clients_per_scope_max: capacity.clients_per_workspace_max,
        upgrades_per_minute: capacity.upgrades_per_minute,
        upgrade_addresses_max: capacity.upgrade_addresses_max,
        pending_admissions_max: capacity.pending_upgrades_max,
        asked_at_once: usize::try_from(admission.validate_concurrency).unwrap_or(usize::MAX),
        admission_wait: admission.wait,
        undecided_per_second: u32::try_from(admission.undecided_per_second).unwrap_or(u32::MAX),
        ..Caps::default()
    }
}
