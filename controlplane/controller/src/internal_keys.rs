//! The keys by which the platform knows this relay: during a rotation there are two.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue, InvalidHeaderValue};
use relay_contract::Secret;
use zeroize::Zeroizing;

use crate::notices::Notices;

/// The header that carries a key.
pub(crate) const INTERNAL_KEY: HeaderName = HeaderName::from_static("x-relay-internal-key");

/// The keys, newest first, and which of them the platform took last.
///
/// It takes either while it is changed: a relay may learn the new key before or after the platform.
#[derive(Debug)]
pub(crate) struct InternalKeys {
    headers: Vec<HeaderValue>,
    in_use: AtomicUsize,
    retried: AtomicU64,
    notices: Notices,
}

impl InternalKeys {
    /// Takes the keys, newest first.
    ///
    /// # Errors
    /// When a header cannot carry one.
    pub(crate) fn new<'a>(
        keys: impl IntoIterator<Item = &'a Secret>,
        notices: Notices,
    ) -> Result<Self, InvalidHeaderValue> {
        Ok(Self {
            headers: keys.into_iter().map(header).collect::<Result<_, _>>()?,
            in_use: AtomicUsize::new(0),
            retried: AtomicU64::new(0),
            notices,
        })
    }

    /// Other keys in the place of these; what was counted goes on.
    ///
    /// # Errors
    /// When a header cannot carry one.
    pub(crate) fn replaced<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a Secret>,
    ) -> Result<Self, InvalidHeaderValue> {
        let replaced = Self::new(keys, self.notices.clone())?;
        replaced.retried.store(self.retried(), Ordering::Relaxed);
        Ok(replaced)
    }

    /// The key the platform took last, with its place; no key where none is configured.
    pub(crate) fn in_use(&self) -> (usize, Option<&HeaderValue>) {
        let index = self.in_use.load(Ordering::Relaxed);
        (index, self.headers.get(index))
    }

    /// The other key, to ask again with, where there are two.
    pub(crate) fn other_than(&self, tried: usize) -> Option<(usize, &HeaderValue)> {
        let mut others = self.headers.iter().enumerate();
        let other = others.find(|(index, _)| *index != tried)?;
        self.retried.fetch_add(1, Ordering::Relaxed);
        Some(other)
    }

    /// Remembers that the platform takes this key.
    pub(crate) fn use_from_now_on(&self, index: usize) {
        if self.in_use.swap(index, Ordering::Relaxed) != index {
            self.notices.info(match index {
                0 => "internal_key_current",
                _ => "internal_key_previous",
            });
        }
    }

    /// How often there was reason to ask again with the other key.
    pub(crate) fn retried(&self) -> u64 {
        self.retried.load(Ordering::Relaxed)
    }
}

/// A header value over memory that is wiped when the last request that shares it is gone.
fn header(key: &Secret) -> Result<HeaderValue, InvalidHeaderValue> {
    let bytes = Zeroizing::new(key.expose().as_bytes().to_vec());
    let mut header = HeaderValue::from_maybe_shared(Bytes::from_owner(bytes))?;
    header.set_sensitive(true);
    Ok(header)
}
