//! Pages of lists: `limit`, and cursors that fit only the list that gave them.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use wardian_store::{Order, Page, Position};

use crate::query::Query;

/// How many things are on a page that asks for no number.
const DEFAULT_LIMIT: u32 = 20;
/// The most things on a page.
pub const MAX_LIMIT: u32 = 100;
/// The version of the cursors' format.
const CURSOR_VERSION: u8 = 1;
/// The longest cursor that is looked at.
const MAX_CURSOR_BYTES: usize = 512;
/// How much of the hash stands in a cursor: against mistakes, not attackers, who gain nothing by forging one.
const CHECK_BYTES: usize = 12;

/// Which page of a list is asked for. `K` is where a thing stands in it: a time and an id, a version, a `seq`.
#[derive(Debug)]
pub struct Asked<K> {
    /// How many things.
    pub limit: u32,
    /// Whether the client said how many.
    pub is_explicit: bool,
    /// Where the page begins: after this one, or before it if `backward`.
    pub after: Option<K>,
    /// Whether the page before `after` is asked for.
    pub backward: bool,
    /// What the cursors of this list are bound to.
    binding: String,
}

impl<K: Serialize + DeserializeOwned> Asked<K> {
    /// Reads `limit` and `page`. `binding` is all that makes the list this one: its name, the org, the filters. A cursor of
    /// another list is refused.
    pub fn read(query: &mut Query, binding: &Value, max_limit: u32) -> Self {
        let binding = binding.to_string();
        let limit = query.optional("limit", &format!("a whole number from 1 to {max_limit}"), |text| {
            text.parse().ok().filter(|limit| (1..=max_limit).contains(limit))
        });
        let cursor = query.optional("page", "a `next_page` of this same list, filters included", |text| {
            decode(text, &binding)
        });
        let (after, backward) = cursor.map_or((None, false), |(key, backward)| (Some(key), backward));
        let is_explicit = limit.is_some();
        Self { limit: limit.unwrap_or(DEFAULT_LIMIT), is_explicit, after, backward, binding }
    }

    /// How many rows to fetch: one more than asked for tells whether there is another page.
    pub const fn fetch(&self) -> u32 {
        self.limit + 1
    }

    /// The cursor of the page after a row, or before it.
    pub fn cursor(&self, key: &K, backward: bool) -> String {
        encode(key, backward, &self.binding)
    }

    /// The answer, from the rows that were fetched, in the list's order. `both`: with `prev_page` too.
    pub fn answer<T>(
        &self,
        mut rows: Vec<T>,
        both: bool,
        key: impl Fn(&T) -> K,
        render: impl FnMut(&T) -> Value,
    ) -> Value {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        if more && self.backward {
            rows.remove(0);
        } else {
            rows.truncate(limit);
        }
        let (has_next, has_previous) =
            if self.backward { (true, more) } else { (more, self.after.is_some()) };
        let cursor = |row: Option<&T>, backward| row.map(|row| self.cursor(&key(row), backward));
        let mut answer = json!({
            "next_page": has_next.then(|| cursor(rows.last(), false)).flatten(),
            "data": Value::Null,
        });
        if both {
            answer["prev_page"] = json!(has_previous.then(|| cursor(rows.first(), true)).flatten());
        }
        answer["data"] = rows.iter().map(render).collect();
        answer
    }
}

/// Where a thing stands in a list by time.
pub type ByTime = (Timestamp, String);

impl Asked<ByTime> {
    /// What to ask the store for.
    pub fn store_page(&self, order: Order) -> Page {
        let after = self.after.clone().map(|(at, id)| Position { at, id });
        Page { order, after, backward: self.backward, limit: self.fetch() }
    }
}

fn encode<K: Serialize>(key: &K, backward: bool, binding: &str) -> String {
    let key = json!(key);
    let check = check(&key, backward, binding);
    let cursor = json!({"v": CURSOR_VERSION, "k": key, "b": backward, "c": check});
    BASE64_URL_SAFE_NO_PAD.encode(cursor.to_string())
}

fn decode<K: DeserializeOwned>(text: &str, binding: &str) -> Option<(K, bool)> {
    if text.len() > MAX_CURSOR_BYTES {
        return None;
    }
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
    let cursor: Value = serde_json::from_slice(&bytes).ok()?;
    let backward = cursor["b"].as_bool()?;
    let key = cursor.get("k")?;
    let fits = cursor["v"] == CURSOR_VERSION && cursor["c"] == check(key, backward, binding);
    if fits { Some((serde_json::from_value(key.clone()).ok()?, backward)) } else { None }
}

fn check(key: &Value, backward: bool, binding: &str) -> String {
    let digest = Sha256::digest(json!([CURSOR_VERSION, key, backward, binding]).to_string());
    BASE64_URL_SAFE_NO_PAD.encode(&digest[..CHECK_BYTES])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn asked(query: &str, binding: &Value) -> Result<Asked<u64>, Error> {
        let mut query = Query::read(Some(query))?;
        let asked = Asked::read(&mut query, binding, MAX_LIMIT);
        query.finish().map(|()| asked)
    }

    /// Fetches as a store does.
    fn page(query: &str, binding: &Value) -> Value {
        let asked = asked(query, binding).unwrap();
        let fetch = usize::try_from(asked.fetch()).unwrap();
        let all = 1..=10u64;
        let rows: Vec<u64> = match asked.after {
            None => all.take(fetch).collect(),
            Some(after) if asked.backward => {
                let before: Vec<u64> = all.filter(|number| *number < after).collect();
                before[before.len().saturating_sub(fetch)..].to_vec()
            }
            Some(after) => all.filter(|number| *number > after).take(fetch).collect(),
        };
        asked.answer(rows, true, |row| *row, |row| json!(row))
    }

    fn walk(from: &Value, name: &str, binding: &Value) -> Value {
        page(&format!("limit=4&page={}", from[name].as_str().unwrap()), binding)
    }

    #[test]
    fn pages_lead_to_the_end_and_back() {
        let list = json!(["things", "org_1"]);
        let first = page("limit=4", &list);
        assert_eq!((&first["data"], &first["prev_page"]), (&json!([1, 2, 3, 4]), &Value::Null));
        let second = walk(&first, "next_page", &list);
        let third = walk(&second, "next_page", &list);
        assert_eq!((&third["data"], &third["next_page"]), (&json!([9, 10]), &Value::Null));
        let back = walk(&third, "prev_page", &list);
        assert_eq!(back, walk(&first, "next_page", &list));
        let start = walk(&back, "prev_page", &list);
        assert_eq!((&start["data"], &start["prev_page"]), (&json!([1, 2, 3, 4]), &Value::Null));
        assert_eq!(walk(&start, "next_page", &list), second);
        assert_eq!(page("limit=10", &list)["next_page"], Value::Null);
    }

    #[test]
    fn a_cursor_of_another_list_or_an_edited_one_is_refused() {
        let list = json!(["things", "org_1", {"archived": false}]);
        let first = page("limit=4", &list);
        let cursor = first["next_page"].as_str().unwrap();
        assert!(asked(&format!("page={cursor}"), &list).is_ok());
        for other in
            [json!(["things", "org_2", {"archived": false}]), json!(["things", "org_1", {"archived": true}])]
        {
            assert!(asked(&format!("page={cursor}"), &other).is_err());
        }
        let edited = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(cursor).unwrap())
            .unwrap()
            .replace("\"k\":4", "\"k\":5");
        let edited = BASE64_URL_SAFE_NO_PAD.encode(edited);
        let long = "A".repeat(10_000);
        for wrong in [&edited, &cursor[1..], &cursor[..20], "%00", "e30", "bnVsbA", &long] {
            assert!(asked(&format!("page={wrong}"), &list).is_err(), "{wrong}");
        }
        for wrong in ["limit=0", "limit=101", "limit=-1", "limit=1.5", "limit=x", "limit=99999999999"] {
            assert!(asked(wrong, &list).is_err(), "{wrong}");
        }
    }
}
