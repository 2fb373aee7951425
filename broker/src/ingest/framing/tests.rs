//! Texts of every framing, cut anywhere.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};

use super::*;

fn events(pieces: &[&[u8]]) -> Result<Vec<String>, Error> {
    events_within(1 << 10, pieces.iter().copied())
}

fn events_within<'a>(
    limit: usize,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<String>, Error> {
    let mut framing = Framing::new(limit);
    let mut found = Vec::new();
    let mut each = |event: Event<'_>| found.push(String::from_utf8_lossy(event.data).into_owned());
    for piece in pieces {
        framing.push(piece, &mut each)?;
    }
    framing.finish(&mut each)?;
    Ok(found)
}

/// The text whole, byte by byte, and cut at every place.
fn check(text: &[u8], expected: &[&str]) {
    assert_eq!(events(&[text]).unwrap(), expected, "whole");
    let bytes: Vec<&[u8]> = text.chunks(1).collect();
    assert_eq!(events(&bytes).unwrap(), expected, "byte by byte");
    for at in 0..text.len() {
        let (a, b) = text.split_at(at);
        assert_eq!(events(&[a, b]).unwrap(), expected, "cut at {at}");
    }
}

#[test]
fn server_sent_events_end_lines_in_three_ways() {
    check(
        b"data: {\"a\":1}\n\ndata:{\"b\":2}\n\n",
        &["{\"a\":1}", "{\"b\":2}"],
    );
    check(b"data: 1\r\n\r\ndata: 2\r\n\r\n", &["1", "2"]);
    check(b"data: 1\r\rdata: 2\r\r", &["1", "2"]);
    check(b"\xef\xbb\xbfdata: 1\n\n", &["1"]);
}

#[test]
fn of_a_server_sent_event_only_the_data_counts() {
    check(
        b": a comment\nevent: x\nid: 7\nretry: 1\ndatax: no\nunknown\ndata: {\ndata: }\n\n:\n\ndata\n\ndata: \xc3\xa4\n\n",
        &["{\n}", "\u{e4}"],
    );
}

#[test]
fn the_last_server_sent_event_may_lack_its_blank_line() {
    check(b"data: 1\n\ndata: 2", &["1", "2"]);
}

#[test]
fn lines_are_events() {
    check(
        b"{\"a\":1}\n\n{\"b\":2}\r\n  \n{\"c\":3}",
        &["{\"a\":1}", "{\"b\":2}\r", "{\"c\":3}"],
    );
}

#[test]
fn an_event_over_the_limit_ends_the_stream() {
    let long = "x".repeat(2_000);
    for text in [
        format!("data: {long}"),
        format!("{{{long}"),
        format!("data: {}\ndata: {}", &long[..600], &long[..600]),
        format!("data: {long}\n\n"),
        format!(":\n{{{}\n{}", &long[..600], &long[..600]),
        format!("[{{{long}"),
        format!("[{{\"{long}\"}}]"),
    ] {
        assert_eq!(events(&[text.as_bytes()]), Err(Error::TooLarge(1 << 10)));
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(100).collect();
        assert_eq!(events(&pieces), Err(Error::TooLarge(1 << 10)));
    }
}

#[test]
fn a_bare_object_among_server_sent_events_is_an_event() {
    let error = "{\n  \"error\": {\n\n    \"message\": \"a } b\"\n  }\n}";
    check(
        format!(
            "data: 1\r\n\r\n{}\r\n\r\ndata: 2\n\n",
            error.replace('\n', "\r\n")
        )
        .as_bytes(),
        &["1", error, "2"],
    );
    check(format!("data: 1\n\n{error}").as_bytes(), &["1", error]);
    check(
        b": x\n{\"a\":1}\n{\"b\":2}\ndata: 3\n\n",
        &["{\"a\":1}", "{\"b\":2}", "3"],
    );
    // Broken off, and inside an event, where it is an unknown field.
    check(b": x\n{\"a\":{\ndata: 1\n\n", &["{\"a\":{", "1"]);
    check(b"data: 1\n{\"a\":1}\ndata: 2\n\n", &["1\n2"]);
}

#[test]
fn the_objects_of_an_array_are_events() {
    check(b" [] \n", &[]);
    check(
        "[{\"a\":[{}]}\n,\r\n{\"b\":\"}\\\"\u{20ac}]\"} ,{}\r\n]\n".as_bytes(),
        &["{\"a\":[{}]}", "{\"b\":\"}\\\"\u{20ac}]\"}", "{}"],
    );
    // Cut off, between two and inside one: whether that is bad is for the dialect to say.
    check(b"[{\"a\":1}\n,", &["{\"a\":1}"]);
    check(b"[{\"a\":1},{\"b\":\"\\", &["{\"a\":1}", "{\"b\":\"\\"]);
}

#[test]
fn an_array_of_anything_else_is_damaged() {
    for text in ["[1]", "[{}1", "[{}[", "[{}]{}", "[[]]", "[null]"] {
        assert!(
            matches!(events(&[text.as_bytes()]), Err(Error::Damaged(_))),
            "{text}"
        );
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert!(matches!(events(&bytes), Err(Error::Damaged(_))), "{text}");
    }
}

#[test]
fn no_cut_makes_a_difference_to_any_text() {
    const WORDS: [&str; 16] = [
        "data:", "data: ", "event: x", ":", "{", "}", "[", "]", ",", "\"", "\\", "\n", "\r",
        "\r\n", " ", "\u{20ac}",
    ];
    for seed in 0..20_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let words = (0..random.usize(1..40)).map(|_| *random.choice(&WORDS).unwrap_or(&""));
        let text: String = words.collect();
        let limit = random.usize(1..40);
        let whole = events_within(limit, [text.as_bytes()]);
        let pieces = text.as_bytes().chunks(random.usize(1..8));
        assert_eq!(events_within(limit, pieces), whole, "seed {seed}: {text:?}");
    }
}

/// A frame of the AWS event stream.
fn frame(headers: &[(&'static str, &'static str)], payload: &str) -> Vec<u8> {
    let mut message = Message::new(payload.as_bytes().to_vec());
    for &(name, value) in headers {
        message = message.add_header(Header::new(name, HeaderValue::String(value.into())));
    }
    let mut bytes = Vec::new();
    write_message_to(&message, &mut bytes).unwrap();
    bytes
}

fn three_frames() -> Vec<u8> {
    let event = [(":event-type", "messageStart"), (":message-type", "event")];
    let exception = [
        (":exception-type", "throttling"),
        (":message-type", "exception"),
    ];
    let error = [
        (":error-code", "InternalError"),
        (":error-message", "sorry"),
        (":message-type", "error"),
    ];
    let frames = [
        frame(&event, "{}"),
        frame(&exception, "{\"m\":1}"),
        frame(&error, ""),
    ];
    frames.concat()
}

#[test]
fn an_aws_frame_is_an_event_by_its_headers() {
    let text = three_frames();
    check(&text, &["{}", "{\"m\":1}", "sorry"]);
    let mut framing = Framing::new(1 << 10);
    let mut found = Vec::new();
    let mut each = |event: Event<'_>| {
        found.push((event.name.unwrap().to_owned(), event.exception));
    };
    framing.push(&text, &mut each).unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|(name, exception)| (&**name, *exception))
        .collect();
    assert_eq!(
        found,
        [
            ("messageStart", false),
            ("throttling", true),
            ("InternalError", true)
        ]
    );
}

#[test]
fn no_damaged_aws_frame_is_given_out() {
    let text = three_frames();
    for at in 0..text.len() {
        let mut bad = text.clone();
        bad[at] ^= 0x10;
        let mut framing = Framing::new(1 << 10);
        let mut whole = Vec::new();
        let mut each = |event: Event<'_>| whole.push(event.data.to_vec());
        let taken = framing
            .push(&bad, &mut each)
            .and_then(|()| framing.finish(&mut each));
        // A first byte that is not 0 makes it another framing, or a frame that is far too large.
        assert!(taken.is_err() || at == 0, "byte {at}");
        let good: [&[u8]; 3] = [b"{}", b"{\"m\":1}", b"sorry"];
        assert!(
            at == 0 || whole.iter().zip(good).all(|(a, b)| a == b),
            "byte {at}"
        );
    }
}

#[test]
fn an_aws_stream_that_ends_inside_a_frame_is_damaged() {
    let text = frame(&[(":event-type", "x")], "{}");
    for end in 1..text.len() {
        assert!(
            matches!(events(&[&text[..end]]), Err(Error::Damaged(_))),
            "{end}"
        );
    }
}

#[test]
fn an_aws_frame_over_the_limit_is_refused_by_its_length_alone() {
    assert_eq!(events(&[&[0, 0, 4, 1]]), Err(Error::TooLarge(1 << 10)));
    assert!(matches!(events(&[&[0, 0, 0, 15]]), Err(Error::Damaged(_))));
}
