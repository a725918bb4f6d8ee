//! What a request may ask of the one permitted host.
//!
//! The body is inspected, never rewritten. Fields, roles, block types and betas that are not known here pass; what makes
//! the API itself fetch something, run something, remember something or ask another model is refused by name, because
//! this environment allows none of it. Fields are read with the same rules as the upstream's: one that is given twice is
//! refused, or the two could read different ones.

mod parts;

use wardian_ledger::{PriceTable, RequestBound};

use parts::{Request, shown};

/// The longest name of a model.
pub const MAX_MODEL_BYTES: usize = 256;

/// What the gateway needs to know of a body that may go upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The model asked for, as it was written.
    pub model: String,
    /// What bounds the cost.
    pub bound: RequestBound,
    /// Whether the reply is to be a stream.
    pub stream: bool,
}

/// Why a body may not go upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The body is wrong.
    Invalid(String),
    /// The body asks for what is not allowed here.
    NotAllowed(String),
    /// The model is not one of the grant's.
    Model(String),
}

/// Checks the body of `POST /v1/messages`.
pub fn messages(body: &[u8], models: Option<&[String]>, prices: &PriceTable) -> Result<Checked, Refused> {
    let mut request = read(body, models, prices)?;
    let max_tokens =
        request.max_tokens.ok_or_else(|| Refused::Invalid("max_tokens: Field required".to_owned()))?;
    let found = request.found()?;
    let bound = RequestBound {
        body_bytes: found.token_bound(body.len()),
        input_tokens: None,
        max_tokens,
        web_searches: None,
        iterations: if request.compaction.is_some() || found.compacts { 2 } else { 1 },
        standard_speed: request.speed.as_deref().is_none_or(|speed| speed == "standard"),
    };
    let stream = request.stream.unwrap_or(false);
    Ok(Checked { model: request.model.into_owned(), bound, stream })
}

/// Checks the body of `POST /v1/messages/count_tokens`, which costs nothing, and returns the model.
pub fn count_tokens(body: &[u8], models: Option<&[String]>, prices: &PriceTable) -> Result<String, Refused> {
    let mut request = read(body, models, prices)?;
    request.found()?;
    Ok(request.model.into_owned())
}

fn read<'a>(body: &'a [u8], models: Option<&[String]>, prices: &PriceTable) -> Result<Request<'a>, Refused> {
    // A list of the fields in their order would do for the reader below, too.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Refused::Invalid("the body is not a JSON object".to_owned()));
    }
    let request: Request<'a> =
        serde_json::from_slice(body).map_err(|error| Refused::Invalid(explain(&error)))?;
    let is_name = !request.model.is_empty() && !request.model.contains(char::is_control);
    if !is_name || request.model.len() > MAX_MODEL_BYTES {
        return Err(Refused::Invalid("model: must be the name of a model".to_owned()));
    }
    let asked = prices.resolve_alias(&request.model);
    match models {
        Some(models) if !models.iter().any(|model| prices.resolve_alias(model) == asked) => {
            let allowed = models.join(", ");
            let asked = shown(&request.model);
            Err(Refused::Model(format!("model: {asked} is not allowed here; allowed: {allowed}")))
        }
        _ => Ok(request),
    }
}

/// The error without what it quotes of the body.
fn explain(error: &serde_json::Error) -> String {
    let place = format!("line {} column {}", error.line(), error.column());
    if !error.is_data() {
        return format!("the body is not valid JSON ({place})");
    }
    let text = error.to_string();
    let known = ["missing field", "duplicate field"].iter().find(|known| text.starts_with(**known));
    match known.and_then(|_| text.split(" at line").next()) {
        // These two name only fields of ours.
        Some(what) => format!("the body has a {what}"),
        None => format!("a field of the body has the wrong type ({place})"),
    }
}

#[cfg(test)]
mod tests;
