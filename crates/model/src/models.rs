//! `GET /v1/models` and `GET /v1/models/{id}`.

use serde_json::{Value, json};

/// The models that a script names when it names none: the current ones of the price table.
const MODELS: [&str; 9] = [
    "claude-opus-5-5",
    "claude-sonnet-5-5",
    "claude-haiku-5-5",
    "claude-fable-5-2",
    "claude-opus-5",
    "claude-sonnet-5",
    "claude-opus-4-8",
    "claude-sonnet-4-6",
    "claude-haiku-4-5",
];
const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 1000;

/// The models of one server, newest first.
#[derive(Debug)]
pub(crate) struct Models(Vec<String>);

impl Models {
    pub(crate) fn new(ids: Option<Vec<String>>) -> Self {
        Self(ids.unwrap_or_else(|| MODELS.map(str::to_owned).to_vec()))
    }

    pub(crate) fn one(&self, id: &str) -> Option<Value> {
        self.0.iter().find(|known| *known == id).map(|id| entry(id))
    }

    /// One page, by `limit`, `after_id` and `before_id`.
    pub(crate) fn page(&self, query: &str) -> Result<Value, String> {
        let mut limit = DEFAULT_LIMIT;
        let mut ids = self.0.as_slice();
        let mut backwards = false;
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let place = || {
                let unknown = || format!("{name}: no model has this id");
                self.0.iter().position(|id| id == value).ok_or_else(unknown)
            };
            match name {
                "limit" => {
                    let number = value.parse().ok().filter(|number| (1..=MAX_LIMIT).contains(number));
                    limit =
                        number.ok_or_else(|| format!("limit: expected a number from 1 to {MAX_LIMIT}"))?;
                }
                "after_id" => ids = &self.0[place()? + 1..],
                "before_id" => {
                    ids = &self.0[..place()?];
                    backwards = true;
                }
                _ => (),
            }
        }
        let has_more = ids.len() > limit;
        let page = match (has_more, backwards) {
            (false, _) => ids,
            (true, false) => &ids[..limit],
            (true, true) => &ids[ids.len() - limit..],
        };
        Ok(json!({
            "data": page.iter().map(|id| entry(id)).collect::<Vec<_>>(),
            "has_more": has_more,
            "first_id": page.first(),
            "last_id": page.last(),
        }))
    }
}

fn entry(id: &str) -> Value {
    json!({"type": "model", "id": id, "display_name": display_name(id), "created_at": "2026-01-01T00:00:00Z"})
}

/// `claude-opus-5-5` reads "Claude Opus 5.5".
fn display_name(id: &str) -> String {
    let mut name = String::new();
    let mut after_digit = false;
    for word in id.split('-').filter(|word| !word.is_empty()) {
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
        if !name.is_empty() {
            name.push(if after_digit && is_number { '.' } else { ' ' });
        }
        let mut letters = word.chars();
        name.extend(letters.next().into_iter().flat_map(char::to_uppercase));
        name.push_str(letters.as_str());
        after_digit = is_number;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_go_both_ways() {
        let models = Models::new(Some(["a", "b", "c", "d"].map(str::to_owned).to_vec()));
        let ids = |query: &str| {
            let page = models.page(query).unwrap();
            let ids: Vec<String> = page["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|model| model["id"].as_str().unwrap().to_owned())
                .collect();
            (ids.concat(), page["has_more"] == true)
        };
        assert_eq!(ids(""), ("abcd".to_owned(), false));
        assert_eq!(ids("limit=2"), ("ab".to_owned(), true));
        assert_eq!(ids("limit=2&after_id=b"), ("cd".to_owned(), false));
        assert_eq!(ids("limit=1&before_id=c"), ("b".to_owned(), true));
        assert_eq!(ids("beta=true"), ("abcd".to_owned(), false));
        for wrong in ["limit=0", "limit=1001", "limit=x", "after_id=z", "before_id="] {
            assert!(models.page(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_read_well() {
        assert_eq!(display_name("claude-opus-5-5"), "Claude Opus 5.5");
        assert_eq!(display_name("claude-haiku-4-5-20251001"), "Claude Haiku 4.5.20251001");
    }
}
