//! The one way out: from the loopback inside to the socket outside.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use wardian_sandbox::{Error, Exec, Sandbox, WayOut};

use super::support::*;

const PORT: u16 = 8750;

async fn with_way_out(host: &Host) -> (Sandbox, UnixListener) {
    let socket = host.folder.path().join("out.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut spec = host.spec("one");
    spec.way_out = Some(WayOut { socket, port: PORT });
    (host.launcher.create("one", &spec).await.unwrap(), listener)
}

async fn accept(listener: &UnixListener) -> UnixStream {
    let (mut stream, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let mut opening = [0; 18];
    stream.read_exact(&mut opening).await.unwrap();
    assert_eq!(&opening, b"wardian/1 gateway\n");
    stream
}

#[tokio::test]
async fn bytes_and_half_closes_pass_both_ways() {
    let host = Host::start();
    let (sandbox, listener) = with_way_out(&host).await;
    let script = format!(
        "import socket
s = socket.create_connection(('127.0.0.1', {PORT}))
s.sendall(b'q' * 3000000); s.shutdown(socket.SHUT_WR)
got = b''
while (d := s.recv(65536)): got += d
print(len(got), set(got))"
    );
    let process = sandbox.exec(Exec::new(["python3", "-c", &script])).await.unwrap();
    let mut stream = accept(&listener).await;
    let mut request = Vec::new();
    stream.read_to_end(&mut request).await.unwrap();
    assert!(request.len() == 3_000_000 && request.iter().all(|&byte| byte == b'q'));
    stream.write_all(&vec![b'a'; 3_000_000]).await.unwrap();
    drop(stream);
    assert_eq!(finish(process).await.stdout, format!("3000000 {{{}}}\n", b'a'));
}

#[tokio::test]
async fn when_one_side_leaves_the_other_is_told() {
    let host = Host::start();
    let (sandbox, listener) = with_way_out(&host).await;
    let script = format!(
        "import socket; s = socket.create_connection(('127.0.0.1', {PORT})); s.sendall(b'x'); print(s.recv(1))"
    );
    let process = sandbox.exec(Exec::new(["python3", "-c", &script])).await.unwrap();
    drop(accept(&listener).await);
    let output = finish(process).await;
    assert!(output.stdout == "b''\n" || output.stderr.contains("ConnectionReset"), "{output:?}");

    let script =
        format!("import socket; s = socket.create_connection(('127.0.0.1', {PORT})); s.sendall(b'x')");
    let process = sandbox.exec(Exec::new(["python3", "-c", &script])).await.unwrap();
    let mut stream = accept(&listener).await;
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, b"x", "the gateway sees that the client has left");
    finish(process).await;
}

#[tokio::test]
async fn more_connections_than_fit_wait_and_a_slow_one_stops_nobody() {
    let host = Host::start();
    let (sandbox, listener) = with_way_out(&host).await;
    let script = format!(
        "import socket
slow = [socket.create_connection(('127.0.0.1', {PORT})) for _ in range(20)]
for s in slow: s.sendall(b's')
done = 0
for i in range(200):
    s = socket.create_connection(('127.0.0.1', {PORT})); s.sendall(b'f'); done += s.recv(1) == b'r'; s.close()
print(done)"
    );
    let process = sandbox.exec(Exec::new(["python3", "-c", &script])).await.unwrap();
    let serve = async {
        let mut held = Vec::new();
        loop {
            let mut stream = accept(&listener).await;
            let mut kind = [0];
            stream.read_exact(&mut kind).await.unwrap();
            match kind[0] {
                b's' => held.push(stream),
                _ => stream.write_all(b"r").await.unwrap(),
            }
        }
    };
    tokio::select! {
        output = finish(process) => assert_eq!(output.stdout, "200\n", "{output:?}"),
        () = serve => unreachable!("it serves for ever"),
    }
}

#[tokio::test]
async fn a_gateway_that_is_gone_is_a_closed_connection_and_the_guest_lives() {
    let host = Host::start();
    let (sandbox, listener) = with_way_out(&host).await;
    drop(listener);
    let script = format!(
        "import socket; s = socket.create_connection(('127.0.0.1', {PORT})); s.settimeout(5); print(s.recv(1))"
    );
    let output = python(&sandbox, &script).await;
    assert!(output.stdout == "b''\n" || output.stderr.contains("ConnectionReset"), "{output:?}");
    assert_eq!(sh(&sandbox, "echo fine").await.stdout, "fine\n");
}

#[tokio::test]
async fn a_way_out_must_be_a_socket_and_a_port_that_can_be_had() {
    let host = Host::start();
    let file = host.folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let socket = host.folder.path().join("out.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    for way_out in [
        WayOut { socket: file, port: PORT },
        WayOut { socket: "/nonexistent".into(), port: PORT },
        WayOut { socket: socket.clone(), port: 80 },
        WayOut { socket, port: 0 },
    ] {
        let mut spec = host.spec("one");
        spec.way_out = Some(way_out);
        let created = host.launcher.create("one", &spec).await;
        assert!(matches!(created, Err(Error::Invalid { .. })), "{created:?}");
    }
    let sandbox = host.sandbox("one").await;
    let script = format!(
        "import socket\ntry: socket.create_connection(('127.0.0.1', {PORT}))\nexcept OSError as e: print(e.errno)"
    );
    assert_eq!(python(&sandbox, &script).await.stdout, "111\n", "without a way out nobody listens");
    tokio::time::timeout(Duration::from_secs(5), sandbox.destroy()).await.unwrap().unwrap();
}
