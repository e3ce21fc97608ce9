use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use rustls::crypto::aws_lc_rs;
use rustls::server::NoClientAuth;
use rustls::{ClientConfig, ClientConnection, ConnectionCommon, ServerConfig, ServerConnection};
use rustls_pki_types::PrivatePkcs8KeyDer;

use super::super::tests::{files, write_pair};
use super::super::{Loader, certificates};
use super::*;
use crate::config::{self, ClientAuth, ControlTls};
use crate::door_certificates::{DoorCertificates, Names};

/// What a client shows: its own certificate and those beside it.
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![]).expect("no names");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn authority(name: &str, by: Option<&Issuer>) -> Issuer {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let made = match by {
        Some(issuer) => CertifiedIssuer::signed_by(params, key, issuer),
        None => CertifiedIssuer::self_signed(params, key),
    };
    made.expect("an authority")
}

fn leaf(by: &Issuer, beside: &[Issuer]) -> Shown {
    let key = KeyPair::generate().expect("a key");
    let mut params = named("client");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let own = params.signed_by(&key, by).expect("a certificate");
    let beside = beside.iter().rev().map(|issuer| issuer.der().clone());
    Shown { chain: [own.der().clone()].into_iter().chain(beside).collect(), key }
}

/// A client with so many authorities between the one that is known here and itself.
fn below(root: &Issuer, count: usize) -> Shown {
    let mut between: Vec<Issuer> = Vec::new();
    for index in 0..count {
        let issuer = authority(&format!("between {index}"), between.last().or(Some(root)));
        between.push(issuer);
    }
    leaf(between.last().unwrap_or(root), &between)
}

/// A stranger with twelve authorities of one name, each of which may have made any other.
fn twelve_of_one_name() -> Shown {
    let made: Vec<_> = (0..12).map(|_| authority("one name", None)).collect();
    leaf(&made[0], &made)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn judged_by(verifier: &dyn ClientCertVerifier, shown: &Shown) -> Result<(), Error> {
    let (own, beside) = shown.chain.split_first().expect("a certificate");
    verifier.verify_client_cert(own, beside, UnixTime::now()).map(|_| ())
}

fn too_long(error: &Error) -> Option<ChainTooLong> {
    let Error::InvalidCertificate(CertificateError::Other(OtherError(why))) = error else {
        return None;
    };
    why.downcast_ref().copied()
}

#[test]
fn twelve_authorities_of_one_name_are_refused_and_nobody_looks_for_a_path() {
    // It panics when asked about a certificate.
    let verifier = ShortChains { judge: Arc::new(NoClientAuth {}) };
    let error = judged_by(&verifier, &twelve_of_one_name()).expect_err("refused");
    assert_eq!(too_long(&error), Some(ChainTooLong { intermediates: 12 }));
    let said = too_long(&error).expect("too long").to_string();
    assert_eq!(said, "12 certificates beside the client's own, the limit is 4");
}

#[test]
fn chains_that_people_have_are_looked_at() {
    let root = authority("root", None);
    let mut roots = RootCertStore::empty();
    roots.add(root.der().clone()).expect("a root");
    let verifier = verifier(roots, Strangers::Refused, provider()).expect("an authority");
    for count in 0..=INTERMEDIATES_MAX {
        judged_by(&*verifier, &below(&root, count)).expect("it is vouched for");
    }
    let error = judged_by(&*verifier, &below(&root, INTERMEDIATES_MAX + 1)).expect_err("refused");
    assert_eq!(too_long(&error), Some(ChainTooLong { intermediates: 5 }));
    let stranger = below(&authority("root", None), 1);
    let error = judged_by(&*verifier, &stranger).expect_err("refused");
    assert!(matches!(error, Error::InvalidCertificate(_)) && too_long(&error).is_none());
}

/// Gives all that one has to say to the other.
fn hand_over<F, T>(
    from: &mut ConnectionCommon<F>,
    to: &mut ConnectionCommon<T>,
) -> Result<(), Error> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).expect("memory takes all");
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).expect("memory gives all");
        to.process_new_packets()?;
    }
    Ok(())
}

/// What a door of this configuration says of a client.
fn met(door: Arc<ServerConfig>, dir: &Path, shown: &Shown) -> Result<(), Error> {
    let protocols = door.alpn_protocols.clone();
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&dir.join("tls.crt")).expect("the door's own") {
        roots.add(certificate).expect("a root");
    }
    let key = PrivatePkcs8KeyDer::from(shown.key.serialize_der()).into();
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(shown.chain.clone(), key)?;
    config.alpn_protocols = protocols;
    let name = "localhost".try_into().expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name)?;
    let mut server = ServerConnection::new(door)?;
    for _flight in 0..3 {
        hand_over(&mut client, &mut server)?;
        hand_over(&mut server, &mut client)?;
    }
    assert!(!server.is_handshaking(), "it is over after three flights");
    Ok(())
}

#[test]
fn every_door_that_asks_for_certificates_refuses_long_chains() {
    let dir = tempfile::tempdir().expect("a directory");
    write_pair(dir.path());
    let root = authority("root", None);
    let authorities = dir.path().join("ca.pem");
    fs::write(&authorities, root.pem()).expect("written");
    let own = files(dir.path());
    let mut doors = Vec::new();
    for client_auth in [ClientAuth::Optional, ClientAuth::Required] {
        let client_authorities = Some(authorities.clone());
        let asking = config::Tls { client_auth, client_authorities, ..own.clone() };
        doors.push(Loader::new(&asking).and_then(|it| it.load()).expect("usable").server);
    }
    let grpc = ControlTls {
        certificate: own.certificate,
        key: own.key,
        client_authorities: Some(authorities),
    };
    doors.push(DoorCertificates::load(grpc, &Names::SAMPLE).expect("usable").newest());
    let (known, stranger) = (below(&root, 3), twelve_of_one_name());
    for door in doors {
        met(Arc::clone(&door), dir.path(), &known).expect("it is vouched for");
        let error = met(door, dir.path(), &stranger).expect_err("refused");
        assert_eq!(too_long(&error), Some(ChainTooLong { intermediates: 12 }), "{error}");
    }
}
