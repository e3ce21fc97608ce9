//! Subscriptions and viewers.

use relay_contract::{Counter, Scope};

use crate::board::{board, board_with, presence, subscribe, unsubscribe};

const S1: &str = "agent-session:s1";

#[test]
fn a_subscription_is_acknowledged_each_time() {
    let mut board = board();
    let viewer = board.viewer("ev1");
    let text = "{'type':'viewport.session_events.subscribe/v1','channel':'agent-session:s1 ',\
                 'afterSequence':7}";
    assert_eq!(
        board.say_logged(viewer, text),
        ["send 0 {'type':'viewport.session_events.subscribed/v1',\
                 'channel':'agent-session:s1','afterSequence':7,\
                 'authoritativeSource':'session_events','websocketRequiredForBackfill':false}"]
    );
    assert!(board.say(viewer, &subscribe(S1))[0].contains("'afterSequence':0"));
    assert_eq!(board.count(Counter::SessionEventSubscribed), 2);
}

#[test]
fn an_unsubscription_is_acknowledged_with_or_without_subscription() {
    let mut board = board();
    let viewer = board.viewer("ev1");
    for _ in 0..2 {
        assert_eq!(
            board.say_logged(viewer, &unsubscribe(S1)),
            ["send 0 {'type':'viewport.session_events.unsubscribed/v1',\
                 'channel':'agent-session:s1'}"]
        );
    }
    assert_eq!(board.count(Counter::SessionEventUnsubscribed), 2);
}

#[test]
fn a_channel_outside_the_claims_is_denied() {
    let mut board = board();
    let viewer = board.viewer("ev1");
    for text in [subscribe("agent-session:other"), unsubscribe("agent-session:other")] {
        assert_eq!(
            board.say_logged(viewer, &text),
            ["send 0 {'type':'viewport.session_events.subscribe_denied/v1',\
                 'channel':'agent-session:other','reason':'CHANNEL_NOT_AUTHORIZED',\
                 'workspaceId':'ws1'}"]
        );
    }
    assert_eq!(board.count(Counter::SessionEventSubscribeRejected), 2);
    assert_eq!(
        board.say_logged(viewer, &presence("agent-session:zz")),
        ["send 0 {'type':'viewport.session_viewer_presence_denied/v1',\
                 'channel':'agent-session:zz','reason':'CHANNEL_NOT_AUTHORIZED',\
                 'workspaceId':'ws1'}"]
    );
    assert_eq!(board.count(Counter::SessionViewerPresenceRejected), 1);
}

#[test]
fn presence_goes_to_the_other_subscribers_in_order_of_connection() {
    let mut board = board();
    let viewers = ["ev0", "ev1", "ev2", "ev3"].map(|name| board.viewer(name));
    for viewer in [viewers[2], viewers[0], viewers[1]] {
        board.say(viewer, &subscribe(S1));
    }
    board.say(viewers[3], &subscribe("agent-session:s2"));
    let copy = |slot| format!("send {slot} {}", presence(S1).replace('"', "'"));
    assert_eq!(board.say_logged(viewers[1], &presence(S1)), ["forward 0".to_owned(), copy(2)]);
    assert_eq!(board.say(viewers[3], &presence(S1)), ["forward 0".to_owned(), copy(1), copy(2)]);
    assert_eq!(board.count(Counter::SessionViewerPresenceFanned), 2);
}

#[test]
fn presence_without_other_viewers_is_counted() {
    let mut board = board();
    let viewer = board.viewer("ev1");
    board.say(viewer, &subscribe(S1));
    assert_eq!(board.say_logged(viewer, &presence(S1)), [""; 0]);
    assert_eq!(board.count(Counter::SessionViewerPresenceNoPeers), 1);
}

#[test]
fn who_unsubscribed_or_left_is_no_viewer() {
    let mut board = board();
    let viewers = ["ev0", "ev1", "ev2"].map(|name| board.viewer(name));
    for viewer in viewers {
        board.say(viewer, &subscribe(S1));
    }
    board.say(viewers[0], &unsubscribe(S1));
    board.close(viewers[1]);
    assert_eq!(board.say(viewers[2], &presence(S1)), [""; 0]);
}

#[test]
fn presence_stays_within_its_scope() {
    let mut board = board();
    let viewer = board.viewer("ev1");
    board.say(viewer, &subscribe(S1));
    let mut elsewhere = crate::board::grant(relay_contract::Role::Client);
    elsewhere.request.target_id = None;
    elsewhere.claims.runtime_target_id = Some("rt2".into());
    elsewhere.claims.scope = Some(Scope::SessionEvents);
    elsewhere.claims.session_channels = Some([Box::from(S1)].into());
    let (elsewhere, _) = board.open(elsewhere);
    assert_eq!(board.say(elsewhere, &presence(S1)), [""; 0]);
}

#[test]
fn presence_draws_from_the_client_s_bucket() {
    let mut board = board_with(|limits| limits.runtime_per_minute = 1);
    let viewer = board.viewer("ev1");
    board.say(viewer, &presence(S1));
    let seen = board.say(viewer, &presence(S1));
    assert_eq!(seen, ["close 0 4008 presence rate limit exceeded"]);
    assert_eq!(board.count(Counter::SessionViewerPresenceRateLimited), 1);
}

#[test]
fn a_flood_of_subscriptions_ends_its_connection() {
    for text in [subscribe, unsubscribe] {
        let mut board = board_with(|limits| limits.unrouted_per_minute = 10);
        let viewer = board.viewer("a");
        for channel in ["agent-session:s1", "agent-session:none"].into_iter().cycle().take(10) {
            assert!(board.say(viewer, &text(channel))[0].starts_with("send 0"));
        }
        let closed = ["close 0 4008 unrouted frame rate limit exceeded"];
        assert_eq!(board.say(viewer, &text("agent-session:s1")), closed);
    }
}

#[test]
fn a_viewer_may_renew_every_subscription_at_once() {
    let mut board = board();
    let viewer = board.viewer("a");
    for _ in 0..64 * 4 {
        assert!(board.say(viewer, &unsubscribe("agent-session:s1"))[0].starts_with("send 0"));
        assert!(board.say(viewer, &subscribe("agent-session:s1"))[0].starts_with("send 0"));
    }
}

#[test]
fn presence_too_large_to_multiply_is_denied() {
    let mut board = board();
    let [first, second] = ["a", "b"].map(|name| board.viewer(name));
    board.say(second, &subscribe("agent-session:s1"));
    let padded = |bytes: usize| {
        let text = presence("agent-session:s1");
        text.replace("'userId'", &format!("'x':'{}','userId'", "y".repeat(bytes)))
    };
    assert_eq!(board.say(first, &padded(16_000)), ["forward 1"]);
    let seen = board.say(first, &padded(17_000));
    assert!(seen[0].contains("session_viewer_presence_denied"), "{seen:?}");
    assert_eq!((seen.len(), board.count(Counter::SessionViewerPresenceRejected)), (1, 1));
}

#[test]
fn invalid_frames_of_a_viewer_are_answered_as_such() {
    let mut board = board();
    let viewer = board.viewer("ev1");
    for text in [
        "{'type':'viewport.session_events.subscribe/v1','channel':'agent-session:s1',\
                 'afterSequence':-1}",
        "{'type':'viewport.session_events.subscribe/v1','channel':' agent-session:s1'}",
        "{'type':'viewport.session_viewer_presence/v1','channel':'agent-session:s1',\
                 'action':'away','userId':'u1'}",
    ] {
        assert!(board.say(viewer, text)[0].contains("INVALID_FRAME"), "{text}");
    }
    assert_eq!(board.count(Counter::FramesClientRejected), 3);
}
