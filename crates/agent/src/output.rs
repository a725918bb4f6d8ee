//! What a turn ends with, as a value of a type.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::custom::schema_of;
use crate::{Error, Options, Prompt, ResultMessage, query};

/// Why there is no value.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The query could not begin.
    #[error(transparent)]
    Query(#[from] Error),
    /// The turn ended without one: it failed, or the model never gave one.
    #[error("get the output: the turn ended as {:?} without one", .0.subtype)]
    Missing(Box<ResultMessage>),
    /// What the model gave fits the schema and not the type.
    #[error("read the output: {message}")]
    Unfit {
        /// What is wrong.
        message: String,
        /// How the turn ended.
        result: Box<ResultMessage>,
    },
}

/// Runs an agent on a prompt and gives what it found as a value of a type, and the result it came with. The model is
/// held to the type's schema; `options.output_schema` is overwritten.
///
/// # Errors
/// [`OutputError`].
pub async fn query_as<T: DeserializeOwned + JsonSchema>(
    prompt: impl Into<Prompt>,
    mut options: Options,
) -> Result<(T, ResultMessage), OutputError> {
    options.output_schema = Some(schema_of::<T>());
    let result = query(prompt, options).result().await?;
    let value = output(&result)?;
    Ok((value, result))
}

/// Reads the output of a result: for who follows the messages of a query with [`Options::output_schema`].
///
/// # Errors
/// [`OutputError::Missing`], [`OutputError::Unfit`].
pub fn output<T: DeserializeOwned>(result: &ResultMessage) -> Result<T, OutputError> {
    let Some(value) = result.extra.get("structured_output").filter(|_| !result.is_error) else {
        return Err(OutputError::Missing(Box::new(result.clone())));
    };
    T::deserialize(value)
        .map_err(|error| OutputError::Unfit { message: error.to_string(), result: Box::new(result.clone()) })
}
