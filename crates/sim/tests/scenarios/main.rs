//! Faults chosen by hand, with exact expectations: who leads, in which term, and by when. `QUORATE_TRACE=1` prints what happens.

mod failover;
mod identity;
mod leadership;
mod leases;
mod membership;
mod partial_connectivity;
mod staged_snapshots;
mod stalled_disks;
