//! What the agent sends, and what comes of it: calls of known tools with valid arguments, and refusals.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::IgnoredAny;
use tokio::time::Instant;
use tonic::Status;
use toolpool_proto::v1;

use super::provider::Provider;
use super::{End, Route, Task};
use crate::call_error::{CallError, Effect};
use crate::catalogue::{Revision, Tool};
use crate::grpc::convert::Step;
use crate::grpc::{PACKET_FRAMES, convert, status};
use crate::ingest::dialect::Void;
use crate::ingest::{self, Input, Position, Refusal, TurnEnd};
use crate::lane::lease::Call;
use crate::policy::Effects;
use crate::schema::Invalid;
use crate::tool_format::Format;

impl Task {
    pub(super) fn packet(&mut self, packet: v1::ExecuteRequest, now: Instant) -> Option<End> {
        self.heard = now;
        if packet.frames.len() > PACKET_FRAMES {
            return Some(End::Refused(status::too_many_frames(packet.frames.len())));
        }
        let steps = packet.frames.into_iter().map(|frame| {
            convert::agent_frame(frame).map_err(|malformed| status::malformed(&malformed))
        });
        self.take_in(steps)
    }

    /// Takes all steps or none.
    pub(super) fn take_in(
        &mut self,
        steps: impl ExactSizeIterator<Item = Result<Step, Status>>,
    ) -> Option<End> {
        let mut inputs = Vec::with_capacity(steps.len());
        for step in steps {
            let taken = step.and_then(|step| self.take_step(step, &mut inputs));
            if let Err(refused) = taken {
                return Some(End::Refused(refused));
            }
        }
        self.apply(inputs)
    }

    fn take_step(&mut self, step: Step, inputs: &mut Vec<Input>) -> Result<(), Status> {
        let refuse = |text| Err(Status::invalid_argument(text));
        match (step, &mut self.provider) {
            (Step::Own(input), None) => inputs.push(input),
            (Step::Seal(end), None) => inputs.push(Input::Seal(end)),
            (Step::ProviderData(bytes), Some(provider)) => provider.bytes(&bytes, inputs),
            (Step::ProviderEvent(json), Some(provider)) => provider.event(&json, inputs),
            (Step::Seal(end), Some(provider)) => provider.seal(end, inputs),
            (Step::Own(_), Some(_)) => {
                return refuse(
                    "blocks and calls cannot be mixed with a provider's stream; leave open.dialect out, or send \
                     provider_data",
                );
            }
            (Step::ProviderData(_) | Step::ProviderEvent(_), None) => {
                return refuse(
                    "provider_data and provider_event are for batches with open.dialect",
                );
            }
        }
        Ok(())
    }

    fn apply(&mut self, inputs: Vec<Input>) -> Option<End> {
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

    /// Nothing more will come.
    pub(super) fn seal(&mut self) {
        if self.ingest.is_sealed() {
            return;
        }
        let mut inputs = Vec::new();
        match &mut self.provider {
            Some(provider) => provider.seal(TurnEnd::Complete, &mut inputs),
            None => inputs.push(Input::Seal(TurnEnd::Complete)),
        }
        // What a provider's last event brings may be refused like any other; the turn is over in any case.
        let _ = self.apply(inputs);
        let now = Instant::now();
        let mut sealed = None;
        self.ingest
            .seal(TurnEnd::Truncated, &mut |event| sealed = Some(event));
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
                self.batch.duplicate(header, now);
                self.routes.push(None);
            }
            ingest::Event::Complete(position, call) => self.complete(position, call, now),
            ingest::Event::Early(position, call) => self.early(position, call, now),
            ingest::Event::Void(position, why) => {
                self.batch.void(position, why.to_text(), now);
            }
            ingest::Event::Refused(position, refusal) => {
                let limit = match refusal {
                    Refusal::ArgumentsTooLarge => self.config.max_arguments_bytes,
                    Refusal::BatchTooLarge => self.config.max_batch_bytes,
                    Refusal::TooManyCalls => self.config.max_calls_per_batch,
                };
                self.batch.over_limit(position, refusal, limit, now);
            }
            ingest::Event::Sealed(end, unfinished) => {
                self.sealed(
                    end,
                    &unfinished,
                    "was never complete: the turn ended before its block did",
                    now,
                );
            }
        }
    }

    /// No more blocks will come; `why` is for the model, of those that had not stopped.
    pub(super) fn sealed(
        &mut self,
        end: TurnEnd,
        unfinished: &[Position],
        why: &'static str,
        now: Instant,
    ) {
        if let Some(provider) = &mut self.provider {
            for &position in unfinished {
                provider.drop_call(position, Void::Incomplete);
            }
        }
        self.batch.seal(end, unfinished, why, now);
    }

    /// A block's text is a closed object, and its provider's format has no better sign.
    fn early(&mut self, position: Position, call: ingest::CompleteCall, now: Instant) {
        let Some(tool) = self
            .batch
            .tool_of(position)
            .and_then(|name| self.find(name))
        else {
            return;
        };
        let revision = tool.revision();
        let (arguments, idempotency_key) = call.into_parts();
        if revision.policy.effects == Effects::ReadOnly && revision.schema.check(&arguments).is_ok()
        {
            self.route(position, &tool, &revision, (arguments, idempotency_key));
            self.batch
                .start_early(position, Arc::clone(&revision.policy), now);
        }
    }

    /// A block has stopped: is it a call of a known tool with valid arguments?
    pub(super) fn complete(
        &mut self,
        position: Position,
        call: ingest::CompleteCall,
        now: Instant,
    ) {
        if self.batch.confirm(position, now) {
            return;
        }
        let (arguments, idempotency_key) = call.into_parts();
        let Some(name) = self.batch.tool_of(position) else {
            return;
        };
        let Some(tool) = self.find(name) else {
            let suggest = self.suggestions > 0;
            let dialect = self.provider.as_ref().and_then(Provider::dialect);
            let listed = dialect.map(Format::of);
            let error = self.catalogue.why_unknown(name, suggest, listed);
            if let Some(provider) = &mut self.provider
                && serde_json::from_slice::<IgnoredAny>(&arguments).is_err()
            {
                provider.drop_call(position, Void::NotJson);
            }
            self.suggestions = self.suggestions.saturating_sub(1);
            return self.batch.refuse(position, error, now);
        };
        let revision = tool.revision();
        if let Err(invalid) = revision.schema.check(&arguments) {
            if let (Some(provider), Invalid::NotJson(_)) = (&mut self.provider, &invalid) {
                provider.drop_call(position, Void::NotJson);
            }
            let error = match invalid {
                Invalid::Undecided(why) => {
                    let incident = format!("{}/{position}", self.id);
                    let call = self.batch.id_of(position).map(tracing::field::display);
                    let trace = self.trace.as_ref().and_then(|trace| trace.id_to_tell());
                    tracing::error!(
                        batch.id = %self.id, trace.id = trace.map(tracing::field::display), call.id = call, tool = name, incident, why,
                        "arguments could not be checked"
                    );
                    CallError::internal(&incident, Effect::NotStarted)
                }
                invalid => CallError::invalid_arguments(name, invalid),
            };
            self.batch.known(position, Arc::clone(&revision.policy));
            return self.batch.refuse(position, error, now);
        }
        self.route(position, &tool, &revision, (arguments, idempotency_key));
        self.batch
            .complete(position, Arc::clone(&revision.policy), now);
    }

    /// The tool that a model means by a name: its own, or the one that its provider permits.
    fn find(&self, name: &str) -> Option<Arc<Tool>> {
        self.catalogue.find_as_called(name)
    }

    fn route(
        &mut self,
        position: Position,
        tool: &Tool,
        revision: &Revision,
        (arguments, idempotency_key): (Bytes, Option<String>),
    ) {
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
            trace: self.trace.clone(),
        });
        self.routes[position] = Some(Route {
            lane: Arc::clone(&tool.lane),
            call,
            seat: None,
        });
    }
}
