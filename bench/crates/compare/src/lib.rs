//! The instruments that put Quorate and a real etcd side by side: same machine, same disk, same load, in turn within one run.
//! The programs in `src/bin/` are thin; what they do is here.
//!
//! - [`peers`]: where the etcd comes from; [`cluster`]: real server processes, ended whatever happens ([`children`]).
//! - [`load`]: `quorate bench` as the load generator for both; [`probe`]: single requests, for "since when does it answer".
//! - [`process`] and [`machine`]: what the system tells about the servers and about itself.
//! - [`scenario`], [`rounds`]: the loads, measured round by round; [`filled`]: after 500,000 puts; [`sweep`]: how cost grows;
//!   [`failover`]: gaps in service.
//! - [`results`]: the figures, as written to a file; [`stats`]: medians of ratios; [`goals`]: the figures to reach;
//!   [`table`], [`svg`], [`charts`], [`plots`], [`report`]: what people see.
//! - [`floor`]: a service that does nothing, to know what gRPC alone costs.
//!
//! How the algorithm alone compares is measured by the package beside this one.

pub mod charts;
pub mod children;
pub mod cluster;
pub mod failover;
pub mod filled;
pub mod floor;
pub mod goals;
pub mod load;
pub mod machine;
pub mod options;
pub mod peers;
pub mod plots;
pub mod probe;
pub mod process;
pub mod report;
pub mod results;
pub mod rounds;
pub mod scenario;
pub mod stats;
pub mod svg;
pub mod sweep;
pub mod table;
