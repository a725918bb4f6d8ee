//! Ids in a route's path. What is no id at all is answered like one that does not exist.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use wardian_protocol::Id;
use wardian_protocol::id::Kind;

use crate::error::Error;

/// The one id of a path, of a thing that is called `what`.
pub fn id_of<K: Kind>(what: &str, path: Result<Path<String>, PathRejection>) -> Result<Id<K>, Error> {
    let text = path.map(|Path(text)| text).unwrap_or_default();
    read(what, &text)
}

/// The two ids of a path, of one thing in another.
pub fn ids_of<A: Kind, B: Kind>(
    (outer, inner): (&str, &str),
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<(Id<A>, Id<B>), Error> {
    let (first, second) = path.map(|Path(texts)| texts).unwrap_or_default();
    Ok((read(outer, &first)?, read(inner, &second)?))
}

fn read<K: Kind>(what: &str, text: &str) -> Result<Id<K>, Error> {
    text.parse().map_err(|_| Error::no_such(what, text))
}
