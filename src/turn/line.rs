//! The lines of a recording: what is said when.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::value::RawValue;
use toolpool_client::{Call, TurnEnd};

use super::{BlockStart, Provider, Step};

/// A line and its moment, counted from the start of the turn.
pub(super) struct Line {
    pub(super) at: Duration,
    pub(super) said: Said,
}

/// What a line says.
pub(super) enum Said {
    /// That the steps are a provider's stream.
    Open(Provider),
    Step(Step),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    at: f64,
    open: Option<Provider>,
    block_start: Option<BlockStart>,
    block_delta: Option<BlockDelta>,
    block_stop: Option<BlockStop>,
    call: Option<WholeCall>,
    provider_event: Option<Box<RawValue>>,
    provider_data: Option<String>,
    seal: Option<Seal>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockDelta {
    index: u32,
    fragment: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockStop {
    index: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WholeCall {
    id: String,
    tool: String,
    /// JSON, or a string with JSON text in it, which may be broken.
    arguments: Box<RawValue>,
    idempotency_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seal {
    turn_end: Option<RecordedEnd>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum RecordedEnd {
    Complete,
    Truncated,
    Aborted,
}

impl Line {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let fields: Fields = serde_json::from_str(text)?;
        let at = Duration::try_from_secs_f64(fields.at)
            .context("`at` must be seconds from the start")?;
        let steps = [
            fields.block_start.map(Step::BlockStart),
            fields
                .block_delta
                .map(|BlockDelta { index, fragment }| Step::BlockDelta { index, fragment }),
            fields
                .block_stop
                .map(|BlockStop { index }| Step::BlockStop { index }),
            fields.call.map(WholeCall::into_step).transpose()?,
            fields.provider_event.map(provider_event).transpose()?,
            fields
                .provider_data
                .map(|text| Step::ProviderData(text.into())),
            fields.seal.map(Seal::into_step),
        ];
        let steps = steps.into_iter().flatten().map(Said::Step);
        let mut said = fields.open.map(Said::Open).into_iter().chain(steps);
        let (Some(said), None) = (said.next(), said.next()) else {
            bail!(
                "exactly one of open, block_start, block_delta, block_stop, call, provider_event, provider_data, seal \
                 must stand beside `at`"
            );
        };
        Ok(Self { at, said })
    }
}

/// The event as it stands there, to the last digit.
fn provider_event(json: Box<RawValue>) -> Result<Step> {
    if !json.get().starts_with('{') {
        bail!("provider_event must be a JSON object");
    }
    Ok(Step::ProviderEvent(
        Box::<str>::from(json).into_string().into(),
    ))
}

impl WholeCall {
    fn into_step(self) -> Result<Step> {
        let text = self.arguments.get();
        let arguments = if text.starts_with('"') {
            serde_json::from_str(text)?
        } else {
            text.to_owned()
        };
        let mut call = Call::new(self.id, self.tool, arguments);
        call.idempotency_key = self.idempotency_key;
        Ok(Step::Call(call))
    }
}

impl Seal {
    fn into_step(self) -> Step {
        Step::Seal(match self.turn_end {
            None | Some(RecordedEnd::Complete) => TurnEnd::Complete,
            Some(RecordedEnd::Truncated) => TurnEnd::Truncated,
            Some(RecordedEnd::Aborted) => TurnEnd::Aborted,
        })
    }
}
