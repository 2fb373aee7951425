//! Event lists against ingest.

use super::*;

const LIMITS: Limits = Limits {
    calls: 4,
    arguments_bytes: 64,
    batch_bytes: 100,
};

fn header(id: &str) -> Header {
    Header {
        id: id.into(),
        tool: "tool".to_owned(),
    }
}

fn start(index: u32, id: &str) -> Input {
    Input::Start {
        index,
        header: header(id),
        idempotency_key: None,
    }
}

fn delta(index: u32, text: &[u8]) -> Input {
    Input::Delta {
        index,
        fragment: Bytes::copy_from_slice(text),
    }
}

fn stop(index: u32) -> Input {
    Input::Stop { index }
}

fn whole(id: &str, text: &str) -> Input {
    Input::Whole {
        header: header(id),
        idempotency_key: None,
        arguments: Bytes::copy_from_slice(text.as_bytes()),
    }
}

fn feed(inputs: impl IntoIterator<Item = Input>) -> Result<Vec<Event>, Breach> {
    let mut ingest = Ingest::new(LIMITS);
    let mut events = Vec::new();
    for input in inputs {
        ingest.apply(input, &mut |event| events.push(event))?;
    }
    Ok(events)
}

fn completed(events: &[Event]) -> Vec<(Position, &[u8])> {
    let of = |event| match event {
        &Event::Complete(position, ref call) => Some((position, &call.arguments[..])),
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

#[test]
fn interleaved_blocks_complete_at_their_own_stop() {
    let events = feed([
        start(7, "a"),
        start(3, "b"),
        delta(3, b"{\"x\""),
        delta(7, b"{}"),
        delta(3, b":1}"),
        stop(3),
        stop(7),
        Input::Seal(TurnEnd::Complete),
    ]);
    let events = events.unwrap();
    assert_eq!(completed(&events), [(1, &b"{\"x\":1}"[..]), (0, b"{}")]);
    assert_eq!(
        events.last(),
        Some(&Event::Sealed(TurnEnd::Complete, vec![]))
    );
}

#[test]
fn fragments_join_at_any_cut_inside_a_character_too() {
    let text = "{\"q\":\"caffè 🦀\"}".as_bytes();
    for first in 0..=text.len() {
        for second in first..=text.len() {
            let cut = [&text[..first], &text[first..second], &text[second..]];
            let events = feed([
                start(0, "a"),
                delta(0, cut[0]),
                delta(0, cut[1]),
                delta(0, cut[2]),
                stop(0),
            ])
            .unwrap();
            assert_eq!(completed(&events), [(0, text)]);
        }
    }
}

#[test]
fn no_arguments_are_an_empty_object() {
    for text in ["", " \n", "null", " null "] {
        let events = feed([
            start(0, "a"),
            delta(0, text.as_bytes()),
            stop(0),
            whole("b", text),
        ])
        .unwrap();
        assert_eq!(
            completed(&events),
            [(0, &b"{}"[..]), (1, b"{}")],
            "{text:?}"
        );
    }
}

#[test]
fn an_index_may_be_used_again_after_its_stop() {
    let events = feed([start(0, "a"), stop(0), start(0, "b"), stop(0)]).unwrap();
    assert_eq!(completed(&events).len(), 2);
}

#[test]
fn a_taken_id_is_reported_and_the_first_call_stands() {
    let events = feed([
        whole("a", "{}"),
        start(0, "a"),
        delta(0, b"{}"),
        stop(0),
        whole("b", "{}"),
    ])
    .unwrap();
    assert!(events.contains(&Event::Duplicate(header("a"))));
    assert_eq!(completed(&events), [(0, &b"{}"[..]), (2, b"{}")]);
}

#[test]
fn a_block_open_at_the_seal_never_completes() {
    let events = feed([
        start(0, "a"),
        delta(0, b"{}"),
        start(1, "b"),
        Input::Seal(TurnEnd::Truncated),
    ])
    .unwrap();
    assert_eq!(
        events.last(),
        Some(&Event::Sealed(TurnEnd::Truncated, vec![0, 1]))
    );
    assert!(completed(&events).is_empty());
}

#[test]
fn arguments_over_the_limit_cost_that_call_only() {
    let large = [b'x'; 65];
    let events = feed([
        start(0, "a"),
        delta(0, &large[..60]),
        delta(0, &large[..5]),
        stop(0),
        whole("b", "{}"),
    ]);
    let events = events.unwrap();
    assert!(events.contains(&Event::Refused(0, Refusal::ArgumentsTooLarge)));
    assert_eq!(completed(&events), [(1, &b"{}"[..])]);
}

#[test]
fn the_batch_has_a_limit_over_all_its_arguments_and_a_refused_block_gives_its_share_back() {
    let part = " ".repeat(60);
    let events = feed([
        whole("a", &part),
        start(0, "b"),
        delta(0, &[b' '; 40]),
        delta(0, b" "),
        whole("c", "{}"),
    ]);
    let events = events.unwrap();
    assert!(events.contains(&Event::Refused(1, Refusal::BatchTooLarge)));
    assert_eq!(completed(&events).len(), 2);
}

#[test]
fn calls_over_the_cap_are_refused_one_by_one_and_a_flood_refuses_the_stream() {
    let events = feed((0..16).map(|n| whole(&n.to_string(), "{}"))).unwrap();
    let refused = events
        .iter()
        .filter(|event| matches!(event, Event::Refused(_, Refusal::TooManyCalls)));
    assert_eq!((completed(&events).len(), refused.count()), (4, 12));
    let flood = feed((0..17).map(|n| whole(&n.to_string(), "{}")));
    assert_eq!(flood, Err(Breach::FarTooManyCalls(16)));
}

#[test]
fn steps_that_the_protocol_does_not_have_are_named() {
    assert_eq!(
        feed([start(1, "a"), start(1, "b")]),
        Err(Breach::IndexOpen(1))
    );
    assert_eq!(
        feed([stop(1)]),
        Err(Breach::IndexNotOpen {
            field: "block_stop",
            index: 1
        })
    );
    assert_eq!(
        feed([delta(1, b"{}")]),
        Err(Breach::IndexNotOpen {
            field: "block_delta",
            index: 1
        })
    );
    assert_eq!(
        feed([Input::Seal(TurnEnd::Complete), start(0, "a")]),
        Err(Breach::AfterSeal)
    );
}

/// A block as the list made it, and what was heard of it.
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that a test notes, not states"
)]
#[derive(Debug, Default)]
struct Seen {
    duplicate: bool,
    open: bool,
    text: Vec<u8>,
    complete: bool,
    refused: bool,
    void: bool,
}

impl Seen {
    /// Whether it counts among the bytes of the batch.
    fn counts(&self) -> bool {
        self.complete || self.may_become_a_call()
    }

    fn may_become_a_call(&self) -> bool {
        !(self.duplicate || self.complete || self.refused || self.void)
    }

    /// Its text as a call's arguments.
    fn arguments(&self) -> &[u8] {
        match self.text.trim_ascii() {
            b"" => b"{}",
            _ => &self.text,
        }
    }
}

/// A step by lot, such as decoders make them: each block under its position, and signs of one that may have ended.
fn step(random: &mut fastrand::Rng, blocks: &mut Vec<Seen>) -> Input {
    let index = |position: usize| u32::try_from(position).unwrap();
    let open: Vec<usize> = (0..blocks.len()).filter(|&n| blocks[n].open).collect();
    match random.u8(..16) {
        4..=9 if !open.is_empty() => {
            let position = open[random.usize(..open.len())];
            let fragment = b"{} {\"x\": \"longer than the others\"}";
            let fragment = &fragment[..random.usize(..=fragment.len())];
            // What is refused with it is not in its text any more.
            blocks[position].text.extend_from_slice(fragment);
            delta(index(position), fragment)
        }
        10..=12 if !open.is_empty() => {
            let position = open[random.usize(..open.len())];
            blocks[position].open = false;
            stop(index(position))
        }
        13 | 14 if !blocks.is_empty() => Input::Early {
            index: index(random.usize(..blocks.len())),
        },
        15 if !blocks.is_empty() => {
            let position = random.usize(..blocks.len());
            blocks[position].open = false;
            Input::Void {
                index: index(position),
                why: Void::Unreadable,
            }
        }
        _ if blocks.len() == LIMITS.ids() => Input::Seal(TurnEnd::Truncated),
        _ => {
            blocks.push(Seen {
                open: true,
                ..Seen::default()
            });
            start(index(blocks.len() - 1), &random.u8(..20).to_string())
        }
    }
}

/// Holds an event against what the list made of the block.
fn hear(event: &Event, blocks: &mut [Seen], begun: &mut usize) {
    match *event {
        Event::Began(_) => *begun += 1,
        Event::Duplicate(_) => {
            blocks[*begun].duplicate = true;
            *begun += 1;
        }
        Event::Early(position, ref call) => {
            let block = &blocks[position];
            assert!(block.open && block.may_become_a_call(), "{block:?}");
            assert_eq!(&call.arguments[..], block.text);
        }
        Event::Complete(position, ref call) => {
            let block = &mut blocks[position];
            assert!(block.may_become_a_call(), "{block:?}");
            assert_eq!(&call.arguments[..], block.arguments());
            block.complete = true;
        }
        Event::Refused(position, _) => {
            let block = &mut blocks[position];
            assert!(block.may_become_a_call(), "{block:?}");
            block.refused = true;
        }
        // One that has stopped has its text in the batch, whatever becomes of it.
        Event::Void(position, _) => blocks[position].void = true,
        Event::Sealed(_, ref unfinished) => {
            let open: Vec<Position> = (0..blocks.len())
                .filter(|&n| blocks[n].may_become_a_call())
                .collect();
            assert_eq!(*unfinished, open);
        }
    }
}

fn run_list(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut ingest = Ingest::new(LIMITS);
    let (mut blocks, mut begun) = (Vec::new(), 0);
    for _ in 0..40 {
        let input = step(&mut random, &mut blocks);
        let mut hear = |event| hear(&event, &mut blocks, &mut begun);
        ingest.apply(input, &mut hear).unwrap();
        assert_eq!(begun, blocks.len(), "each start is told of");
        let counted = blocks.iter().filter(|block| block.counts());
        let sizes: Vec<usize> = counted.map(|block| block.text.len()).collect();
        assert!(sizes.iter().all(|size| *size <= LIMITS.arguments_bytes));
        assert_eq!(ingest.bytes, sizes.iter().sum::<usize>(), "{blocks:?}");
        assert!(ingest.bytes <= LIMITS.batch_bytes);
        if ingest.is_sealed() {
            return;
        }
    }
    ingest.seal(TurnEnd::Complete, &mut |event| {
        hear(&event, &mut blocks, &mut begun);
    });
}

#[test]
fn random_steps_tell_of_each_block_once_and_never_after_its_end() {
    for seed in 0..20_000 {
        if let Err(panic) = std::panic::catch_unwind(|| run_list(seed)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
