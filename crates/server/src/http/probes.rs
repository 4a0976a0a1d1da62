//! Health over HTTP: `/health` for load balancers, `/livez` and `/readyz` with their single checks below them.

use quorate_kv::{AlarmKind, RangeRequest};
use tonic::body::Body;
use tonic::codegen::http::{Response, StatusCode};

use super::{Query, TEXT, not_found, text};
use crate::context::Context;
use crate::grpc::Api;

/// `/health`: alarms first, then a leader, then a read. With `serializable=true` only this member is asked; `exclude=` names an
/// alarm to overlook.
pub(super) async fn health(api: &Api, query: &Query) -> Response<Body> {
    let serializable = query.has_value("serializable", "true");
    let failure = health_failure(&api.ctx, query, serializable).await;
    let healthy = failure.is_none();
    let reason = serde_json::Value::from(failure.unwrap_or_default());
    let content = format!(r#"{{"health":"{healthy}","reason":{reason}}}"#);
    match healthy {
        true => text(StatusCode::OK, TEXT, content),
        false => text(StatusCode::SERVICE_UNAVAILABLE, TEXT, content + "\n"),
    }
}

async fn health_failure(ctx: &Context, query: &Query, serializable: bool) -> Option<String> {
    match ctx.handle.local(|machine| machine.kv().alarms()).await {
        Ok(alarms) => {
            for alarm in alarms {
                let name = alarm_name(alarm.kind);
                if !query.has_value("exclude", name) {
                    return Some(format!("ALARM {name}"));
                }
            }
        }
        Err(error) => return Some(format!("RANGE ERROR:{error}")),
    }
    if !serializable && ctx.leader().is_none() {
        return Some("RAFT NO LEADER".into());
    }
    read(ctx, serializable)
        .await
        .err()
        .map(|error| format!("RANGE ERROR:{error}"))
}

/// The name of an alarm.
pub(super) fn alarm_name(kind: AlarmKind) -> &'static str {
    match kind {
        AlarmKind::NoSpace => "NOSPACE",
        AlarmKind::Corrupt => "CORRUPT",
    }
}

const LIVEZ: [&str; 1] = ["serializable_read"];
const READYZ: [&str; 4] = [
    "data_corruption",
    "serializable_read",
    "linearizable_read",
    "non_learner",
];

/// `/livez`, `/readyz`, and one check of them as `/readyz/NAME`.
pub(super) async fn check(api: &Api, path: &str, query: &Query) -> Response<Body> {
    let (root, one) = match path[1..].split_once('/') {
        Some((root, one)) => (root, Some(one)),
        None => (&path[1..], None),
    };
    let all: &[&'static str] = if root == "livez" { &LIVEZ } else { &READYZ };
    let wanted: Vec<&'static str> = match one {
        Some(one) => all.iter().copied().filter(|name| *name == one).collect(),
        None => all
            .iter()
            .copied()
            .filter(|name| !query.has_value("exclude", name))
            .collect(),
    };
    if one.is_some() && wanted.is_empty() {
        return not_found();
    }
    let mut report = String::new();
    let mut failed = false;
    for name in wanted {
        let checked = match root {
            "livez" => alive(&api.ctx).await,
            _ => run(&api.ctx, name).await,
        };
        match checked {
            Ok(()) => report += &format!("[+]{name} ok\n"),
            Err(error) => {
                failed = true;
                report += &format!("[-]{name} failed: {error}\n");
            }
        }
    }
    if failed {
        return text(StatusCode::SERVICE_UNAVAILABLE, TEXT, report + "\n");
    }
    let report = if query.has("verbose") {
        report
    } else {
        String::new()
    };
    text(StatusCode::OK, TEXT, report + "ok\n")
}

/// A read of what is here, as far as it is here: while a snapshot is being restored there is nothing to read, for minutes perhaps, and whoever
/// ended the process for that would only make it begin anew.
async fn alive(ctx: &Context) -> Result<(), String> {
    let mut status = ctx.status.clone();
    tokio::select! {
        biased;
        Ok(_) = status.wait_for(|now| now.restoring) => Ok(()),
        read = read(ctx, true) => read,
    }
}

async fn run(ctx: &Context, check: &str) -> Result<(), String> {
    match check {
        "data_corruption" => {
            let alarms = ctx
                .handle
                .local(|machine| machine.kv().alarms())
                .await
                .map_err(|e| e.to_string())?;
            match alarms.iter().any(|alarm| alarm.kind == AlarmKind::Corrupt) {
                true => Err("alarm activated: CORRUPT".into()),
                false => Ok(()),
            }
        }
        "serializable_read" => read(ctx, true).await,
        "linearizable_read" => read(ctx, false).await,
        "non_learner" => match ctx.is_learner() {
            true => Err("not supported for learner".to_owned()),
            false => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Reads one key, whether it is there or not.
async fn read(ctx: &Context, serializable: bool) -> Result<(), String> {
    let range = RangeRequest {
        key: "a".into(),
        limit: 1,
        keys_only: true,
        ..Default::default()
    };
    let look = move |machine: &crate::KvMachine| machine.kv().range(&range).map(|_| ());
    let looked = if serializable {
        ctx.handle.local(look).await
    } else {
        ctx.handle.read(look).await
    };
    looked.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}
