//! A tool: what the model is told of it, what it may do, and the code that runs.

use std::{fmt, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;
use toolpool_proto::v1 as proto;

use crate::{
    Context, Effects, Error, IntoOutput, Output, ToolError,
    policy::{OnFailure, Policy},
};

const MAX_NAME: usize = 128;
const MAX_DESCRIPTION: usize = 64 * 1024;
const MAX_SCHEMA: usize = 256 * 1024;

pub(crate) type Running = Pin<Box<dyn Future<Output = Result<Output, ToolError>> + Send>>;
pub(crate) type Handler = Arc<dyn Fn(Bytes, Context) -> Running + Send + Sync>;

/// A tool that a worker serves. Its policy is a default: the operator's configuration wins over it, field by field,
/// and what neither of them sets has the broker's default.
///
/// A tool that says nothing of its [`effects`](Self::effects) counts as side-effecting.
#[derive(Clone)]
pub struct Tool {
    name: String,
    description: String,
    input_schema: Value,
    policy: Policy,
    handler: Handler,
}

impl Tool {
    /// A tool whose arguments are a Rust type. The type's JSON Schema, doc comments and all, is what the model reads;
    /// arguments that do not fit the type end the call as `INVALID_ARGUMENTS` with the place that is wrong.
    ///
    /// What the handler gives back becomes JSON, or is an [`Output`]; see [`IntoOutput`].
    pub fn typed<A, R, H, F>(
        name: impl Into<String>,
        description: impl Into<String>,
        handler: H,
    ) -> Self
    where
        A: DeserializeOwned + JsonSchema + Send + 'static,
        R: IntoOutput,
        H: Fn(A, Context) -> F + Send + Sync + 'static,
        F: Future<Output = Result<R, ToolError>> + Send + 'static,
    {
        let schema = SchemaSettings::draft2020_12()
            .into_generator()
            .into_root_schema_for::<A>();
        let handler = Arc::new(handler);
        let handler = move |arguments: Bytes, context: Context| -> Running {
            let handler = Arc::clone(&handler);
            Box::pin(async move { handler(parse(&arguments)?, context).await?.into_output() })
        };
        Self::new(
            name.into(),
            description.into(),
            schema.to_value(),
            Arc::new(handler),
        )
    }

    /// A tool that takes its arguments as JSON text: one object that satisfies `input_schema`.
    pub fn raw<H, F>(
        name: impl Into<String>,
        description: impl Into<String>,
        input_schema: Value,
        handler: H,
    ) -> Self
    where
        H: Fn(Bytes, Context) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Output, ToolError>> + Send + 'static,
    {
        let handler = move |arguments: Bytes, context: Context| -> Running {
            Box::pin(handler(arguments, context))
        };
        Self::new(
            name.into(),
            description.into(),
            input_schema,
            Arc::new(handler),
        )
    }

    fn new(name: String, description: String, input_schema: Value, handler: Handler) -> Self {
        Self {
            name,
            description,
            input_schema,
            policy: Policy::default(),
            handler,
        }
    }

    /// What the tool does to the world; side effects, when it is not said.
    #[must_use]
    pub fn effects(mut self, effects: Effects) -> Self {
        self.policy.effects = Some(effects);
        self
    }

    /// The longest that one attempt may run; more than 0 and at most a day, as all times of a tool.
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.policy.attempt_timeout = Some(timeout);
        self
    }

    /// The longest that a call may take in all: waits, attempts and the pauses between them.
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.policy.call_timeout = Some(timeout);
        self
    }

    /// The longest that an attempt may wait for a limit or a slot.
    #[must_use]
    pub fn queue_timeout(mut self, timeout: Duration) -> Self {
        self.policy.queue_timeout = Some(timeout);
        self
    }

    /// Attempts in all, the first included; 1 to 10. A side-effecting tool has one.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.policy.max_attempts = Some(attempts);
        self
    }

    /// The pause before the second attempt; it doubles for each further one.
    #[must_use]
    pub fn retry_backoff(mut self, backoff: Duration) -> Self {
        self.policy.retry_backoff = Some(backoff);
        self
    }

    /// Starts per second over all workers (more than 0, at most 1,000,000), and how many may come at once after a
    /// quiet time (1 to 1,000,000).
    #[must_use]
    pub fn rate(mut self, per_second: f64, burst: u32) -> Self {
        self.policy.rate = Some(per_second);
        self.policy.burst = Some(burst);
        self
    }

    /// Calls that may run at the same time over all workers; 1 to 1,000,000.
    #[must_use]
    pub fn max_in_flight(mut self, calls: u32) -> Self {
        self.policy.max_in_flight = Some(calls);
        self
    }

    /// When a call of this tool fails, the other calls of its batch that have not ended are called off.
    #[must_use]
    pub fn abort_batch_on_failure(mut self) -> Self {
        self.policy.on_failure = Some(OnFailure::AbortBatch);
        self
    }

    /// The tool's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the model is told of the tool.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The JSON Schema of the tool's arguments.
    #[must_use]
    pub fn input_schema(&self) -> &Value {
        &self.input_schema
    }

    pub(crate) fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    pub(crate) fn handler(&self) -> &Handler {
        &self.handler
    }

    /// Whether the broker could take this tool, as far as that can be told without a schema compiler.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if !is_name(&self.name) {
            return Err(Error::ToolName {
                name: self.name.clone(),
            });
        }
        let found = match &self.input_schema {
            Value::Object(_) | Value::Bool(_) => None,
            Value::Null => Some("null"),
            Value::Number(_) => Some("a number"),
            Value::String(_) => Some("a string"),
            Value::Array(_) => Some("an array"),
        };
        if let Some(found) = found {
            return Err(Error::InputSchema {
                tool: self.name.clone(),
                found,
            });
        }
        if self.description.len() > MAX_DESCRIPTION {
            return Err(Error::TooLong {
                tool: self.name.clone(),
                field: "description",
                bytes: self.description.len(),
                permitted: MAX_DESCRIPTION,
            });
        }
        let schema = self.input_schema.to_string().len();
        if schema > MAX_SCHEMA {
            return Err(Error::TooLong {
                tool: self.name.clone(),
                field: "input_schema",
                bytes: schema,
                permitted: MAX_SCHEMA,
            });
        }
        self.policy.check().map_err(|violation| Error::Policy {
            tool: self.name.clone(),
            field: violation.field,
            value: violation.value,
            permitted: violation.permitted,
        })
    }

    pub(crate) fn to_proto(&self) -> proto::Tool {
        proto::Tool {
            name: self.name.clone(),
            description: self.description.clone(),
            input_schema: self.input_schema.to_string().into(),
            policy: Some(self.policy.to_proto()),
        }
    }
}

impl fmt::Debug for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tool")
            .field("name", &self.name)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

fn is_name(name: &str) -> bool {
    let within = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:/-".contains(&byte);
    let begins = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    name.len() <= MAX_NAME
        && name.as_bytes().first().is_some_and(begins)
        && name.bytes().all(within)
}

fn parse<A: DeserializeOwned>(arguments: &[u8]) -> Result<A, ToolError> {
    let mut json = serde_json::Deserializer::from_slice(arguments);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = pointer(error.path());
        let message = error.inner().to_string();
        let place = if path.is_empty() {
            "the arguments"
        } else {
            &path
        };
        ToolError::invalid_arguments(format!("The arguments do not fit: at {place}: {message}."))
            .violation(path.clone(), message)
    })
}

/// The path as a JSON Pointer.
fn pointer(path: &serde_path_to_error::Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => {
                pointer.push('/');
                pointer.push_str(&index.to_string());
            }
            Segment::Map { key } => {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            // A variant's name is no step in the document, and what is unknown cannot be pointed at.
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Deserialize, JsonSchema)]
    struct Search {
        /// What to look for.
        #[expect(dead_code, reason = "only its schema matters here")]
        words: Vec<String>,
    }

    fn search() -> Tool {
        Tool::typed("search", "Searches.", |_: Search, _| async { Ok(1) })
    }

    #[test]
    fn a_typed_tool_has_its_types_schema() {
        let schema = search().input_schema().clone();
        assert_eq!(
            schema["properties"]["words"]["description"],
            "What to look for."
        );
        assert_eq!(schema["required"], json!(["words"]));
    }

    #[test]
    fn arguments_that_do_not_fit_are_named_by_their_place() {
        let error = parse::<Search>(br#"{"words": ["a", 2]}"#)
            .err()
            .unwrap()
            .into_proto();
        assert_eq!(error.code(), proto::ErrorCode::InvalidArguments);
        assert_eq!(error.violations[0].path, "/words/1");
        assert_eq!(error.effect(), proto::Effect::NotStarted);
    }

    #[test]
    fn names_follow_the_protocols_rule() {
        for name in ["a", "_a", "9", "files/read", "a.b:c-d", &"a".repeat(128)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "-a", "/a", "a b", "é", &"a".repeat(129)] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn what_is_said_of_a_tool_has_an_end() {
        let tool = |description: usize, schema: usize| {
            let schema = json!({ "title": "a".repeat(schema - r#"{"title":""}"#.len()) });
            Tool::raw("a", "a".repeat(description), schema, |_, _| async {
                Ok(Output::empty())
            })
        };
        assert!(tool(MAX_DESCRIPTION, MAX_SCHEMA).check().is_ok());
        let long = [(MAX_DESCRIPTION + 1, 100), (0, MAX_SCHEMA + 1)];
        let said = long.map(|(description, schema)| {
            tool(description, schema).check().unwrap_err().to_string()
        });
        assert!(said[0].contains("description has 65537 bytes"), "{said:?}");
        assert!(
            said[1].contains("input_schema has 262145 bytes"),
            "{said:?}"
        );
    }

    #[test]
    fn a_bad_schema_or_policy_is_named() {
        let tool = Tool::raw("a", "", json!([]), |_, _| async { Ok(Output::empty()) });
        assert!(matches!(
            tool.check(),
            Err(Error::InputSchema {
                found: "an array",
                ..
            })
        ));
        assert!(matches!(
            search().max_in_flight(0).check(),
            Err(Error::Policy {
                field: "max_in_flight",
                ..
            })
        ));
        assert!(search().rate(5.0, 10).max_attempts(3).check().is_ok());
    }
}
