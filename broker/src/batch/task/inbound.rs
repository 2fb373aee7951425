//! What the agent sends, and what comes of it: calls of known tools with valid arguments, and refusals.

use std::sync::Arc;

use tokio::time::Instant;
use toolpool_proto::v1;

use super::{End, Route, Task};
use crate::call_error::{CallError, Effect};
use crate::grpc::{PACKET_FRAMES, convert, status};
use crate::ingest::{self, Input, Position, Refusal, TurnEnd};
use crate::lane::lease::Call;
use crate::schema::Invalid;

impl Task {
    pub(super) fn packet(&mut self, packet: v1::ExecuteRequest, now: Instant) -> Option<End> {
        self.heard = now;
        if packet.frames.len() > PACKET_FRAMES {
            return Some(End::Refused(status::too_many_frames(packet.frames.len())));
        }
        let mut inputs = Vec::with_capacity(packet.frames.len());
        for frame in packet.frames {
            match convert::agent_frame(frame) {
                Ok(input) => inputs.push(input),
                Err(malformed) => return Some(End::Refused(status::malformed(&malformed))),
            }
        }
        self.take_in(inputs)
    }

    pub(super) fn take_in(&mut self, inputs: Vec<Input>) -> Option<End> {
        let now = Instant::now();
        let mut events = Vec::with_capacity(inputs.len());
        let mut breach = None;
        for input in inputs {
            if let Err(error) = self.ingest.apply(input, &mut |event| events.push(event)) {
                breach = Some(End::Refused(status::breach(&error)));
                break;
            }
        }
        for event in events {
            self.ingested(event, now);
        }
        breach
    }

    pub(super) fn seal(&mut self) {
        let now = Instant::now();
        let mut sealed = None;
        self.ingest
            .seal(TurnEnd::Complete, &mut |event| sealed = Some(event));
        if let Some(event) = sealed {
            self.ingested(event, now);
        }
    }

    pub(super) fn ingested(&mut self, event: ingest::Event, now: Instant) {
        match event {
            ingest::Event::Began(header) => {
                self.batch.began(header, now);
                self.routes.push(None);
            }
            ingest::Event::Duplicate(header) => {
                self.batch.duplicate(header);
                self.routes.push(None);
            }
            ingest::Event::Complete(position, call) => self.complete(position, call, now),
            ingest::Event::Early(..) | ingest::Event::Void(..) => {}
            ingest::Event::Refused(position, refusal) => {
                let Some(tool) = self.batch.tool_of(position) else {
                    return;
                };
                let error = match refusal {
                    Refusal::ArgumentsTooLarge => {
                        CallError::arguments_too_large(tool, self.config.max_arguments_bytes)
                    }
                    Refusal::BatchTooLarge => {
                        CallError::batch_too_large(self.config.max_batch_bytes)
                    }
                    Refusal::TooManyCalls => {
                        CallError::too_many_calls(self.config.max_calls_per_batch)
                    }
                };
                self.batch.refuse(position, false, error, now);
            }
            ingest::Event::Sealed(end, unfinished) => {
                self.batch
                    .seal(end, &unfinished, "the turn ended before its block did", now);
            }
        }
    }

    /// A block has stopped: is it a call of a known tool with valid arguments?
    pub(super) fn complete(
        &mut self,
        position: Position,
        call: ingest::CompleteCall,
        now: Instant,
    ) {
        let Some(name) = self.batch.tool_of(position) else {
            return;
        };
        let Some(tool) = self.catalogue.find(name) else {
            let suggest = self.suggestions > 0;
            let error = self.catalogue.why_unknown(name, suggest);
            self.suggestions = self.suggestions.saturating_sub(1);
            return self.batch.refuse(position, true, error, now);
        };
        let revision = tool.revision();
        let (arguments, idempotency_key) = call.into_parts();
        if let Err(invalid) = revision.schema.check(&arguments) {
            let error = match invalid {
                Invalid::Undecided(why) => {
                    let incident = format!("{}/{position}", self.id);
                    tracing::error!(batch.id = %self.id, tool = name, incident, why, "arguments could not be checked");
                    CallError::internal(&incident, Effect::NotStarted)
                }
                invalid => CallError::invalid_arguments(name, invalid),
            };
            self.batch.known(position, Arc::clone(&revision.policy));
            return self.batch.refuse(position, true, error, now);
        }
        let Some(id) = self.batch.id_of(position) else {
            return;
        };
        let call = Arc::new(Call {
            position,
            batch: self.id.clone(),
            batch_key: self.key,
            id: id.clone(),
            tool: Arc::clone(tool.lane.tool()),
            arguments,
            idempotency_key,
            policy: Arc::clone(&revision.policy),
            notices: self.notices.clone(),
        });
        self.routes[position] = Some(Route {
            lane: Arc::clone(&tool.lane),
            call,
            seat: None,
        });
        self.batch
            .complete(position, Arc::clone(&revision.policy), now);
    }
}
