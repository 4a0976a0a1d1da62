//! Deterministic simulation of whole clusters: the production node, log and store on simulated disks, links and clocks, under
//! faults, with every invariant checked after every step. One seed is one run, the same on every machine.
//!
//! | what | where |
//! | --- | --- |
//! | what a seed decides | [`params`], [`plan`], and [`rng`], the only source of chance |
//! | virtual time and its queue | `world` |
//! | machines and their lives; who they are; one turn of a node | `host`, `machines`, `identity`, `turn`, `state` |
//! | machines' clocks | [`clock`] |
//! | connections and handshakes | `links` |
//! | disks that forget, networks that lose | [`disk`], [`net`] |
//! | faults, the shapes of broken networks | `nemesis`, `cuts` |
//! | identities that come back with less, disks that rot or lose | `impostors`, `media` |
//! | when faults strike; the proof that they struck, and in which states | `steering`, `states`, [`cells`], [`coverage`] |
//! | requests; watchers; membership changes | `clients`, `watches`, `operator` |
//! | what the server does around a node: watch fan-out, leases | `fanout`, `leases` |
//! | client sessions, as an embedder would have them | `sessions` |
//! | what must hold after every step; full scans | [`ghost`], `scanning` |
//! | what clients may see | [`history`], against [`model`] |
//! | a run from beginning to end | `finish` ([`run`], [`Report`]) |
//! | liveness of a part that is healed while the rest stays broken, of the healed whole; stable leaders; verdict | `survivors`, `healing`, `stability`, `judge` |
//! | many seeds and their sum; how fast it all is | [`campaign`], [`speed`] |
//! | clusters whose faults are chosen by hand | [`scenario`] |
//! | how runs fail, what they show | [`failure`], [`trace`], [`picture`] and `observe` |
//!
//! What is simulated is what a driver does: threads become events at random moments, so every order that the production
//! driver could produce is one that the simulator may choose. No rule of the algorithm is here.

pub mod campaign;
pub mod cells;
pub mod clock;
pub mod coverage;
pub mod disk;
pub mod failure;
pub mod ghost;
pub mod history;
pub mod model;
pub mod net;
pub mod params;
pub mod picture;
pub mod plan;
pub mod rng;
pub mod scenario;
pub mod speed;
pub mod trace;

mod ambush;
mod clients;
mod cuts;
mod fanout;
mod finish;
mod healing;
mod host;
mod identity;
mod impostors;
mod judge;
mod leases;
mod links;
mod machines;
mod media;
mod nemesis;
mod observe;
mod operator;
mod scanning;
mod sessions;
mod stability;
mod state;
mod states;
mod steering;
mod stores;
mod survivors;
mod turn;
mod watches;
mod world;

pub use finish::{Report, Verdict, run, watch};
pub use survivors::Excuse;
