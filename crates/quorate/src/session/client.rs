//! The client's side of a session: it numbers commands and asks again until it knows what became of them. What a number means is
//! decided by the table, in the log.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use quorate_base::StateMachine;
use quorate_node::session::{Answer, SessionCommand, SessionId};
use thiserror::Error;

use crate::error::{ProposeError, Reason};
use crate::handle::Handle;

/// The usual limit of sessions in one state.
const LIMIT: u32 = 10_000;

/// The first pause before a command is proposed again; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(640);

/// Why a session did not give an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SessionError {
    /// The session was evicted, because others were used since and there were too many, or it was closed.
    #[error("the session has expired{}", if *.maybe_done { "; whether the command was executed is unknown" } else { "" })]
    Expired {
        /// An earlier attempt at this command may have been executed. Otherwise it certainly was not, and never will be.
        maybe_done: bool,
    },
    /// The command was not executed, and never will be by itself.
    #[error("not done: {0}")]
    NotDone(Reason),
    /// The command may have been executed, or may yet be. [`Session::retry`] finds out.
    #[error("outcome unknown: {0}")]
    Unknown(Reason),
    /// Somebody else uses the same session and was ahead with the same or a higher number.
    #[error("another client uses this session")]
    NotAlone,
    /// The state machine does not answer as one with sessions does.
    #[error("the state machine does not know sessions")]
    NotUnderstood,
}

/// What is under way.
#[derive(Clone, Debug)]
struct Attempt {
    sequence: u64,
    command: Bytes,
    /// It may have been executed.
    maybe_done: bool,
}

/// A client's session: each command proposed through it is executed exactly once or, if it is given up, at most once.
///
/// [`propose`](Session::propose) asks again, with pauses, for as long as the outcome is not known: across changes of leader, broken links
/// and full queues. It has no time limit of its own. Give it one with `tokio::time::timeout`; a command given up that way
/// is settled by [`retry`](Session::retry), or superseded by the next `propose`, after which it is never executed if it was not before.
///
/// The member it speaks to may stop; [`go_on_at`](Session::go_on_at) lets the session go on at another one.
pub struct Session<S: StateMachine> {
    handle: Handle<S>,
    id: SessionId,
    /// The last number given to a command.
    sequence: u64,
    attempt: Option<Attempt>,
}

impl<S: StateMachine> fmt::Debug for Session<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("sequence", &self.sequence)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

impl<S: StateMachine<Output = Answer>> Session<S> {
    /// Opens a session, in a state that is to have no more than 10,000.
    ///
    /// # Errors
    /// Only if it cannot be opened at all: the node stops, or the machine knows no sessions.
    pub async fn open(handle: Handle<S>) -> Result<Session<S>, SessionError> {
        Session::open_within(handle, LIMIT).await
    }

    /// Opens a session in a state that is to have no more than `limit`: others are evicted if there are as many, the least recently
    /// used first.
    ///
    /// # Errors
    /// As [`open`](Session::open).
    pub async fn open_within(handle: Handle<S>, limit: u32) -> Result<Session<S>, SessionError> {
        // Opened twice by a repetition, the first one stays unused until it is evicted.
        let mut maybe_done = false;
        match insist(&handle, SessionCommand::Open { limit }.encode(), &mut maybe_done).await? {
            Answer::Opened(id) => Ok(Session::resume(handle, id, 0)),
            _ => Err(SessionError::NotUnderstood),
        }
    }

    /// Goes on with a session that this or another process has opened, whose last command had the number `sequence`. For clients
    /// that keep both, and their last command, in storage of their own: proposed again as the next command after `sequence - 1`, it is
    /// answered and not executed again.
    pub fn resume(handle: Handle<S>, id: SessionId, sequence: u64) -> Session<S> {
        Session {
            handle,
            id,
            sequence,
            attempt: None,
        }
    }

    /// The session's name.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The number of the last command; 0 before the first.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Speaks to another member from now on.
    pub fn go_on_at(&mut self, handle: Handle<S>) {
        self.handle = handle;
    }

    /// Executes a command exactly once, and answers what the state machine answered then.
    ///
    /// If a command before was given up, it is superseded: it was executed before this one, or never will be.
    ///
    /// # Errors
    /// See [`SessionError`]. After [`SessionError::Unknown`] the command is kept for [`retry`](Session::retry).
    pub async fn propose(&mut self, command: impl Into<Bytes>) -> Result<Bytes, SessionError> {
        self.sequence += 1;
        self.attempt = Some(Attempt {
            sequence: self.sequence,
            command: command.into(),
            maybe_done: false,
        });
        self.settle().await
    }

    /// Finds out what became of a command whose future was dropped or whose outcome was unknown, by executing it now if it was not
    /// executed before. `None` if there is no such command.
    ///
    /// # Errors
    /// As [`propose`](Session::propose).
    pub async fn retry(&mut self) -> Option<Result<Bytes, SessionError>> {
        self.attempt.as_ref()?;
        Some(self.settle().await)
    }

    /// Closes the session, so that it takes no room. Dropping it without that lets it live until it is evicted.
    ///
    /// # Errors
    /// If the node stops.
    pub async fn close(self) -> Result<(), SessionError> {
        let close = SessionCommand::Close { session: self.id };
        insist(&self.handle, close.encode(), &mut false).await.map(drop)
    }

    async fn settle(&mut self) -> Result<Bytes, SessionError> {
        let attempt = self.attempt.as_mut().expect("there is a command under way");
        let run = SessionCommand::Run {
            session: self.id,
            sequence: attempt.sequence,
            command: attempt.command.clone(),
        };
        let answer = insist(&self.handle, run.encode(), &mut attempt.maybe_done).await;
        let maybe_done = attempt.maybe_done;
        if !matches!(answer, Err(SessionError::Unknown(_))) {
            self.attempt = None;
        }
        match answer? {
            Answer::Done(answer) => Ok(answer),
            Answer::Expired => Err(SessionError::Expired { maybe_done }),
            Answer::Superseded => Err(SessionError::NotAlone),
            Answer::Opened(_) | Answer::Closed | Answer::NotUnderstood => Err(SessionError::NotUnderstood),
        }
    }
}

/// Proposes the same command until there is an answer. `maybe_done` becomes true with the first attempt that may have been executed
/// without an answer, also if this future is dropped.
async fn insist<S: StateMachine<Output = Answer>>(
    handle: &Handle<S>,
    command: Bytes,
    maybe_done: &mut bool,
) -> Result<Answer, SessionError> {
    let mut pause = FIRST_PAUSE;
    loop {
        let before = std::mem::replace(maybe_done, true);
        let why = match handle.propose(command.clone()).await {
            Ok(answer) => {
                *maybe_done = before;
                return Ok(answer);
            }
            Err(ProposeError::NotDone(why)) => {
                *maybe_done = before;
                why
            }
            Err(ProposeError::Unknown(why)) => why,
        };
        // These do not pass by waiting, or not soon.
        match why {
            Reason::TooLarge | Reason::Stopped | Reason::NoSpace if *maybe_done => {
                return Err(SessionError::Unknown(why));
            }
            Reason::TooLarge | Reason::Stopped | Reason::NoSpace => return Err(SessionError::NotDone(why)),
            Reason::NoLeader | Reason::LeaderChanged | Reason::LinkDown | Reason::Timeout | Reason::Busy => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
