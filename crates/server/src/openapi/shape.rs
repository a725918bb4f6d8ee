//! Schemas in few words. Objects are closed: a field that is not described is not there.

use serde_json::{Value, json};
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, Object, ObjectBuilder, OneOfBuilder, SchemaType, Type,
};
use utoipa::openapi::{KnownFormat, Ref, RefOr, Schema, SchemaFormat};

/// A schema, or the name of one.
pub type Shape = RefOr<Schema>;

/// A schema that stands among the components.
pub fn named(name: &str) -> Shape {
    Ref::from_schema_name(name).into()
}

/// An object. A name that ends with `?` may be missing.
pub fn object<const N: usize>(fields: [(&str, Shape); N]) -> Shape {
    let mut object = ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    for (name, shape) in fields {
        let plain = name.trim_end_matches('?');
        object = object.property(plain, shape);
        if plain == name {
            object = object.required(plain);
        }
    }
    object.into()
}

/// An object of a `type`, which is a word of its own.
pub fn tagged<const N: usize>(kind: &str, fields: [(&str, Shape); N]) -> Shape {
    let mut shape = object(fields);
    if let RefOr::T(Schema::Object(object)) = &mut shape {
        object.properties.insert("type".to_owned(), literal(kind));
        object.required.push("type".to_owned());
    }
    shape
}

/// An object with names of the caller's own.
pub fn map(values: Shape) -> Shape {
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(AdditionalProperties::RefOr(values)))
        .into()
}

/// An object of which only its writer knows what is in it.
pub fn opaque() -> Shape {
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(AdditionalProperties::FreeForm(true)))
        .into()
}

/// A list.
pub fn list(items: Shape) -> Shape {
    ArrayBuilder::new().items(items).into()
}

/// A list of some length.
pub fn list_of(items: Shape, min: usize, max: usize) -> Shape {
    let min = (min > 0).then_some(min);
    ArrayBuilder::new().items(items).min_items(min).max_items(Some(max)).into()
}

/// One of some shapes.
pub fn one_of<const N: usize>(shapes: [Shape; N]) -> Shape {
    shapes.into_iter().fold(OneOfBuilder::new(), OneOfBuilder::item).into()
}

/// Null, too.
pub fn nullable(shape: Shape) -> Shape {
    match shape {
        RefOr::T(Schema::Object(mut object)) => {
            if let SchemaType::Type(kind) = object.schema_type {
                object.schema_type = SchemaType::Array(vec![kind, Type::Null]);
                if let Some(words) = &mut object.enum_values {
                    words.push(Value::Null);
                }
            }
            RefOr::T(Schema::Object(object))
        }
        other => one_of([other, of(Type::Null)]),
    }
}

/// A text.
pub fn text() -> Shape {
    of(Type::String)
}

/// A text of some length, in characters.
pub fn text_of(min: usize, max: usize) -> Shape {
    let min = (min > 0).then_some(min);
    ObjectBuilder::new().schema_type(Type::String).min_length(min).max_length(Some(max)).into()
}

/// A text of a form.
pub fn pattern(pattern: &str) -> Shape {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).into()
}

/// An id with its prefix.
pub fn id(prefix: &str) -> Shape {
    let rest = wardian_protocol::id::MAX_ID_BYTES - prefix.len() - 1;
    pattern(&format!("^{prefix}_[0-9A-Za-z]{{1,{rest}}}$"))
}

/// A moment.
pub fn time() -> Shape {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .into()
}

/// A whole number from `min` on.
pub fn whole(min: u32) -> Shape {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(min)).into()
}

/// A whole number within bounds.
pub fn whole_of(min: u32, max: u32) -> Shape {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(min)).maximum(Some(max)).into()
}

/// A number of at least zero.
pub fn number() -> Shape {
    ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0)).into()
}

/// Bytes.
pub fn bytes() -> Shape {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
        .into()
}

/// Or an empty text, which a query parameter may be in place of nothing.
pub fn or_empty(shape: Shape) -> Shape {
    one_of([shape, literal("")])
}

/// True or false.
pub fn boolean() -> Shape {
    of(Type::Boolean)
}

/// One word.
pub fn literal(word: &str) -> Shape {
    words(&[word])
}

/// One of some words.
pub fn words(words: &[&str]) -> Shape {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(words.iter().map(|word| json!(word))))
        .into()
}

/// Nothing.
pub fn null() -> Shape {
    of(Type::Null)
}

/// Always empty.
pub fn empty_list() -> Shape {
    ArrayBuilder::new().items(opaque()).max_items(Some(0)).into()
}

fn of(kind: Type) -> Shape {
    Object::with_type(kind).into()
}
