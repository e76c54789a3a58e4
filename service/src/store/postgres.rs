//! PostgreSQL, an engine for a database on another machine: connections, transactions, and
//! what PostgreSQL does differently from other engines.
//!
//! It passes the conformance suite, and no user can choose it: it is compiled for tests
//! only. `design/0016-store.md` says what it lacks. Touches: the server that its settings
//! name. A transaction that writes locks out other writers from its start; a commit is on
//! the server's disk when it returns.

mod tests;
mod types;

use super::engine::{
    Connection, Db, Dialect, Durability, EachRow, Engine, RowChange, Saved, Statement, Transaction,
    Value,
};
use super::{Error, Result};
use ::postgres::fallible_iterator::FallibleIterator as _;
use ::postgres::types::ToSql;
use ::postgres::{Client, IsolationLevel, NoTls};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The tables.
const SCHEMA: &str = include_str!("postgres/schema.sql");
/// The number of their layout, recorded as a fact.
const LAYOUT: i64 = 1;
/// How many queries may run beside the writer.
const READERS: usize = 3;

static DIALECT: Dialect = Dialect {
    is_result: "r.task = t.seq",
    is_result_of: "task = ?1",
    is_decisive_result: "r.task = t.seq AND r.attempt = t.attempt",
    result_key: &["task", "attempt"],
    bind_result_key: |values, task, attempt| {
        values.extend([Value::Integer(task), Value::Integer(attempt.into())]);
    },
    next_submission: "DEFAULT",
    endpoint_in_submission: "t.endpoint",
};

/// Opens the database that the settings name (`host=… dbname=…`), and makes its tables if it
/// has none. Blocks; not for a thread of an asynchronous runtime.
pub(super) fn open(settings: &str) -> Result<Engine> {
    let connection = |read_only| -> Result<Box<dyn Connection>> {
        let client = Client::connect(settings, NoTls)?;
        Ok(Box::new(PostgresConnection { client, statements: HashMap::new(), read_only }))
    };
    let mut writer = Client::connect(settings, NoTls)?;
    prepare(&mut writer)?;
    Ok(Engine {
        writer: connection(false)?,
        readers: (0..READERS).map(|_| connection(true)).collect::<Result<_>>()?,
        durability: Arc::new(DurableCommits(CancellationToken::new())),
    })
}

/// Makes the tables in a new database; refuses a database of another layout.
fn prepare(client: &mut Client) -> Result<()> {
    let mut transaction = client.transaction()?;
    let found: Option<String> =
        transaction.query_one("SELECT to_regclass('facts')::text", &[])?.try_get(0)?;
    if found.is_none() {
        transaction.batch_execute(SCHEMA)?;
        let insert = "INSERT INTO facts (name, value) VALUES ('layout', $1)";
        transaction.execute(insert, &[&LAYOUT.to_string()])?;
        return Ok(transaction.commit()?);
    }
    let find = "SELECT value FROM facts WHERE name = 'layout'";
    let found: String = transaction.query_one(find, &[])?.try_get(0)?;
    let found = super::rows::parsed(&found)?;
    if found == LAYOUT { Ok(()) } else { Err(Error::OtherLayout { found, known: LAYOUT }) }
}

impl From<::postgres::Error> for Error {
    fn from(error: ::postgres::Error) -> Self {
        Self::engine(error)
    }
}

/// Says that a commit is on disk when it returns, as `synchronous_commit` has it.
#[derive(Debug)]
struct DurableCommits(CancellationToken);

impl Durability for DurableCommits {
    fn committed(&self) {}

    fn is_durable(&self) -> bool {
        true
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn check_place(&self) -> Result<()> {
        Ok(())
    }

    /// Never: the server's files are its own.
    fn displaced(&self) -> &CancellationToken {
        &self.0
    }
}

struct PostgresConnection {
    client: Client,
    /// Compiled statements, by the text that they were written as.
    statements: HashMap<String, ::postgres::Statement>,
    read_only: bool,
}

impl Connection for PostgresConnection {
    fn transact(&mut self, job: &mut dyn FnMut(&Db<'_>) -> Result<()>) -> Result<()> {
        let transaction = self.client.build_transaction();
        let transaction = if self.read_only {
            transaction.read_only(true).isolation_level(IsolationLevel::RepeatableRead).start()?
        } else {
            let mut transaction = transaction.start()?;
            transaction.batch_execute("LOCK TABLE facts IN EXCLUSIVE MODE")?;
            transaction
        };
        let transaction = PostgresTransaction {
            transaction: RefCell::new(transaction),
            statements: RefCell::new(&mut self.statements),
        };
        job(&transaction)?;
        Ok(transaction.transaction.into_inner().commit()?)
    }

    fn collect_changes(&mut self, _: bool) {}

    fn rescue(&self) -> Result<Saved> {
        Ok(Saved::Back)
    }
}

struct PostgresTransaction<'a> {
    transaction: RefCell<::postgres::Transaction<'a>>,
    statements: RefCell<&'a mut HashMap<String, ::postgres::Statement>>,
}

impl Transaction for PostgresTransaction<'_> {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    fn changed_tasks(&self) -> Vec<(i64, RowChange)> {
        Vec::new()
    }

    fn prepare<'a>(&'a self, sql: &str) -> Result<Box<dyn Statement + 'a>> {
        let mut statements = self.statements.borrow_mut();
        let statement = match statements.get(sql) {
            Some(known) => known.clone(),
            None => {
                let new = self.transaction.borrow_mut().prepare(&numbered(sql))?;
                statements.insert(sql.to_owned(), new.clone());
                new
            }
        };
        Ok(Box::new(PostgresStatement { transaction: &self.transaction, statement }))
    }

    fn reserve_tasks(&self, count: usize) -> Result<Vec<i64>> {
        let db: &Db<'_> = self;
        let next = "SELECT nextval(pg_get_serial_sequence('tasks', 'seq')) \
             FROM generate_series(1::bigint, ?)";
        let rows: Vec<(i64,)> = db.all(next, &[Value::from(count as u64)])?;
        Ok(rows.into_iter().map(|(row,)| row).collect())
    }

    /// The server does so by itself.
    fn release_pages(&self, _: u32) -> Result<bool> {
        Ok(false)
    }
}

/// A statement with its values numbered as PostgreSQL has them: `?` becomes `$1`, `$2` and so
/// on, `?3` becomes `$3`.
fn numbered(sql: &str) -> String {
    let mut parts = sql.split('?');
    let mut numbered = parts.next().unwrap_or_default().to_owned();
    for (number, part) in (1..).zip(parts) {
        numbered.push('$');
        if !part.starts_with(|first: char| first.is_ascii_digit()) {
            numbered.push_str(&format!("{number}"));
        }
        numbered.push_str(part);
    }
    numbered
}

struct PostgresStatement<'a, 'db> {
    transaction: &'a RefCell<::postgres::Transaction<'db>>,
    statement: ::postgres::Statement,
}

impl Statement for PostgresStatement<'_, '_> {
    fn execute(&mut self, values: &[Value<'_>]) -> Result<u64> {
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
        Ok(self.transaction.borrow_mut().execute(&self.statement, &values)?)
    }

    fn query(&mut self, values: &[Value<'_>], each: &mut EachRow<'_>) -> Result<()> {
        let mut transaction = self.transaction.borrow_mut();
        let mut rows = transaction.query_raw(&self.statement, values)?;
        while let Some(row) = rows.next()? {
            if each(&row)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}
