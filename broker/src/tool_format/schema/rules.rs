//! What each provider permits in a schema, as far as it is documented or its errors say.

use crate::tool_format::Format;

#[derive(Debug)]
pub(super) struct Rules {
    pub(super) references: References,
    /// Keywords of the schema itself.
    pub(super) root: Keywords,
    /// Keywords of the schemas in it.
    pub(super) nested: Keywords,
    /// The names of the arguments must match `^[a-zA-Z0-9_.-]{1,64}$`.
    pub(super) plain_names: bool,
    /// `const`, `oneOf` and `allOf` are not understood and are to be said with `enum`, `anyOf` and no word.
    pub(super) few_words: bool,
}

/// What may stand in a `$ref`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum References {
    Any,
    /// Definitions at the top: `reference can only point to definitions defined at the top level of the schema`.
    ToDefinitions,
    /// Nothing: they are written out.
    None,
}

#[derive(Debug)]
pub(super) enum Keywords {
    AllBut(&'static [&'static str]),
    Only(&'static [&'static str]),
}

/// `input_schema does not support oneOf, allOf, or anyOf at the top level`, which holds for all (see `join`), and
/// `Property keys should match pattern`, which is looked at in the top level only. The rest of 2020-12 is taken.
const ANTHROPIC: Rules = Rules {
    references: References::Any,
    root: Keywords::AllBut(&[]),
    nested: Keywords::AllBut(&[]),
    plain_names: true,
    few_words: false,
};

/// `schema must have type 'object' and not have 'oneOf'/'anyOf'/'allOf'/'enum'/'const'/'not' at the top level`. The far
/// narrower rules of strict tools do not apply: they are declared as not strict.
const OPENAI: Rules = Rules {
    references: References::ToDefinitions,
    root: Keywords::AllBut(&["enum", "const", "not"]),
    nested: Keywords::AllBut(&[]),
    plain_names: false,
    few_words: false,
};

/// `parametersJsonSchema` passes over what it does not know, and its list knows neither `const` nor `allOf`, and takes
/// `oneOf` for `anyOf`. References may have nothing beside them and may not go in circles.
const GEMINI: Rules = Rules {
    references: References::None,
    root: Keywords::AllBut(&[]),
    nested: Keywords::AllBut(&[]),
    plain_names: false,
    few_words: true,
};

/// The models behind it differ. Nova permits `type`, `properties` and `required` at the top level and nothing else, so no
/// definitions either; Claude has Anthropic's rule for names.
const BEDROCK: Rules = Rules {
    references: References::None,
    root: Keywords::Only(&["type", "properties", "required"]),
    nested: Keywords::AllBut(&[]),
    plain_names: true,
    few_words: false,
};

/// Ollama reads these fields (`api.ToolFunctionParameters`, `api.ToolProperty`) and drops all others without a word, and
/// refuses a request where one has another type than it has there, such as `true` for a property's schema.
const OLLAMA: Rules = Rules {
    references: References::None,
    root: Keywords::Only(&["type", "properties", "required"]),
    nested: Keywords::Only(&[
        "type",
        "description",
        "enum",
        "items",
        "properties",
        "required",
        "anyOf",
    ]),
    plain_names: false,
    few_words: true,
};

impl Rules {
    pub(super) fn of(format: Format) -> &'static Self {
        match format {
            Format::Anthropic => &ANTHROPIC,
            // Cohere documents limits for strict tools only; what OpenAI takes is a safe subset of the rest.
            Format::OpenAiChat | Format::OpenAiResponses | Format::Cohere => &OPENAI,
            Format::Gemini => &GEMINI,
            Format::Bedrock => &BEDROCK,
            Format::Ollama => &OLLAMA,
        }
    }
}

impl References {
    pub(super) fn permits(self, reference: &str) -> bool {
        match self {
            Self::Any => true,
            Self::ToDefinitions => {
                ["#/$defs/", "#/definitions/"]
                    .iter()
                    .find_map(|at| reference.strip_prefix(at))
                    .is_some_and(|name| !name.contains('/'))
                    || reference == "#"
            }
            Self::None => false,
        }
    }
}

impl Keywords {
    pub(super) fn permit(&self, keyword: &str) -> bool {
        match self {
            Self::AllBut(refused) => !refused.contains(&keyword),
            Self::Only(permitted) => permitted.contains(&keyword),
        }
    }
}
