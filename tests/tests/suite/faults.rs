//! A short selection of the fault suite; `cargo xtask faults` plays all of it.

use clutch_tests::broker::Broker;
use clutch_tests::faults::{Verdict, play_one};
use clutch_tests::{binaries, skip};

/// Plays a row on the shared broker; it must keep the contract.
fn holds(name: &str) {
    if !Broker::available() {
        return skip::because(name, "there is no RabbitMQ and none can be installed");
    }
    let broker = Broker::shared().unwrap();
    let verdict = play_one(name, broker.address(), binaries::folder().unwrap()).unwrap();
    if let Verdict::Skipped(why) = &verdict {
        return skip::because(name, why);
    }
    assert_eq!(verdict, Verdict::Held);
}

#[test]
fn nothing_is_lost_to_a_link_that_stalls_and_is_reset() {
    holds("stall-then-reset");
}

#[test]
fn nothing_is_lost_to_frames_that_are_cut() {
    holds("cut-inside-a-frame");
}

#[test]
fn nothing_is_lost_to_messages_that_no_client_reads() {
    holds("large-headers");
}

#[test]
fn nothing_is_lost_to_a_channel_that_the_broker_closes() {
    holds("channel-closed");
}

#[test]
fn nothing_is_lost_to_a_full_disk_of_the_endpoint() {
    holds("endpoint-disk-full");
}

#[test]
fn nothing_is_lost_to_a_disk_that_turns_read_only() {
    holds("state-folder-read-only");
}

#[test]
fn what_a_lost_file_held_is_told() {
    holds("spool-file-missing");
}

#[test]
fn nothing_is_lost_to_a_full_disk_of_the_service() {
    holds("database-full");
}

#[test]
fn nothing_is_lost_to_kills_while_results_gather_and_while_they_leave() {
    holds("endpoint-kill-gathering");
}

#[test]
fn what_ended_before_a_kill_is_not_called_cancelled_and_what_had_not_started_does_not() {
    holds("cancel-endpoint-kill");
}

#[test]
fn a_drained_endpoint_that_is_killed_starts_nothing_until_it_is_resumed() {
    holds("drained-and-killed");
}

#[test]
fn nothing_waits_for_a_log_that_is_not_read() {
    holds("log-not-read");
}

#[test]
fn no_task_fails_for_a_folder_of_the_endpoints_own_or_a_socket() {
    holds("own-folders-removed");
}

#[test]
fn no_task_fails_for_want_of_descriptors() {
    holds("few-descriptors");
}

#[test]
fn no_task_fails_for_want_of_a_process() {
    holds("no-process-left");
}

#[test]
fn nothing_is_lost_and_nothing_runs_again_for_want_of_inodes() {
    holds("no-inodes");
}

#[test]
fn nothing_is_lost_with_a_state_folder_that_is_moved_away() {
    holds("endpoint-state-moved");
}

#[test]
fn nothing_is_lost_with_a_state_folder_of_the_service_that_is_deleted() {
    holds("service-state-deleted");
}

#[test]
fn what_is_recorded_is_placed_once_whenever_the_service_is_killed_before() {
    holds("service-killed-before-placing");
}

#[test]
fn a_second_service_by_mistake_takes_nothing_from_the_first() {
    holds("second-service-other-state");
}

#[test]
fn every_task_that_an_unreadable_message_names_is_answered_for() {
    holds("unreadable-tasks");
}

#[test]
fn one_that_was_refused_the_lease_takes_nothing_from_the_instance_that_held_it() {
    holds("second-daemon-by-mistake");
}

#[test]
fn results_that_are_purged_come_again() {
    holds("results-purged");
}

#[test]
fn tasks_that_are_purged_or_expire_are_submitted_again() {
    holds("tasks-purged");
}

#[test]
fn a_database_that_was_restored_is_told_what_it_missed() {
    holds("database-restored");
}

#[test]
fn a_copied_state_folder_runs_nothing_beside_its_original() {
    holds("state-copied");
}

#[test]
fn a_state_folder_that_was_put_back_runs_nothing_twice() {
    holds("state-restored");
}

#[test]
fn a_state_folder_that_looks_as_it_did_is_told_that_it_went_back() {
    holds("state-rolled-back");
}

#[test]
fn no_process_gets_away_from_its_task() {
    holds("task-escapes");
}

#[test]
fn nothing_is_lost_without_a_word_to_damaged_files_in_a_folder() {
    holds("folder-group-damaged");
}

#[test]
fn nothing_is_lost_without_a_word_to_missing_files_in_a_folder() {
    holds("folder-group-missing");
}

#[test]
fn nothing_is_lost_to_a_full_disk_of_a_folder() {
    holds("folder-full");
}

#[test]
fn nothing_is_lost_and_no_other_value_recorded_for_bodies_that_arrive_damaged() {
    holds("damaged-body");
}

#[test]
fn nothing_is_lost_with_a_folder_that_is_deleted_and_provisioned_again() {
    holds("folder-deleted");
}

#[test]
fn each_instant_has_one_task_however_often_the_service_is_killed() {
    holds("schedules-service-kill");
}

#[test]
fn no_instant_fires_twice_or_early_when_the_clock_is_set() {
    holds("schedules-clock-steps");
}

#[test]
fn schedules_fire_while_the_broker_is_away() {
    holds("schedules-broker-away");
}

#[test]
fn no_sender_is_told_wrong_while_the_service_is_killed() {
    holds("messages-service-kill");
}

#[test]
fn no_sender_is_told_wrong_whichever_faults_strike() {
    holds("messages-at-random");
}

#[test]
fn a_member_of_a_topic_that_is_killed_runs_again_only_what_it_ran() {
    holds("topics-member-kill");
}

#[test]
fn a_member_of_a_topic_without_a_link_starts_nothing_that_runs_elsewhere() {
    holds("topics-member-cut");
}

#[test]
fn a_member_of_a_topic_that_stands_still_starts_nothing_that_runs_elsewhere() {
    holds("topics-member-stopped");
}

#[test]
fn what_the_disk_of_a_member_held_runs_elsewhere() {
    holds("topics-disk-lost");
}

#[test]
fn a_task_of_a_topic_is_placed_once_whenever_the_service_is_killed() {
    holds("topics-service-kill");
}

#[test]
fn nothing_is_lost_to_kills_of_a_member_and_the_service_at_once() {
    holds("topics-both");
}

#[test]
fn nothing_of_a_topic_is_lost_to_faults_at_random() {
    holds("topics-at-random");
}
