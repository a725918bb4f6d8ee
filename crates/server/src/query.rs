//! Reads a query string: each parameter once, unknown ones named.

use std::collections::BTreeMap;

use wardian_session::FieldError;

use crate::error::Error;
use crate::wire::nearest;

/// The longest query string.
const MAX_QUERY_BYTES: usize = 4096;

/// The parameters of a query string.
#[derive(Debug)]
pub struct Query {
    parameters: BTreeMap<String, String>,
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
        let mut parameters = BTreeMap::new();
        let mut errors = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (decode(name), decode(value)) else {
                return Err(Error::invalid("the query string is not percent-encoded UTF-8"));
            };
            if parameters.insert(name.clone(), value).is_some() {
                errors.push(FieldError::new(name, "stands there twice"));
            }
        }
        Ok(Self { parameters, asked: Vec::new(), errors })
    }

    /// A parameter, as what `read` makes of it; `None` from it means that `expected` was not met.
    pub fn parsed<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        self.asked.push(name);
        let text = self.parameters.remove(name)?;
        let parsed = read(&text);
        if parsed.is_none() {
            let shown: String = text.chars().take(60).collect();
            self.errors.push(FieldError::new(name, format!("{shown:?}: expected {expected}")));
        }
        parsed
    }

    /// All that was wrong, if anything was.
    pub fn finish(mut self) -> Result<(), Error> {
        // Stock clients add it to every request.
        self.parameters.remove("beta");
        for name in self.parameters.keys().take(10) {
            let shown: String = name.chars().take(60).collect();
            let message = match nearest(&shown, &self.asked) {
                Some(known) => format!("unknown parameter; did you mean `{known}`?"),
                None => format!("unknown parameter; known are {}", self.asked.join(", ")),
            };
            self.errors.push(FieldError::new(shown, message));
        }
        if self.errors.is_empty() { Ok(()) } else { Err(Error::fields(&self.errors)) }
    }
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
}
