use super::*;

fn events(pieces: &[&[u8]]) -> Result<Vec<String>, Error> {
    let mut framing = Framing::new(1 << 10);
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
    ] {
        assert_eq!(events(&[text.as_bytes()]), Err(Error::TooLarge(1 << 10)));
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(100).collect();
        assert_eq!(events(&pieces), Err(Error::TooLarge(1 << 10)));
    }
}
