//! When a member begins to serve data after its start. The log is applied anew from where the store was, so for a moment the state
//! here is older than what clients have seen here before; until that is made good, requests for data wait. What a
//! member says about itself (status, health, metrics) does not.

use std::sync::Arc;

use quorate_base::{Index, StateMachine};
use tokio::sync::watch;

use crate::context::{Context, LEADERLESS};

/// Sets `ready` for good when this member has caught up: it completed a linearizable read or, where there is no leader to ask,
/// applied all it knows to be committed. The second is weaker, since a member may have shown a little more than its log
/// says is committed; but without it a member that is cut off could not even serve reads that may be stale.
pub(crate) async fn watch(ctx: Arc<Context>, ready: watch::Sender<bool>) {
    let caught_up = async {
        tokio::select! {
            () = linearizable(&ctx) => {}
            () = cut_off(&ctx) => tracing::warn!("no leader found; serving the state known here"),
        }
    };
    let mut status = ctx.status.clone();
    tokio::select! {
        () = caught_up => drop(ready.send_replace(true)),
        // Dropping the sender tells whoever waits.
        _ = status.wait_for(|now| now.stopping) => {}
    }
}

/// Completes when a linearizable read did.
async fn linearizable(ctx: &Context) {
    while ctx.handle.read(|_| ()).await.is_err() {
        ctx.leadership_changed(ctx.config.heartbeat).await;
    }
}

/// Completes when there was time to find a leader and everything known to be committed by then is applied.
async fn cut_off(ctx: &Context) {
    tokio::time::sleep(ctx.config.election * LEADERLESS).await;
    // An answer means that the node runs, so its status is its own and not that of a node about to start.
    let mut applied = applied(ctx).await;
    tokio::time::sleep(ctx.config.heartbeat).await;
    let known = ctx.handle.status().commit;
    while applied < known {
        tokio::time::sleep(ctx.config.heartbeat).await;
        applied = self::applied(ctx).await;
    }
}

/// What is applied here; nothing, if the node has no time for the question.
async fn applied(ctx: &Context) -> Index {
    let look = ctx.handle.local(|machine| machine.applied().index);
    look.await.unwrap_or(Index(0))
}
