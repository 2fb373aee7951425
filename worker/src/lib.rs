//! The worker runtime of Toolpool: it dials in to a broker, registers tools, and runs the calls that it is given.
//!
//! ```no_run
//! use schemars::JsonSchema;
//! use serde::Deserialize;
//! use toolpool_worker::{Context, Effects, Shutdown, Tool, ToolError, Worker};
//!
//! #[derive(Deserialize, JsonSchema)]
//! struct Add {
//!     /// The first addend.
//!     a: f64,
//!     /// The second addend.
//!     b: f64,
//! }
//!
//! # async fn serve() -> Result<(), toolpool_worker::Error> {
//! let add = Tool::typed("add", "Adds two numbers.", |args: Add, _: Context| async move { Ok(args.a + args.b) })
//!     .effects(Effects::ReadOnly);
//! let worker = Worker::builder("http://127.0.0.1:7400").slots(8).tool(add).build()?;
//! worker.run(Shutdown::new()).await
//! # }
//! ```
//!
//! In reading order:
//! - [`tool`](Tool): a name, a description, a schema, a policy and a handler; [`Context`]: what a handler knows of its
//!   call; [`Output`] and [`ToolError`]: how it ends.
//! - [`worker`](Worker): the settings, checked before anything is dialled.
//! - `trace`: the worker's span below the broker's, for processes that have set OpenTelemetry up.
//! - `session`: the one task that owns the stream and the leases; `session::state` decides, in plain code.
//! - [`exec`]: any command as a tool; [`demo`]: a few tools that are ready to be tried.

mod assignment;
mod context;
pub mod demo;

mod error;
pub mod exec;

mod output;
mod policy;
mod session;
mod shutdown;
mod text;
mod tool;
mod tool_error;
mod trace;
mod worker;

pub use context::Context;
pub use error::Error;
pub use output::{IntoOutput, Output};
pub use policy::Effects;
pub use shutdown::Shutdown;
pub use tool::Tool;
pub use tool_error::ToolError;
pub use worker::{Builder, Worker};
