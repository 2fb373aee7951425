//! Streams that were damaged by lot, read by every decoder: whatever comes, nothing panics, no call is found that is not
//! in the text, and neither memory nor work grows faster than the text does.
//!
//! Each input follows from its dialect and seed alone, given the same recordings (`TOOLPOOL_CORPUS`; without it the
//! fixtures are all there is). `TOOLPOOL_LONG=1` makes a million of each dialect, best with `--release`;
//! `TOOLPOOL_SEED` makes one.
#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

#[path = "../support/corpus.rs"]
mod corpus;
#[path = "../support/fixtures.rs"]
mod fixtures;
mod growth;
mod lexer;
mod mutate;
mod oracle;
mod reading;
mod seeds;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use fastrand::Rng;
use parking_lot::Mutex;
use peak_alloc::PeakAlloc;
use toolpool_broker::decode::{Decoder, Dialect};

use fixtures::{FIXTURES, Fixture};
use oracle::Text;
use reading::run;
use seeds::{Seeds, Wire};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;
/// Memory is counted for the whole process.
static ALONE: Mutex<()> = Mutex::new(());

const INPUTS: u64 = 12_500;
const INPUTS_LONG: u64 = 1_000_000;
const MAX_EVENT_BYTES: usize = 1 << 20;

/// Tools of the fixtures that the agent may run itself.
const LOCAL_TOOLS: &[&str] = &["current_time", "add", "stock", "forecast", "say"];

/// What a run of many was like.
#[derive(Default)]
struct Tally {
    with_calls: u64,
    calls: usize,
    most_memory: usize,
    most_kept: usize,
    bytes: usize,
}

fn one(dialect: Dialect, seeds: &Seeds, seed: u64, tally: &mut Tally) {
    let mut random = Rng::with_seed(seed);
    let text = mutate::mutated(&mut random, &seeds.own, &seeds.all);
    let wire = match (dialect, random.u8(..4)) {
        (Dialect::Gemini, 0) => Wire::JsonArray,
        (Dialect::Bedrock, 0 | 1) => Wire::Frames,
        (Dialect::Anthropic, 0) => Wire::Chunks,
        _ => Wire::Plain,
    };
    let mut bytes = wire.bytes(&text);
    if random.u8(..8) == 0 && !bytes.is_empty() {
        let at = random.usize(..bytes.len());
        bytes[at] ^= 1 << random.u8(..8);
    }
    let named = (random.u8(..8) != 0).then_some(dialect);
    let there = match wire {
        Wire::Plain | Wire::JsonArray => Text::new(&bytes),
        Wire::Frames | Wire::Chunks => Text::new(&text),
    };
    let events_text = (bytes != text).then(|| Text::new(&text));
    let pieces = cut(&mut random, &bytes);
    let whole_too = random.u8(..4) == 0;
    let local_tools = if random.u8(..4) == 0 {
        LOCAL_TOOLS
    } else {
        &[]
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let cut = run(named, local_tools, |decoder| {
            for piece in &pieces {
                decoder.bytes(piece);
            }
        });
        cut.judge(&there, bytes.len(), None)?;
        if whole_too {
            let whole = run(named, local_tools, |decoder| decoder.bytes(&bytes));
            if whole.decoded != cut.decoded {
                return Err(format!(
                    "cut {:#?}\nwhole {:#?}",
                    cut.decoded, whole.decoded
                ));
            }
            whole.judge(&there, bytes.len(), Some(&cut.decoded))?;
        }
        let events: Vec<&[u8]> = seeds::events(&text).collect();
        let by_event = run(named, local_tools, |decoder| {
            for event in &events {
                decoder.event(event);
            }
        });
        let before = (bytes == text).then_some(&cut.decoded);
        by_event.judge(events_text.as_ref().unwrap_or(&there), text.len(), before)?;
        Ok((cut, by_event))
    }));
    let tell = || {
        eprintln!(
            "{dialect:?}: TOOLPOOL_SEED={seed} of {} texts",
            seeds.own.len()
        );
        eprintln!("{wire:?}, dialect {named:?}:\n{}", bytes.escape_ascii());
        if bytes != text {
            eprintln!("which was\n{}", text.escape_ascii());
        }
    };
    match outcome {
        Ok(Ok((cut, by_event))) => {
            for (run, bytes) in [(&cut, bytes.len()), (&by_event, text.len())] {
                tally.with_calls += u64::from(!run.decoded.calls.is_empty());
                tally.bytes += bytes;
                tally.calls += run.decoded.calls.len();
                let times = |memory: usize| {
                    let over = memory.saturating_sub(16 << 10);
                    over.div_ceil(bytes + 1)
                };
                tally.most_memory = tally.most_memory.max(times(run.memory));
                tally.most_kept = tally.most_kept.max(times(run.kept));
            }
        }
        Ok(Err(error)) => {
            tell();
            panic!("seed {seed}: {error}");
        }
        Err(panic) => {
            tell();
            resume_unwind(panic);
        }
    }
}

/// A few pieces, or very many small ones.
fn cut<'a>(random: &mut Rng, bytes: &'a [u8]) -> Vec<&'a [u8]> {
    if random.u8(..16) == 0 {
        return bytes.chunks(random.usize(1..8)).collect();
    }
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() && pieces.len() < 8 {
        let (piece, after) = rest.split_at(random.usize(..=rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}

fn check(dialect: Dialect) {
    let _alone = ALONE.lock();
    let seeds = Seeds::of(dialect);
    let mut tally = Tally::default();
    if let Ok(seed) = std::env::var("TOOLPOOL_SEED") {
        return one(dialect, &seeds, seed.parse().unwrap(), &mut tally);
    }
    let long = std::env::var_os("TOOLPOOL_LONG").is_some();
    let inputs = if long { INPUTS_LONG } else { INPUTS };
    for seed in 0..inputs {
        one(dialect, &seeds, seed, &mut tally);
    }
    let Tally {
        with_calls,
        calls,
        most_memory,
        most_kept,
        bytes,
    } = tally;
    eprintln!(
        "{dialect:?}: {inputs} inputs, each read two ways; {calls} calls in {with_calls}; {bytes} bytes; memory at most {most_memory} times the text, kept {most_kept}"
    );
    assert!(with_calls > inputs / 4, "the damage leaves too few calls");
}

#[test]
fn every_fixture_is_a_good_turn() {
    let _alone = ALONE.lock();
    for Fixture {
        dialect,
        text,
        calls,
    } in FIXTURES
    {
        let wires: &[Wire] = match dialect {
            Dialect::Anthropic => &[Wire::Plain, Wire::Chunks],
            Dialect::Gemini => &[Wire::Plain, Wire::JsonArray],
            Dialect::Bedrock => &[Wire::Plain, Wire::Frames],
            _ => &[Wire::Plain],
        };
        for wire in wires {
            let mut decoder = Decoder::new(None, MAX_EVENT_BYTES);
            decoder.bytes(&wire.bytes(text));
            let found = decoder.finish();
            assert_eq!(found.dialect, Some(dialect));
            let read: Vec<_> = (found.calls.iter())
                .map(|call| {
                    let arguments = std::str::from_utf8(&call.arguments).unwrap();
                    (
                        call.id.as_deref().unwrap_or_default(),
                        &*call.name,
                        arguments,
                    )
                })
                .collect();
            assert_eq!(read, calls, "{wire:?}: {found:#?}");
            assert!(found.complete, "{wire:?}: {found:#?}");
            Text::new(text).judge(&found).unwrap();
        }
    }
}

macro_rules! damaged {
    ($($name:ident: $dialect:ident,)*) => {
        $(#[test]
        fn $name() {
            check(Dialect::$dialect);
        })*
    };
}

damaged! {
    damaged_anthropic: Anthropic,
    damaged_openai_chat: OpenAiChat,
    damaged_openai_responses: OpenAiResponses,
    damaged_gemini: Gemini,
    damaged_bedrock: Bedrock,
    damaged_cohere: Cohere,
    damaged_ollama: Ollama,
    damaged_vercel_ui: VercelUi,
}
