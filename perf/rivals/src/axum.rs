//! tokio, axum and tungstenite, as their documentation has it, and one thing better: what waits for
//! a connection is written at once, with one flush.
//!
//! Two tasks per connection, a reader and a writer with a bounded channel between them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use axum::extract::{self, State, WebSocketUpgrade};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};

use crate::admission::{Query, bearer};
use crate::close;
use crate::scope::{Member, Route, Scope};
use crate::settings::Settings;

/// Serves until the process ends.
pub(crate) fn serve(settings: Settings) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    // Spawned, so that connections are accepted by the worker too.
    runtime.block_on(async { tokio::spawn(accept(settings)).await })?
}

async fn accept(settings: Settings) -> Result<()> {
    let address = settings.address();
    let listener = TcpListener::bind(address).await.context("listening")?;
    println!("listening on {}", listener.local_addr()?);
    let listener = listener.tap_io(|socket| {
        // A socket that is gone already says so when it is read.
        drop(socket.set_nodelay(true));
    });
    let state = Arc::new(Relay {
        validate_url: settings.validate_url(),
        settings,
        platform: Client::builder(TokioExecutor::new()).build_http(),
        scopes: Mutex::default(),
        next_id: AtomicU64::new(0),
    });
    let router = Router::new().route("/ws", get(upgrade)).with_state(state);
    axum::serve(listener, router).await.context("serving")
}

struct Relay {
    settings: Settings,
    validate_url: String,
    platform: Client<HttpConnector, Full<Bytes>>,
    scopes: Mutex<HashMap<ScopeKey, SharedScope>>,
    next_id: AtomicU64,
}

/// Workspace and target.
type ScopeKey = (String, Option<String>);
type SharedScope = Arc<Mutex<Scope<Outbox>>>;

/// What others send to a connection with.
#[derive(Clone)]
struct Outbox {
    frames: mpsc::Sender<Utf8Bytes>,
    /// Told when the channel was full.
    overrun: Arc<Notify>,
}

async fn upgrade(
    State(relay): State<Arc<Relay>>,
    extract::Query(query): extract::Query<Query>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(bearer);
    let is_admitted = match token {
        Some(token) => relay.is_admitted(&query, token).await.unwrap_or(false),
        None => false,
    };
    if !is_admitted {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let frame_bytes_max = relay.settings.frame_bytes_max;
    upgrade
        .max_frame_size(frame_bytes_max)
        .max_message_size(frame_bytes_max)
        .on_upgrade(move |socket| async move { relay.connected(query, socket).await })
}

impl Relay {
    /// Asks the platform; one call per upgrade, over a kept connection.
    async fn is_admitted(&self, query: &Query, token: &str) -> Result<bool> {
        let request = Request::post(&self.validate_url)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(query.question(token))))?;
        let answer = self.platform.request(request).await?;
        let is_success = answer.status().is_success();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
        Ok(is_success && query.is_admitted_by(&body))
    }

    /// One connection, from its upgrade to its end.
    async fn connected(&self, query: Query, socket: WebSocket) {
        let (frames, waiting) = mpsc::channel(WAITING_FRAMES_MAX);
        let outbox = Outbox { frames, overrun: Arc::new(Notify::new()) };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let member = Member { id, role: query.role, outbox };
        let key = (query.workspace_id, query.runtime_target_id);
        let scope = Arc::clone(lock(&self.scopes).entry(key).or_default());
        let (mut sink, stream) = socket.split();
        if !lock(&scope).join(&member) {
            drop(sink.send(closing(close::REFUSED)).await);
            return;
        }
        let writer = tokio::spawn(write(sink, waiting));
        let overrun = Arc::clone(&member.outbox.overrun);
        tokio::select! {
            () = read(stream, &member, &scope) => {}
            () = overrun.notified() => {}
        }
        lock(&scope).leave(&member);
        writer.abort();
    }
}

/// Routes what arrives until the connection ends or sends what is no envelope.
async fn read(
    mut stream: SplitStream<WebSocket>,
    member: &Member<Outbox>,
    scope: &Mutex<Scope<Outbox>>,
) {
    while let Some(Ok(message)) = stream.next().await {
        let text = match message {
            Message::Text(text) => text,
            Message::Close(_) => return,
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) => continue,
        };
        match lock(scope).route(member, text.as_str()) {
            Ok(Route::To(outbox)) => {
                if outbox.frames.try_send(text.clone()).is_err() {
                    outbox.overrun.notify_one();
                }
            }
            Ok(Route::Nowhere) => {}
            Err(_) => return,
        }
    }
}

/// Writes what others sent: all that waits, then one flush.
async fn write(mut sink: SplitSink<WebSocket, Message>, mut waiting: mpsc::Receiver<Utf8Bytes>) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, BATCH_FRAMES_MAX).await > 0 {
        for text in batch.drain(..) {
            if sink.feed(Message::Text(text)).await.is_err() {
                return;
            }
        }
        if sink.flush().await.is_err() {
            return;
        }
    }
}

fn closing(code: u16) -> Message {
    Message::Close(Some(CloseFrame { code, reason: Utf8Bytes::default() }))
}

/// What a mutex guards stays usable whatever became of an earlier holder.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Frames that may wait for one connection; past it, it is cut.
const WAITING_FRAMES_MAX: usize = 1024;
/// Frames between two flushes, at most.
const BATCH_FRAMES_MAX: usize = 256;
/// Bytes of the platform's answer, at most.
const ANSWER_BYTES_MAX: usize = 64 << 10;
