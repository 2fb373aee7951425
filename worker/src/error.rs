//! Why a worker cannot be built or cannot go on.

use std::io;

/// Why a worker cannot be built or cannot go on. A broker that is away is no error: the worker waits for it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The broker's endpoint is not one that can be dialled.
    #[error("endpoint {endpoint:?}: {reason}; permitted: http://<host>:<port>")]
    Endpoint {
        /// As it was given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The worker's id is not 1 to 128 printable ASCII characters without spaces.
    #[error("worker id {id:?}: permitted are 1 to 128 printable ASCII characters without spaces")]
    WorkerId {
        /// As it was given.
        id: String,
    },
    /// A worker without slots could run nothing.
    #[error("slots 0: permitted is 1 or more")]
    Slots,
    /// Too many labels, or one that is too long.
    #[error("label {key:?}: permitted are at most 32 labels, each key and value at most 256 bytes")]
    Label {
        /// The first label that does not fit.
        key: String,
    },
    /// A worker without tools could run nothing.
    #[error("no tools: a worker serves at least one")]
    NoTools,
    /// A tool's name is not a name.
    #[error(
        "tool {name:?}: permitted are 1 to 128 characters of A-Z a-z 0-9 _ . : / - that begin with a letter, a digit or _"
    )]
    ToolName {
        /// As it was given.
        name: String,
    },
    /// Two tools have the same name.
    #[error("tool {name:?}: two tools have this name")]
    DuplicateTool {
        /// The name.
        name: String,
    },
    /// A tool's input schema is not a JSON object or a boolean.
    #[error(
        "tool {tool:?}: input_schema is {found}; permitted: a JSON Schema, which is an object, true or false"
    )]
    InputSchema {
        /// The tool's name.
        tool: String,
        /// The kind of value that was given.
        found: &'static str,
    },
    /// A tool's description or input schema is too long.
    #[error("tool {tool:?}: {field} has {bytes} bytes; permitted are {permitted}")]
    TooLong {
        /// The tool's name.
        tool: String,
        /// What is too long.
        field: &'static str,
        /// Its length.
        bytes: usize,
        /// The most that is permitted.
        permitted: usize,
    },
    /// The version of the worker's software is too long.
    #[error("version of {bytes} bytes: permitted are 256")]
    Version {
        /// Its length.
        bytes: usize,
    },
    /// A field of a tool's policy has a value outside its limits.
    #[error("tool {tool:?}: {field} is {value}; permitted: {permitted}")]
    Policy {
        /// The tool's name.
        tool: String,
        /// The field's name.
        field: &'static str,
        /// The value that was given.
        value: String,
        /// The field's limits.
        permitted: &'static str,
    },
    /// The broker does not take this worker: it or one of its tools breaks a rule. Dialling again cannot help.
    #[error("the broker refuses this worker: {message}")]
    Refused {
        /// The broker's words.
        message: String,
    },
    /// The thread of the session could not be started, or came to a bad end.
    #[error("the session's thread failed")]
    Thread(#[source] io::Error),
}
