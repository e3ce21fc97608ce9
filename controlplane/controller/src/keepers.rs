//! The tasks that fetch key sets, and the ring they fetch for, as the settings change.

use std::collections::HashMap;
use std::sync::Arc;

use relay_admission::KeySet;
use tokio::task::AbortHandle;

use crate::admitting::Ticket;
use crate::controller::{Controller, StartError};
use crate::decide::LookedAt;
use crate::jwks::{IssuerNumber, KeyRing, KeyServers};
use crate::notices::Notices;
use crate::platform_http::CallLimits;
use crate::settings::{Admission, Settings};

/// One task per issuer, from the moment the controller runs.
#[derive(Debug, Default)]
pub(crate) struct Keepers {
    /// `None` until the controller runs.
    tasks: Option<HashMap<IssuerNumber, AbortHandle>>,
    /// The next issuer's number.
    next: IssuerNumber,
}

impl Keepers {
    /// The key sets that tokens are to be checked against, where that is wanted. An issuer that was
    /// in the ring before keeps its keys.
    ///
    /// # Errors
    /// Nobody says where keys are, or a URL that cannot be called; nothing has changed then.
    pub(crate) fn ring(
        &mut self,
        before: Option<&KeyRing>,
        settings: &Settings,
        servers: &KeyServers,
        notices: &Notices,
    ) -> Result<Option<Arc<KeyRing>>, StartError> {
        let jwks = match (settings.admission, &settings.jwks) {
            (Admission::Validate, _) => return Ok(None),
            (admission, None) => return Err(StartError::NoKeySet(admission.name())),
            (_, Some(jwks)) => jwks,
        };
        let limits = CallLimits {
            timeout: settings.internal_timeout,
            response_bytes_max: settings.internal_response_bytes_max,
        };
        let empty = KeyRing::empty(settings.caps.connections_max);
        let before = before.unwrap_or(&empty);
        let ring = before.with(jwks, limits, &mut self.next, servers, notices);
        ring.map(|ring| Some(Arc::new(ring))).map_err(|_| StartError::KeySetUrl)
    }

    /// Fetches from now on.
    pub(crate) fn begin(&mut self, ring: Option<&KeyRing>) {
        self.tasks = Some(HashMap::new());
        self.tend(ring);
    }

    /// Fetches for whom this ring has, and for nobody else.
    fn tend(&mut self, ring: Option<&KeyRing>) {
        let Some(tasks) = &mut self.tasks else {
            return;
        };
        let numbers: Vec<_> = ring.map_or_else(Vec::new, |ring| ring.numbers().collect());
        for (_, former) in tasks.extract_if(|number, _| !numbers.contains(number)) {
            former.abort();
        }
        for number in numbers {
            if !tasks.contains_key(&number)
                && let Some(task) = ring.and_then(|ring| ring.keep(number))
            {
                tasks.insert(number, task);
            }
        }
    }

    /// Fetches no more.
    pub(crate) fn end(&mut self) {
        self.tend(None);
    }
}

impl Controller {
    /// The ring for other settings; nothing of it is in force yet, but the URLs and times of
    /// issuers that stay.
    ///
    /// # Errors
    /// As [`Keepers::ring`].
    pub(crate) fn ring_for(
        &mut self,
        settings: &Settings,
    ) -> Result<Option<Arc<KeyRing>>, StartError> {
        let before = self.keys.as_deref();
        self.keepers.ring(before, settings, &self.key_servers, &self.notify)
    }

    /// Checks tokens against this ring from now on. Who waits for keys is looked at once more. The
    /// keys of an issuer that is none any more count as withdrawn; where tokens are not checked
    /// here any more, nothing is known of any key, and everybody stays.
    pub(crate) fn put_keys_in_force(&mut self, ring: Option<Arc<KeyRing>>) {
        self.keepers.tend(ring.as_deref());
        let before = std::mem::replace(&mut self.keys, ring);
        for (connection, (_, ticket)) in std::mem::take(&mut self.awaiting_keys) {
            let (role, workspace_id) = (ticket.request.role, ticket.request.workspace_id.clone());
            let ticket = Ticket { looked_at: LookedAt::Never, ..ticket };
            self.unseen.push(connection, role, &workspace_id, ticket);
        }
        if let (Some(before), Some(ring)) = (before, self.keys.clone()) {
            let now = self.clock.now();
            let former = before.numbers().filter(|number| ring.numbers().all(|is| is != *number));
            let former: Vec<_> = former.collect();
            let of_nobody = KeySet::default();
            let withdrawn =
                former.into_iter().flat_map(|issuer| self.book.compare(now, issuer, &of_nobody));
            let withdrawn = withdrawn.collect();
            self.withdraw(withdrawn);
        }
    }
}
