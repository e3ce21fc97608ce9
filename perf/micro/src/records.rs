//! Sealing and opening TLS records.

use anyhow::{Context, Result, ensure};
use relay_wire::tls::{Aead, Content, Direction as Keys, Session};

use crate::cases::Operation;
use crate::messages;

/// Which half of the record layer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Direction {
    /// Opening what came.
    In,
    /// Sealing what goes.
    Out,
}

/// Two ends of a session, one of which is looked at.
pub(crate) struct Protecting {
    direction: Direction,
    sender: Session,
    receiver: Session,
    plain: Vec<u8>,
    record: Vec<u8>,
    opened_bytes: u64,
    sealed_bytes: u64,
}

impl Protecting {
    /// TLS 1.3 with AES-128-GCM, what most peers choose.
    pub(crate) fn start(direction: Direction, plain_bytes: usize) -> Result<Self> {
        let keys = |name: u8| {
            Keys::tls13(Aead::Aes128Gcm, &[name; 32], 0).context("the secret has the right length")
        };
        Ok(Self {
            direction,
            sender: Session::new(keys(1)?, keys(2)?),
            receiver: Session::new(keys(2)?, keys(1)?),
            plain: messages::encrypted(plain_bytes),
            record: Vec::new(),
            opened_bytes: 0,
            sealed_bytes: 0,
        })
    }

    fn seal(&mut self) {
        self.record.clear();
        self.sender.writer(&mut self.record).push(&self.plain);
        self.sealed_bytes += self.record.len() as u64;
    }
}

impl Operation for Protecting {
    fn prepare(&mut self) {
        if self.direction == Direction::In {
            self.seal();
        }
    }

    fn run(&mut self) {
        match self.direction {
            Direction::Out => self.seal(),
            Direction::In => {
                if let Ok(taken) = self.receiver.next(&mut self.record)
                    && let Content::Here(range) = taken.content
                {
                    self.opened_bytes += range.len() as u64;
                }
            }
        }
    }

    fn judge(&self, runs: u64) -> Result<()> {
        let plain_bytes = self.plain.len() as u64;
        let (done, each) = match self.direction {
            Direction::In => (self.opened_bytes, plain_bytes),
            Direction::Out => (self.sealed_bytes, plain_bytes + OVERHEAD_BYTES),
        };
        ensure!(done == runs * each, "{done} bytes came out, not {}", runs * each);
        Ok(())
    }
}

/// Header, kind and tag of a record. Source: RFC 8446 §5.2.
const OVERHEAD_BYTES: u64 = 5 + 1 + 16;
