//! How values are bound to PostgreSQL's types, and read from them. Truth values are kept as
//! numbers, as in every engine.

use crate::store::engine::{Row, Value};
use crate::store::{Error, Result};
use ::postgres::types::private::BytesMut;
use ::postgres::types::{IsNull, ToSql, Type, to_sql_checked};

type Bound = std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>>;

impl ToSql for Value<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Bound {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Integer(value) if *ty == Type::INT4 => i32::try_from(*value)?.to_sql(ty, out),
            Value::Integer(value) => value.to_sql(ty, out),
            Value::Text(value) => value.to_sql(ty, out),
            Value::Bytes(value) => value.to_sql(ty, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl Row for ::postgres::Row {
    fn integer(&self, column: usize) -> Result<Option<i64>> {
        let of_type = |ty| self.columns().get(column).is_some_and(|found| *found.type_() == ty);
        if of_type(Type::BOOL) {
            return Ok(self.try_get::<_, Option<bool>>(column)?.map(i64::from));
        }
        if of_type(Type::INT4) {
            return Ok(self.try_get::<_, Option<i32>>(column)?.map(i64::from));
        }
        self.try_get(column).map_err(Error::from)
    }

    fn text(&self, column: usize) -> Result<Option<String>> {
        self.try_get(column).map_err(Error::from)
    }

    fn bytes(&self, column: usize) -> Result<Option<Vec<u8>>> {
        self.try_get(column).map_err(Error::from)
    }
}
