//! A TCP or TLS connection that carries whatever a scenario writes.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustls::ClientConfig;

use crate::step::Abort;
use crate::transport::Transport;
use crate::watched::Watched;

/// A connection with a thread that collects what arrives. Dropping it closes it.
pub(crate) struct RawSocket {
    transport: Arc<Transport>,
    received: Arc<Watched<Received>>,
    reader: Option<JoinHandle<()>>,
}

/// What has arrived since the connection was made.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    pub(crate) ended: bool,
}

impl RawSocket {
    pub(crate) fn connect(port: u16, tls: Option<Arc<ClientConfig>>) -> io::Result<Self> {
        let transport = Arc::new(Transport::connect(port, tls)?);
        let received = Arc::new(Watched::default());
        let reader = {
            let (transport, received) = (Arc::clone(&transport), Arc::clone(&received));
            thread::spawn(move || read(&transport, &received))
        };
        Ok(Self { transport, received, reader: Some(reader) })
    }

    /// Writes bytes; what the relay makes of them, even closing, is for a later step.
    pub(crate) fn send(&self, bytes: &[u8]) {
        let _ = self.transport.send(bytes);
    }

    pub(crate) fn received(&self) -> &Watched<Received> {
        &self.received
    }
}

impl Drop for RawSocket {
    fn drop(&mut self) {
        self.transport.abort(Abort::Fin);
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader does not panic");
        }
    }
}

fn read(transport: &Transport, received: &Watched<Received>) {
    let mut chunk = Vec::new();
    loop {
        chunk.clear();
        let open = transport.receive(&mut chunk).unwrap_or(false);
        received.update(|received| {
            received.bytes.extend_from_slice(&chunk);
            received.ended = !open;
        });
        if !open {
            return;
        }
    }
}
