//! `put`, `get` and `del`.

use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse};
use quorate_proto::json;
use quorate_proto::mvccpb::KeyValue;
use tonic::transport::Channel;

use super::{Call, Cluster, Failure};
use crate::args::{DelArgs, GetArgs, KeyArgs, Output, PutArgs, SortBy};
use crate::output;

type Bytes = Vec<u8>;

/// The API's pair for a key argument: `key` and `range_end`.
pub fn range_of(keys: &KeyArgs) -> (Bytes, Bytes) {
    let key = keys.key.clone().into_bytes();
    if keys.prefix {
        // All keys of an empty prefix: from the smallest key, which is one zero byte, on.
        if key.is_empty() {
            return (vec![0], vec![0]);
        }
        let end = after_prefix(&key);
        return (key, end);
    }
    if keys.from_key {
        return (if key.is_empty() { vec![0] } else { key }, vec![0]);
    }
    (key, keys.range_end.clone().unwrap_or_default().into_bytes())
}

/// The first key behind all keys that begin with `prefix`; one zero byte ("to the end") if there is none.
fn after_prefix(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// A client without a limit of its own: the server's limits are the ones that count.
fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(usize::MAX)
}

fn print_json<M: prost::Message + prost::Name>(message: &M) {
    let mut text = json::encode(message);
    text.push(b'\n');
    output::print(&text);
}

fn table_of(pairs: &[KeyValue], keys_only: bool) -> String {
    let mut headings = vec!["KEY", "VALUE", "CREATED", "MODIFIED", "VERSION", "LEASE"];
    if keys_only {
        headings.remove(1);
    }
    let rows: Vec<Vec<String>> = pairs
        .iter()
        .map(|pair| {
            let mut row = vec![
                output::readable(&pair.key),
                output::readable(&pair.value),
                pair.create_revision.to_string(),
                pair.mod_revision.to_string(),
                pair.version.to_string(),
                if pair.lease == 0 {
                    "-".to_owned()
                } else {
                    format!("{:x}", pair.lease)
                },
            ];
            if keys_only {
                row.remove(1);
            }
            row
        })
        .collect();
    output::table(&headings, &rows, output::styled())
}

/// `quorate put`
pub async fn put(args: PutArgs) -> Result<(), Failure> {
    let value = match args.value {
        Some(value) => value.into_bytes(),
        None => read_stdin()?,
    };
    let request = PutRequest {
        key: args.key.into_bytes().into(),
        value: value.into(),
        lease: args.lease,
        prev_kv: args.prev_kv,
        ..PutRequest::default()
    };
    let cluster = Cluster::new(&args.client)?;
    let call = |channel| {
        let request = request.clone();
        async move { kv(channel).put(request).await.map(tonic::Response::into_inner) }
    };
    let answer = cluster.call(Call::Write, call).await?;
    match args.client.output {
        Output::Json => print_json(&answer),
        Output::Table => {
            let revision = answer.header.map_or(0, |header| header.revision);
            output::print(format!("OK, revision {revision}\n").as_bytes());
            if let Some(before) = answer.prev_kv {
                output::print(table_of(&[before], false).as_bytes());
            }
        }
    }
    Ok(())
}

fn read_stdin() -> Result<Bytes, Failure> {
    use std::io::{IsTerminal, Read};
    let mut stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Err(Failure::usage(
            "put: no VALUE given, and standard input is a terminal",
        ));
    }
    let mut value = Vec::new();
    let read = stdin.read_to_end(&mut value);
    read.map_err(|error| Failure::refused(format!("standard input: {error}")))?;
    Ok(value)
}

/// `quorate get`
pub async fn get(args: GetArgs) -> Result<(), Failure> {
    let (key, range_end) = range_of(&args.keys);
    let single = range_end.is_empty();
    let sorted = args.sort_by.is_some() || args.descending;
    let order = if args.descending {
        SortOrder::Descend
    } else {
        SortOrder::Ascend
    };
    let request = RangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        limit: args.limit,
        revision: args.rev,
        sort_order: if sorted {
            order.into()
        } else {
            SortOrder::None.into()
        },
        sort_target: target(args.sort_by.unwrap_or(SortBy::Key)).into(),
        serializable: args.serializable,
        keys_only: args.keys_only,
        count_only: args.count_only,
        ..RangeRequest::default()
    };
    let cluster = Cluster::new(&args.client)?;
    let call = |channel| {
        let request = request.clone();
        async move { kv(channel).range(request).await.map(tonic::Response::into_inner) }
    };
    let answer: RangeResponse = cluster.call(Call::Read, call).await?;
    if args.print_value_only {
        for pair in &answer.kvs {
            output::print(&pair.value);
        }
    } else {
        match args.client.output {
            Output::Json => print_json(&answer),
            Output::Table if args.count_only => output::print(format!("{}\n", answer.count).as_bytes()),
            Output::Table if single && answer.kvs.is_empty() => {}
            Output::Table => output::print(table_of(&answer.kvs, args.keys_only).as_bytes()),
        }
    }
    if single && !args.count_only && answer.kvs.is_empty() {
        return Err(Failure::no_such_key());
    }
    if answer.more && args.client.output == Output::Table {
        eprintln!("{} of {} keys shown", answer.kvs.len(), answer.count);
    }
    Ok(())
}

fn target(by: SortBy) -> SortTarget {
    match by {
        SortBy::Key => SortTarget::Key,
        SortBy::Version => SortTarget::Version,
        SortBy::Create => SortTarget::Create,
        SortBy::Mod => SortTarget::Mod,
        SortBy::Value => SortTarget::Value,
    }
}

/// `quorate del`
pub async fn del(args: DelArgs) -> Result<(), Failure> {
    let (key, range_end) = range_of(&args.keys);
    let request = DeleteRangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        prev_kv: args.prev_kv,
    };
    let cluster = Cluster::new(&args.client)?;
    let call = |channel| {
        let request = request.clone();
        async move {
            kv(channel)
                .delete_range(request)
                .await
                .map(tonic::Response::into_inner)
        }
    };
    let answer = cluster.call(Call::Write, call).await?;
    match args.client.output {
        Output::Json => print_json(&answer),
        Output::Table => {
            let keys = if answer.deleted == 1 { "key" } else { "keys" };
            output::print(format!("{} {keys} deleted\n", answer.deleted).as_bytes());
            if !answer.prev_kvs.is_empty() {
                output::print(table_of(&answer.prev_kvs, false).as_bytes());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(key: &str) -> KeyArgs {
        KeyArgs {
            key: key.to_owned(),
            range_end: None,
            prefix: false,
            from_key: false,
        }
    }

    #[test]
    fn key_arguments_become_ranges() {
        let pair = |key: &[u8], end: &[u8]| (key.to_vec(), end.to_vec());
        assert_eq!(range_of(&keys("a")), pair(b"a", b""));
        assert_eq!(
            range_of(&KeyArgs {
                range_end: Some("c".into()),
                ..keys("a")
            }),
            pair(b"a", b"c")
        );
        assert_eq!(
            range_of(&KeyArgs {
                prefix: true,
                ..keys("ab")
            }),
            pair(b"ab", b"ac")
        );
        assert_eq!(
            range_of(&KeyArgs {
                prefix: true,
                ..keys("")
            }),
            pair(&[0], &[0])
        );
        assert_eq!(
            range_of(&KeyArgs {
                from_key: true,
                ..keys("b")
            }),
            pair(b"b", &[0])
        );
        assert_eq!(after_prefix(&[b'a', 0xff]), b"b");
        assert_eq!(after_prefix(&[0xff, 0xff]), [0]);
    }
}
