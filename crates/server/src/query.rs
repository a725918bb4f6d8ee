//! Reads a query string: unknown parameters are named, lists are read as the stock clients write them.

use std::collections::BTreeMap;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use wardian_session::FieldError;

use crate::error::Error;
use crate::wire::nearest;

/// The longest query string: a hundred ids, and a cursor.
const MAX_QUERY_BYTES: usize = 16 * 1024;
/// What a time has to look like.
pub const TIME: &str = "a time such as 2026-11-22 or 2026-11-22T15:00:00Z";

/// The parameters of a query string. `types[]=a&types[]=b` and `types=a&types=b` are the same list.
#[derive(Debug)]
pub struct Query {
    parameters: BTreeMap<String, Vec<String>>,
    asked: Vec<&'static str>,
    errors: Vec<FieldError>,
}

impl Query {
    /// Takes a query string apart.
    pub fn read(query: Option<&str>) -> Result<Self, Error> {
        let query = query.unwrap_or_default();
        if query.len() > MAX_QUERY_BYTES {
            return Err(Error::invalid(format!("the query string is over {MAX_QUERY_BYTES} bytes")));
        }
        let mut parameters: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (decode(name), decode(value)) else {
                return Err(Error::invalid("the query string is not percent-encoded UTF-8"));
            };
            let name = name.strip_suffix("[]").unwrap_or(&name).to_owned();
            parameters.entry(name).or_default().push(value);
        }
        // Stock clients add it to every request.
        parameters.remove("beta");
        Ok(Self { parameters, asked: Vec::new(), errors: Vec::new() })
    }

    /// A parameter that stands there once, as what `read` makes of it; `None` from it means that `expected` was not met.
    pub fn parsed<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        self.asked.push(name);
        let mut values = self.parameters.remove(name)?;
        if values.len() > 1 {
            self.error(name, "stands there twice");
            return None;
        }
        self.judge(name, expected, &values.pop()?, read)
    }

    /// Like [`Query::parsed`], where an empty value is none: what stock clients make of a null.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        if self.parameters.get(name).is_some_and(|values| values.iter().all(String::is_empty)) {
            self.parameters.remove(name);
        }
        self.parsed(name, expected, read)
    }

    /// A parameter that may be repeated, each value as what `read` makes of it; `None` if it is not there at all.
    pub fn list<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        max: usize,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.asked.push(name);
        let mut values = self.parameters.remove(name)?;
        values.retain(|value| !value.is_empty());
        if values.len() > max {
            self.error(name, format!("expected at most {max}, found {}", values.len()));
            return None;
        }
        values.iter().map(|value| self.judge(name, expected, value, &read)).collect()
    }

    /// A boolean.
    pub fn boolean(&mut self, name: &'static str) -> Option<bool> {
        self.optional(name, "true or false", |text| match text {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        })
    }

    /// A time.
    pub fn time(&mut self, name: &'static str) -> Option<Timestamp> {
        self.optional(name, TIME, read_time)
    }

    /// Says what is wrong with a parameter.
    pub fn error(&mut self, name: &str, message: impl Into<String>) {
        self.errors.push(FieldError::new(name, message));
    }

    /// All that was wrong, if anything was.
    pub fn finish(mut self) -> Result<(), Error> {
        for name in self.parameters.keys().take(10) {
            let shown: String = name.chars().take(60).collect();
            let message = match nearest(&shown, &self.asked) {
                Some(known) => format!("unknown parameter; did you mean `{known}`?"),
                None if self.asked.is_empty() => "unknown parameter; there are none here".to_owned(),
                None => format!("unknown parameter; known are {}", self.asked.join(", ")),
            };
            self.errors.push(FieldError::new(shown, message));
        }
        if self.errors.is_empty() { Ok(()) } else { Err(Error::fields(&self.errors)) }
    }

    fn judge<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        text: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let parsed = read(text);
        if parsed.is_none() {
            let shown: String = text.chars().take(60).collect();
            self.error(name, format!("{shown:?}: expected {expected}"));
        }
        parsed
    }
}

/// A route without parameters: anything in the query string is refused.
pub fn none(query: Option<&str>) -> Result<(), Error> {
    Query::read(query)?.finish()
}

/// A moment, a date (its first), or a date and time without a zone (UTC). Before 1970 there is nothing here: what is earlier
/// is taken as its beginning.
pub fn read_time(text: &str) -> Option<Timestamp> {
    let time = Timestamp::from_str(text).ok().or_else(|| {
        let local = DateTime::from_str(text).ok();
        let local =
            local.or_else(|| Some(Date::from_str(text).ok()?.to_datetime(jiff::civil::Time::midnight())));
        Some(local?.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })?;
    Some(time.max(Timestamp::UNIX_EPOCH))
}

/// Undoes percent-encoding and `+`.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let (digits, tail) = rest.split_at_checked(2)?;
                let digits = std::str::from_utf8(digits).ok()?;
                if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return None;
                }
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = tail;
            }
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_undone_or_refused() {
        assert_eq!(decode("a%20b+c%C3%A9").as_deref(), Some("a b cé"));
        for wrong in ["%", "%2", "%zz", "%+1", "%ff"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn lists_are_read_as_each_stock_client_writes_them() {
        let text = |text: &str| Some(text.to_owned());
        for query in ["types%5B%5D=a&types%5B%5D=b", "types[]=a&types[]=b", "types=a&types=b&beta=true"] {
            let mut query = Query::read(Some(query)).unwrap();
            assert_eq!(query.list("types", "a type", 2, text).unwrap(), ["a", "b"]);
            assert!(query.finish().is_ok());
        }
        let mut query =
            Query::read(Some("types=a&types=b&limit=1&limit=2&page=&created_at[gte]=2026-11-22")).unwrap();
        assert_eq!(query.list("types", "a type", 1, text), None);
        assert_eq!(query.parsed("limit", "a number", text), None);
        assert_eq!(query.optional("page", "a cursor", text), None);
        assert_eq!(query.time("created_at[gte]"), Timestamp::from_str("2026-11-22T00:00:00Z").ok());
        assert_eq!(read_time("0001-01-01"), Some(Timestamp::UNIX_EPOCH));
        assert_eq!(read_time("1969-12-31T23:59:59Z"), Some(Timestamp::UNIX_EPOCH));
        let said = format!("{:?}", query.finish().unwrap_err());
        assert!(said.contains("types: expected at most 1, found 2; limit: stands there twice"), "{said}");
    }

    #[test]
    fn times_are_moments_dates_or_utc() {
        for text in ["2026-11-22", "2026-11-22T00:00:00Z", "2026-11-22T00:00:00", "2026-11-22T01:00:00+01:00"]
        {
            assert_eq!(read_time(text), Timestamp::from_str("2026-11-22T00:00:00Z").ok(), "{text}");
        }
        for wrong in ["", "yesterday", "2026-13-01", "1767225600", "2026-11-22T25:00:00Z"] {
            assert_eq!(read_time(wrong), None, "{wrong}");
        }
    }
}
