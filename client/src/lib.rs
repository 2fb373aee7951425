//! The agent's side of Toolpool: a model's tool calls in, the finished batch of their results out.
//!
//! ```no_run
//! use toolpool_client::{BatchOptions, Client};
//!
//! # async fn turn() -> Result<(), toolpool_client::Error> {
//! let client = Client::connect("http://127.0.0.1:7400").await?;
//! let mut batch = client.batch(BatchOptions::default()).await?;
//! // As the model streams them: a call of a read-only tool starts at its own `stop`, while the model writes on.
//! batch.start(0, "call_1", "search").await?;
//! batch.delta(0, r#"{"query":"#).await?;
//! batch.delta(0, r#""bolts"}"#).await?;
//! batch.stop(0).await?;
//! // Or in one piece.
//! batch.call("call_2", "add", r#"{"a":1,"b":2}"#).await?;
//! let finished = batch.finish().await?;
//! for result in finished.results() {
//!     match &result.outcome {
//!         Ok(output) => println!("{}: {output}", result.id),
//!         Err(error) => println!("{}: {error}", result.id),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! **What is retried.** Reaching the broker, and nothing else: until the broker has accepted a batch no call has been
//! sent to it, so [`Client::batch`] dials again, with a backoff, for up to [`ConnectOptions::connect_timeout`]. After that no
//! frame is ever sent twice. [`Error::may_have_run`] tells the two apart.
//!
//! **What a drop does.** Dropping a [`Batch`], or any future that owns one, resets the stream. The broker takes that as
//! a disconnect: held calls never start, and running ones are cancelled unless [`OnDisconnect::Finish`] was asked for.
//! A drop never seals a turn.
//!
//! Modules, in reading order: `client` (the door), `batch` (a turn that is under way, and its two halves),
//! `outgoing` (frames into packets), `gather` (frames into results; plain code), `finished`, `result`, `progress`,
//! `turn`, `tool`, `provider_tools` (what comes back), `reach` (the retry), `error`.

mod batch;
mod call;
mod client;
mod error;
mod finished;
mod gather;
mod options;
mod outgoing;
mod progress;
mod provider_tools;
mod reach;
mod result;
mod tool;
mod turn;

pub use batch::{Batch, BatchReader, BatchWriter, Over};
pub use call::Call;
pub use client::Client;
pub use error::{Error, ProtocolError};
pub use finished::{DuplicateCall, FinishedBatch, Summary};
pub use options::{BatchOptions, ConnectOptions, OnDisconnect, TurnEnd};
pub use progress::{Progress, ProgressEvent};
pub use provider_tools::{Adaptation, ProviderTools};
pub use result::{CallError, CallResult, Content, Outcome, Output, TimeLedger, Violation};
pub use tool::{Policy, Tool};
/// The names of the protocol, as they are on the wire. `Unspecified` stands for a value that is newer than this client.
pub use toolpool_proto::v1::{
    Dialect, DropReason, Effect, Effects, ErrorCode, FailureAction, Limit, Owner, TimeoutScope,
};
pub use turn::{DroppedCall, PassedOverCall, Turn};
