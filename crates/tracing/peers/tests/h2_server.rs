//! A server that knows nothing of outlive: `h2` tells `tracing` what it does. It is killed while it
//! answers, and its last requests are found.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::{TcpListener, TcpStream};
use tracing_subscriber::prelude::*;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// Where the server finds its state folder; not set in the test itself.
const STATE: &str = "OUTLIVE_TEST_STATE";
/// Requests that are answered before the kill.
const ANSWERED: usize = 500;
/// Of so many the events have to be there; those of earlier ones may be overwritten.
const LAST: usize = 100;
/// Requests that wait for their answers at a time.
const AT_ONCE: usize = 8;

/// The streams whose requests were answered, in the order of the answers.
#[derive(Clone, Default)]
struct Answered(Arc<Mutex<Vec<u32>>>);

impl Answered {
    fn streams(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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

/// Asks the server, [`AT_ONCE`] requests at a time, until it is gone.
async fn load(port: u16, answered: Answered) -> Result {
    let socket = TcpStream::connect(("127.0.0.1", port)).await?;
    let (client, connection) = h2::client::handshake(socket).await?;
    for _ in 0..AT_ONCE {
        let (client, answered) = (client.clone(), answered.clone());
        // It ends with an error: the server is gone.
        tokio::spawn(async move { drop(ask(client, &answered).await) });
    }
    Ok(connection.await?)
}

async fn ask(mut client: h2::client::SendRequest<bytes::Bytes>, answered: &Answered) -> Result {
    loop {
        client = client.ready().await?;
        let request = http::Request::get("http://server/").body(())?;
        let (response, _) = client.send_request(request, true)?;
        let stream = response.stream_id().as_u32();
        let mut body = response.await?.into_body();
        while let Some(data) = body.data().await {
            body.flow_control().release_capacity(data?.len())?;
        }
        answered.streams().push(stream);
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
    let answered = Answered::default();
    let client = std::thread::spawn({
        let answered = answered.clone();
        move || {
            // It ends with an error, too.
            let _ = runtime().map(|runtime| runtime.block_on(load(port, answered)));
        }
    });
    while answered.streams().len() < ANSWERED && !client.is_finished() {
        std::thread::yield_now();
    }
    server.kill()?;
    server.wait()?;
    client.join().map_err(|_| "the client panicked")?;
    let answered = answered.streams();
    assert!(answered.len() >= ANSWERED, "{} answers", answered.len());

    // What is read first after the crash.
    let first = outlive(folder.path(), &["last", "server"])?;
    assert!(
        first.starts_with("server: crash") && first.contains("level=TRACE"),
        "{first}"
    );
    // It ends with what the server was doing: with answers of which the client had just got one, or that
    // it still waited for. A turn of the server takes some hundred events.
    let last = outlive(folder.path(), &["last", "server", "--events", "2000"])?;
    let recent = &answered[answered.len() - 2 * AT_ONCE..];
    let newest = answered.iter().max().ok_or("no answers")?;
    let is_of_end = |stream: &u32| recent.contains(stream) || stream > newest;
    assert!(streams(&last).iter().any(is_of_end), "{recent:?}: {last}");

    // Further back every answer is found that the client has got.
    let all = outlive(folder.path(), &["last", "server", "--events", "100000"])?;
    for stream in &answered[answered.len() - LAST..] {
        let received = format!("received frame=Headers {{ stream_id: StreamId({stream})");
        let lines = all.lines().filter(|line| line.contains(&received));
        assert_eq!(lines.count(), 1, "{received}");
    }
    Ok(())
}

/// The streams that a text tells of.
fn streams(text: &str) -> Vec<u32> {
    let ids = text.split("StreamId(").skip(1);
    let numbers = ids.filter_map(|id| id.split(')').next()?.parse().ok());
    numbers.collect()
}
