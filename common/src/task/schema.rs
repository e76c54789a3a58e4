//! The schemas of what has a form of its own in JSON, for the document of the service's API.
//! Pure.

use crate::task::blob::Blob;
use crate::task::byte_string::ByteString;
use crate::task::json::Json;
use std::borrow::Cow;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{KnownFormat, RefOr, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

/// A string, which meets a pattern, or `{"base64": "…"}`.
fn bytes(pattern: Option<&str>) -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(Type::String).pattern(pattern);
    let base64 = ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Byte)))
        .pattern(Some(
            "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$",
        ));
    let object = ObjectBuilder::new().property("base64", base64).required("base64");
    OneOfBuilder::new()
        .item(text)
        .item(object)
        .description(Some("Bytes: a string where they are UTF-8, else base64 of them."))
        .into()
}

macro_rules! bytes {
    ($type:ty, $name:literal, $pattern:expr) => {
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                bytes($pattern)
            }
        }

        impl ToSchema for $type {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed($name)
            }
        }
    };
}

bytes!(Blob, "Bytes", None);
bytes!(ByteString, "ByteString", Some(r"^[^\u0000]*$"));

impl PartialSchema for Json {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::AnyValue)
            .description(Some("Any JSON value, which is carried and not looked into."))
            .into()
    }
}

impl ToSchema for Json {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Json")
    }
}
