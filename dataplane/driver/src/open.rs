//! Which driver carries this process.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use relay_contract::Tick;
use relay_mailbox::Bell;

use crate::{
    Batch, Completion, Config, Driver, DriverError, DriverStats, Epoll, Key, SendMode, TableFull,
    Uring,
};

/// Opens the driver of choice, for the thread that calls.
///
/// # Errors
/// What the kernel refused: of the ring when it was insisted on, of the fallback otherwise.
pub fn open(choice: Choice, config: &Config) -> Result<Opened, DriverError> {
    let fallback = match choice {
        Choice::Epoll => None,
        Choice::Uring => return Uring::open(config).map(|driver| Opened::as_chosen(driver.into())),
        Choice::Auto => match Uring::open(config) {
            Ok(driver) => return Ok(Opened::as_chosen(driver.into())),
            Err(error) => Some(Fallback { reason: error.to_string() }),
        },
    };
    let driver = AnyDriver::Epoll(Box::new(Epoll::open(config)?));
    Ok(Opened { driver, fallback })
}

/// What the operator wants.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Choice {
    /// The ring where it works, else the fallback.
    #[default]
    Auto,
    /// The ring or nothing.
    Uring,
    /// The fallback.
    Epoll,
}

/// Not the name of a choice.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the driver is one of auto, uring, epoll")]
pub struct UnknownChoice;

/// A driver, and why it is not the default one.
pub struct Opened {
    /// Ready for use.
    pub driver: AnyDriver,
    /// Present when the ring was wanted and could not be had.
    pub fallback: Option<Fallback>,
}

/// Why the fallback is in use.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fallback {
    /// The step that failed and what the kernel said; for the log.
    pub reason: String,
}

/// One of the drivers of a real kernel. Cost: a predictable branch per call.
pub enum AnyDriver {
    /// The default.
    Uring(Box<Uring>),
    /// The fallback.
    Epoll(Box<Epoll>),
}

impl Opened {
    fn as_chosen(driver: AnyDriver) -> Self {
        Self { driver, fallback: None }
    }
}

impl From<Uring> for AnyDriver {
    fn from(driver: Uring) -> Self {
        Self::Uring(Box::new(driver))
    }
}

impl From<Epoll> for AnyDriver {
    fn from(driver: Epoll) -> Self {
        Self::Epoll(Box::new(driver))
    }
}

impl FromStr for Choice {
    type Err = UnknownChoice;

    fn from_str(text: &str) -> Result<Self, UnknownChoice> {
        match text {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "epoll" => Ok(Self::Epoll),
            _ => Err(UnknownChoice),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        })
    }
}

macro_rules! each {
    ($self:ident, $driver:ident => $call:expr) => {
        match $self {
            AnyDriver::Uring($driver) => $call,
            AnyDriver::Epoll($driver) => $call,
        }
    };
}

impl Driver for AnyDriver {
    type Socket = OwnedFd;

    fn listen(&mut self, listener: OwnedFd) -> Result<(), DriverError> {
        each!(self, driver => driver.listen(listener))
    }

    fn stop_listening(&mut self) {
        each!(self, driver => driver.stop_listening());
    }

    fn adopt(&mut self, key: Key, socket: OwnedFd) {
        each!(self, driver => driver.adopt(key, socket));
    }

    fn settle(&mut self, key: Key) -> Result<(), TableFull> {
        each!(self, driver => driver.settle(key))
    }

    fn release(&mut self, key: Key) -> Option<OwnedFd> {
        each!(self, driver => driver.release(key))
    }

    fn receive_once(&mut self, key: Key) {
        each!(self, driver => driver.receive_once(key));
    }

    fn receive(&mut self, key: Key) {
        each!(self, driver => driver.receive(key));
    }

    fn pause(&mut self, key: Key) {
        each!(self, driver => driver.pause(key));
    }

    fn cancel_send(&mut self, key: Key) {
        each!(self, driver => driver.cancel_send(key));
    }

    fn export(&mut self, key: Key) {
        each!(self, driver => driver.export(key));
    }

    fn batch(&mut self) -> Box<Batch> {
        each!(self, driver => driver.batch())
    }

    fn send(&mut self, key: Key, batch: Box<Batch>, mode: SendMode) {
        each!(self, driver => driver.send(key, batch, mode));
    }

    fn recycle(&mut self, batch: Box<Batch>) {
        each!(self, driver => driver.recycle(batch));
    }

    fn shutdown(&mut self, key: Key) {
        each!(self, driver => driver.shutdown(key));
    }

    fn close(&mut self, key: Key) {
        each!(self, driver => driver.close(key));
    }

    fn turn(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion<OwnedFd>>,
    ) -> io::Result<()> {
        each!(self, driver => driver.turn(timeout, completions))
    }

    fn bell(&self) -> Arc<Bell> {
        each!(self, driver => driver.bell())
    }

    fn now(&self) -> Tick {
        each!(self, driver => driver.now())
    }

    fn cpu_time(&self) -> Duration {
        each!(self, driver => driver.cpu_time())
    }

    fn stats(&self) -> &DriverStats {
        each!(self, driver => driver.stats())
    }

    fn name(&self) -> &'static str {
        each!(self, driver => driver.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_reads_back_as_it_is_written() {
        for choice in [Choice::Auto, Choice::Uring, Choice::Epoll] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        assert_eq!("Uring".parse::<Choice>(), Err(UnknownChoice));
    }

    #[test]
    fn the_automatic_choice_falls_back_with_a_reason_or_not_at_all() {
        let opened = open(Choice::Auto, &Config::default()).unwrap();
        assert_eq!(opened.fallback.is_some(), opened.driver.name() == "epoll");
        assert_eq!(opened.fallback.is_none(), Uring::probe().is_ok());
    }
}
