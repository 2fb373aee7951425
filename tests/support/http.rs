//! Plain HTTP, as far as tests of whole processes need it.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

/// Asks once for something; the answer's status and body. An error: nobody is there, or it does not speak HTTP.
pub(crate) fn get(address: &str, path: &str) -> io::Result<(u16, String)> {
    // 1.0, so that the answer comes in one piece.
    request(address, &format!("GET {path} HTTP/1.0"), "")
}

/// The same with a head, without the host and the length, and a body. The connection ends with the answer.
pub(crate) fn request(address: &str, head: &str, body: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    let length = body.len();
    let request = format!("{head}\r\nhost: {address}\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let strange = || io::Error::other(format!("this is not HTTP: {answer}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(strange)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.ok_or_else(strange)?, body.to_owned()))
}

/// The same for an answer that is JSON; `None` while there is none.
pub(crate) fn get_json(address: &str, path: &str) -> Option<Value> {
    let (200, body) = get(address, path).ok()? else {
        return None;
    };
    serde_json::from_str(&body).ok()
}
