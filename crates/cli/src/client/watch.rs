//! `watch`: follows changes and goes on at another endpoint, from the revision after the last one seen, when its server
//! goes away.

use std::time::Duration;

use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use quorate_proto::json;
use quorate_proto::mvccpb::Event;
use quorate_proto::mvccpb::event::EventType;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Call, Cluster, Failure, keys};
use crate::args::{Output, WatchArgs};
use crate::output;

/// How the watch of one server ended.
enum End {
    /// The server or the connection went away: go on elsewhere.
    Lost(String),
    /// There is nothing to go on with.
    Failed(Failure),
}

/// `quorate watch`, until Ctrl-C or until no endpoint has answered for the command timeout.
pub async fn watch(args: WatchArgs) -> Result<(), Failure> {
    let cluster = Cluster::new(&args.client)?;
    tokio::select! {
        failure = follow(&cluster, &args) => Err(failure),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn follow(cluster: &Cluster, args: &WatchArgs) -> Failure {
    let (key, range_end) = keys::range_of(&args.keys);
    let mut request = WatchCreateRequest {
        key: key.into(),
        range_end: range_end.into(),
        start_revision: args.rev,
        prev_kv: args.prev_kv,
        ..WatchCreateRequest::default()
    };
    let give_up_after = cluster.patience(Call::Read);
    let mut heard = tokio::time::Instant::now();
    loop {
        let mut reasons = Vec::new();
        for endpoint in cluster.endpoints() {
            let before = request.start_revision;
            let mut connected = false;
            match follow_at(
                cluster,
                endpoint,
                &mut request,
                args.client.output,
                &mut connected,
            )
            .await
            {
                End::Failed(failure) => return failure,
                End::Lost(why) => reasons.push(format!("{endpoint}: {why}")),
            }
            if connected || request.start_revision != before {
                heard = tokio::time::Instant::now();
            }
        }
        if heard.elapsed() > give_up_after {
            return Failure::unreachable(format!(
                "no endpoint could serve this:\n  {}",
                reasons.join("\n  ")
            ));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Prints what one server reports; `request.start_revision` moves on with it.
async fn follow_at(
    cluster: &Cluster,
    endpoint: &str,
    request: &mut WatchCreateRequest,
    form: Output,
    connected: &mut bool,
) -> End {
    let channel = match cluster.connect(endpoint).await {
        Ok(channel) => channel,
        Err(why) => return End::Lost(why),
    };
    let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
    let (ask, asked) = mpsc::channel(1);
    let create = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(request.clone())),
    };
    // There is room for one, and the other end is in hand.
    let _ = ask.send(create).await;
    let mut answers = match client.watch(ReceiverStream::new(asked)).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return lost_or_failed(status),
    };
    // `ask` stays open: closing it would end the watch.
    let end = loop {
        match answers.message().await {
            Ok(Some(answer)) => {
                if let Err(end) = report(&answer, request, form, connected) {
                    break end;
                }
            }
            Ok(None) => break End::Lost("the server ended the stream".to_owned()),
            Err(status) => break lost_or_failed(status),
        }
    };
    drop(ask);
    end
}

fn lost_or_failed(status: tonic::Status) -> End {
    match status.code() {
        tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled | tonic::Code::Internal => {
            End::Lost(status.message().to_owned())
        }
        _ => End::Failed(Failure::refused(status.message())),
    }
}

fn report(
    answer: &WatchResponse,
    request: &mut WatchCreateRequest,
    form: Output,
    connected: &mut bool,
) -> Result<(), End> {
    let revision = answer.header.as_ref().map_or(0, |header| header.revision);
    if answer.canceled {
        return Err(End::Failed(Failure::refused(match answer.compact_revision {
            0 => format!("the server cancelled the watch: {}", answer.cancel_reason),
            oldest => format!("what came before revision {oldest} is compacted (--rev {oldest} would work)"),
        })));
    }
    if answer.created {
        *connected = true;
        // A watch "from now on" that is broken later must go on from here, or it would miss what happens meanwhile.
        if request.start_revision == 0 {
            request.start_revision = revision + 1;
        }
    }
    if answer.events.is_empty() {
        return Ok(());
    }
    match form {
        Output::Json => {
            let mut text = json::encode(answer);
            text.push(b'\n');
            output::print(&text);
        }
        Output::Table => {
            let lines: String = answer.events.iter().map(line).collect();
            output::print(lines.as_bytes());
        }
    }
    let last = answer
        .events
        .iter()
        .filter_map(|event| event.kv.as_ref())
        .map(|kv| kv.mod_revision)
        .max();
    request.start_revision = request.start_revision.max(last.unwrap_or(0) + 1);
    Ok(())
}

/// One event on one line: revision, what, key, value, and the value before if asked for.
fn line(event: &Event) -> String {
    let Some(kv) = &event.kv else { return String::new() };
    let key = output::readable(&kv.key);
    let before = match &event.prev_kv {
        Some(before) => format!("  (was {})", output::readable(&before.value)),
        None => String::new(),
    };
    if event.r#type == EventType::Delete as i32 {
        format!("{:>8}  DELETE  {key}{before}\n", kv.mod_revision)
    } else {
        format!(
            "{:>8}  PUT     {key}  {}{before}\n",
            kv.mod_revision,
            output::readable(&kv.value)
        )
    }
}
