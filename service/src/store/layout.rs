//! The tables, by the scripts in `migrations/`: those that a database has not had yet
//! are run in order, each in a transaction. How many it has had is its
//! `user_version`.

use super::{Error, Result, failed, signed};
use rusqlite::{Connection, OptionalExtension as _};

/// The scripts. One that has been published is never changed.
const SCRIPTS: [&str; 10] = [
    include_str!("../../migrations/0001_records.sql"),
    include_str!("../../migrations/0002_failover.sql"),
    include_str!("../../migrations/0003_lean.sql"),
    include_str!("../../migrations/0004_values.sql"),
    include_str!("../../migrations/0005_rare.sql"),
    include_str!("../../migrations/0006_heard.sql"),
    include_str!("../../migrations/0007_overdue.sql"),
    include_str!("../../migrations/0008_answered.sql"),
    include_str!("../../migrations/0009_retention.sql"),
    include_str!("../../migrations/0010_ages.sql"),
];

/// Runs what has to be run. The caller sees to it that no other process does the
/// same.
///
/// # Errors
/// When the database fails, or is from a newer version.
pub(super) fn bring_up_to_date(db: &mut Connection) -> Result<()> {
    const DOING: &str = "bringing its tables up to date";
    let (had, known) = (had(db).map_err(failed(DOING))?, signed(SCRIPTS.len() as u64));
    if had > known {
        return Err(Error::Newer { found: had, known });
    }
    for (script, number) in SCRIPTS.iter().zip(1..).filter(|(_, number)| *number > had) {
        let transaction = db.transaction().map_err(failed(DOING))?;
        transaction.execute_batch(script).map_err(failed(DOING))?;
        transaction.pragma_update(None, "user_version", number).map_err(failed(DOING))?;
        transaction.commit().map_err(failed(DOING))?;
    }
    Ok(())
}

/// How many scripts the database has had.
fn had(db: &Connection) -> rusqlite::Result<i64> {
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version > 0 {
        return Ok(version);
    }
    // Until 0.1 a table of sqlx's held that.
    let kept = "SELECT 1 FROM sqlite_schema WHERE name = '_sqlx_migrations'";
    if db.query_row(kept, [], |_| Ok(())).optional()?.is_none() {
        return Ok(0);
    }
    let latest = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success";
    db.query_row(latest, [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(db: &Connection) -> i64 {
        db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    #[test]
    fn every_layout_there_was_becomes_the_one_there_is() {
        for (from, noted_by_sqlx) in [(0_i64, false), (1, false), (1, true), (3, true), (4, true)] {
            let mut db = Connection::open_in_memory().unwrap();
            for script in &SCRIPTS[..usize::try_from(from).unwrap()] {
                db.execute_batch(script).unwrap();
            }
            if noted_by_sqlx {
                db.execute_batch(
                    "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, success BOOLEAN)",
                )
                .unwrap();
                for number in 1..=from {
                    let note = "INSERT INTO _sqlx_migrations VALUES (?, 1)";
                    db.execute(note, [number]).unwrap();
                }
            } else {
                db.pragma_update(None, "user_version", from).unwrap();
            }
            for _ in 0..2 {
                bring_up_to_date(&mut db).unwrap();
                assert_eq!(version(&db), SCRIPTS.len() as i64);
                db.query_row("SELECT count(value) FROM results", [], |_| Ok(())).unwrap();
            }
        }
    }

    #[test]
    fn a_newer_one_is_refused_in_words() {
        let mut db = Connection::open_in_memory().unwrap();
        db.pragma_update(None, "user_version", 99).unwrap();
        let words = bring_up_to_date(&mut db).unwrap_err().to_string();
        assert!(words.contains("newer version"), "{words}");
    }
}
