//! Whose certificates a door of ours takes, and how long a chain it looks at.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};

/// Certificates a client may show beside its own. Protects the shard from a stranger's chain that
/// takes long to look at: of intermediates that have one name in common webpki tries every order,
/// in up to 200,000 steps, and looks at no signature meanwhile. Twelve take that many, which in a
/// build of tests is 170 ms of the shard; four take 65 steps and 0.15 ms. Public authorities need
/// one or two, those of companies seldom three.
/// Reached: the handshake fails with [`ChainTooLong`].
pub(crate) const INTERMEDIATES_MAX: usize = 4;

/// A client shows more certificates than anybody needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{intermediates} certificates beside the client's own, the limit is {INTERMEDIATES_MAX}")]
pub(crate) struct ChainTooLong {
    pub(crate) intermediates: usize,
}

/// Who connects without a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Strangers {
    /// They are let in.
    Admitted,
    /// Their handshake fails.
    Refused,
}

/// Lets those in for whom one of these authorities vouches, by a chain of bounded length.
///
/// Errors: there is no authority.
pub(crate) fn verifier(
    authorities: RootCertStore,
    strangers: Strangers,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider);
    let builder = match strangers {
        Strangers::Admitted => builder.allow_unauthenticated(),
        Strangers::Refused => builder,
    };
    Ok(Arc::new(ShortChains { judge: builder.build()? }))
}

/// Refuses long chains before anybody looks into them.
#[derive(Debug)]
struct ShortChains {
    judge: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for ShortChains {
    fn offer_client_auth(&self) -> bool {
        self.judge.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.judge.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.judge.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if intermediates.len() > INTERMEDIATES_MAX {
            let refusal = ChainTooLong { intermediates: intermediates.len() };
            let refusal = CertificateError::Other(OtherError(Arc::new(refusal)));
            return Err(Error::InvalidCertificate(refusal));
        }
        self.judge.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.judge.requires_raw_public_keys()
    }
}

#[cfg(test)]
#[path = "clients_tests.rs"]
mod tests;
