//! The data plane's threads.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Once, SyncSender, sync_channel};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use relay_driver::{Choice, Driver, Opened};
use relay_link::{Link, ShardSide};
use relay_mailbox::{Bell, Receiver, Sender, lane};
use relay_shard::{DoorNews, Parcel, Ports, Shard, ShardConfig};
use tokio::sync::mpsc::UnboundedSender;

use crate::config::Engine;
use crate::cores;
use crate::listener::Listeners;

/// Sockets that may wait to be taken by their home shard. Reached: the upgrade is answered 503.
/// Protects descriptors; a shard empties its lane every turn.
const ARRIVALS_MAX: usize = 1024;

/// Certificates and rules that may wait for one shard. Reached: they are offered again later. A
/// shard takes what is there every turn.
const DOOR_NEWS_MAX: usize = 2;

/// Running shard threads.
pub(crate) struct Shards {
    threads: Vec<JoinHandle<io::Result<()>>>,
    /// Where new TLS configurations go, by shard.
    pub(crate) doors: Vec<Sender<DoorNews>>,
    /// What moves bytes in all of them.
    pub(crate) driver: &'static str,
    /// Why io_uring is not used although it was preferred.
    pub(crate) fallback: Option<String>,
}

/// What a thread says of itself before it may run.
struct Born {
    bell: Arc<Bell>,
    driver: &'static str,
    fallback: Option<String>,
}

/// What a thread is given.
struct Seed {
    config: ShardConfig,
    choice: Choice,
    driver: relay_driver::Config,
    core: Option<usize>,
    listeners: Vec<OwnedFd>,
    failed: UnboundedSender<()>,
}

/// The starter's ends of what it and a thread have to say to each other, once each, in this order.
struct Cradle {
    born: Once<Result<Born>>,
    ports: SyncSender<Ports<OwnedFd>>,
    listening: Once<Result<()>>,
    thread: JoinHandle<io::Result<()>>,
}

/// The thread's ends.
struct Crib {
    born: SyncSender<Result<Born>>,
    ports: Once<Ports<OwnedFd>>,
    listening: SyncSender<Result<()>>,
}

impl Shards {
    /// Starts one thread per configuration; all of them accept from the same listeners.
    ///
    /// Returns when every shard listens. A thread that ends with an error says so on `failed`.
    ///
    /// Errors: a driver the machine does not have, or a thread that cannot be started. The
    /// threads started so far end by themselves.
    pub(crate) fn start(
        configs: Vec<ShardConfig>,
        engine: &Engine,
        listeners: &Listeners,
        failed: &UnboundedSender<()>,
    ) -> Result<(Self, Link)> {
        let cores = cores::of_shards(configs.len());
        let mut cradles = Vec::with_capacity(configs.len());
        for (config, core) in configs.into_iter().zip(cores) {
            cradles.push(spawn(Seed {
                config,
                choice: engine.driver,
                driver: engine.driver_config(),
                core,
                listeners: listeners
                    .iter()
                    .map(|listener| listener.socket.try_clone())
                    .collect::<io::Result<_>>()?,
                failed: failed.clone(),
            })?);
        }
        let mut born = Vec::with_capacity(cradles.len());
        for cradle in &cradles {
            let gone = || anyhow!("a shard ended before it began");
            born.push(cradle.born.recv().map_err(|_| gone())??);
        }
        let (link, sides) = relay_link::local(born.iter().map(|b| Arc::clone(&b.bell)).collect());
        let lanes = born.iter().map(|born| lane(DOOR_NEWS_MAX, Arc::clone(&born.bell)));
        let (doors, arriving): (Vec<_>, Vec<_>) = lanes.unzip();
        for (cradle, ports) in cradles.iter().zip(ports(&born, sides, arriving)) {
            // A thread that is gone is noticed right below.
            let _gone = cradle.ports.send(ports);
        }
        for cradle in &cradles {
            let gone = || anyhow!("a shard ended before it listened");
            cradle.listening.recv().map_err(|_| gone())??;
        }
        let first = born.swap_remove(0);
        let shards = Self {
            threads: cradles.into_iter().map(|cradle| cradle.thread).collect(),
            doors,
            driver: first.driver,
            fallback: first.fallback,
        };
        Ok((shards, link))
    }

    /// Waits for every thread. Errors: what the first failed one died of.
    pub(crate) fn join(self) -> Result<()> {
        Self::reap(self.threads)
    }

    /// Looks at the threads that have ended and waits for none. Errors: as [`Shards::join`].
    pub(crate) fn join_ended(mut self) -> Result<()> {
        self.threads.retain(JoinHandle::is_finished);
        Self::reap(self.threads)
    }

    fn reap(threads: Vec<JoinHandle<io::Result<()>>>) -> Result<()> {
        for thread in threads {
            let ended = thread.join().map_err(|_| anyhow!("a shard panicked"))?;
            ended.context("a shard lost its driver")?;
        }
        Ok(())
    }
}

/// Joins the lanes of the control plane with those between shards.
fn ports(
    born: &[Born],
    sides: Vec<ShardSide>,
    doors: Vec<Receiver<DoorNews>>,
) -> Vec<Ports<OwnedFd>> {
    let lanes =
        born.iter().map(|born| lane::<Parcel<OwnedFd>>(ARRIVALS_MAX, Arc::clone(&born.bell)));
    let (homes, arrivals): (Vec<_>, Vec<_>) = lanes.unzip();
    sides
        .into_iter()
        .zip(arrivals)
        .zip(doors)
        .map(|((side, arrivals), door)| Ports {
            commands: side.commands,
            events: side.events,
            arrivals,
            homes: homes.clone(),
            door,
        })
        .collect()
}

fn spawn(seed: Seed) -> Result<Cradle> {
    let (born_sender, born) = sync_channel(1);
    let (ports_sender, ports) = sync_channel(1);
    let (listening_sender, listening) = sync_channel(1);
    let crib = Crib { born: born_sender, ports, listening: listening_sender };
    let thread = std::thread::Builder::new().name(format!("shard-{}", seed.config.shard.0)).spawn(
        move || {
            let failed = seed.failed.clone();
            let ended = live(seed, &crib);
            if ended.is_err() {
                // Nobody listens any more when the program is about to end anyway.
                let _ending = failed.send(());
            }
            ended
        },
    )?;
    Ok(Cradle { born, ports: ports_sender, listening, thread })
}

/// The life of a shard's thread. The driver is made here, because a ring belongs to one thread.
fn live(seed: Seed, crib: &Crib) -> io::Result<()> {
    if let Some(core) = seed.core {
        // Not being pinned costs speed alone.
        let _unpinned = cores::pin(core);
    }
    // Nor does it cost more than latency beside a busy control plane.
    let _long_slices = relay_driver::prefer_short_slices();
    let Opened { driver, fallback } = match relay_driver::open(seed.choice, &seed.driver) {
        Ok(opened) => opened,
        Err(error) => {
            let _gone = crib.born.send(Err(error.into()));
            return Ok(());
        }
    };
    let born = Born {
        bell: driver.bell(),
        driver: driver.name(),
        fallback: fallback.map(|fallback| fallback.reason),
    };
    // Whoever hangs up has given up the start and reports why.
    if crib.born.send(Ok(born)).is_err() {
        return Ok(());
    }
    let Ok(ports) = crib.ports.recv() else {
        return Ok(());
    };
    let mut shard = Shard::new(seed.config, driver, ports);
    let listening =
        seed.listeners.into_iter().try_for_each(|socket| shard.driver_mut().listen(socket));
    let listens = listening.is_ok();
    let told = crib.listening.send(listening.map_err(Into::into));
    if !listens || told.is_err() {
        return Ok(());
    }
    shard.run()
}
