//! Production shards over a simulated kernel; peers and control plane do as a test says.

mod admission;
mod bench;
mod budget;
mod clock;
mod deadlines;
mod endings;
mod event_lane;
mod fairness;
mod flood;
mod frames;
mod garbage;
mod hand_over;
mod histograms;
mod phases;
mod pipelining;
mod proxies;
mod slow_reader;
mod smuggling;
mod socket;
mod stop;
mod strangers;
mod texts;
mod tls;
mod tls_sessions;
mod unfinished;
mod violations;
