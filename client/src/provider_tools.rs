//! The catalogue as a provider wants it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use toolpool_proto::v1;

use crate::Dialect;
use crate::error::ProtocolError;

/// Tools in a provider's own format.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProviderTools {
    /// The JSON value of the request's `tools` field (Bedrock: of `toolConfig.tools`): an array.
    pub json: Bytes,
    /// The tools that were asked for and are known, by their own names; sorted.
    pub tools: Vec<String>,
    /// What the provider does not permit, and what became of it.
    pub adaptations: Vec<Adaptation>,
}

/// What a provider does not permit in a tool's name, description or schema. The broker knows a tool by its changed name
/// too, and always holds arguments against the whole schema.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Adaptation {
    /// The tool.
    pub tool: String,
    /// The name that the model knows it by. Empty: it was left out.
    pub name: String,
    /// What was left out or changed, as `path: what`. A path with `/` in front is a JSON Pointer into the schema.
    pub changes: Vec<String>,
}

/// What has come of it, page by page.
#[derive(Debug)]
pub(crate) struct Gathered {
    format: Dialect,
    elements: Vec<Box<RawValue>>,
    tools: Vec<String>,
    adaptations: Vec<Adaptation>,
}

/// Gemini's list has all functions in one element.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Functions {
    function_declarations: Vec<Box<RawValue>>,
}

impl Gathered {
    pub(crate) fn new(format: Dialect) -> Self {
        Self {
            format,
            elements: Vec::new(),
            tools: Vec::new(),
            adaptations: Vec::new(),
        }
    }

    pub(crate) fn take(&mut self, page: v1::ListToolsResponse) -> Result<(), ProtocolError> {
        // A broker that is older than the field.
        if page.provider_tools.is_empty() {
            return Err(ProtocolError::Missing("provider_tools"));
        }
        if self.format == Dialect::Gemini {
            let functions: Vec<Functions> = parsed(&page.provider_tools)?;
            let functions = functions.into_iter().map(|of| of.function_declarations);
            self.elements.extend(functions.flatten());
        } else {
            self.elements
                .extend(parsed::<Vec<Box<RawValue>>>(&page.provider_tools)?);
        }
        let tools = page.tools.into_iter().filter_map(|entry| entry.tool);
        self.tools.extend(tools.map(|tool| tool.name));
        self.adaptations
            .extend(page.adaptations.into_iter().map(Into::into));
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<ProviderTools, ProtocolError> {
        let Self {
            format,
            elements,
            tools,
            adaptations,
        } = self;
        let json = if format == Dialect::Gemini && !elements.is_empty() {
            serde_json::to_vec(&[Functions {
                function_declarations: elements,
            }])
        } else {
            serde_json::to_vec(&elements)
        };
        let json = json.map_err(|_| ProtocolError::Json("provider_tools"))?;
        Ok(ProviderTools {
            json: json.into(),
            tools,
            adaptations,
        })
    }
}

fn parsed<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, ProtocolError> {
    serde_json::from_slice(json).map_err(|_| ProtocolError::Json("provider_tools"))
}

impl From<v1::Adaptation> for Adaptation {
    fn from(adaptation: v1::Adaptation) -> Self {
        Self {
            tool: adaptation.tool,
            name: adaptation.name,
            changes: adaptation.changes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(tools: &str) -> v1::ListToolsResponse {
        v1::ListToolsResponse {
            provider_tools: tools.to_owned().into(),
            ..Default::default()
        }
    }

    fn gathered(format: Dialect, pages: &[&str]) -> Result<String, ProtocolError> {
        let mut gathered = Gathered::new(format);
        for tools in pages {
            gathered.take(page(tools))?;
        }
        let json = gathered.finish()?.json;
        Ok(String::from_utf8(json.to_vec()).unwrap())
    }

    #[test]
    fn the_pages_are_one_list() {
        let pages = [r#"[{"name":"a","n":1.0}]"#, "[]", r#"[{"name":"b"}]"#];
        let list = gathered(Dialect::Anthropic, &pages).unwrap();
        assert_eq!(list, r#"[{"name":"a","n":1.0},{"name":"b"}]"#);
        assert_eq!(gathered(Dialect::Ollama, &["[]"]).unwrap(), "[]");
    }

    #[test]
    fn geminis_functions_are_all_in_one_tool() {
        let pages = [
            r#"[{"functionDeclarations":[{"name":"a"}]}]"#,
            r#"[{"functionDeclarations":[{"name":"b"},{"name":"c"}]}]"#,
        ];
        let list = gathered(Dialect::Gemini, &pages).unwrap();
        let wanted = r#"[{"functionDeclarations":[{"name":"a"},{"name":"b"},{"name":"c"}]}]"#;
        assert_eq!(list, wanted);
        assert_eq!(gathered(Dialect::Gemini, &["[]"]).unwrap(), "[]");
    }

    #[test]
    fn what_is_no_list_breaks_the_protocol() {
        let missing = gathered(Dialect::Cohere, &[""]).unwrap_err();
        assert_eq!(missing, ProtocolError::Missing("provider_tools"));
        for (format, page) in [(Dialect::Cohere, "{}"), (Dialect::Gemini, "[{}]")] {
            let error = gathered(format, &[page]).unwrap_err();
            assert_eq!(error, ProtocolError::Json("provider_tools"));
        }
    }
}
