//! What a client does when it is its turn: one call, or the next step in the life of a lease.

use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use http::request::Parts;
use prost::Message;
use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest,
};

use super::link::{Link, Up};
use super::wire::{self, Duplex, Endpoint, Fault};
use super::work::{Kind, Requests, Stamp, frame};

/// Leases live longer than any measured stall, and not much longer than a run that was cut off.
const TTL_SECONDS: i64 = 60;

/// What a client does.
#[derive(Debug)]
pub enum Job {
    /// One call after the other, each for itself.
    Call(Call),
    /// One lease after the other.
    Lease(Lease),
}

/// How an operation ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// It found what it asked for.
    pub found: bool,
    /// Which of several kinds it was.
    pub part: Option<&'static str>,
}

impl Job {
    /// Does the next operation, which is begun at `stamp`. When it fails or is given up, the next one starts afresh.
    pub async fn operate(
        &mut self,
        link: &Link,
        held: &mut Option<Up>,
        number: u64,
        stamp: Stamp,
    ) -> Result<Answer, Fault> {
        match self {
            Job::Call(call) => call.operate(link, held, number, stamp).await,
            Job::Lease(lease) => lease.operate(link, held).await,
        }
    }

    /// Leaves nothing behind on the server, as far as that is possible.
    pub async fn clean_up(&mut self, link: &Link, held: &mut Option<Up>) -> Result<(), Fault> {
        match self {
            Job::Lease(lease) if lease.granted.is_some() => lease.revoke(link, held).await,
            _ => Ok(()),
        }
    }
}

/// Operations that are one call each.
#[derive(Debug)]
pub struct Call {
    /// What it asks.
    pub requests: Requests,
    /// Which kind of call that is.
    pub kind: Kind,
    /// The head of the call at each endpoint.
    pub heads: Rc<[Parts]>,
}

impl Call {
    async fn operate(
        &mut self,
        link: &Link,
        held: &mut Option<Up>,
        number: u64,
        stamp: Stamp,
    ) -> Result<Answer, Fault> {
        let message = self.requests.encode(number, stamp);
        let up = link.hold(held).await?;
        let answer = wire::unary(&mut up.send, &self.heads[up.endpoint], message).await?;
        let found = self.kind.found(answer).map_err(unreadable)?;
        Ok(Answer { found, part: None })
    }
}

/// The heads of the lease calls at one endpoint.
#[derive(Debug)]
pub struct LeaseHeads {
    grant: Parts,
    renew: Parts,
    revoke: Parts,
}

impl LeaseHeads {
    /// At this endpoint.
    pub fn at(endpoint: &Endpoint) -> LeaseHeads {
        LeaseHeads {
            grant: endpoint.head("/etcdserverpb.Lease/LeaseGrant"),
            renew: endpoint.head("/etcdserverpb.Lease/LeaseKeepAlive"),
            revoke: endpoint.head("/etcdserverpb.Lease/LeaseRevoke"),
        }
    }
}

/// A lease's life, over and over: granted, renewed a number of times on one stream, revoked. Each step is an operation.
#[derive(Debug)]
pub struct Lease {
    heads: Rc<[LeaseHeads]>,
    renewals: u32,
    granted: Option<Granted>,
    buffer: BytesMut,
}

#[derive(Debug)]
struct Granted {
    id: i64,
    renewals_left: u32,
    /// The stream of its renewals, with the number of its connection.
    stream: Option<(u64, Duplex)>,
}

impl Lease {
    /// So many renewals for each lease.
    pub fn new(heads: Rc<[LeaseHeads]>, renewals: u32) -> Lease {
        Lease {
            heads,
            renewals,
            granted: None,
            buffer: BytesMut::new(),
        }
    }

    async fn operate(&mut self, link: &Link, held: &mut Option<Up>) -> Result<Answer, Fault> {
        let part = match &self.granted {
            None => {
                self.grant(link, held).await?;
                "grant"
            }
            Some(granted) if granted.renewals_left > 0 => {
                self.renew(link, held).await?;
                "renewal"
            }
            Some(_) => {
                self.revoke(link, held).await?;
                "revocation"
            }
        };
        Ok(Answer {
            found: true,
            part: Some(part),
        })
    }

    async fn grant(&mut self, link: &Link, held: &mut Option<Up>) -> Result<(), Fault> {
        let up = link.hold(held).await?;
        let ask = LeaseGrantRequest {
            ttl: TTL_SECONDS,
            id: 0,
        };
        let ask = frame(&ask, &mut self.buffer);
        let answer = wire::unary(&mut up.send, &self.heads[up.endpoint].grant, ask).await?;
        let answer = LeaseGrantResponse::decode(answer).map_err(unreadable)?;
        self.granted = Some(Granted {
            id: answer.id,
            renewals_left: self.renewals,
            stream: None,
        });
        Ok(())
    }

    async fn renew(&mut self, link: &Link, held: &mut Option<Up>) -> Result<(), Fault> {
        // Put back when all has gone well.
        let Some(mut granted) = self.granted.take() else {
            return Ok(());
        };
        let up = link.hold(held).await?;
        let mut stream = match granted.stream.take() {
            Some((number, stream)) if number == up.number => stream,
            _ => Duplex::open(&mut up.send, &self.heads[up.endpoint].renew).await?,
        };
        stream.send(frame(&LeaseKeepAliveRequest { id: granted.id }, &mut self.buffer))?;
        let answer = LeaseKeepAliveResponse::decode(stream.receive().await?).map_err(unreadable)?;
        if answer.id != granted.id || answer.ttl <= 0 {
            return Err(Fault::Unreadable(
                "a lease ended that was to be renewed".to_owned(),
            ));
        }
        granted.renewals_left -= 1;
        granted.stream = Some((up.number, stream));
        self.granted = Some(granted);
        Ok(())
    }

    async fn revoke(&mut self, link: &Link, held: &mut Option<Up>) -> Result<(), Fault> {
        let Some(granted) = self.granted.take() else {
            return Ok(());
        };
        let up = link.hold(held).await?;
        let ask = frame(&LeaseRevokeRequest { id: granted.id }, &mut self.buffer);
        wire::unary(&mut up.send, &self.heads[up.endpoint].revoke, ask).await?;
        Ok(())
    }
}

fn unreadable(error: prost::DecodeError) -> Fault {
    Fault::Unreadable(error.to_string())
}

/// A time since a run's start as a stamp has it.
pub fn stamp(run: u64, since_start: Duration) -> Stamp {
    Stamp {
        run,
        nanos: u64::try_from(since_start.as_nanos()).unwrap_or(u64::MAX),
    }
}
