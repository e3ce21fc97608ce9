//! What both drivers of a real kernel do, over loopback. Each claim is checked with each driver;
//! the ring's are skipped, with the reason on stderr, only where the probe finds no usable ring.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod crowd;
mod ends;
mod exports;
mod harness;
mod streams;

use relay_driver::{Choice, Config, Uring, open};

/// Two tests per claim: one for each driver.
macro_rules! claims {
    ($($group:ident: $($claim:ident)*;)*) => {
        mod uring {
            $($(#[test]
            fn $claim() {
                match relay_driver::Uring::probe() {
                    Ok(()) => crate::$group::$claim(relay_driver::Choice::Uring),
                    Err(unsupported) => eprintln!("skipped: {unsupported}"),
                }
            })*)*
        }
        mod epoll {
            $($(#[test]
            fn $claim() {
                crate::$group::$claim(relay_driver::Choice::Epoll);
            })*)*
        }
    };
}

claims! {
    streams:
        an_accepted_socket_names_its_peer_and_does_not_delay
        an_accepted_socket_inherits_keepalive_and_user_timeout
        accepting_ends_when_it_is_stopped
        several_listeners_are_accepted_from
        a_unix_socket_is_accepted_from_and_served
        a_guest_receives_once_per_request
        a_resident_receives_until_the_stream_ends
        a_paused_receive_says_so_and_leaves_the_rest_in_the_kernel
        what_is_received_before_a_pause_still_comes
        a_pause_ends_a_receive_that_starves
        an_end_is_told_although_the_receive_was_paused
        a_receive_survives_settling
        a_cut_connection_ends_with_reset
        a_batch_of_many_chunks_arrives_in_order
        trying_a_full_socket_takes_a_part_or_nothing_and_returns_at_once
        insisting_on_a_full_socket_waits_for_the_reader
        a_second_send_in_flight_is_refused
        sending_to_a_cut_connection_fails
        fin_follows_the_send_in_flight
        a_peer_that_finished_can_still_be_answered;
    exports:
        an_exported_resident_goes_on_in_another_driver
        an_exported_guest_goes_on_in_another_driver
        a_place_is_used_again_after_an_export
        a_busy_connection_is_not_exported
        a_lone_receive_can_be_paused
        a_cancelled_send_says_what_the_socket_took
        a_cancelled_send_may_have_taken_nothing
        a_connection_closed_while_it_is_exported_is_closed_once;
    ends:
        closing_gives_back_everything_before_closed
        what_was_sent_before_closing_arrives
        nothing_is_received_after_closing
        a_closed_slot_serves_a_new_generation
        operations_on_unknown_keys_are_ignored
        a_full_table_leaves_the_guest_a_guest
        a_table_place_is_free_again_after_closing
        a_guest_moves_to_another_driver
        a_busy_guest_or_a_resident_is_not_released;
    crowd:
        stalled_leases_starve_receives_but_lose_nothing
        more_starved_connections_than_buffers_all_make_progress
        a_close_comes_to_its_end_while_others_flood
        scarce_buffers_are_shared_evenly
        receives_one_at_a_time_share_scarce_buffers_evenly
        starved_receives_can_be_closed
        a_bell_ends_a_waiting_turn
        a_turn_ends_when_its_time_is_up
        what_arrives_ends_a_polling_turn
        a_bell_ends_a_polling_turn
        a_polling_turn_sleeps_in_the_end
        more_operations_than_the_queue_holds_are_all_done
        more_completions_than_the_queue_holds_are_all_seen
        a_turn_hands_out_a_bounded_number_of_completions
        thousands_of_connections_come_and_go
        a_dropped_driver_closes_its_sockets;
}

#[test]
fn the_ring_is_refused_by_reason_when_insisted_on_and_absent() {
    let opened = open(Choice::Uring, &Config::default());
    match Uring::probe() {
        Ok(()) => assert!(matches!(opened, Ok(opened) if opened.fallback.is_none())),
        Err(unsupported) => {
            assert!(!unsupported.reason.is_empty());
            assert!(opened.is_err());
        }
    }
}
