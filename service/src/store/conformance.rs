//! The one suite that every engine of the store passes, and what other tests need to fill
//! a store.
//!
//! A case takes an empty store. On SQLite each case is a test of its own, on a database of
//! its own; another engine runs [`cases`].

use super::engine::{Db, values};
use super::{
    Batch, Chunk, Handing, PresenceMessage, RecordedTask, Registration, Result, Store, Tally,
};
use crate::model::{Destination, TaskSpec, TaskState};
use crate::state_folder::StateFolder;
use crate::stub_broker::result_of;
use clutch_common::failover::{self, KnownState};
use clutch_common::id::{Attempt, EndpointId, TaskId};
use clutch_common::task::result::{Outcome, TaskResult};
use clutch_common::wire::Presence;
use std::collections::BTreeMap;
use std::sync::Arc;
use tempfile::TempDir;

// Not in the macro, where rustfmt does not find the files.
mod cancels;
mod children;
mod commits;
mod due;
mod endpoints;
mod forgetting;
mod listing;
mod messages;
mod occurrences;
mod overdue;
mod results;
mod retries;
mod schedules;
mod states;
mod steering;
mod submissions;
mod task_rows;
mod topics;
mod unaccounted;

/// A test that takes an empty store of any engine, and runs on the thread that calls it.
pub(super) type Case = fn(Store);

macro_rules! suite {
    ($($module:ident: $($case:ident)+;)+) => {
        mod sqlite {
            $($(
                #[tokio::test]
                async fn $case() {
                    let (_temp, store) = super::store().await;
                    super::$module::$case(store).await;
                }
            )+)+
        }

        /// The cases by name.
        pub(super) fn cases() -> Vec<(&'static str, Case)> {
            vec![$($((stringify!($case), |store| run($module::$case(store))),)+)+]
        }
    };
}

suite! {
    submissions: submitting_again_records_nothing_twice_and_goes_on_where_it_stopped
        what_the_broker_did_not_take_waits_and_never_falls_back
        a_caller_that_wants_the_brokers_word_hands_over_all_that_has_none
        what_waits_is_handed_over_in_pages_in_order_and_once
        what_waits_is_handed_over_by_priority_in_turns
        what_was_handed_over_without_an_answer_is_found_again
        a_task_that_is_confirmed_twice_at_once_is_counted_once
        a_key_cannot_be_used_for_other_tasks
        an_expiry_counts_from_the_first_recording;
    results: the_first_result_of_an_attempt_wins_and_the_rest_is_counted
        a_later_attempt_supersedes_and_an_older_one_is_only_kept
        only_the_endpoint_that_was_given_an_attempt_answers_for_it
        a_result_that_overtakes_the_confirmation_stays
        an_external_task_is_recorded_by_its_result_with_every_field;
    listing: pages_show_every_task_once_newest_first_under_every_filter
        names_and_times_select_tasks_with_every_other_filter
        results_come_in_the_order_of_submission_in_pages_bounded_by_bytes;
    endpoints: an_endpoint_keeps_its_id_and_contradictions_are_refused
        the_id_of_the_service_is_made_once
        a_closed_store_answers_nothing;
    unaccounted: only_its_own_endpoint_loses_an_attempt_and_only_one_that_it_was_asked_for
        a_lost_attempt_has_no_result_and_only_the_one_under_way_ends_the_task
        the_next_attempt_waits_until_the_broker_has_it_under_the_same_key
        a_task_whose_confirm_is_on_its_way_is_asked_for_once_it_is_there
        an_attempt_that_is_lost_before_its_confirm_is_followed_by_the_next
        an_attempt_is_asked_for_once_until_there_is_a_reason_to_ask_again
        a_roll_call_that_another_instance_passes_by_is_none
        a_disk_that_went_back_is_asked_for_every_open_attempt
        losses_of_external_tasks_and_presences_of_unknown_endpoints_are_ignored
        provisioning_again_changes_the_patience_and_has_open_attempts_asked_for
        only_a_state_that_is_not_active_can_be_given_up_and_only_once
        a_presence_that_comes_again_revives_no_state_that_was_given_up
        an_endpoint_that_lost_messages_is_asked_and_no_other;
    overdue: a_task_without_a_result_for_long_is_asked_for
        a_task_is_asked_for_again_after_growing_pauses
        an_endpoint_with_many_overdue_tasks_does_not_hold_up_others
        a_delivered_result_that_is_not_recorded_has_all_asked_for_once
        missing_tasks_are_reported_with_the_endpoints_answer;
    task_rows: tasks_ahead_of_one_are_those_that_its_endpoint_got_before_it
        tasks_ahead_are_those_of_a_higher_priority_too_and_none_of_a_lower_one
        submitted_tasks_are_listed_at_positions_in_pages;
    states: however_many_states_are_claimed_few_are_kept_and_the_real_ones_among_them
        a_state_that_is_declared_lost_leaves_its_attempts_in_doubt
        an_endpoint_is_read_with_its_states_and_what_waits_for_it;
    steering: a_drain_is_numbered_once_and_sent_until_the_broker_has_it;
    cancels: a_cancellation_is_sent_until_the_broker_has_it_and_then_marked_and_binds_no_outcome
        a_task_to_be_cancelled_ends_once_it_is_nowhere_for_certain_and_is_not_submitted_again
        what_never_left_is_cancelled_at_once_and_what_may_have_left_is_not_sent_again
        a_cancelled_task_that_ran_to_its_end_is_not_called_cancelled
        tasks_are_selected_once_in_slices_by_every_condition;
    messages: a_message_is_kept_once_and_ends_once
        messages_are_read_in_order_and_those_to_ended_tasks_apart
        a_task_has_a_bounded_number_of_messages;
    topics: members_are_given_tasks_by_their_slots_and_no_more_than_their_credit
        a_run_that_begins_knows_what_is_placed
        what_is_not_claimed_is_placed_elsewhere_and_a_late_result_ends_nothing
        what_a_member_does_not_start_or_offer_is_placed_elsewhere
        what_a_lost_member_claimed_runs_again_only_if_it_may
        submissions_take_turns_and_what_is_scheduled_waits
        what_nobody_takes_expires_in_words_and_cancelled_tasks_are_not_placed
        what_the_broker_does_not_take_and_what_is_retried_is_placed_again;
    children: a_child_knows_its_parent_and_the_facts_tell_who_is_related
        a_family_is_shown_and_outlives_the_record_of_its_parent
        a_task_that_has_ended_or_is_to_be_cancelled_gets_no_children;
    forgetting: ended_tasks_go_with_all_of_theirs_and_the_others_stay
        a_submission_goes_with_its_last_task_and_its_key_is_free_again
        tasks_go_by_the_age_of_their_outcome
        a_row_that_is_forgotten_is_given_to_no_other_task
        a_result_of_a_forgotten_task_that_comes_late_is_counted_and_not_kept
        a_forgotten_task_that_a_disk_delivered_is_not_missing
        many_tasks_go_in_slices_and_a_dry_run_counts_them;
    retries: a_task_is_run_again_as_its_next_attempt_and_keeps_its_results
        a_policy_runs_a_task_again_after_a_pause_that_a_cancellation_ends
        a_task_that_is_run_again_may_wait_as_long_as_it_might_at_first;
    due: tasks_are_released_at_their_moment_and_not_before
        a_key_keeps_its_moment_and_another_one_is_a_conflict
        a_scheduled_task_is_cancelled_at_once_and_goes_with_its_submission
        many_tasks_are_released_in_slices_in_order;
    schedules: an_instant_has_one_record_and_one_task
        a_set_is_applied_as_a_whole_and_the_same_changes_nothing
        a_schedule_of_an_owner_is_changed_by_this_owner_only
        an_overlap_and_a_pause_skip_and_an_end_goes_on
        what_cannot_be_placed_failed_with_its_reason_and_others_go_on;
    occurrences: old_records_go_with_their_tasks_and_the_last_twenty_stay
        an_instant_whose_record_is_forgotten_does_not_fire_again
        a_schedule_that_cannot_be_read_rests_alone_until_it_is_replaced
        an_instant_that_waits_for_a_rule_that_is_gone_is_skipped;
    commits: a_state_that_has_seen_fewer_commits_than_known_is_told_so_once;
}

fn run(case: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(case);
}

/// An empty store on SQLite; the folder lives as long as the first value.
pub(crate) async fn store() -> (TempDir, Store) {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(&StateFolder::new(temp.path())).await.unwrap();
    (temp, store)
}

/// A task with this command line.
pub(crate) fn spec(argv: &[&str]) -> TaskSpec {
    serde_json::from_value(serde_json::json!({ "argv": argv })).unwrap()
}

/// Tasks that differ.
pub(crate) fn specs(count: usize) -> Vec<TaskSpec> {
    (0..count).map(|number| spec(&["echo", &number.to_string()])).collect()
}

/// A whole submission.
pub(crate) fn chunk(endpoint: EndpointId, key: &str, specs: &[TaskSpec]) -> Chunk {
    let (total, specs) = (specs.len() as u64, specs.to_vec());
    Chunk {
        to: Destination::Endpoint(endpoint.to_string()),
        key: key.to_owned(),
        total,
        first: 0,
        specs,
        handing: Handing::New,
        retry: None,
        due: None,
        parent: None,
        now_ms: 1000,
    }
}

/// Records the tasks of a chunk; registers its endpoint if that is not known.
pub(super) async fn begin(store: &Store, chunk: Chunk) -> Result<Vec<RecordedTask>> {
    if let Destination::Endpoint(to) = &chunk.to
        && store.endpoint(to).await?.is_none()
    {
        let id = to.parse().ok();
        let name = to.clone();
        let wanted = Registration { name, id, queue: None, lost_after: None, now_ms: 1 };
        store.register(wanted).await?;
    }
    Ok(store.record_submission(chunk).await?.unwrap().tasks)
}

/// Records a task that the broker has, and its endpoint.
pub(crate) async fn submitted_task(store: &Store) -> EndpointId {
    let endpoint = EndpointId::new();
    let begun = begin(store, chunk(endpoint, "k", &[spec(&["a"])])).await.unwrap();
    store.mark_submitted(vec![(begun[0].seq, 1)], 5).await.unwrap();
    endpoint
}

/// Records results, and presences after them.
pub(crate) async fn record(
    store: &Store,
    results: &[TaskResult],
    presences: &[Presence],
    now_ms: u64,
) -> Result<Tally> {
    let message = |presence: &Presence| PresenceMessage {
        presence: presence.clone(),
        message: None,
        commits: None,
        waited: false,
    };
    let presences = presences.iter().map(message).collect();
    let mut own = Vec::new();
    for result in results {
        let known = store.task(result.task_id).await?;
        let endpoint_id = known.map_or(result.endpoint_id, |known| known.summary.endpoint);
        own.push(TaskResult { endpoint_id, ..result.clone() });
    }
    let batch = Batch { results: own, presences, ..Batch::default() };
    store.record(Arc::new(batch), now_ms, |_| ()).await
}

/// The state that a roll call of an endpoint goes to.
pub(super) async fn state_to_ask(store: &Store, endpoint: EndpointId) -> KnownState {
    let all = store.endpoint_states().await.unwrap();
    let one = all.into_iter().find(|one| one.endpoint == endpoint).unwrap();
    failover::to_ask(&one.states).unwrap().clone()
}

/// Records that an endpoint was asked for up to `limit` attempts; returns how many.
pub(super) async fn ask(store: &Store, endpoint: EndpointId, limit: usize, now_ms: u64) -> usize {
    let known = state_to_ask(store, endpoint).await;
    let attempts = store.attempts_to_ask(endpoint, limit).await.unwrap();
    let count = attempts.len();
    assert!(store.mark_asked(endpoint, &known, attempts, now_ms).await.unwrap());
    count
}

/// The result of an attempt at a task.
pub(super) fn done(task: &RecordedTask, attempt: u32, outcome: Outcome) -> TaskResult {
    result_of(Attempt { task_id: task.task.id, attempt }, outcome)
}

/// A task's state, and the attempt that decided it by its result.
pub(super) async fn state(store: &Store, id: TaskId) -> (TaskState, Option<u32>) {
    let summary = store.task(id).await.unwrap().unwrap().summary;
    (summary.state, summary.attempt)
}

/// Compares the counts that are kept with a count of the rows themselves.
pub(super) async fn assert_counts_agree(store: &Store, submission: i64) {
    let read = async |rows: &'static str| -> BTreeMap<String, u64> {
        let read = move |db: &Db<'_>| db.all::<(String, u64)>(rows, values![submission]);
        store.read("counting", read).await.unwrap().into_iter().collect()
    };
    let kept = "SELECT state, tasks FROM counts WHERE submission = ? AND tasks <> 0";
    let counted = "SELECT state, count(*) FROM tasks WHERE submission = ? GROUP BY state";
    assert_eq!(read(kept).await, read(counted).await);
}
