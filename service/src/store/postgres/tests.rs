//! PostgreSQL passes the suite that every engine passes.

use super::*;
use crate::store::Store;
use crate::store::conformance::cases;
use clutch_tests::postgres::Postgres;
use clutch_tests::skip;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// An empty store in a schema of its own.
fn store(server: &Postgres, schema: &str) -> Store {
    let make = format!("CREATE SCHEMA {schema}");
    Client::connect(&server.settings(), NoTls).unwrap().batch_execute(&make).unwrap();
    let engine = open(&format!("{} options='-c search_path={schema}'", server.settings()));
    Store::over(engine.unwrap()).unwrap()
}

#[test]
fn every_case_of_the_suite_passes_on_postgresql() {
    if !Postgres::available() {
        return skip::because("postgres", "there is no PostgreSQL, and none can be installed");
    }
    let server = Postgres::start().unwrap();
    let failed: Vec<&str> = (0..)
        .zip(cases())
        .filter(|(number, (_, case))| {
            let store = store(&server, &format!("case_{number}"));
            catch_unwind(AssertUnwindSafe(|| case(store))).is_err()
        })
        .map(|(_, (name, _))| name)
        .collect();
    assert!(failed.is_empty(), "failed on PostgreSQL: {failed:#?}");
}

#[test]
fn tables_are_made_once_and_another_layout_is_refused_in_words() {
    if !Postgres::available() {
        return skip::because("postgres", "there is no PostgreSQL, and none can be installed");
    }
    let server = Postgres::start().unwrap();
    for _ in 0..2 {
        open(&server.settings()).map(drop).unwrap();
    }
    let mut client = Client::connect(&server.settings(), NoTls).unwrap();
    client.batch_execute("UPDATE facts SET value = '99' WHERE name = 'layout'").unwrap();
    let words = open(&server.settings()).map(drop).unwrap_err().to_string();
    assert!(words.contains("another version"), "{words}");
}

#[test]
fn values_are_numbered_as_postgresql_has_them() {
    assert_eq!(numbered("SELECT 1"), "SELECT 1");
    assert_eq!(numbered("a = ? AND b IN (?, ?)"), "a = $1 AND b IN ($2, $3)");
    assert_eq!(numbered("a = ?2 OR b = ?1"), "a = $2 OR b = $1");
}
