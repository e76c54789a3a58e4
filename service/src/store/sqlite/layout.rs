//! The tables of a SQLite database, made by `schema.sql` when the database is new.
//! The number of the layout is the database's `user_version`.

use crate::store::{Error, Result};
use rusqlite::Connection;

/// The tables.
const SCHEMA: &str = include_str!("schema.sql");
/// The number of their layout.
const LAYOUT: i64 = 1;

/// Makes the tables in a new database; refuses a database of another layout. The caller
/// excludes other processes that do the same.
pub(super) fn prepare(db: &mut Connection) -> Result<()> {
    let found: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match found {
        LAYOUT => Ok(()),
        0 => {
            let transaction = db.transaction()?;
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "user_version", LAYOUT)?;
            Ok(transaction.commit()?)
        }
        _ => Err(Error::OtherLayout { found, known: LAYOUT }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_database_is_laid_out_once() {
        let mut db = Connection::open_in_memory().unwrap();
        for _ in 0..2 {
            prepare(&mut db).unwrap();
            db.query_row("SELECT count(value) FROM results", [], |_| Ok(())).unwrap();
        }
    }

    #[test]
    fn another_layout_is_refused_in_words() {
        let mut db = Connection::open_in_memory().unwrap();
        db.pragma_update(None, "user_version", 99).unwrap();
        let words = prepare(&mut db).unwrap_err().to_string();
        assert!(words.contains("another version"), "{words}");
    }
}
