//! Workers' calls to the platform.

use relay_contract::{
    CloseReason, ConnectionId, Counter, Level, LogEntry, Tick, WorkerRequest, WorkerResponse,
};
use relay_wire::envelope::cold::{self, ColdFrame};
use relay_wire::envelope::{ColdKind, Envelope, Invalid, emit};

use crate::connection::Part;
use crate::input::Message;
use crate::subtree::is_inside;
use crate::switchboard::Switchboard;
use crate::{Effect, Effects};

impl Switchboard {
    /// Judges a worker's message; a call inside its own paths goes to the platform.
    /// Source: relay specification, section 13.
    pub(crate) fn on_worker_message(
        &mut self,
        now: Tick,
        from: ConnectionId,
        message: Message<'_>,
        effects: &mut Effects,
    ) {
        let Some(member) = self.core.connections.member(from) else {
            return;
        };
        let scope = self.core.directory.scope(member.scope);
        let limits = scope.limits(&self.limits);
        if !self.core.limiters.daemon(scope.workspace_key, now, limits) {
            self.counters.count(Counter::FramesDaemonRateLimited);
            let entry = self.worker_entry(from, "worker_frame_rate_limited");
            effects.push(Effect::Log(Box::new(entry)));
            return self.close(now, from, CloseReason::WorkerRateLimited, effects);
        }
        match call(message) {
            Ok(request) => self.on_call(now, from, request, effects),
            Err(_) if message.is_renewal() => self.on_renewal(now, from, message, effects),
            Err(_) => {
                self.counters.count(Counter::FramesDaemonRejected);
                if self.may_log_frame(now, from) {
                    let entry = self
                        .worker_entry(from, "worker_frame_rejected")
                        .with("reason", "invalid_worker_transport_frame");
                    effects.push(Effect::Log(Box::new(entry)));
                }
            }
        }
    }

    fn on_call(
        &mut self,
        now: Tick,
        from: ConnectionId,
        mut request: WorkerRequest,
        effects: &mut Effects,
    ) {
        let Some(member) = self.core.connections.member_mut(from) else {
            return;
        };
        let admission = member.admission;
        let Part::Worker(worker) = &mut member.part else {
            return;
        };
        let workspace = self.core.directory.scope(member.scope).workspace_id.as_str();
        let own = worker.executor_id.as_deref().is_some_and(|executor| {
            let root = format!("/api/runtime/workspaces/{workspace}/managed-executors/{executor}");
            !executor.is_empty() && is_inside(&request.path, &root)
        });
        if !own {
            self.counters.count(Counter::WorkerTransportRejected);
            let text = emit::worker_path_denied(&request.request_id);
            return self.send(now, from, text.into(), effects);
        }
        if worker.call_count >= self.limits.worker_calls_max {
            self.counters.count(Counter::WorkerCallsLimited);
            let text = emit::worker_busy(&request.request_id);
            return self.send(now, from, text.into(), effects);
        }
        worker.call_count += 1;
        if let Some(fragment) = request.path.find('#') {
            request.path.truncate(fragment);
            // Its length is what a call is counted by.
            request.path.shrink_to_fit();
        }
        let typed = request.headers.iter().any(|(name, _)| &**name == "content-type");
        if request.body.is_some() && !typed {
            request.headers.push(("content-type".into(), TEXT_TYPE.to_owned()));
        }
        effects.push(Effect::CallPlatform { from, admission, request: Box::new(request) });
    }

    /// The platform answered a call, or could not be asked.
    pub(crate) fn on_worker_reply(
        &mut self,
        now: Tick,
        to: ConnectionId,
        response: &WorkerResponse,
        effects: &mut Effects,
    ) {
        let Some(member) = self.core.connections.member_mut(to) else {
            return;
        };
        let Part::Worker(worker) = &mut member.part else {
            return;
        };
        worker.call_count = worker.call_count.saturating_sub(1);
        if response.forwarded {
            self.counters.count(Counter::WorkerTransportForwarded);
        } else {
            self.counters.count(Counter::WorkerTransportForwardFailed);
            if self.may_log_frame(now, to) {
                let entry = self.worker_entry(to, "worker_transport_forward_failed");
                effects.push(Effect::Log(Box::new(entry)));
            }
        }
        self.send(now, to, emit::worker_response(response).into(), effects);
    }

    fn worker_entry(&self, worker: ConnectionId, event: &'static str) -> LogEntry {
        LogEntry::new(Level::Warn, event)
            .about(worker)
            .with("workspaceId", self.workspace_of(worker).to_owned())
    }
}

/// The call that a message is.
fn call(message: Message<'_>) -> Result<WorkerRequest, Invalid> {
    let Envelope::Cold { kind: ColdKind::Worker, .. } = *message.envelope? else {
        return Err(Invalid::Type);
    };
    if let Some(call) = message.call {
        return call();
    }
    match cold::parse(ColdKind::Worker, &(message.text)())? {
        ColdFrame::Worker(request) => Ok(request),
        ColdFrame::Subscribe { .. }
        | ColdFrame::Unsubscribe { .. }
        | ColdFrame::Presence { .. }
        | ColdFrame::SessionEvent { .. }
        | ColdFrame::Renewal { .. } => Err(Invalid::Type),
    }
}

/// What `fetch` says of a text body whose type is not given.
const TEXT_TYPE: &str = "text/plain;charset=UTF-8";

#[cfg(test)]
mod tests {
    use crate::board::{answer, board, board_with, call};

    use super::*;

    const DENIED: &str = "send 0 {'type':'viewport.worker_transport.response/v1','requestId':'w-1',\
                 'status':403,'headers':{'content-type':'application/json'},\
                 'body':'{\\'ok\\':false,\\'reason\\':\\'WORKER_TRANSPORT_PATH_DENIED\\'}'}";

    #[test]
    fn a_call_inside_the_executor_s_paths_goes_to_the_platform() {
        let mut board = board();
        let worker = board.worker();
        let seen = board.say_logged(worker, &call("w-1", &format!("{ROOT}/jobs?a=1&b=%20#f")));
        assert_eq!(
            seen,
            [format!(
                "call 0 WorkerRequest {{ request_id: 'w-1', method: 'GET', \
                  path: '{ROOT}/jobs?a=1&b=%20', headers: [], body: None }}"
            )]
        );
        let seen =
            board.see(crate::Input::WorkerReply { to: worker, response: &answer("w-1", true) });
        assert!(seen[0].contains("'requestId':'w-1','status':200"));
        assert_eq!(board.count(Counter::WorkerTransportForwarded), 1);
    }

    #[test]
    fn what_is_not_sent_of_a_path_is_not_kept() {
        let mut board = board();
        let worker = board.worker();
        let path = format!("{ROOT}/x#{}", "f".repeat(100_000));
        let now = board.now;
        let effects = crate::board::say(&mut board.switchboard, now, worker, &call("w-1", &path));
        let Some(Effect::CallPlatform { request, .. }) = effects.iter().next() else {
            panic!("no call");
        };
        let path = &request.path;
        assert_eq!((path.as_str(), path.capacity()), (&*format!("{ROOT}/x"), ROOT.len() + 2));
    }

    #[test]
    fn a_post_without_body_sends_an_empty_text() {
        let mut board = board();
        let worker = board.worker();
        let text = call("w-1", ROOT).replace("GET", "POST");
        let seen = board.say(worker, &text);
        let sent = "headers: [('content-type', 'text/plain;charset=UTF-8')], body: Some('') }";
        assert!(seen[0].ends_with(sent), "{seen:?}");
    }

    #[test]
    fn a_type_that_is_given_stays() {
        let mut board = board();
        let worker = board.worker();
        let text = call("w-1", ROOT)
            .replace("GET", "PATCH")
            .replace('}', ",'headers':{'Content-Type':'a/b','cookie':'c'},'body':'x'}");
        let sent = "headers: [('content-type', 'a/b')], body: Some('x') }";
        assert!(board.say(worker, &text)[0].ends_with(sent));
    }

    #[test]
    fn a_call_elsewhere_is_answered_403() {
        let mut board = board();
        let worker = board.worker();
        for tail in ["1", "/../../../../internal/relay/validate", "/%2e%2e/ex2"] {
            assert_eq!(board.say(worker, &call("w-1", &format!("{ROOT}{tail}"))), [DENIED]);
        }
        assert_eq!(board.count(Counter::WorkerTransportRejected), 3);
    }

    #[test]
    fn a_worker_without_executor_has_no_paths() {
        let mut board = board();
        for (claim, path) in
            [(None, ROOT), (Some(""), "/api/runtime/workspaces/ws1/managed-executors//ex2")]
        {
            let mut grant = crate::board::grant(relay_contract::Role::Worker);
            grant.claims.managed_executor_id = claim.map(Box::from);
            let (worker, _) = board.open(grant);
            let seen = board.say(worker, &call("w-1", path));
            assert!(seen[0].contains("WORKER_TRANSPORT_PATH_DENIED"), "{seen:?}");
        }
    }

    #[test]
    fn invalid_calls_are_dropped_and_logged() {
        let mut board = board();
        let worker = board.worker();
        for text in [call(" ", ROOT), call("w", "/x"), "x".to_owned(), crate::board::frame("s")] {
            assert_eq!(
                board.say_logged(worker, &text),
                ["log warn worker_frame_rejected workspaceId=ws1 \
                  reason=invalid_worker_transport_frame"]
            );
        }
        assert_eq!(board.count(Counter::FramesDaemonRejected), 4);
    }

    #[test]
    fn only_so_many_calls_are_in_flight() {
        let mut board = board_with(|limits| limits.worker_calls_max = 2);
        let worker = board.worker();
        for request in ["a", "b"] {
            assert!(board.say(worker, &call(request, ROOT))[0].starts_with("call"));
        }
        assert!(board.say(worker, &call("c", ROOT))[0].contains("'status':503"));
        assert_eq!(board.count(Counter::WorkerCallsLimited), 1);
        board.see(crate::Input::WorkerReply { to: worker, response: &answer("a", true) });
        assert!(board.say(worker, &call("c", ROOT))[0].starts_with("call"));
    }

    #[test]
    fn a_call_that_failed_is_counted_logged_and_answered() {
        let mut board = board();
        let worker = board.worker();
        let seen =
            board.see(crate::Input::WorkerReply { to: worker, response: &answer("a", false) });
        assert_eq!(seen[0], "log warn worker_transport_forward_failed workspaceId=ws1");
        assert!(seen[1].contains("'status':502"));
        assert_eq!(board.count(Counter::WorkerTransportForwardFailed), 1);
    }

    #[test]
    fn workers_share_the_daemons_limit() {
        let mut board = board_with(|limits| limits.daemon_per_minute = 1);
        let daemon = board.daemon();
        board.say(daemon, "x");
        let worker = board.worker();
        assert_eq!(
            board.say_logged(worker, &call("w", ROOT))[..2],
            [
                "log warn worker_frame_rate_limited workspaceId=ws1",
                "close 1 4008 worker rate limit exceeded"
            ]
        );
        assert_eq!(board.count(Counter::FramesDaemonRateLimited), 1);
    }

    const ROOT: &str = "/api/runtime/workspaces/ws1/managed-executors/ex1";
}
