//! One item of a response's output: what it is, and whose.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::json::{self, Text};
use super::super::turn::{Kind, Owner};

/// What the items of all types have, as far as it is of use. Fields whose type depends on the item's are not read here.
#[derive(Deserialize)]
pub(super) struct Item<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    /// What the answer is joined by.
    #[serde(borrow)]
    pub(super) call_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) status: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) caller: Option<&'a RawValue>,
    #[serde(borrow)]
    execution: Option<Text<'a>>,
    #[serde(borrow)]
    environment: Option<&'a RawValue>,
}

/// What an item is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Call(Kind),
    Elsewhere(Owner),
}

/// What tells an item from others: hashes, so that many of them cost little, however long their ids are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint {
    /// Of the id by which it is found where it has no index, or may have another one: its call's, else its own.
    pub(super) id: Option<u64>,
    /// Of what a call is begun with, and keeps: its id and name. The item's own id is no part of it.
    pub(super) head: u64,
}

/// Reads an item. One that is no call of any kind is `None`, whatever its other fields are like.
pub(super) fn read(item: &RawValue) -> Result<Option<(Item<'_>, Role)>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(borrow, rename = "type")]
        kind: Option<Text<'a>>,
    }
    match json::read::<Item<'_>>(item.get().as_bytes()) {
        Ok(item) => {
            let role = item.role();
            Ok(role.map(|role| (item, role)))
        }
        Err(error) => match json::read::<Typed<'_>>(item.get().as_bytes())?
            .kind
            .as_deref()
        {
            Some("function_call" | "custom_tool_call") => Err(error),
            _ => Ok(None),
        },
    }
}

impl Item<'_> {
    fn role(&self) -> Option<Role> {
        let role = match self.kind.as_deref()? {
            "function_call" => Role::Call(Kind::Function),
            // xAI's own search of X.
            "custom_tool_call" if self.call_id().starts_with("xs_call_") => {
                Role::Elsewhere(Owner::Provider)
            }
            "custom_tool_call" => Role::Call(Kind::Custom),
            "computer_call" | "local_shell_call" | "apply_patch_call" | "mcp_approval_request" => {
                Role::Elsewhere(Owner::Client)
            }
            "shell_call" if self.runs_in_container() => Role::Elsewhere(Owner::Provider),
            "shell_call" => Role::Elsewhere(Owner::Client),
            "tool_search_call" if self.execution.as_deref() == Some("client") => {
                Role::Elsewhere(Owner::Client)
            }
            "web_search_call"
            | "file_search_call"
            | "code_interpreter_call"
            | "image_generation_call"
            | "mcp_call"
            | "mcp_list_tools"
            | "tool_search_call"
            | "program"
            | "program_output"
            | "compaction" => Role::Elsewhere(Owner::Provider),
            // One that we do not know. Only what waits for an answer has something to join it by.
            kind if kind.ends_with("_call") && self.call_id().is_empty() => {
                Role::Elsewhere(Owner::Provider)
            }
            kind if kind.ends_with("_call") => Role::Elsewhere(Owner::Client),
            // Messages, reasoning, results of the provider's tools.
            _ => return None,
        };
        Some(role)
    }

    /// A container is the provider's; without one the shell is the agent's.
    fn runs_in_container(&self) -> bool {
        #[derive(Deserialize)]
        struct Environment<'a> {
            #[serde(borrow, rename = "type")]
            kind: Option<Text<'a>>,
        }
        let environment = self.environment.map(RawValue::get);
        let environment = environment.and_then(|text| json::read(text.as_bytes()).ok());
        environment.is_some_and(|Environment { kind }| kind.is_some_and(|kind| &*kind != "local"))
    }

    /// A result that is worth a word where the call was in an earlier turn.
    pub(super) fn is_result(&self) -> bool {
        self.kind.as_deref() == Some("program_output")
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        let id = Some(self.call_id()).filter(|id| !id.is_empty());
        let id = id.or(self.id.as_deref()).filter(|id| !id.is_empty());
        Fingerprint {
            id: id.map(hash),
            head: hash((self.call_id(), self.name.as_deref(), self.kind.as_deref())),
        }
    }

    pub(super) fn has_no_call_id(&self) -> bool {
        self.call_id().is_empty()
    }

    fn call_id(&self) -> &str {
        self.call_id.as_deref().unwrap_or_default()
    }

    /// What its owner knows it by.
    pub(super) fn id_for(&self, owner: Owner) -> Option<&str> {
        match owner {
            Owner::Provider => self.id.as_deref(),
            Owner::Client | Owner::Agent if self.call_id().is_empty() => self.id.as_deref(),
            Owner::Client | Owner::Agent => self.call_id.as_deref(),
        }
    }

    /// The tool's name, or the type of an item whose tool has none.
    pub(super) fn label(&self) -> &str {
        let name = self.name.as_deref().filter(|name| !name.is_empty());
        name.or(self.kind.as_deref()).unwrap_or_default()
    }

    pub(super) fn arguments(&self, kind: Kind) -> Result<Cow<'_, str>, serde_json::Error> {
        if kind == Kind::Custom {
            let input = serde_json::to_string(&*json::arguments(self.input)?)?;
            return Ok(Cow::Owned(format!(r#"{{"input":{input}}}"#)));
        }
        json::arguments(self.arguments)
    }
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
