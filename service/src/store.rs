//! The service's records: endpoints, their states, submissions, tasks and results.
//! Only this file and its folder know SQL; `design/0016-store.md` says why it is as it is.
//!
//! [`Store`] is one type over a database engine ([`engine`]). A method of it is one
//! transaction, run as one job by a thread that has the database open, so it costs two
//! turns of threads however many statements it takes. There is one thread that writes and
//! a few that read.
//!
//! A record is on disk when the method that made it returns, unless the method says that
//! it only records: then it is on disk after [`Store::durable`].

mod answered_task;
mod cancel_requests;
mod cancels;
mod children;
mod commits;
#[cfg(test)]
pub(crate) mod conformance;
mod details;
mod due;
mod endpoint_records;
mod endpoints;
mod engine;
mod expiries;
mod facts;
mod forgetting;
mod forgotten_occurrences;
mod interned_ids;
mod kept_messages;
mod listing;
mod lost_attempts;
mod lost_endpoints;
mod members;
mod missing;
mod occurrences;
mod overdue;

#[cfg(test)]
mod postgres;
mod recorded_moments;
mod removal;
mod results;
mod retries;
mod rows;
mod schedule_rows;
mod schedules;
mod selection;
mod sqlite;
mod states;
mod steering;
mod stored_state;
mod submissions;
mod task_events;
mod task_listing;
mod task_rows;
mod threads;
mod topic_placer;
mod topic_tasks;
mod topics;
mod transitions;
mod unaccounted;
mod waiting;

pub(crate) use cancels::PendingCancel;
pub(crate) use children::TaskFacts;
pub(crate) use endpoint_records::EndpointRecord;
pub(crate) use endpoints::{Endpoint, Registration};
pub(crate) use engine::Saved;
pub(crate) use forgetting::Forgettable;
pub(crate) use kept_messages::{Keeping, KeptMessage, MessageEnd, NewMessage, WhichKept};
pub(crate) use lost_endpoints::DeclaredLost;
pub(crate) use overdue::Overdue;
pub(crate) use results::{Batch, Tally};
pub(crate) use retries::RetrySlice;
pub(crate) use schedules::ScheduleSet;
pub(crate) use selection::{SelectedTask, TaskSelection};
pub(crate) use sqlite::service_in;
pub(crate) use states::{EndpointStates, PresenceMessage};
pub(crate) use steering::{DrainChange, PendingDrain};
pub(crate) use stored_state::StoredState;
pub(crate) use submissions::{Chunk, HandOver, Handing, RecordedChunk, RecordedTask};
pub(crate) use task_listing::TaskFilter;
pub(crate) use task_rows::TaskPlace;
pub(crate) use topic_placer::PlacedPage;
pub(crate) use waiting::{Handed, Positions};

use crate::feed::Feed;
use crate::state_folder::StateFolder;
use crate::topics::{TopicBoard, TopicChanges};
use engine::{Connection, Db, Durability, Engine};
use interned_ids::InternedIds;
use std::sync::Arc;
use threads::Threads;

/// The records; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    writer: Threads<Writer>,
    readers: Threads<Box<dyn Connection>>,
    durability: Arc<dyn Durability>,
    feed: Feed,
    board: TopicBoard,
}

/// The connection that writes, the ids that it has looked up, the feed and the board that it tells.
struct Writer {
    connection: Box<dyn Connection>,
    ids: InternedIds,
    feed: Feed,
    board: TopicBoard,
}

/// A transaction that writes.
struct Write<'a> {
    db: &'a Db<'a>,
    ids: &'a mut InternedIds,
    /// Its changes of topics.
    topics: &'a mut TopicChanges,
    board: &'a TopicBoard,
}

/// Why the records could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The database failed: locked, full, broken. Trying again may help.
    #[error("the database failed while {doing}")]
    Database {
        /// The operation that failed.
        doing: &'static str,
        /// The database's own words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The disk failed under the database's log. Trying again may help.
    #[error("the database's log could not be written to the disk")]
    Log(#[source] std::io::Error),
    /// The files of the database were moved, deleted or replaced while it was open.
    #[error(
        "the database was moved, deleted or replaced while the service ran; the service ends, and \
         nothing that came since then is acknowledged"
    )]
    Displaced,
    /// The database was closed, or the job ended in a panic.
    #[error("the database does not answer")]
    Silent,
    /// The database was made by another version.
    #[error(
        "the database has layout {found}, and this version knows layout {known} only: it was made \
         by another version of clutch-service, use that"
    )]
    OtherLayout {
        /// The layout it has.
        found: i64,
        /// The layout of this build.
        known: i64,
    },
    /// A row holds something this build does not know.
    #[error("a record cannot be read: {0}")]
    Unreadable(String),
    /// The request contradicts the records.
    #[error("{0}")]
    Conflict(String),
}

type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The failure of a statement; [`Error::during`] adds the operation.
    fn engine(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Database { doing: "using it", source: Box::new(source) }
    }

    /// The same error, with the operation that failed.
    fn during(self, doing: &'static str) -> Self {
        if let Self::Database { source, .. } = self {
            return Self::Database { doing, source };
        }
        self
    }
}

impl Store {
    /// Opens the database in `folder`, or makes it.
    pub(crate) async fn open(folder: &StateFolder) -> anyhow::Result<Self> {
        let folder = folder.clone();
        let open = move || sqlite::open(&folder).and_then(|engine| Ok(Self::over(engine)?));
        tokio::task::spawn_blocking(open).await?
    }

    /// Starts the threads that use an engine's connections.
    fn over(Engine { writer, readers, durability }: Engine) -> std::io::Result<Self> {
        let feed = Feed::default();
        let ids = InternedIds::default();
        let board = TopicBoard::default();
        let writer = Writer { connection: writer, ids, feed: feed.clone(), board: board.clone() };
        Ok(Self {
            writer: Threads::start("records", vec![writer])?,
            readers: Threads::start("reading", readers)?,
            durability,
            feed,
            board,
        })
    }

    /// The board that is told what the records say of topics.
    pub(crate) fn topic_board(&self) -> &TopicBoard {
        &self.board
    }

    /// Closes the database in order.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Waits until every record made before is on disk. After an error it is not known
    /// which are.
    pub(crate) async fn durable(&self) -> Result<()> {
        if self.durability.is_durable() {
            return Ok(());
        }
        let durability = Arc::clone(&self.durability);
        let synced = tokio::task::spawn_blocking(move || durability.sync()).await;
        synced.map_err(|error| Error::Log(error.into()))?
    }

    /// Returns once the database is known to be displaced: moved, deleted or replaced.
    pub(crate) async fn displaced(&self) {
        self.durability.displaced().cancelled().await;
    }

    /// Checks whether the database is displaced; [`Store::displaced`] returns if it is.
    pub(crate) fn check_place(&self) {
        if let Err(error) = self.durability.check_place() {
            tracing::debug!(%error, "the state folder was looked at");
        }
    }

    /// Brings the records of a [displaced](Store::displaced) database to a place where they
    /// are found again. The database is not closed after that: SQLite would remove the
    /// files that now have the names of its own.
    pub(crate) async fn save(self) -> Result<Saved> {
        let saved = self.writer.run(|writer: &mut Writer, _| writer.connection.rescue()).await;
        std::mem::forget(self);
        saved?
    }

    /// Reads, in one state of the database.
    async fn read<T: Send + 'static>(
        &self,
        doing: &'static str,
        job: impl FnOnce(&Db<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let read = move |connection: &mut Box<dyn Connection>, _| {
            transact(connection.as_mut(), job).map_err(|error| error.during(doing))
        };
        self.readers.run(read).await?
    }

    /// Writes, all or nothing. Readers see the record, but it may not be on disk; then
    /// `recorded` is called.
    async fn record_only<T: Send + 'static>(
        &self,
        doing: &'static str,
        job: impl FnOnce(&mut Write<'_>) -> Result<T> + Send + 'static,
        recorded: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T> {
        let durability = Arc::clone(&self.durability);
        let write = move |writer: &mut Writer, _| {
            writer.write(doing, &*durability, job).inspect(|done| recorded(done))
        };
        self.writer.run(write).await?
    }

    /// Writes, all or nothing, to the disk.
    async fn write<T: Send + 'static>(
        &self,
        doing: &'static str,
        job: impl FnOnce(&mut Write<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let durability = Arc::clone(&self.durability);
        let write = move |writer: &mut Writer, alone| -> Result<T> {
            let done = writer.write(doing, &*durability, job)?;
            // If no other job waits the writer syncs by itself: that saves two turns of
            // threads. Otherwise the next job may go on meanwhile.
            if alone {
                durability.sync()?;
            }
            Ok(done)
        };
        let done = self.writer.run(write).await??;
        self.durable().await?;
        Ok(done)
    }
}

impl Writer {
    fn write<T>(
        &mut self,
        doing: &'static str,
        durability: &dyn Durability,
        job: impl FnOnce(&mut Write<'_>) -> Result<T>,
    ) -> Result<T> {
        let (ids, board, mut topics) = (&mut self.ids, &self.board, TopicChanges::default());
        ids.begin();
        let told = self.feed.is_on();
        self.connection.collect_changes(told);
        let written = transact(self.connection.as_mut(), |db| {
            let done = job(&mut Write { db, ids, topics: &mut topics, board })?;
            let events = if told { task_events::of_transaction(db)? } else { Vec::new() };
            Ok((done, events))
        });
        if !topics.is_empty() || written.is_err() {
            board.transacted(written.is_ok(), topics);
        }
        let (done, events) = written.map_err(|error| error.during(doing))?;
        self.ids.commit();
        durability.committed();
        self.feed.tell(events);
        Ok(done)
    }
}

/// Runs a job in one transaction, and returns its result.
fn transact<T>(
    connection: &mut dyn Connection,
    job: impl FnOnce(&Db<'_>) -> Result<T>,
) -> Result<T> {
    let (mut job, mut done) = (Some(job), None);
    connection.transact(&mut |db| {
        done = job.take().map(|job| job(db)).transpose()?;
        Ok(())
    })?;
    done.ok_or(Error::Silent)
}
