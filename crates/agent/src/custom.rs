//! Tools of the caller's own, made of an async function over types.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::tool::{Tool, ToolContext, ToolOutput};
use crate::words;

/// A tool made of an async function: [`tool`], [`tool_with`].
#[derive(Clone)]
pub struct CustomTool {
    name: String,
    description: String,
    schema: Value,
    read_only: bool,
    repeatable: bool,
    run: Run,
}

type Run = Arc<dyn Fn(Value, ToolContext) -> BoxFuture<'static, ToolOutput> + Send + Sync>;

/// Makes a tool of an async function. The schema that the model sees comes from the input's type, its descriptions from
/// the doc comments of the type's fields; what the model sends is checked against both before the function runs.
///
/// When the turn is stopped the function's future is dropped.
///
/// ```
/// use wardian_agent::{JsonSchema, tool};
///
/// #[derive(serde::Deserialize, JsonSchema)]
/// # #[schemars(crate = "wardian_agent::schemars")]
/// struct Add {
///     /// The first number.
///     a: f64,
///     /// The second.
///     b: f64,
/// }
///
/// let add = tool("add", "Adds two numbers.", |input: Add| async move { (input.a + input.b).to_string() });
/// let options = wardian_agent::Options {
///     custom_tools: vec![add.read_only().into()],
///     allowed_tools: vec!["add".into()],
///     ..Default::default()
/// };
/// ```
pub fn tool<Input, Function, Answer>(
    name: impl Into<String>,
    description: impl Into<String>,
    function: Function,
) -> CustomTool
where
    Input: DeserializeOwned + JsonSchema,
    Function: Fn(Input) -> Answer + Send + Sync + 'static,
    Answer: Future<Output: IntoToolOutput> + Send + 'static,
{
    let run = move |input: Value, context: ToolContext| -> BoxFuture<'static, ToolOutput> {
        let answer = match read(input) {
            Ok(input) => function(input),
            Err(refused) => return Box::pin(std::future::ready(ToolOutput::error(refused))),
        };
        Box::pin(async move {
            tokio::select! {
                biased;
                () = context.cancel.cancelled() => ToolOutput::error(words::STOPPED),
                answer = answer => answer.into_tool_output(),
            }
        })
    };
    CustomTool::new::<Input>(name.into(), description.into(), Arc::new(run))
}

/// The same with what tools share: the working directory, the call's id. When `context.cancel` fires the function ends what
/// it started and returns soon; one that does not is dropped some seconds later.
pub fn tool_with<Input, Function, Answer>(
    name: impl Into<String>,
    description: impl Into<String>,
    function: Function,
) -> CustomTool
where
    Input: DeserializeOwned + JsonSchema,
    Function: Fn(Input, ToolContext) -> Answer + Send + Sync + 'static,
    Answer: Future<Output: IntoToolOutput> + Send + 'static,
{
    let run = move |input: Value, context: ToolContext| -> BoxFuture<'static, ToolOutput> {
        match read(input) {
            Ok(input) => {
                let answer = function(input, context);
                Box::pin(async move { answer.await.into_tool_output() })
            }
            Err(refused) => Box::pin(std::future::ready(ToolOutput::error(refused))),
        }
    };
    CustomTool::new::<Input>(name.into(), description.into(), Arc::new(run))
}

impl CustomTool {
    fn new<Input: JsonSchema>(name: String, description: String, run: Run) -> Self {
        let schema = input_schema::<Input>();
        Self { name, description, schema, read_only: false, repeatable: false, run }
    }

    /// Says that it changes nothing: such calls of one reply run side by side.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Says that a call may be made again after a restart: whoever runs it knows, by the call's id, what it has done.
    #[must_use]
    pub fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }
}

impl Tool for CustomTool {
    fn name(&self) -> &str {
        &self.name
    }

    fn description(&self) -> &str {
        &self.description
    }

    fn input_schema(&self) -> Value {
        self.schema.clone()
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn is_repeatable(&self) -> bool {
        self.repeatable
    }

    fn call<'a>(&'a self, input: Value, context: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        (self.run)(input, context.clone())
    }
}

impl From<CustomTool> for Arc<dyn Tool> {
    fn from(tool: CustomTool) -> Self {
        Arc::new(tool)
    }
}

impl fmt::Debug for CustomTool {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("CustomTool").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a tool's function may give.
pub trait IntoToolOutput {
    /// Makes it the call's result.
    fn into_tool_output(self) -> ToolOutput;
}

impl IntoToolOutput for ToolOutput {
    fn into_tool_output(self) -> ToolOutput {
        self
    }
}

impl IntoToolOutput for String {
    fn into_tool_output(self) -> ToolOutput {
        ToolOutput::ok(self.clone(), Value::String(self))
    }
}

impl IntoToolOutput for &str {
    fn into_tool_output(self) -> ToolOutput {
        self.to_owned().into_tool_output()
    }
}

/// The model is told that it is done.
impl IntoToolOutput for () {
    fn into_tool_output(self) -> ToolOutput {
        "Done.".into_tool_output()
    }
}

/// An error is a failure that the model is told of, with its causes.
impl<Output: IntoToolOutput, Problem: Into<Box<dyn std::error::Error + Send + Sync>>> IntoToolOutput
    for Result<Output, Problem>
{
    fn into_tool_output(self) -> ToolOutput {
        let error = match self {
            Ok(output) => return output.into_tool_output(),
            Err(error) => error.into(),
        };
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        ToolOutput::error(text)
    }
}

/// A value that the model gets as JSON, and the program as it is.
#[derive(Clone, Debug)]
pub struct Json<T>(pub T);

impl<T: Serialize> IntoToolOutput for Json<T> {
    fn into_tool_output(self) -> ToolOutput {
        match serde_json::to_value(self.0) {
            Ok(value) => ToolOutput::ok(value.to_string(), value),
            Err(error) => ToolOutput::error(format!("The result cannot be written as JSON: {error}")),
        }
    }
}

/// Returns the JSON schema of a type, whole and without references where the type is not recursive: what models
/// read best.
#[must_use]
pub fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    if let Some(fields) = schema.as_object_mut() {
        fields.shift_remove("title");
    }
    schema
}

/// The API takes only objects as inputs; a type without fields is one without any.
fn input_schema<Input: JsonSchema>() -> Value {
    let mut schema = schema_of::<Input>();
    if schema["type"] == "null" {
        return json!({"type": "object", "properties": {}});
    }
    if let Some(fields) = schema.as_object_mut().filter(|fields| !fields.contains_key("type")) {
        fields.insert("type".to_owned(), "object".into());
    }
    schema
}

fn read<Input: DeserializeOwned>(input: Value) -> Result<Input, String> {
    let is_empty = input.as_object().is_some_and(serde_json::Map::is_empty);
    let read = serde_json::from_value(input);
    // What has no fields is null to serde.
    let read = read.or_else(|error| {
        if is_empty { serde_json::from_value(Value::Null).map_err(|_| error) } else { Err(error) }
    });
    read.map_err(|error| format!("The input does not fit: {error}"))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its shape matters here")]
    struct Search {
        /// What is looked for.
        text: String,
        /// At most so many.
        limit: Option<u8>,
        order: Option<Order>,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    enum Order {
        Newest,
        Oldest,
    }

    #[derive(Deserialize, JsonSchema)]
    struct Tree {
        #[expect(dead_code, reason = "only its shape matters here")]
        children: Vec<Tree>,
    }

    #[derive(Deserialize, JsonSchema)]
    struct Nothing;

    #[test]
    fn schemas_are_whole_and_plain() {
        insta::assert_json_snapshot!(input_schema::<Search>(), @r#"
        {
          "type": "object",
          "additionalProperties": false,
          "properties": {
            "text": {
              "type": "string",
              "description": "What is looked for."
            },
            "limit": {
              "type": [
                "integer",
                "null"
              ],
              "format": "uint8",
              "minimum": 0,
              "maximum": 255,
              "description": "At most so many."
            },
            "order": {
              "type": [
                "string",
                "null"
              ],
              "enum": [
                "newest",
                "oldest",
                null
              ]
            }
          },
          "required": [
            "text"
          ]
        }
        "#);
        let none = json!({"type": "object", "properties": {}});
        assert_eq!((input_schema::<()>(), input_schema::<Nothing>()), (none.clone(), none));
        assert!(input_schema::<Tree>()["properties"]["children"].is_object());
    }

    #[test]
    fn inputs_that_do_not_fit_are_told_not_run() {
        assert!(read::<Search>(json!({"text": "x", "limit": 3, "order": "oldest"})).is_ok());
        assert!(read::<()>(json!({})).is_ok() && read::<Nothing>(json!({})).is_ok());
        for input in [
            json!({}),
            json!(null),
            json!({"text": "x", "limit": 300}),
            json!({"text": "x", "more": 1}),
            json!([]),
        ] {
            assert!(read::<Search>(input.clone()).is_err(), "{input}");
        }
    }

    #[test]
    fn what_functions_give_becomes_a_result() {
        assert_eq!("a".into_tool_output(), ToolOutput::ok("a", json!("a")));
        assert_eq!(Json(json!({"a": 1})).into_tool_output(), ToolOutput::ok("{\"a\":1}", json!({"a": 1})));
        assert_eq!(Err::<(), _>("no").into_tool_output(), ToolOutput::error("no"));
        let failed: Result<String, std::io::Error> = Err(std::io::Error::other("no disk"));
        assert_eq!(failed.into_tool_output(), ToolOutput::error("no disk"));
        let unwritable = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert!(Json(unwritable).into_tool_output().is_error);
    }
}
