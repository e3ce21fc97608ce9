//! P-256 keys, pairing secrets, and the file a daemon keeps its key in.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rand::CryptoRng;
use zeroize::Zeroizing;

use crate::Fault;
use crate::base64url;
use crate::ids::hex_name;

/// Bytes of an uncompressed SEC1 point.
pub const PUBLIC_KEY_BYTES: usize = 65;
/// Bytes of a private scalar, of a shared secret and of a pairing secret.
pub const SECRET_BYTES: usize = 32;

/// A point on P-256 that is not the identity.
///
/// Shape: SEC1 uncompressed, 65 bytes, first byte 0x04.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct PublicKey {
    point: p256::PublicKey,
    bytes: [u8; PUBLIC_KEY_BYTES],
}

impl PublicKey {
    /// Parses SEC1 bytes. Errors: other length, other first byte, not on the curve.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let bytes: [u8; PUBLIC_KEY_BYTES] = bytes.try_into().map_err(|_| KeyError::Length)?;
        if bytes[0] != UNCOMPRESSED {
            return Err(KeyError::Form);
        }
        let point = p256::PublicKey::from_sec1_bytes(&bytes).map_err(|_| KeyError::NotOnCurve)?;
        Ok(Self { point, bytes })
    }

    /// Parses the base64url text of SEC1 bytes.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        let bytes = base64url::decode_array::<PUBLIC_KEY_BYTES>(text.trim())
            .map_err(|_| KeyError::Encoding)?;
        Self::from_bytes(&bytes)
    }

    /// The SEC1 bytes.
    pub fn as_bytes(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        &self.bytes
    }

    /// The base64url text of the SEC1 bytes, as frames and claims carry it.
    pub fn to_text(&self) -> String {
        base64url::encode(&self.bytes)
    }

    fn of(secret: &p256::SecretKey) -> Self {
        let point = secret.public_key();
        let mut bytes = [0; PUBLIC_KEY_BYTES];
        bytes.copy_from_slice(
            p256::elliptic_curve::sec1::ToSec1Point::to_sec1_point(&point, false).as_bytes(),
        );
        Self { point, bytes }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.to_text())
    }
}

/// A private scalar with its public point. Wiped when dropped; no `Debug`.
#[derive(Clone)]
pub struct KeyPair {
    secret: p256::SecretKey,
    public: PublicKey,
}

impl KeyPair {
    /// A new pair. Cost: one scalar multiplication.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        loop {
            rng.fill_bytes(bytes.as_mut());
            // All but 2^-32 of the draws are scalars below the group's order.
            if let Ok(pair) = Self::from_private_bytes(bytes.as_ref()) {
                return pair;
            }
        }
    }

    /// The pair of a big-endian scalar of 1 to 32 bytes; a shorter one is padded on the left.
    ///
    /// Errors: other length, zero, not below the group's order.
    pub fn from_private_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.is_empty() || bytes.len() > SECRET_BYTES {
            return Err(KeyError::Length);
        }
        let mut padded = Zeroizing::new([0; SECRET_BYTES]);
        padded[SECRET_BYTES - bytes.len()..].copy_from_slice(bytes);
        let secret =
            p256::SecretKey::from_slice(padded.as_ref()).map_err(|_| KeyError::NotAScalar)?;
        let public = PublicKey::of(&secret);
        Ok(Self { secret, public })
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Writes the scalar out, for keeping it.
    pub fn private_bytes(&self) -> Zeroizing<[u8; SECRET_BYTES]> {
        Zeroizing::new(self.secret.to_bytes().into())
    }

    /// The x-coordinate of the shared point. It cannot be the identity: the group's order is prime
    /// and neither side is zero.
    pub(crate) fn agree(&self, other: &PublicKey) -> Zeroizing<[u8; SECRET_BYTES]> {
        let shared = self.secret.diffie_hellman(&other.point);
        Zeroizing::new((*shared.raw_secret_bytes()).into())
    }

    /// Reads the pair kept in `path`, or makes one and keeps it there.
    ///
    /// Shape of the file: the scalar in base64url and a line feed, mode 0600. It appears whole or
    /// not at all, and two processes that race end with the same key. Errors: the file is readable
    /// by others, holds something else, or cannot be read or written.
    pub fn load_or_create(path: &Path, rng: &mut impl CryptoRng) -> Result<Self, KeyFileError> {
        match Self::load(path) {
            Err(KeyFileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let pair = Self::generate(rng);
        let mut draft = path.as_os_str().to_owned();
        draft.push(hex_name::<8>(".new-", rng));
        let draft = Path::new(&draft);
        let written = pair.write_new(draft).and_then(|()| fs::hard_link(draft, path));
        // Best effort: a draft left behind is private and harmless.
        let _ = fs::remove_file(draft);
        match written {
            Ok(()) => Ok(pair),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::load(path),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the pair kept in `path`. Errors as for [`KeyPair::load_or_create`].
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let file = File::open(path)?;
        if file.metadata()?.mode() & OTHERS != 0 {
            return Err(KeyFileError::Exposed);
        }
        let mut text = Zeroizing::new(String::new());
        file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
        let bytes = base64url::decode(text.trim()).map_err(|_| KeyError::Encoding)?;
        let bytes = Zeroizing::new(bytes);
        Ok(Self::from_private_bytes(&bytes)?)
    }

    fn write_new(&self, path: &Path) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
        let mut text = Zeroizing::new(base64url::encode(self.private_bytes().as_ref()));
        text.push('\n');
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }
}

/// 32 bytes two ends share by pairing. Wiped when dropped; no `Debug`.
#[derive(Clone)]
pub struct PairingSecret(Zeroizing<[u8; SECRET_BYTES]>);

impl PairingSecret {
    /// Takes the bytes in.
    pub fn new(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Parses the base64url text of exactly 32 bytes.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        base64url::decode_array(text.trim()).map(Self::new).map_err(|_| KeyError::Encoding)
    }

    pub(crate) fn expose(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }
}

/// Why bytes are not a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyError {
    /// Not base64url without padding, or not of the right length in it.
    #[error("not base64url of the right length")]
    Encoding,
    /// Too few or too many bytes.
    #[error("wrong number of bytes")]
    Length,
    /// Not an uncompressed point.
    #[error("not an uncompressed point")]
    Form,
    /// No such point.
    #[error("point is not on the curve")]
    NotOnCurve,
    /// Zero, or not below the group's order.
    #[error("not a scalar of the group")]
    NotAScalar,
}

/// Why a key file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file's mode lets others at it.
    #[error("key file is open to others; set its mode to 0600")]
    Exposed,
    /// The file holds no key.
    #[error("key file holds no key: {0}")]
    Content(#[from] KeyError),
    /// The file system refused.
    #[error("key file: {0}")]
    Io(#[from] io::Error),
}

impl KeyFileError {
    /// Always ours: nobody else touches the file.
    pub fn fault(&self) -> Fault {
        Fault::Us
    }
}

const UNCOMPRESSED: u8 = 0x04;
/// Permission bits of group and others.
const OTHERS: u32 = 0o077;
/// A key needs 44; more is not a key.
const FILE_BYTES_MAX: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn both_sides_agree() {
        let mut rng = StdRng::seed_from_u64(1);
        let (a, b) = (KeyPair::generate(&mut rng), KeyPair::generate(&mut rng));
        assert_eq!(*a.agree(b.public()), *b.agree(a.public()));
    }

    #[test]
    fn a_short_scalar_is_padded_on_the_left() {
        let mut padded = [0; 32];
        padded[31] = 7;
        let short = KeyPair::from_private_bytes(&[7]).unwrap();
        let long = KeyPair::from_private_bytes(&padded).unwrap();
        assert_eq!(short.public(), long.public());
    }

    #[test]
    fn only_scalars_of_the_group_are_private_keys() {
        for (bytes, error) in [
            (&[][..], KeyError::Length),
            (&[1; 33][..], KeyError::Length),
            (&[0; 32][..], KeyError::NotAScalar),
            (&[0xff; 32][..], KeyError::NotAScalar),
        ] {
            assert_eq!(KeyPair::from_private_bytes(bytes).err(), Some(error));
        }
    }

    #[test]
    fn only_uncompressed_points_of_the_curve_are_public_keys() {
        let good = *KeyPair::from_private_bytes(&[9]).unwrap().public().as_bytes();
        assert!(PublicKey::from_bytes(&good).is_ok());
        assert_eq!(PublicKey::from_bytes(&good[..64]), Err(KeyError::Length));
        let mut compressed = good;
        compressed[0] = 0x02;
        assert_eq!(PublicKey::from_bytes(&compressed), Err(KeyError::Form));
        let mut off = good;
        off[64] ^= 1;
        assert_eq!(PublicKey::from_bytes(&off), Err(KeyError::NotOnCurve));
        assert_eq!(PublicKey::from_text("AA=="), Err(KeyError::Encoding));
    }

    #[test]
    fn the_key_file_is_private_and_keeps_its_key() {
        let mut rng = StdRng::seed_from_u64(2);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.key");
        let made = KeyPair::load_or_create(&path, &mut rng).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let again = KeyPair::load_or_create(&path, &mut rng).unwrap();
        assert_eq!(made.public(), again.public());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_file_open_to_others_is_refused() {
        let mut rng = StdRng::seed_from_u64(3);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.key");
        KeyPair::load_or_create(&path, &mut rng).unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o640);
        fs::set_permissions(&path, open).unwrap();
        assert!(matches!(KeyPair::load(&path), Err(KeyFileError::Exposed)));
    }

    #[test]
    fn a_key_file_of_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.key");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(b"no key").unwrap();
        assert!(matches!(KeyPair::load(&path), Err(KeyFileError::Content(_))));
    }
}
