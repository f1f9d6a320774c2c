//! A proxy on the wire to PgBouncer: it delays, holds replies back, or cuts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

/// Between two messages of [`Wire::RepliesOneByOne`].
const PAUSE: Duration = Duration::from_millis(1);

/// What a proxy does to the bytes that pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Nothing.
    Open,
    /// Holds replies back; requests pass.
    RepliesHeld,
    /// Passes replies message by message with a pause between them, so that a client which awaits
    /// several is woken for each.
    RepliesOneByOne,
    /// Ends every connection, and each new one at once.
    Cut,
}

/// A proxy that runs until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    wire: watch::Sender<Wire>,
    requests: Arc<AtomicUsize>,
}

impl Proxy {
    /// Starts one on a free port of 127.0.0.1. Every byte is `delay` under way, in each direction.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn start(to_port: u16, delay: Duration) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let (wire, seen) = watch::channel(Wire::Open);
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        tokio::spawn(async move {
            let mut seen = seen;
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((client, _)) = accepted else { continue };
                        tokio::spawn(pass(client, to_port, delay, seen.clone(), Arc::clone(&counter)));
                    }
                    changed = seen.changed() => if changed.is_err() { return },
                }
            }
        });
        Ok(Self { port, wire, requests })
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes what it does, to open connections too.
    pub fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }

    /// The chunks of bytes that clients have sent through it so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn pass(
    client: TcpStream,
    to_port: u16,
    delay: Duration,
    mut wire: watch::Receiver<Wire>,
    requests: Arc<AtomicUsize>,
) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", to_port)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let counted = move || {
        requests.fetch_add(1, Ordering::SeqCst);
    };
    let replies = wire.clone();
    tokio::select! {
        () = one_way(from_client, to_server, delay, None, counted) => {}
        () = one_way(from_server, to_client, delay, Some(replies), || {}) => {}
        _ = wire.wait_for(|wire| *wire == Wire::Cut) => {}
    }
}

/// Reads and writes apart, so that a delay holds no later byte up.
async fn one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    delay: Duration,
    held: Option<watch::Receiver<Wire>>,
    counted: impl Fn(),
) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<Vec<u8>>();
    let line = (!delay.is_zero()).then(|| delay_line(sender.clone()));
    let reading = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            counted();
            let bytes = buffer[..length].to_vec();
            let passed = match &line {
                Some(line) => line.send((Instant::now() + delay, bytes)).is_ok(),
                None => sender.send(bytes).is_ok(),
            };
            if !passed {
                return;
            }
        }
    };
    let writing = async move {
        let (mut held, mut bytes) = (held, Vec::new());
        while let Some(more) = receiver.recv().await {
            bytes.extend(more);
            let mut one_by_one = false;
            if let Some(wire) = &mut held {
                let wire = wire.wait_for(|wire| *wire != Wire::RepliesHeld).await;
                one_by_one = wire.is_ok_and(|wire| *wire == Wire::RepliesOneByOne);
            }
            while one_by_one && let Some(length) = first_message(&bytes) {
                let message: Vec<u8> = bytes.drain(..length).collect();
                if to.write_all(&message).await.is_err() {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
            if !one_by_one && to.write_all(&std::mem::take(&mut bytes)).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, writing);
}

/// The length of the first message, once all of it is there: a letter, then a length that counts
/// itself and what follows.
fn first_message(bytes: &[u8]) -> Option<usize> {
    let length: [u8; 4] = bytes.get(1..5)?.try_into().ok()?;
    let length = 1 + usize::try_from(u32::from_be_bytes(length)).ok()?;
    (bytes.len() >= length).then_some(length)
}

/// Lets each piece out when it is due. A thread of its own, since the runtime's timers know whole
/// milliseconds only. Ends when either side is dropped.
fn delay_line(out: mpsc::UnboundedSender<Vec<u8>>) -> std::sync::mpsc::Sender<(Instant, Vec<u8>)> {
    let (sender, pieces) = std::sync::mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        for (due, bytes) in pieces {
            while let Some(left) =
                due.checked_duration_since(Instant::now()).filter(|d| !d.is_zero())
            {
                std::thread::park_timeout(left);
            }
            if out.send(bytes).is_err() {
                return;
            }
        }
    });
    sender
}
