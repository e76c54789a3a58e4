//! Who this service is: an id that is made with the database and stays with it, also in
//! a copy or a backup of it.

use super::rows::{one, parsed};
use super::{Result, Store, failed};
use clutch_common::id::ServiceId;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, OpenFlags};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

const FIND: &str = "SELECT value FROM facts WHERE name = 'service_id'";
const DOING: &str = "looking up the id of this service";

impl Store {
    /// The id of the service whose records these are; a new one, the first time.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn service_id(&self) -> Result<ServiceId> {
        if let Some(id) = self.read(DOING, find).await? {
            return Ok(id);
        }
        self.write(DOING, |write| {
            let insert = "INSERT INTO facts (name, value) VALUES ('service_id', ?) \
                 ON CONFLICT (name) DO UPDATE SET value = value RETURNING value";
            let new = ServiceId::new().to_string();
            let kept = one(&write.db, insert, [new], |row| row.get::<_, String>(0));
            parsed(&kept.map_err(failed(DOING))?.unwrap_or_default())
        })
        .await
    }
}

/// The id of the service whose records are in a database; nothing where it has none yet.
/// Changes nothing.
///
/// # Errors
/// When there is no such database, or it cannot be read.
pub(crate) fn service_in(database: &Path) -> Result<Option<ServiceId>> {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    // Without a log the file is all there is, and SQLite would make an empty one.
    let whole = if Path::new(&log).exists() { "" } else { "?immutable=1" };
    let path = percent_encode(database.as_os_str().as_bytes(), NON_ALPHANUMERIC);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let db = Connection::open_with_flags(format!("file:{path}{whole}"), flags);
    find(&db.map_err(failed(DOING))?)
}

fn find(db: &Connection) -> Result<Option<ServiceId>> {
    let found = one(db, FIND, [], |row| row.get::<_, String>(0)).map_err(failed(DOING))?;
    found.map(|id| parsed(&id)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::StateFolder;

    #[tokio::test]
    async fn the_id_stays_with_the_records_and_is_no_others() {
        let temp = tempfile::Builder::new().prefix("a b%41?#é").tempdir().unwrap();
        let folder = StateFolder::new(temp.path());
        let (store, database) = (Store::open(&folder).await.unwrap(), folder.database());
        let id = store.service_id().await.unwrap();
        assert_eq!(store.service_id().await.unwrap(), id);
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
        let (_temp, other) = super::super::tests::store().await;
        assert_ne!(other.service_id().await.unwrap(), id);
    }
}
