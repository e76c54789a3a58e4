//! What this run of the daemon is to others: what it is called, whether it shares its
//! endpoint with other instances, and what it tells the service of itself. Pure
//! state behind a lock; the publisher sends it.
//!
//! Only the newest word counts: what has not been sent when there is something
//! newer to say is not sent any more.

use crate::pending::ledger::Ledger;
use clutch_common::log::throttle::Throttle;
use clutch_common::wire::{Presence, Role, UnknownControl, Welcome};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

/// What the instance does on its present link.
#[derive(Default)]
struct Post {
    /// The role it took last, maybe on an earlier link.
    role: Option<Role>,
    /// Whether it still has it.
    held: bool,
    /// Whether the service is certain to hear of it before all that is sent later.
    known: bool,
}

/// This run of the daemon; shared by session (its roles) and publisher (tells).
pub(crate) struct Instance {
    /// What it is called first; each session counts on from there.
    first: Uuid,
    sessions: AtomicU64,
    standby: bool,
    /// Whether it may take the place of an instance that it found holding the lease.
    replaces: bool,
    /// Whether its state folder is a copy of one that may be in use.
    copied: bool,
    refused: AtomicBool,
    called: AtomicBool,
    introduced: AtomicBool,
    post: Mutex<Post>,
    /// How often messages were found damaged or missing, and of how many of these times
    /// the service was told.
    losses: AtomicU64,
    reported: watch::Sender<u64>,
    /// How many roll calls were answered, and of how many the service was told.
    answers: AtomicU64,
    answers_told: AtomicU64,
    /// Whether it is to be told how its disk is, and what it was told.
    asks: AtomicBool,
    welcome: watch::Sender<Option<Welcome>>,
    passed_by: Mutex<Throttle>,
    due: Notify,
    told: Notify,
}

impl Instance {
    /// One that is called this first; `standby` says that it was started to share
    /// its endpoint.
    pub(crate) fn new(first: Uuid, standby: bool) -> Self {
        Self {
            first,
            sessions: AtomicU64::new(0),
            standby,
            replaces: false,
            copied: false,
            refused: AtomicBool::new(false),
            called: AtomicBool::new(false),
            introduced: AtomicBool::new(false),
            post: Mutex::default(),
            losses: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            answers_told: AtomicU64::new(0),
            asks: AtomicBool::new(false),
            welcome: watch::Sender::new(None),
            reported: watch::Sender::new(0),
            passed_by: Mutex::default(),
            due: Notify::new(),
            told: Notify::new(),
        }
    }

    /// Lets the instance take the place of one that it finds holding the lease: a
    /// person says that the other's state folder is lost.
    pub(crate) fn replacing(self, replaces: bool) -> Self {
        Self { replaces, ..self }
    }

    /// Says that the state folder is a copy of one that may be in use: what that one
    /// has accepted stays its own.
    pub(crate) fn copied(self, copied: bool) -> Self {
        Self { copied, ..self }
    }

    /// Notes that another instance, or a dead connection of one, held the lease when
    /// this one asked for it. From then on this one tells the service that it shares the
    /// endpoint: what the other has accepted stays the other's.
    pub(crate) fn refused(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Whether it has found the lease held.
    pub(crate) fn was_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether another instance may have tasks that are to stay its own.
    fn shares(&self) -> bool {
        self.standby || !self.replaces && (self.copied || self.was_refused())
    }

    /// What it is called in this session: another one in each, so that nobody takes
    /// what it is now for what it was before its link was lost.
    pub(crate) fn id(&self) -> Uuid {
        let sessions = self.sessions.load(Ordering::Relaxed);
        Uuid::from_u128(self.first.as_u128().wrapping_add(u128::from(sessions)))
    }

    /// Begins another session.
    pub(crate) fn renew(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether it was started to share its endpoint.
    pub(crate) fn is_standby(&self) -> bool {
        self.standby
    }

    /// Whether there may be another instance that takes over, which does not
    /// know this one's tasks: then a task starts only when its acknowledgement
    /// is secured.
    pub(crate) fn is_fenced(&self) -> bool {
        self.standby || self.copied || self.called.load(Ordering::Relaxed)
    }

    /// Takes up a role, tells so, and returns the role it had before.
    pub(crate) fn set_role(&self, role: Role) -> Option<Role> {
        let before = std::mem::replace(
            &mut *self.post(),
            Post { role: Some(role), held: true, known: false },
        );
        self.tell();
        before.role
    }

    /// Has no role until it takes one up, and nothing to tell.
    pub(crate) fn clear_role(&self) {
        self.post().held = false;
    }

    /// Whether the service has heard once that it is active.
    pub(crate) fn is_introduced(&self) -> bool {
        self.introduced.load(Ordering::Relaxed)
    }

    /// Messages were found damaged or missing: the service is told, and the future is
    /// ready once it certainly is.
    pub(crate) fn lose(&self) -> impl Future<Output = ()> + Send + use<> {
        let losses = self.losses.fetch_add(1, Ordering::Relaxed) + 1;
        let mut reported = self.reported.subscribe();
        self.tell();
        async move {
            // An instance that is gone tells nothing more, and settles nothing.
            if reported.wait_for(|reported| *reported >= losses).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// How often something was found damaged or missing.
    pub(crate) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    /// The service was told of so many losses.
    pub(crate) fn reported(&self, losses: u64) {
        self.reported.send_if_modified(|reported| {
            let more = losses > *reported;
            *reported = losses.max(*reported);
            more
        });
    }

    /// Has the service asked, from the next word on, whether the disk went back in time;
    /// or not any more.
    pub(crate) fn ask(&self, asks: bool) {
        self.asks.store(asks, Ordering::Relaxed);
    }

    /// The service says how the disk of a session is.
    pub(crate) fn welcomed(&self, welcome: Welcome) {
        self.welcome.send_replace(Some(welcome));
    }

    /// Waits for what the service says of this session; whether its disk went back.
    pub(crate) async fn is_behind(&self) -> bool {
        let session = self.id();
        let mut welcome = self.welcome.subscribe();
        let mine = |one: &Option<Welcome>| one.is_some_and(|one| one.instance == session);
        // There is always a sender: this instance.
        let told = welcome.wait_for(mine).await;
        told.is_ok_and(|welcome| welcome.is_some_and(|welcome| welcome.behind))
    }

    /// A roll call was answered: the service is told.
    pub(crate) fn answer(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.tell();
    }

    /// How many roll calls were answered.
    pub(crate) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// The service was told of so many answered roll calls.
    pub(crate) fn answers_told(&self, answers: u64) {
        self.answers_told.fetch_max(answers, Ordering::Relaxed);
    }

    /// Counts a control message that this build cannot act on, and tells of it in the log.
    pub(crate) fn pass_by(&self, message: &UnknownControl) {
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

    /// What it told of this role has arrived.
    pub(crate) fn arrived(&self, role: Role) {
        self.introduced.fetch_or(role == Role::Active, Ordering::Relaxed);
        let mut post = self.post();
        post.known |= post.role == Some(role);
        drop(post);
        self.told.notify_waiters();
    }

    /// Waits until what it told of its role has arrived.
    pub(crate) async fn known(&self) {
        loop {
            let told = self.told.notified();
            if self.post().known {
                return;
            }
            told.await;
        }
    }

    /// Somebody asks who holds the lease.
    pub(crate) fn call(&self) {
        self.called.store(true, Ordering::Relaxed);
        self.tell();
    }

    /// Has the service told, as soon as may be.
    pub(crate) fn tell(&self) {
        self.due.notify_one();
    }

    /// Waits until the service is to be told.
    pub(crate) async fn due(&self) {
        self.due.notified().await;
    }

    /// What there is to tell; nothing without a role.
    pub(crate) fn presence(&self, ledger: &Ledger) -> Option<Presence> {
        let post = self.post();
        let role = post.role.filter(|_| post.held)?;
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
            answered: self.answers() > self.answers_told.load(Ordering::Relaxed),
        })
    }

    fn post(&self) -> MutexGuard<'_, Post> {
        self.post.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use futures_util::FutureExt as _;

    #[test]
    fn who_shares_the_endpoint_or_is_called_is_careful_from_then_on() {
        assert!(Instance::new(Uuid::nil(), true).is_fenced());
        let plain = Instance::new(Uuid::nil(), false);
        plain.set_role(Role::Active);
        assert!(!plain.is_fenced());
        plain.call();
        plain.clear_role();
        assert!(plain.is_fenced() && !plain.is_standby());
    }

    #[test]
    fn one_that_found_the_lease_held_replaces_only_by_a_persons_word() {
        let (_disk, ledger) = testing::ledger(10);
        for (replaces, shares) in [(false, true), (true, false)] {
            let instance = Instance::new(Uuid::nil(), false).replacing(replaces);
            instance.set_role(Role::Active);
            assert!(!instance.presence(&ledger).unwrap().standby);
            instance.refused();
            assert_eq!(instance.presence(&ledger).unwrap().standby, shares);
        }
    }

    #[test]
    fn one_on_a_copied_folder_is_careful_and_replaces_only_by_a_persons_word() {
        let (_disk, ledger) = testing::ledger(10);
        for (replaces, shares) in [(false, true), (true, false)] {
            let instance = Instance::new(Uuid::nil(), false).replacing(replaces).copied(true);
            instance.set_role(Role::Active);
            let presence = instance.presence(&ledger).unwrap();
            assert!(instance.is_fenced());
            assert_eq!((presence.standby, presence.replaces), (shares, replaces));
            instance.arrived(Role::Active);
            assert!(!instance.presence(&ledger).unwrap().replaces, "the word is given once");
        }
    }

    #[tokio::test]
    async fn it_is_known_once_its_present_role_has_arrived() {
        let instance = Instance::new(Uuid::nil(), true);
        let is_known = || instance.known().now_or_never().is_some();
        instance.set_role(Role::Standby);
        instance.arrived(Role::Standby);
        assert!(is_known());
        instance.set_role(Role::Active);
        instance.arrived(Role::Standby);
        assert!(!is_known(), "that it waits has arrived, not that it is active");
        assert!(!instance.is_introduced());
        instance.arrived(Role::Active);
        assert!(is_known() && instance.is_introduced());
        instance.set_role(Role::Active);
        assert!(!is_known() && instance.is_introduced());
    }

    #[test]
    fn each_session_has_a_name_of_its_own() {
        let instance = Instance::new(Uuid::max(), true);
        let first = instance.id();
        instance.renew();
        assert_ne!(instance.id(), first);
    }

    #[tokio::test]
    async fn it_tells_of_the_role_it_has_and_of_none_it_had() {
        let (_disk, ledger) = testing::ledger(10);
        let instance = Instance::new(Uuid::nil(), true);
        assert_eq!(instance.presence(&ledger), None);
        assert_eq!(instance.set_role(Role::Standby), None);
        instance.due().await;
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
