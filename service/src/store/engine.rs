//! The seam between the store's statements and the database that runs them.
//!
//! An engine opens connections ([`Connection`]), runs transactions on them
//! ([`Transaction`]), and says when commits are on disk ([`Durability`]). The store's
//! statements are written once, in SQL that every engine understands, with `?` or `?1`
//! where a value goes; where engines differ, a statement takes a fragment from the
//! [`Dialect`]. Each engine has a folder of its own beside this file. Touches nothing.

use super::{Error, Result};
use std::borrow::Cow;
use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The open connections of one database.
pub(super) struct Engine {
    /// The connection that may write.
    pub(super) writer: Box<dyn Connection>,
    /// Connections that only read.
    pub(super) readers: Vec<Box<dyn Connection>>,
    /// Says which commits are on disk.
    pub(super) durability: Arc<dyn Durability>,
}

/// One connection, for one thread.
pub(super) trait Connection: Send {
    /// Runs a job in one transaction, which is committed if the job succeeds. A transaction
    /// that reads sees one state of the database; one that writes excludes other writers
    /// from its start.
    fn transact(&mut self, job: &mut dyn FnMut(&Db<'_>) -> Result<()>) -> Result<()>;

    /// Has each transaction collect the rows of tasks that it inserts or changes, or not; an
    /// engine that cannot tell them collects none.
    fn collect_changes(&mut self, on: bool);

    /// Brings a [displaced](Durability::displaced) database to a place where it is found.
    fn rescue(&self) -> Result<Saved>;
}

/// The place where the records of a displaced database were saved.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Saved {
    /// It is at its path again, with every record.
    Back,
    /// Another file is at its path; this file has every record.
    Beside(PathBuf),
    /// It was moved to this path.
    Moved(PathBuf),
}

/// Says which commits are on disk.
pub(super) trait Durability: Send + Sync + fmt::Debug {
    /// Notes that a transaction was committed.
    fn committed(&self);

    /// Whether every commit that was noted is on disk.
    fn is_durable(&self) -> bool;

    /// Brings every commit that was noted to disk. Blocks.
    fn sync(&self) -> Result<()>;

    /// Checks that the database is where it was opened; [`Error::Displaced`] if not.
    fn check_place(&self) -> Result<()>;

    /// Cancelled once the database was found displaced: moved, deleted or replaced.
    fn displaced(&self) -> &CancellationToken;
}

/// An open transaction, as the functions of the store take it.
pub(super) type Db<'a> = dyn Transaction + 'a;

/// An open transaction.
pub(super) trait Transaction {
    /// The fragments of SQL in which this engine differs from others.
    fn dialect(&self) -> &'static Dialect;

    /// Compiles a statement, or finds it compiled.
    fn prepare<'a>(&'a self, sql: &str) -> Result<Box<dyn Statement + 'a>>;

    /// The rows of tasks that changed since this was asked last.
    fn changed_tasks(&self) -> Vec<(i64, RowChange)>;

    /// Reserves so many rows of `tasks`, in ascending order; none that a task had before.
    fn reserve_tasks(&self, count: usize) -> Result<Vec<i64>>;

    /// Gives up to `most` pages of the database's file that hold nothing back to the file
    /// system, if there are many; returns whether there are more.
    fn release_pages(&self, most: u32) -> Result<bool>;
}

/// A change of a task that concerns its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowChange {
    /// The row was inserted.
    Inserted,
    /// The row was changed.
    Changed,
    /// A result of the task was inserted.
    Answered,
}

/// A compiled statement.
pub(super) trait Statement {
    /// Runs it, and returns how many rows it changed.
    fn execute(&mut self, values: &[Value<'_>]) -> Result<u64>;

    /// Passes the rows that it returns to `each`, until that breaks. No other statement of
    /// the transaction may run meanwhile.
    fn query(&mut self, values: &[Value<'_>], each: &mut EachRow<'_>) -> Result<()>;
}

/// Takes one row of a query.
pub(super) type EachRow<'a> = dyn FnMut(&dyn Row) -> Result<ControlFlow<()>> + 'a;

/// Fragments of SQL, and the key of a result, as one engine has them.
pub(super) struct Dialect {
    /// The condition that `r` is a result of the task `t`, of any attempt.
    pub(super) is_result: &'static str,
    /// The condition that a row of `results` is one of the task in row `?1`.
    pub(super) is_result_of: &'static str,
    /// The condition that `r` is the result that decided the state of the task `t`.
    pub(super) is_decisive_result: &'static str,
    /// The columns that identify a result.
    pub(super) result_key: &'static [&'static str],
    /// Appends their values, for the result of an attempt at the task in a row.
    pub(super) bind_result_key: fn(&mut Vec<Value<'_>>, i64, u32),
    /// The row of a new submission, which none had before.
    pub(super) next_submission: &'static str,
    /// The column `t.endpoint`, in a condition that an index of the submission serves better.
    pub(super) endpoint_in_submission: &'static str,
}

/// A value that is bound to a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Null,
    Integer(i64),
    Text(Cow<'a, str>),
    Bytes(&'a [u8]),
}

/// The values of a statement, each converted into a [`Value`].
macro_rules! values {
    ($($value:expr),* $(,)?) => {
        &[$($crate::store::engine::Value::from($value)),*]
    };
}
pub(super) use values;

/// Appends values to a list, each converted into a [`Value`].
macro_rules! append {
    ($values:expr, $($value:expr),+ $(,)?) => {
        $($values.push($crate::store::engine::Value::from($value));)+
    };
}
pub(super) use append;

macro_rules! value_from {
    ($($type:ty, $value:ident => $converted:expr;)+) => {$(
        impl<'a> From<$type> for Value<'a> {
            fn from($value: $type) -> Self {
                $converted
            }
        }
    )+};
}

value_from! {
    i64, value => Value::Integer(value);
    &i64, value => Value::Integer(*value);
    i32, value => Value::Integer(value.into());
    u32, value => Value::Integer(value.into());
    bool, value => Value::Integer(value.into());
    // What does not fit is as large as can be.
    u64, value => Value::Integer(i64::try_from(value).unwrap_or(i64::MAX));
    String, value => Value::Text(value.into());
    &'a String, value => Value::Text(value.into());
    &'a str, value => Value::Text(value.into());
    &'a [u8], value => Value::Bytes(value);
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// A row that a statement returned; columns count from 0.
pub(super) trait Row {
    /// A number, or a truth value as 0 or 1.
    fn integer(&self, column: usize) -> Result<Option<i64>>;
    /// A text.
    fn text(&self, column: usize) -> Result<Option<String>>;
    /// Bytes.
    fn bytes(&self, column: usize) -> Result<Option<Vec<u8>>>;
}

/// The columns of a row, read one after the other.
pub(super) struct Columns<'a> {
    row: &'a dyn Row,
    next: usize,
}

impl<'a> Columns<'a> {
    /// All columns of a row.
    pub(super) fn of(row: &'a dyn Row) -> Self {
        Self { row, next: 0 }
    }

    /// Reads the next column.
    pub(super) fn next<T: Column>(&mut self) -> Result<T> {
        let column = self.next;
        self.next += 1;
        let empty = || Error::Unreadable(format!("column {column} of a row is empty"));
        T::read(self.row, column)?.ok_or_else(empty)
    }
}

/// A type that a column can be read as.
pub(super) trait Column: Sized {
    /// The value in a column; nothing if that is `NULL`.
    fn read(row: &dyn Row, column: usize) -> Result<Option<Self>>;
}

impl<T: Column> Column for Option<T> {
    fn read(row: &dyn Row, column: usize) -> Result<Option<Self>> {
        T::read(row, column).map(Some)
    }
}

macro_rules! column {
    ($($type:ty, $how:ident, $value:ident => $converted:expr;)+) => {$(
        impl Column for $type {
            fn read(row: &dyn Row, column: usize) -> Result<Option<Self>> {
                let Some($value) = row.$how(column)? else { return Ok(None) };
                Ok(Some($converted))
            }
        }
    )+};
}
pub(super) use column;

column! {
    i64, integer, value => value;
    u64, integer, value => u64::try_from(value).unwrap_or(0);
    u32, integer, value => u32::try_from(value).map_err(|_| out_of_range(value))?;
    i32, integer, value => i32::try_from(value).map_err(|_| out_of_range(value))?;
    bool, integer, value => value != 0;
    String, text, value => value;
    Vec<u8>, bytes, value => value;
}

fn out_of_range(value: i64) -> Error {
    Error::Unreadable(format!("{value} is out of range"))
}

/// A type that a row can be read as, by position.
pub(super) trait FromRow: Sized {
    /// Reads the columns that it has.
    fn read(columns: &mut Columns<'_>) -> Result<Self>;
}

macro_rules! tuples {
    ($(($($name:ident),+))+) => {$(
        impl<$($name: Column),+> FromRow for ($($name,)+) {
            fn read(columns: &mut Columns<'_>) -> Result<Self> {
                Ok(($(columns.next::<$name>()?,)+))
            }
        }
    )+};
}

tuples! { (A) (A, B) (A, B, C) (A, B, C, D) }

impl dyn Statement + '_ {
    /// The first row that it returns, if there is one.
    pub(super) fn first<T: FromRow>(&mut self, values: &[Value<'_>]) -> Result<Option<T>> {
        let mut first = None;
        self.query(values, &mut |row| {
            first = Some(T::read(&mut Columns::of(row))?);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(first)
    }
}

/// How many rows one statement inserts: a statement costs about as much as five rows,
/// and only a few sizes, so that all stay compiled.
const ROWS_AT_ONCE: [usize; 3] = [64, 8, 1];

impl dyn Transaction + '_ {
    /// Runs a statement, and returns how many rows it changed.
    pub(super) fn run(&self, sql: &str, values: &[Value<'_>]) -> Result<u64> {
        self.prepare(sql)?.execute(values)
    }

    /// All rows that a statement returns.
    pub(super) fn all<T: FromRow>(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<T>> {
        let mut rows = Vec::new();
        self.each(sql, values, |row| {
            rows.push(row);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(rows)
    }

    /// The first row that a statement returns, if there is one.
    pub(super) fn one<T: FromRow>(&self, sql: &str, values: &[Value<'_>]) -> Result<Option<T>> {
        self.prepare(sql)?.first(values)
    }

    /// The row of a statement that always returns one.
    pub(super) fn only<T: FromRow>(&self, sql: &str, values: &[Value<'_>]) -> Result<T> {
        let none = || Error::Unreadable("a statement returned no row".to_owned());
        self.one(sql, values)?.ok_or_else(none)
    }

    /// Whether a statement returns a row.
    pub(super) fn exists(&self, sql: &str, values: &[Value<'_>]) -> Result<bool> {
        Ok(self.one::<(i64,)>(sql, values)?.is_some())
    }

    /// Passes the rows that a statement returns to `each`, until that breaks.
    pub(super) fn each<T: FromRow>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        mut each: impl FnMut(T) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let mut pass = |row: &dyn Row| each(T::read(&mut Columns::of(row))?);
        self.prepare(sql)?.query(values, &mut pass)
    }

    /// Inserts rows in order. `into` is a table with the columns that get a value, as in
    /// `tasks (seq, id)`; `bind` appends the values of one row.
    pub(super) fn insert<'r, R>(
        &self,
        into: &str,
        mut rows: &'r [R],
        bind: impl Fn(&mut Vec<Value<'r>>, &'r R),
    ) -> Result<()> {
        let columns = into.matches(',').count() + 1;
        let row = format!("({})", vec!["?"; columns].join(", "));
        for size in ROWS_AT_ONCE.into_iter().filter(|size| *size <= rows.len()) {
            let places = vec![row.as_str(); size].join(", ");
            let mut statement = self.prepare(&format!("INSERT INTO {into} VALUES {places}"))?;
            let mut values = Vec::with_capacity(columns * size);
            while let Some((some, rest)) = rows.split_at_checked(size) {
                values.clear();
                some.iter().for_each(|row| bind(&mut values, row));
                statement.execute(&values)?;
                rows = rest;
            }
        }
        Ok(())
    }
}
