//! One check a function, each on keys of its own. Knows nothing of what it talks to.

mod keys;
mod leases;
mod members;
mod watches;

use std::time::Duration;

use etcd_client::{Client, ConnectOptions, DeleteOptions};

use crate::Result;

/// Fails the check that it stands in, with both values.
macro_rules! same {
    ($left:expr, $right:expr) => {
        match (&$left, &$right) {
            (left, right) if left == right => {}
            (left, right) => return Err(format!("line {}: {left:?} is not {right:?}", line!()).into()),
        }
    };
}
use same;

/// Runs the named checks and counts.
macro_rules! run {
    ($client:expr, $count:expr, [$($check:path),* $(,)?]) => {
        $(
            let outcome = tokio::time::timeout(Duration::from_secs(30), $check($client)).await;
            match outcome {
                Ok(Ok(())) => $count.0 += 1,
                Ok(Err(error)) => {
                    $count.1 += 1;
                    println!("FAILED {}: {error}", stringify!($check));
                }
                Err(_) => {
                    $count.1 += 1;
                    println!("FAILED {}: no end after 30 s", stringify!($check));
                }
            }
        )*
    };
}

/// All checks through each endpoint: how many passed and failed.
pub async fn check(endpoints: &[String]) -> (usize, usize) {
    let mut count = (0, 0);
    for endpoint in endpoints {
        let options = ConnectOptions::new().with_connect_timeout(Duration::from_secs(5));
        let client = match Client::connect([endpoint], Some(options)).await {
            Ok(client) => client,
            Err(error) => {
                println!("FAILED to connect to {endpoint}: {error}");
                count.1 += 1;
                continue;
            }
        };
        let client = &mut client.clone();
        if let Err(error) = client
            .delete("i/", Some(DeleteOptions::new().with_prefix()))
            .await
        {
            println!("FAILED to clear the keys at {endpoint}: {error}");
            count.1 += 1;
        }
        run!(
            client,
            count,
            [
                keys::put_and_get,
                keys::ranges,
                keys::sorting_and_limits,
                keys::deletes,
                keys::transactions,
                keys::nested_transactions,
                keys::old_revisions,
                keys::errors,
                watches::watch_from_a_revision,
                watches::watch_lives,
                leases::leases,
                members::status_and_members,
                members::members_change,
            ]
        );
    }
    count
}

/// The message of the server's refusal.
fn refusal<T>(answer: std::result::Result<T, etcd_client::Error>) -> Result<String> {
    match answer {
        Ok(_) => Err("was accepted".into()),
        Err(etcd_client::Error::GRpcStatus(status)) => {
            Ok(format!("{:?}: {}", status.code(), status.message()))
        }
        Err(other) => Err(other.into()),
    }
}

fn revision(header: Option<&etcd_client::ResponseHeader>) -> Result<i64> {
    Ok(header.ok_or("an answer without header")?.revision())
}
