//! Reads the service's id from a database file that may belong to another service.

use super::SqliteTransaction;
use super::changed_rows::ChangedRows;
use crate::store::{Error, Result, facts};
use clutch_common::id::ServiceId;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, OpenFlags};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// The service's id that is kept in a database; nothing if none is kept yet.
/// Changes nothing, and does not make a database that is not there.
pub(crate) fn service_in(database: &Path) -> Result<Option<ServiceId>> {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    // Without a log the file is all there is, and SQLite would make an empty one.
    let whole = if Path::new(&log).exists() { "" } else { "?immutable=1" };
    let path = percent_encode(database.as_os_str().as_bytes(), NON_ALPHANUMERIC);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let find = || {
        let mut db = Connection::open_with_flags(format!("file:{path}{whole}"), flags)?;
        facts::service_id(&SqliteTransaction {
            transaction: db.transaction()?,
            changed: &ChangedRows::default(),
        })
    };
    find().map_err(|error: Error| error.during("looking up the id of its service"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_folder::StateFolder;
    use crate::store::Store;

    #[tokio::test]
    async fn the_id_stays_with_the_database_and_its_copies() {
        let temp = tempfile::Builder::new().prefix("a b%41?#é").tempdir().unwrap();
        let folder = StateFolder::new(temp.path());
        let (store, database) = (Store::open(&folder).await.unwrap(), folder.database().to_owned());
        let id = store.service_id().await.unwrap();
        assert_eq!(service_in(&database).unwrap(), Some(id), "while it is open");
        store.close().await;
        assert_eq!(service_in(&database).unwrap(), Some(id));
        assert!(!temp.path().join("clutch.db-wal").exists());
        let copied = tempfile::tempdir().unwrap();
        let copy = StateFolder::new(copied.path());
        std::fs::copy(&database, copy.database()).unwrap();
        let restored = Store::open(&copy).await.unwrap();
        assert_eq!(restored.service_id().await.unwrap(), id);
        assert!(service_in(&temp.path().join("none")).is_err());
    }
}
