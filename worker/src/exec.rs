//! Commands as tools: what a file `tools.toml` describes is served by this worker.
//!
//! ```toml
//! slots = 4                      # optional: for whoever builds the worker
//!
//! [[tool]]
//! name = "word_count"
//! description = "Counts the words of a text."
//! command = ["python3", "word_count.py"]
//! cwd = "tools"                  # relative to this file; default: this file's folder
//! env = { LANG = "C.UTF-8" }     # on top of the worker's own environment
//! input_schema_file = "word_count.schema.json"    # or input_schema = { … }, or '''{ … }''' as JSON text
//! max_output = "1MiB"            # default: what the broker takes
//! kill_grace = "2s"              # between SIGTERM and SIGKILL; default 2 s
//! # The policy; what is left out is the broker's default.
//! effects = "read_only"          # or "idempotent", "side_effecting"
//! attempt_timeout = "10s"        # also call_timeout, queue_timeout, retry_backoff
//! max_attempts = 3
//! rate = 5.0
//! burst = 10
//! max_in_flight = 4
//! on_failure = "return"          # or "abort_batch"
//! ```
//!
//! The command gets the arguments as JSON on its standard input, and `TOOLPOOL_CALL_ID`, `TOOLPOOL_BATCH_ID`,
//! `TOOLPOOL_ATTEMPT`, `TOOLPOOL_IDEMPOTENCY_KEY` and `TOOLPOOL_TIMEOUT_MS` in its environment; where the call is traced
//! also `TRACEPARENT` and perhaps `TRACESTATE`. Its standard output is the tool's: JSON if it is exactly one JSON value, else text, else (not UTF-8) a blob. An exit code other than 0 is
//! a failure, told with the end of its standard error.
//!
//! A command runs in a process group of its own. Whatever way the call ends, nothing of that group is left behind:
//! when it is called off the group gets SIGTERM and, after `kill_grace` (or the worker's cancel grace, if that is
//! shorter), SIGKILL; when the command has exited, what it left in the group gets SIGKILL. Only what moved to another
//! group or session (a daemon) lives on.

mod child;
mod config;
mod group;
mod unit;

pub use config::{Config, Error};
