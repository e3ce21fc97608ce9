//! What the relay counts. Shards count in plain integers, the control plane in atomics; `/metrics`
//! adds them up.

macro_rules! counters {
    ($($variant:ident $name:literal $help:literal)*) => {
        /// One counter. Names up to [`Counter::WsStaleTerminated`] are the reference relay's and
        /// never change; later ones are ours.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[repr(u8)]
        pub enum Counter {
            $(#[doc = $help] $variant,)*
        }

        impl Counter {
            /// Every counter, in the order of their exposition.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in the exposition.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One sentence for HELP.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }
        }
    };
}

counters! {
    AdminUnauthorized "relay_admin_unauthorized_total"
        "Admin requests without the right token."
    AdmissionDenied "relay_admission_denied_total"
        "Upgrades refused by validation, or whose validation failed."
    AdmissionOk "relay_admission_ok_total"
        "Upgrades admitted, before their claims were compared with the request."
    BusFramesDaemonRateLimited "relay_bus_frames_daemon_rate_limited_total"
        "Backplane frames dropped by the daemon rate limit."
    BusFramesDropped "relay_bus_frames_dropped_total"
        "Backplane frames nobody here was to receive."
    BusFramesRejected "relay_bus_frames_rejected_total"
        "Backplane frames of no valid form."
    BusFramesToClients "relay_bus_frames_to_clients_total"
        "Backplane frames delivered to clients."
    BusFramesToDaemon "relay_bus_frames_to_daemon_total"
        "Backplane frames delivered to daemons."
    BusPublishFailed "relay_bus_publish_failed_total"
        "Frames the backplane did not take."
    BusPublishOk "relay_bus_publish_ok_total"
        "Frames the backplane took."
    BusPullFailed "relay_bus_pull_failed_total"
        "Failed pulls from the backplane."
    BusPullFrameTooLarge "relay_bus_pull_frame_too_large_total"
        "Pulled frames above the frame limit."
    BusPullInvalidSignature "relay_bus_pull_invalid_signature_total"
        "Pulled frames with a wrong signature."
    BusPullOk "relay_bus_pull_ok_total"
        "Pulls that brought frames."
    BusPullReplayedSignature "relay_bus_pull_replayed_signature_total"
        "Pulled frames seen before."
    BusPullStaleSignature "relay_bus_pull_stale_signature_total"
        "Pulled frames outside the permitted age."
    BytesClientToDaemon "relay_bytes_client_to_daemon_total"
        "Message bytes from clients to local daemons."
    BytesDaemonToClients "relay_bytes_daemon_to_clients_total"
        "Message bytes of valid daemon frames."
    ClientMessagesDropped "relay_client_messages_dropped_total"
        "Client messages without a daemon to go to."
    ClientMessagesRoutedBus "relay_client_messages_routed_bus_total"
        "Client messages handed to the backplane."
    ClientRedirect "relay_client_redirect_total"
        "Clients told to reconnect to another relay."
    FramesClientKexRateLimited "relay_frames_client_kex_rate_limited_total"
        "Clients closed by the key exchange limit."
    FramesClientPairingRateLimited "relay_frames_client_pairing_rate_limited_total"
        "Clients closed by the pairing limit."
    FramesClientRejectedProfileMismatch "relay_frames_client_rejected_profile_mismatch_total"
        "Clients closed for a frame of another profile."
    FramesClientRejectedScope "relay_frames_client_rejected_scope_total"
        "Client frames outside the connection's scope."
    FramesClientRejected "relay_frames_client_rejected_total"
        "Client frames of no valid form."
    FramesClientRuntimeRateLimited "relay_frames_client_runtime_rate_limited_total"
        "Clients closed by a runtime limit."
    FramesClientToDaemon "relay_frames_client_to_daemon_total"
        "Client frames given to a local daemon."
    FramesDaemonRateLimited "relay_frames_daemon_rate_limited_total"
        "Daemons and workers closed by the daemon limit."
    FramesDaemonRejectedProfileMismatch "relay_frames_daemon_rejected_profile_mismatch_total"
        "Daemons closed for a weaker profile."
    FramesDaemonRejected "relay_frames_daemon_rejected_total"
        "Daemon and worker frames of no valid form."
    FramesDaemonToClients "relay_frames_daemon_to_clients_total"
        "Valid daemon frames, delivered or not."
    KeyExchangeResponseDropped "relay_key_exchange_response_dropped_total"
        "Key exchange answers nobody waits for."
    KeyExchangeResponseRoutedBus "relay_key_exchange_response_routed_bus_total"
        "Key exchange answers handed to the backplane."
    KeyExchangeResponseRoutedLocal "relay_key_exchange_response_routed_local_total"
        "Key exchange answers given to a local client."
    PairingResponseDropped "relay_pairing_response_dropped_total"
        "Pairing answers nobody waits for."
    PairingResponseRoutedBus "relay_pairing_response_routed_bus_total"
        "Pairing answers handed to the backplane."
    PairingResponseRoutedLocal "relay_pairing_response_routed_local_total"
        "Pairing answers given to a local client."
    PresenceResolveFailed "relay_presence_resolve_failed_total"
        "Failed look-ups of a daemon's relay."
    PresenceResolveOk "relay_presence_resolve_ok_total"
        "Look-ups of a daemon's relay."
    PresenceUpsertFailed "relay_presence_upsert_failed_total"
        "Failed announcements of a daemon."
    PresenceUpsertOk "relay_presence_upsert_ok_total"
        "Announcements of a daemon."
    SessionEventFrameDelivered "relay_session_event_frame_delivered_total"
        "Session events given to a subscriber."
    SessionEventFrameDropped "relay_session_event_frame_dropped_total"
        "Session events without a subscriber."
    SessionEventSubscribeRejected "relay_session_event_subscribe_rejected_total"
        "Subscriptions refused."
    SessionEventSubscribed "relay_session_event_subscribed_total"
        "Subscriptions made."
    SessionEventUnsubscribed "relay_session_event_unsubscribed_total"
        "Subscriptions ended by the client."
    SessionFrameDropped "relay_session_frame_dropped_total"
        "Daemon frames of a session without an owner."
    SessionFrameRoutedBus "relay_session_frame_routed_bus_total"
        "Daemon frames of a session handed to the backplane."
    SessionFrameRoutedLocal "relay_session_frame_routed_local_total"
        "Daemon frames of a session given to a local client."
    SessionViewerPresenceFanned "relay_session_viewer_presence_fanned_total"
        "Viewer presence frames given to other viewers."
    SessionViewerPresenceNoPeers "relay_session_viewer_presence_no_peers_total"
        "Viewer presence frames without another viewer."
    SessionViewerPresenceRateLimited "relay_session_viewer_presence_rate_limited_total"
        "Clients closed by the presence limit."
    SessionViewerPresenceRejected "relay_session_viewer_presence_rejected_total"
        "Viewer presence frames refused."
    UpgradeErrors "relay_upgrade_errors_total"
        "Upgrades whose target and Host make no URL."
    UpgradeInvalidQuery "relay_upgrade_invalid_query_total"
        "Upgrades with an invalid query."
    UpgradeMissingAuth "relay_upgrade_missing_auth_total"
        "Upgrades without a usable token."
    UpgradeRateLimited "relay_upgrade_rate_limited_total"
        "Upgrades refused by the attempt limit of their address."
    UpgradeRejectedIpConnections "relay_upgrade_rejected_ip_connections_total"
        "Upgrades refused by the connection limit of their address."
    UpgradeRejectedTotalConnections "relay_upgrade_rejected_total_connections_total"
        "Upgrades refused by the total connection limit."
    UpgradeRejectedWorkspaceClients "relay_upgrade_rejected_workspace_clients_total"
        "Upgrades refused by the client limit of their scope."
    WorkerTransportForwardFailed "relay_worker_transport_forward_failed_total"
        "Worker calls the platform did not answer."
    WorkerTransportForwarded "relay_worker_transport_forwarded_total"
        "Worker calls answered by the platform."
    WorkerTransportRejected "relay_worker_transport_rejected_total"
        "Worker calls outside the executor's paths."
    WorkspaceEvictions "relay_workspace_evictions_total"
        "Empty scopes forgotten."
    WsConnectionsClosed "relay_ws_connections_closed_total"
        "Registered connections that ended."
    WsConnectionsOpened "relay_ws_connections_opened_total"
        "Connections registered after their claims were checked."
    WsConnectionsRejected "relay_ws_connections_rejected_total"
        "Connections closed by the check of their claims."
    WsFrameTooLarge "relay_ws_frame_too_large_total"
        "Messages above the frame limit."
    WsIdleTerminated "relay_ws_idle_terminated_total"
        "Connections cut for silence."
    WsSlowClientTerminated "relay_ws_slow_client_terminated_total"
        "Connections closed because they read too slowly."
    WsStaleTerminated "relay_ws_stale_terminated_total"
        "Connections cut for an unanswered ping."
    AdmissionUnavailable "relay_admission_unavailable_total"
        "Upgrades answered 503 because the relay could not ask."
    AdmissionExpired "relay_admission_expired_total"
        "Upgrades whose decision did not come in time."
    UpgradesHeldBack "relay_upgrades_held_back_total"
        "Upgrades that waited on their shard because the control plane was behind."
    UpgradesHeldBackRefused "relay_upgrades_held_back_refused_total"
        "Upgrades answered 503 because the control plane was behind for too long, or for too many."
    SlowReaderDroppedFrames "relay_slow_reader_dropped_frames_total"
        "Queued messages dropped when a slow reader was closed."
    CopiedFrames "relay_copied_frames_total"
        "Forwarded messages whose bytes were copied on the way."
    CopiedBytes "relay_copied_bytes_total"
        "Bytes copied because a socket did not take them at once or a message spanned too much."
    ReceiveStarved "relay_receive_starved_total"
        "Receives that found no free buffer and were armed again."
    ReceivesDeferred "relay_receives_deferred_total"
        "Times a connection had sent more work than its share of a turn and had to wait."
    GuestsRefused "relay_guests_refused_total"
        "Connections closed because too many were not admitted yet."
    AcceptsFailed "relay_accepts_failed_total"
        "Connections that the kernel did not hand over, for want of descriptors or memory."
    HeadTimeouts "relay_head_timeouts_total"
        "Connections closed because their request head took too long."
    HeadRejected "relay_head_rejected_total"
        "Requests whose head could not be read."
    UpgradeForbiddenOrigin "relay_upgrade_forbidden_origin_total"
        "Upgrades refused because their page is of an origin that is not allowed."
    ProxyProtocolRejected "relay_proxy_protocol_rejected_total"
        "Connections of trusted proxies closed for a missing or malformed PROXY header."
    ProtocolViolations "relay_protocol_violations_total"
        "Connections closed because their peer broke RFC 6455."
    MessagesTooLarge "relay_messages_too_large_total"
        "Connections closed for a message above the limit, by its payload as sent."
    LogEntriesDropped "relay_log_entries_dropped_total"
        "Log entries lost because the control plane or the reader of stdout was behind."
    LogEntriesSuppressed "relay_log_entries_suppressed_total"
        "Log lines kept back because there were too many of their kind."
    CommandsUndelivered "relay_commands_undelivered_total"
        "Orders to a shard that were dropped because too many waited for it."
    PlaneConnectionsRefused "relay_plane_connections_refused_total"
        "Connections to the port of the data planes that were closed because too many were open."
    KeysUnnumbered "relay_keys_unnumbered_total"
        "Tokens accepted under a key that nothing can be told of later: too many keys are in use."
    FarewellsForgotten "relay_farewells_forgotten_total"
        "Connections told to go while their data plane was away, too many to be remembered."
    WorkerCallsLimited "relay_worker_calls_limited_total"
        "Worker calls refused because too many were in flight, or held too much."
    AdminConnectionsRefused "relay_admin_connections_refused_total"
        "Connections to the admin listener closed because too many were open."
    AdminQuestionsRefused "relay_admin_questions_refused_total"
        "Admin requests answered 503 because too many were on their way."
    InternalKeyRetries "relay_internal_key_retries_total"
        "Validations asked again with the other internal key, during its rotation."
    HandedOver "relay_sockets_handed_over_total"
        "Sockets moved to their workspace's home shard."
    ScopeEntriesCrowdedOut "relay_scope_entries_crowded_out_total"
        "Sessions and waiting requests forgotten because all of a shard's hold their share."
    ScopesCrowdedOut "relay_scopes_crowded_out_total"
        "Scopes that nobody was in, forgotten for want of memory, not because they were due."
    HandOversRefused "relay_hand_overs_refused_total"
        "Upgrades answered 503 because their home shard takes no more sockets."
    WorkspacesMoved "relay_workspaces_moved_total"
        "Workspaces that arrived at a shard from another."
    ConnectionsMoved "relay_connections_moved_total"
        "Open connections that arrived at a shard from another."
    WorkspaceMovesFailed "relay_workspace_moves_failed_total"
        "Workspaces that were to move and stayed where they were, for whatever reason."
    MovesFailedNoSuchShard "relay_workspace_moves_failed_no_such_shard_total"
        "Moves to a shard that does not exist, or has ended."
    MovesFailedDriver "relay_workspace_moves_failed_driver_total"
        "Moves whose sockets the kernel did not give out: before Linux 6.8, or no descriptors."
    MovesFailedTimedOut "relay_workspace_moves_failed_timed_out_total"
        "Moves whose connections did not come to rest in time."
    MovesFailedStopping "relay_workspace_moves_failed_stopping_total"
        "Moves from a shard that was about to end."
    MovesFailedNotHere "relay_workspace_moves_failed_not_here_total"
        "Moves of a workspace that had left its shard already."
    MovesFailedTooMany "relay_workspace_moves_failed_too_many_total"
        "Moves beyond those that may wait, or that half a minute may bring."
    MovesFailedNoRoom "relay_workspace_moves_failed_no_room_total"
        "Moves to a shard without places or memory for the workspace."
    DrainTold "relay_drain_told_total"
        "Peers that a drain told to reconnect."
    DrainRefused "relay_drain_refused_total"
        "Upgrades answered 503 because the relay is drained."
    FramesClientUnroutedRateLimited "relay_frames_client_unrouted_rate_limited_total"
        "Clients closed for too many frames that reach nobody."
    SmallFramesRateLimited "relay_small_frames_rate_limited_total"
        "Connections closed for too many pings, pongs or small fragments."
    FrameLogsSuppressed "relay_frame_logs_suppressed_total"
        "Log entries left out because their connection had caused many already."
    PongsMerged "relay_pongs_merged_total"
        "Pings answered by the pong to a later one, because their sender reads too slowly."
    PingsSent "relay_pings_sent_total"
        "Pings sent to connections that were silent."
    ShardStalls "relay_shard_stalls_total"
        "Times a shard went on after it had been stopped, and asked its peers before judging them."
    TlsHandshakes "relay_tls_handshakes_total"
        "TLS handshakes that succeeded."
    TlsHandshakeFailures "relay_tls_handshake_failures_total"
        "TLS handshakes that failed: no common version, suite or protocol, or no TLS at all."
    TlsHandshakeTimeouts "relay_tls_handshake_timeouts_total"
        "Connections closed because their TLS handshake took too long."
    TlsHandshakesRefused "relay_tls_handshakes_refused_total"
        "Connections closed because too many TLS handshakes were going on."
    TlsRecordsRefused "relay_tls_records_refused_total"
        "TLS sessions ended by a record that was spoilt, out of place or useless."
    TlsKeysSpent "relay_tls_keys_spent_total"
        "TLS keys that have sealed what they may: renewed in TLS 1.3, the connection's end in 1.2."
    TlsReloads "relay_tls_reloads_total"
        "New certificates put to use."
    TlsReloadFailures "relay_tls_reload_failures_total"
        "New certificates that could not be used; the old ones stay."
    BudgetRefused "relay_budget_refused_total"
        "Connections and upgrades refused because the memory budget was nearly used up."
    BudgetStrangersClosed "relay_budget_strangers_closed_total"
        "Connections not yet admitted that were closed to stay within the memory budget."
    BudgetSlowReadersClosed "relay_budget_slow_readers_closed_total"
        "Connections with the largest backlog, closed to stay within the memory budget."
    BudgetUnfinishedClosed "relay_budget_unfinished_closed_total"
        "Connections with the largest unfinished message, closed to stay within the memory budget."
    BudgetCut "relay_budget_cut_total"
        "Connections cut because they held memory after they were told to go."
    AdmissionsShared "relay_admissions_shared_total"
        "Upgrades answered with the platform's answer to the same question of another."
    AdmissionDecisionsReused "relay_admission_decisions_reused_total"
        "Upgrades admitted by what the platform had decided a moment ago."
    AdmissionWaitExpired "relay_admission_wait_expired_total"
        "Upgrades answered 503 because the platform could not be asked about them in time."
    AdmissionDoubtsRefused "relay_admission_doubts_refused_total"
        "Undecided tokens the platform was not asked about, because it refused too many like them."
    AdmissionsRevoked "relay_admissions_revoked_total"
        "Good tokens refused because they, their bearer, workspace or key were revoked."
    JwksFetches "relay_jwks_fetches_total"
        "Fetches of key sets."
    JwksFetchFailures "relay_jwks_fetch_failures_total"
        "Fetches that brought no usable key set; the last good one stays."
    TokenExpiredClosed "relay_token_expired_closed_total"
        "Connections told to go because their token expired."
    RevokedClosed "relay_revoked_closed_total"
        "Connections told to go because what they stand on was revoked."
    KeyWithdrawnClosed "relay_key_withdrawn_closed_total"
        "Connections told to go because the key of their token was withdrawn."
    RevocationsUnremembered "relay_revocations_unremembered_total"
        "Revocations that closed connections, but refuse no later ones: there are too many."
    RevocationsUnsaved "relay_revocations_unsaved_total"
        "Attempts to write the revocations down that failed."
    ConnectionsDismissed "relay_connections_dismissed_total"
        "Open connections closed because the control plane said so."
    RenewalsAsked "relay_renewals_asked_total"
        "Fresh tokens that peers sent over open connections."
    RenewalsAccepted "relay_renewals_accepted_total"
        "Fresh tokens that a connection stands on from then on."
    RenewalsRefused "relay_renewals_refused_total"
        "Fresh tokens that changed nothing."
    RenewalsRateLimited "relay_renewals_rate_limited_total"
        "Connections closed for too many fresh tokens."
    ConfigReloads "relay_config_reloads_total"
        "Times the configuration was read again and put in force."
    ConfigReloadsRefused "relay_config_reloads_refused_total"
        "Times it was read again and could not be used; nothing changed."
    StaleVersionsRefused "relay_stale_versions_refused_total"
        "Limits and routes that were not newer than those in force, and were refused."
    ControlConnectionsRefused "relay_control_connections_refused_total"
        "Connections to the control API closed because too many were open."
    ControlUnauthorized "relay_control_unauthorized_total"
        "Calls of the control API without a token that permits them."
    ControlOverloaded "relay_control_overloaded_total"
        "Calls of the control API refused because too many were on their way."
    ControlUnaudited "relay_control_unaudited_total"
        "Changing calls refused because the audit log could not be written."
    ControlWatchRestarts "relay_control_watch_restarts_total"
        "Snapshots begun anew for a watcher that read more slowly than things changed."
    AuditLinesLost "relay_audit_lines_lost_total"
        "Lines the audit log lacks: failed writes, and refusals beyond those it takes a minute."
    ControlPlaneLost "relay_control_plane_lost_total"
        "Times a data plane lost its control plane."
    ControlPlaneResumed "relay_control_plane_resumed_total"
        "Times a data plane and its control plane went on where a cut had ended them."
    InventoriesOffered "relay_inventories_offered_total"
        "Times a data plane told a control plane what it holds."
    InventoriesRejected "relay_inventories_rejected_total"
        "Times what a data plane said it holds could not be read, or was more than may be."
    PlaneNamesRefused "relay_plane_names_refused_total"
        "Names from the other plane that were too long or too many, and were told as unknown."
    PlaneMessagesRejected "relay_plane_messages_rejected_total"
        "Messages between the planes that could not be read and were passed over."
    PlaneResendExceeded "relay_plane_resend_exceeded_total"
        "Times more waited for an absent control plane than may, so that an inventory replaced it."
    PlanesRefused "relay_planes_refused_total"
        "Data planes that a control plane turned away: no leave, another version, no room."
    PlanesGone "relay_planes_gone_total"
        "Data planes that went without a word, with their connections."
}

/// A value for each counter. Shape: indexed by [`Counter`] in declaration order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Counters([u64; Counter::ALL.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self([0; Counter::ALL.len()])
    }
}

impl Counters {
    /// Counts one.
    #[inline]
    pub fn count(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts several.
    #[inline]
    pub fn add(&mut self, counter: Counter, amount: u64) {
        self.0[counter as usize] += amount;
    }

    /// The value so far.
    #[inline]
    pub fn of(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// Adds another set to this one.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine += theirs;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_end_in_total() {
        let names: HashSet<_> = Counter::ALL.iter().map(|counter| counter.name()).collect();
        assert_eq!(names.len(), Counter::ALL.len());
        assert!(names.iter().all(|name| name.starts_with("relay_") && name.ends_with("_total")));
    }

    #[test]
    fn merging_adds_each_value() {
        let mut a = Counters::default();
        let mut b = Counters::default();
        a.add(Counter::AdmissionOk, 2);
        b.count(Counter::AdmissionOk);
        a.merge(&b);
        assert_eq!(a.of(Counter::AdmissionOk), 3);
    }
}
