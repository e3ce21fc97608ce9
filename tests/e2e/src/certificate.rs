//! A certificate that signed itself, in files as the relay reads them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Result;

/// Writes `tls.crt` and `tls.key`, for `localhost`, in place of those that lie there.
pub fn write_certificate(dir: &Path) -> Result<()> {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    replace(dir, "tls.key", &pair.signing_key.serialize_pem())?;
    fs::set_permissions(dir.join("tls.key"), fs::Permissions::from_mode(0o600))?;
    replace(dir, "tls.crt", &pair.cert.pem())
}

/// Replaces a file as a whole: who reads it meanwhile finds the old content or the new.
pub fn replace(dir: &Path, name: &str, content: &str) -> Result<()> {
    fs::write(dir.join("new"), content)?;
    Ok(fs::rename(dir.join("new"), dir.join(name))?)
}
