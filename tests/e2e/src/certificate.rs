//! A certificate that signed itself, in files as the relay reads them.

use std::path::Path;

use anyhow::Result;

use crate::file::replace_file;

/// Writes `tls.crt` and `tls.key`, for `localhost`, in place of those that lie there.
///
/// Errors: what the kernel says; there may be a new key and the old certificate.
pub fn write_certificate(dir: &Path) -> Result<()> {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    replace_file(dir, "tls.key", &pair.signing_key.serialize_pem())?;
    replace_file(dir, "tls.crt", &pair.cert.pem())
}
