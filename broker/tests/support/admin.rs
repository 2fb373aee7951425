//! Plain HTTP on the admin port, as far as tests need it.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends a request as it is; the answer's status and body.
pub(crate) async fn ask(admin: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .map_or(0, |code| code.parse().unwrap());
    (status, body.to_owned())
}

/// What there is at a path.
pub(crate) async fn get(admin: SocketAddr, path: &str) -> (u16, String) {
    ask(
        admin,
        &format!("GET {path} HTTP/1.1\r\nhost: broker\r\n\r\n"),
    )
    .await
}
