//! A server that knows nothing of outlive: `h2` tells `tracing` what it does. It is killed while it
//! answers, and its last requests are found.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tracing_subscriber::prelude::*;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// Where the server finds its state folder; not set in the test itself.
const STATE: &str = "OUTLIVE_TEST_STATE";
/// Requests that are answered before the kill.
const ANSWERED: u32 = 500;
/// Of so many the events have to be there; those of earlier ones may be overwritten.
const LAST: u32 = 100;

fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_io().build()?)
}

/// The server: says its port, and answers until it is killed.
fn serve(state: &Path) -> Result {
    let _recorder = outlive::Recorder::builder("server")
        .state(state)
        .backing(outlive::Backing::File)
        .start()?;
    tracing_subscriber::registry()
        .with(outlive_tracing::layer())
        .init();
    runtime()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        // Standard error: the test runner writes to standard output.
        eprintln!("{}", listener.local_addr()?.port());
        let (socket, _) = listener.accept().await?;
        let mut connection = h2::server::handshake(socket).await?;
        while let Some(request) = connection.accept().await {
            let (_, mut respond) = request?;
            let mut body = respond.send_response(http::Response::new(()), false)?;
            body.send_data(bytes::Bytes::from_static(b"hello"), true)?;
        }
        Ok(())
    })
}

/// Asks the server until it is gone; counts the answers.
async fn ask(port: u16, answered: &AtomicU32) -> Result {
    let socket = TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut client, connection) = h2::client::handshake(socket).await?;
    tokio::spawn(connection);
    loop {
        client = client.ready().await?;
        let request = http::Request::get("http://server/").body(())?;
        let (response, _) = client.send_request(request, true)?;
        let mut body = response.await?.into_body();
        while let Some(data) = body.data().await {
            body.flow_control().release_capacity(data?.len())?;
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

fn start_server(state: &Path) -> Result<(Child, u16)> {
    let test = "the_last_requests_of_a_killed_server_are_found";
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", test, "--nocapture"])
        .env(STATE, state)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stderr.take().ok_or("no output")?).lines();
    let port = lines.next().ok_or("the server did not start")??;
    // What it says later goes nowhere, but it can say it.
    std::thread::spawn(move || lines.for_each(drop));
    Ok((child, port.parse()?))
}

/// The `outlive` command of this source tree.
fn outlive(state: &Path, args: &[&str]) -> Result<String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "run",
        "--quiet",
        "--package",
        "outlive-cli",
        "--manifest-path",
    ]);
    command.arg(manifest).arg("--").arg("--state").arg(state);
    let output = command.args(args).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn the_last_requests_of_a_killed_server_are_found() -> Result {
    if let Some(state) = std::env::var_os(STATE) {
        return serve(state.as_ref());
    }
    let folder = tempfile::tempdir()?;
    let (mut server, port) = start_server(folder.path())?;
    let answered = Arc::new(AtomicU32::new(0));
    let client = std::thread::spawn({
        let answered = Arc::clone(&answered);
        move || {
            // It ends with an error: the server is gone.
            let _ = runtime().map(|runtime| runtime.block_on(ask(port, &answered)));
        }
    });
    while answered.load(Ordering::Relaxed) < ANSWERED && !client.is_finished() {
        std::thread::yield_now();
    }
    server.kill()?;
    server.wait()?;
    client.join().map_err(|_| "the client panicked")?;
    let answered = answered.load(Ordering::Relaxed);
    assert!(answered >= ANSWERED, "{answered} answers");

    let text = outlive(folder.path(), &["show", "server"])?;
    for request in answered - LAST..answered {
        // A client's streams have odd numbers.
        let received = format!(
            "received frame=Headers {{ stream_id: StreamId({})",
            2 * request + 1
        );
        let lines = text.lines().filter(|line| line.contains(&received));
        assert_eq!(lines.count(), 1, "{received}");
    }
    let last = outlive(folder.path(), &["last", "server"])?;
    assert!(
        last.starts_with("server: crash") && last.contains("level=TRACE"),
        "{last}"
    );
    Ok(())
}
