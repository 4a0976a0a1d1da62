//! The NOSPACE alarm: raised across the cluster, once, when this member's disk is full. As in etcd it stays until an operator
//! clears it.

use std::sync::Arc;
use std::time::Duration;

use quorate_kv::{Alarm, AlarmAction, AlarmKind, Command};

use crate::context::Context;

/// A pause before an alarm that could not be raised is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Watches this member's disk until the server ends.
pub(crate) async fn watch(ctx: Arc<Context>) {
    let mut status = ctx.status.clone();
    loop {
        if status.borrow_and_update().stopping {
            return;
        }
        let mut pause = None;
        if ctx.disk_full() && !raised(&ctx).await {
            tracing::error!(
                "the disk is full: raising the NOSPACE alarm; writes are refused until it is cleared"
            );
            let member = ctx.config.id.0;
            let alarm = Command::Alarm {
                action: AlarmAction::Activate,
                member,
                kind: Some(AlarmKind::NoSpace),
            };
            if let Err(error) = ctx.propose(&alarm).await {
                tracing::warn!(%error, "cannot raise the NOSPACE alarm yet");
                pause = Some(RETRY);
            }
        }
        tokio::select! {
            changed = status.changed() => if changed.is_err() { return },
            () = ctx.news.worked.notified() => {}
            () = tokio::time::sleep(pause.unwrap_or(Duration::MAX)) => {}
        }
    }
}

async fn raised(ctx: &Context) -> bool {
    let own = Alarm {
        member: ctx.config.id.0,
        kind: AlarmKind::NoSpace,
    };
    let looked = ctx
        .handle
        .local(move |machine| machine.kv().alarms().contains(&own))
        .await;
    looked.unwrap_or(false)
}
