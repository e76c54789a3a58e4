//! The instance: this run of the daemon as the service sees it. Holds its session id, its
//! role, whether it shares its endpoint with other instances, and the contents of its
//! next presence message. Pure state behind a lock; the publisher sends the message.
//!
//! A presence message says the state at the time it is sent: a state that was not sent
//! before it changed is never sent.

use crate::link::status::LinkBoard;
use crate::pending::ledger::Ledger;
use clutch_common::log::throttle::Throttle;
use clutch_common::system::clock::now_ms;
use clutch_common::wire::{InstanceDetails, Presence, Role, UnknownControl, Welcome};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

/// The role of the instance on its present link.
#[derive(Default)]
struct RoleState {
    /// The role it had last, maybe on an earlier link.
    role: Option<Role>,
    /// Whether it still has it.
    held: bool,
    /// Whether its presence message with this role is confirmed.
    known: bool,
}

/// The details that the instance tells of itself.
#[derive(Default)]
struct DetailsState {
    /// The details; nothing where there is nothing to tell.
    details: Option<InstanceDetails>,
    /// The session in which a presence message with them was confirmed last, and whether it
    /// said that the endpoint drains.
    told: Option<(Uuid, bool)>,
}

/// This run of the daemon; the session sets its role, the publisher sends its presence.
pub(crate) struct Instance {
    /// The id of its first session; each later one is one higher.
    first: Uuid,
    sessions: AtomicU64,
    standby: bool,
    /// Whether it replaces an instance that it finds holding the lease.
    replaces: bool,
    /// Whether its state folder is a copy of one that may be in use.
    copied: bool,
    lease_was_held: AtomicBool,
    pinged: AtomicBool,
    introduced: AtomicBool,
    role_state: Mutex<RoleState>,
    details: Mutex<DetailsState>,
    /// How often messages were found damaged or missing, and how many of these losses were
    /// reported.
    losses: AtomicU64,
    reported: watch::Sender<u64>,
    /// How many roll calls were answered, and how many of these answers were reported.
    answers: AtomicU64,
    answers_reported: AtomicU64,
    /// Whether it asks the service for a welcome, and the last one.
    asks: AtomicBool,
    welcome: watch::Sender<Option<Welcome>>,
    passed_by: Mutex<Throttle>,
    /// How many control messages were passed by.
    passed: AtomicU64,
    /// The state of its link.
    pub(crate) link: LinkBoard,
    due: Notify,
    confirmed: Notify,
}

impl Instance {
    /// Creates an instance; `first` is the id of its first session, and `standby` says that
    /// it was started to share its endpoint.
    pub(crate) fn new(first: Uuid, standby: bool) -> Self {
        Self {
            first,
            sessions: AtomicU64::new(0),
            standby,
            replaces: false,
            copied: false,
            lease_was_held: AtomicBool::new(false),
            pinged: AtomicBool::new(false),
            introduced: AtomicBool::new(false),
            role_state: Mutex::default(),
            details: Mutex::default(),
            losses: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            answers_reported: AtomicU64::new(0),
            asks: AtomicBool::new(false),
            welcome: watch::Sender::new(None),
            reported: watch::Sender::new(0),
            passed_by: Mutex::default(),
            passed: AtomicU64::new(0),
            link: LinkBoard::default(),
            due: Notify::new(),
            confirmed: Notify::new(),
        }
    }

    /// Lets the instance replace one that it finds holding the lease: a person says that
    /// the other's state folder is lost.
    pub(crate) fn replacing(self, replaces: bool) -> Self {
        Self { replaces, ..self }
    }

    /// Says that the state folder is a copy of one that may be in use: tasks that the other
    /// instance has accepted stay its own.
    pub(crate) fn copied(self, copied: bool) -> Self {
        Self { copied, ..self }
    }

    /// Sets what the instance tells of itself, once in each session.
    pub(crate) fn describing(self, details: InstanceDetails) -> Self {
        Self { details: Mutex::new(DetailsState { details: Some(details), told: None }), ..self }
    }

    /// Notes that a presence message with the details was confirmed, and whether it said that
    /// the endpoint drains.
    pub(crate) fn details_told(&self, draining: bool) {
        self.details_state().told = Some((self.id(), draining));
    }

    /// Notes that another instance, or a dead connection of one, held the lease when
    /// this one asked for it. From then on this one tells the service that it shares the
    /// endpoint: what the other has accepted stays the other's.
    pub(crate) fn found_lease_held(&self) {
        self.lease_was_held.store(true, Ordering::Relaxed);
    }

    /// Whether it has found the lease held by another instance.
    pub(crate) fn has_found_lease_held(&self) -> bool {
        self.lease_was_held.load(Ordering::Relaxed)
    }

    /// Whether another instance may have tasks, which are to stay its own.
    fn shares(&self) -> bool {
        self.standby || !self.replaces && (self.copied || self.has_found_lease_held())
    }

    /// Returns the id of this session. Each session has its own, so that a presence of an
    /// earlier one cannot pass for a current one.
    pub(crate) fn id(&self) -> Uuid {
        let sessions = self.sessions.load(Ordering::Relaxed);
        Uuid::from_u128(self.first.as_u128().wrapping_add(u128::from(sessions)))
    }

    /// Begins another session.
    pub(crate) fn begin_session(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether it was started to share its endpoint.
    pub(crate) fn is_standby(&self) -> bool {
        self.standby
    }

    /// Whether another instance may take over, which does not know this one's tasks: then a
    /// task starts only when its acknowledgement is confirmed.
    pub(crate) fn is_fenced(&self) -> bool {
        self.standby || self.copied || self.pinged.load(Ordering::Relaxed)
    }

    /// Sets the role, requests a presence message, and returns the role before.
    pub(crate) fn set_role(&self, role: Role) -> Option<Role> {
        let before = std::mem::replace(
            &mut *self.role_state(),
            RoleState { role: Some(role), held: true, known: false },
        );
        self.request_presence();
        before.role
    }

    /// Clears the role: no presence is sent until there is one again.
    pub(crate) fn clear_role(&self) {
        self.role_state().held = false;
    }

    /// Whether a presence message with the active role was ever confirmed.
    pub(crate) fn is_introduced(&self) -> bool {
        self.introduced.load(Ordering::Relaxed)
    }

    /// Notes that messages were found damaged or missing, which the next presence reports.
    /// The future resolves once the report is confirmed.
    pub(crate) fn report_loss(&self) -> impl Future<Output = ()> + Send + use<> {
        let losses = self.losses.fetch_add(1, Ordering::Relaxed) + 1;
        let mut reported = self.reported.subscribe();
        self.request_presence();
        async move {
            // An instance that is gone reports nothing, and settles nothing.
            if reported.wait_for(|reported| *reported >= losses).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns how often messages were found damaged or missing.
    pub(crate) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    /// Notes that so many losses are reported.
    pub(crate) fn losses_reported(&self, losses: u64) {
        self.reported.send_if_modified(|reported| {
            let more = losses > *reported;
            *reported = losses.max(*reported);
            more
        });
    }

    /// Sets whether presence messages ask the service for a welcome, which says whether the
    /// disk is behind what the service has seen of it.
    pub(crate) fn ask_for_welcome(&self, asks: bool) {
        self.asks.store(asks, Ordering::Relaxed);
    }

    /// Takes a welcome of the service.
    pub(crate) fn take_welcome(&self, welcome: Welcome) {
        self.welcome.send_replace(Some(welcome));
    }

    /// Waits for the welcome of this session; returns whether the disk is behind.
    pub(crate) async fn disk_is_behind(&self) -> bool {
        let session = self.id();
        let mut welcome = self.welcome.subscribe();
        let mine = |one: &Option<Welcome>| one.is_some_and(|one| one.instance == session);
        // There is always a sender: this instance.
        let told = welcome.wait_for(mine).await;
        told.is_ok_and(|welcome| welcome.is_some_and(|welcome| welcome.behind))
    }

    /// Notes that a roll call was answered, which the next presence reports.
    pub(crate) fn roll_call_answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.request_presence();
    }

    /// Returns how many roll calls were answered.
    pub(crate) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Notes that so many answers are reported.
    pub(crate) fn answers_reported(&self, answers: u64) {
        self.answers_reported.fetch_max(answers, Ordering::Relaxed);
    }

    /// Counts a control message that this build cannot act on, and tells of it in the log.
    pub(crate) fn pass_by(&self, message: &UnknownControl) {
        self.passed.fetch_add(1, Ordering::Relaxed);
        let mut passed_by = self.passed_by.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(messages) = passed_by.add(1, Instant::now()) {
            tracing::warn!(
                messages,
                kind = %message.kind,
                reason = %message.reason,
                "control messages that this endpoint does not understand were passed by; no task \
                 is lost with them. If the service is newer, upgrade the endpoint"
            );
        }
    }

    /// Returns how many control messages were passed by.
    pub(crate) fn passed_by(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Returns its role on the present link.
    pub(crate) fn role(&self) -> Option<Role> {
        let role_state = self.role_state();
        role_state.role.filter(|_| role_state.held)
    }

    /// Notes that a presence message with this role was confirmed.
    pub(crate) fn role_confirmed(&self, role: Role) {
        self.introduced.fetch_or(role == Role::Active, Ordering::Relaxed);
        let mut role_state = self.role_state();
        role_state.known |= role_state.role == Some(role);
        drop(role_state);
        self.confirmed.notify_waiters();
    }

    /// Waits until a presence message with its present role is confirmed.
    pub(crate) async fn until_known(&self) {
        loop {
            let told = self.confirmed.notified();
            if self.role_state().known {
                return;
            }
            told.await;
        }
    }

    /// Answers a ping to the holder of the lease; the instance is fenced from then on.
    pub(crate) fn take_ping(&self) {
        self.pinged.store(true, Ordering::Relaxed);
        self.request_presence();
    }

    /// Requests that a presence message is sent as soon as possible.
    pub(crate) fn request_presence(&self) {
        self.due.notify_one();
    }

    /// Waits until a presence message is requested.
    pub(crate) async fn presence_due(&self) {
        self.due.notified().await;
    }

    /// Builds the presence message; `None` without a role.
    pub(crate) fn presence(&self, ledger: &Ledger) -> Option<Presence> {
        let role = self.role()?;
        Some(Presence {
            endpoint_id: ledger.endpoint_id,
            state_id: ledger.state_id,
            instance: self.id(),
            role,
            standby: self.shares(),
            replaces: self.replaces && !self.is_introduced(),
            pending: ledger.pending(),
            lost: self.losses() > *self.reported.borrow(),
            delivered: ledger.delivered_last(),
            asks: self.asks.load(Ordering::Relaxed),
            answered: self.answers() > self.answers_reported.load(Ordering::Relaxed),
            details: self.untold_details(ledger),
        })
    }

    /// Notes that another number of tasks runs at once, and tells the service.
    pub(crate) fn has_slots(&self, slots: usize) {
        self.change_details(|details| details.slots = slots as u64);
    }

    /// Notes that the endpoint is a member of other topics, and tells the service.
    pub(crate) fn has_topics(&self, topics: Vec<String>) {
        self.change_details(|details| details.topics = topics);
    }

    fn change_details(&self, change: impl FnOnce(&mut InstanceDetails)) {
        let mut state = self.details_state();
        if let Some(details) = &mut state.details {
            change(details);
            state.told = None;
        }
        drop(state);
        self.request_presence();
    }

    /// Returns the details, unless they were told in this session as they are.
    fn untold_details(&self, ledger: &Ledger) -> Option<InstanceDetails> {
        let draining = ledger.drains().is_draining();
        let state = self.details_state();
        let as_told = state.told == Some((self.id(), draining));
        let untold = state.details.clone().filter(|_| !as_told)?;
        let (_, used, _) = ledger.running_and_accepted();
        let free = untold.slots.saturating_sub(used as u64);
        Some(InstanceDetails { clock_ms: now_ms(), draining, free, ..untold })
    }

    fn details_state(&self) -> MutexGuard<'_, DetailsState> {
        self.details.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn role_state(&self) -> MutexGuard<'_, RoleState> {
        self.role_state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pending::drain::{Drained, DrainedBy};
    use crate::testing;
    use futures_util::FutureExt as _;

    #[test]
    fn an_instance_that_shares_the_endpoint_or_was_pinged_is_fenced_from_then_on() {
        assert!(Instance::new(Uuid::nil(), true).is_fenced());
        let plain = Instance::new(Uuid::nil(), false);
        plain.set_role(Role::Active);
        assert!(!plain.is_fenced());
        plain.take_ping();
        plain.clear_role();
        assert!(plain.is_fenced() && !plain.is_standby());
    }

    #[tokio::test]
    async fn it_tells_its_details_once_in_each_session_and_when_they_change() {
        let (_disk, ledger) = testing::ledger(10);
        let details = InstanceDetails {
            version: "1".to_owned(),
            host: "node-1".to_owned(),
            slots: 3,
            free: 3,
            topics: Vec::new(),
            functions: Vec::new(),
            started_at_ms: 5,
            clock_ms: 0,
            draining: false,
        };
        let instance = Instance::new(Uuid::nil(), false).describing(details.clone());
        let told = || instance.presence(&ledger).unwrap().details;
        for _ in 0..2 {
            instance.begin_session();
            instance.set_role(Role::Active);
            let first = told().unwrap();
            assert!(first.clock_ms > 0);
            assert_eq!(first, InstanceDetails { clock_ms: first.clock_ms, ..details.clone() });
            assert!(told().is_some(), "until it is confirmed");
            instance.details_told(false);
            assert_eq!(told(), None);
        }
        instance.has_topics(vec!["cloud".to_owned()]);
        assert_eq!(told().unwrap().topics, ["cloud"], "it changed");
        ledger.accept(vec![testing::task()]).await.unwrap().await.unwrap();
        let held = ledger.take().unwrap();
        assert_eq!(told().unwrap().free, 2);
        instance.details_told(false);
        drop(held);
        ledger.drain(DrainedBy::Person, Some(Drained::default()));
        assert!(told().unwrap().draining, "it changed");
        instance.details_told(true);
        assert_eq!(told(), None);
    }

    #[test]
    fn one_that_found_the_lease_held_replaces_only_by_a_persons_word() {
        let (_disk, ledger) = testing::ledger(10);
        for (replaces, shares) in [(false, true), (true, false)] {
            let instance = Instance::new(Uuid::nil(), false).replacing(replaces);
            instance.set_role(Role::Active);
            assert!(!instance.presence(&ledger).unwrap().standby);
            instance.found_lease_held();
            assert_eq!(instance.presence(&ledger).unwrap().standby, shares);
        }
    }

    #[test]
    fn one_on_a_copied_folder_is_fenced_and_replaces_only_by_a_persons_word() {
        let (_disk, ledger) = testing::ledger(10);
        for (replaces, shares) in [(false, true), (true, false)] {
            let instance = Instance::new(Uuid::nil(), false).replacing(replaces).copied(true);
            instance.set_role(Role::Active);
            let presence = instance.presence(&ledger).unwrap();
            assert!(instance.is_fenced());
            assert_eq!((presence.standby, presence.replaces), (shares, replaces));
            instance.role_confirmed(Role::Active);
            assert!(!instance.presence(&ledger).unwrap().replaces, "the word is given once");
        }
    }

    #[tokio::test]
    async fn it_is_known_once_its_present_role_is_confirmed() {
        let instance = Instance::new(Uuid::nil(), true);
        let is_known = || instance.until_known().now_or_never().is_some();
        instance.set_role(Role::Standby);
        instance.role_confirmed(Role::Standby);
        assert!(is_known());
        instance.set_role(Role::Active);
        instance.role_confirmed(Role::Standby);
        assert!(!is_known(), "the standby role is confirmed, not the active one");
        assert!(!instance.is_introduced());
        instance.role_confirmed(Role::Active);
        assert!(is_known() && instance.is_introduced());
        instance.set_role(Role::Active);
        assert!(!is_known() && instance.is_introduced());
    }

    #[test]
    fn each_session_has_an_id_of_its_own() {
        let instance = Instance::new(Uuid::max(), true);
        let first = instance.id();
        instance.begin_session();
        assert_ne!(instance.id(), first);
    }

    #[tokio::test]
    async fn it_tells_of_the_role_it_has_and_of_none_it_had() {
        let (_disk, ledger) = testing::ledger(10);
        let instance = Instance::new(Uuid::nil(), true);
        assert_eq!(instance.presence(&ledger), None);
        assert_eq!(instance.set_role(Role::Standby), None);
        instance.presence_due().await;
        let presence = instance.presence(&ledger).unwrap();
        assert_eq!((presence.role, presence.standby, presence.pending), (Role::Standby, true, 0));
        assert_eq!((presence.instance, presence.state_id), (instance.id(), ledger.state_id));
        ledger.accept(vec![testing::task()]).await.unwrap().await.unwrap();
        assert_eq!(instance.set_role(Role::Active), Some(Role::Standby));
        assert_eq!(instance.presence(&ledger).unwrap().pending, 1);
        instance.clear_role();
        assert_eq!(instance.presence(&ledger), None);
    }
}
