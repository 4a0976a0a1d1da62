//! `status` and `member list`.

use quorate_proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{MemberListRequest, MemberListResponse, StatusRequest, StatusResponse};
use quorate_proto::json;

use super::{Call, Cluster, Failure, Fault};
use crate::args::{ClientArgs, Output};
use crate::output;

/// The status of one endpoint.
pub async fn status_at(cluster: &Cluster, endpoint: &str) -> Result<StatusResponse, Fault> {
    let call = |channel| async move {
        let answer = MaintenanceClient::new(channel).status(StatusRequest {}).await;
        answer.map(tonic::Response::into_inner)
    };
    cluster.call_at(endpoint, Call::Read, call).await
}

/// `quorate status`: every endpoint is asked; one that does not answer is shown, and fails the command.
pub async fn status(args: ClientArgs) -> Result<(), Failure> {
    let cluster = Cluster::new(&args)?;
    let mut answers = Vec::new();
    let mut failed = Vec::new();
    for endpoint in cluster.endpoints() {
        match status_at(&cluster, endpoint).await {
            Ok(status) => answers.push((endpoint, status)),
            Err(fault) => failed.push(format!("{endpoint}: {}", fault.text())),
        }
    }
    match args.output {
        Output::Json => {
            let texts: Vec<String> = answers.iter().map(|(at, status)| as_json(at, status)).collect();
            output::print(format!("[{}]\n", texts.join(",")).as_bytes());
        }
        Output::Table if answers.is_empty() => {}
        Output::Table => {
            let headings = [
                "ENDPOINT", "MEMBER", "VERSION", "STORE", "ROLE", "TERM", "COMMIT", "APPLIED", "BEHIND",
                "ERRORS",
            ];
            // Measured against the furthest of those that were asked.
            let furthest = answers.iter().map(|(_, status)| status.raft_index).max();
            let furthest = furthest.unwrap_or_default();
            let rows: Vec<Vec<String>> = answers
                .iter()
                .map(|(at, status)| row(at, status, furthest))
                .collect();
            output::print(output::table(&headings, &rows, output::styled()).as_bytes());
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Failure::unreachable(failed.join("\n")))
    }
}

/// One object an endpoint, in etcdctl's shape.
fn as_json(endpoint: &str, status: &StatusResponse) -> String {
    let status = String::from_utf8_lossy(&json::encode(status)).into_owned();
    format!(
        "{{\"Endpoint\":{},\"Status\":{status}}}",
        serde_json::Value::from(endpoint)
    )
}

/// A member's role in a word or two.
pub fn role(status: &StatusResponse) -> &'static str {
    let member = status.header.as_ref().map_or(0, |header| header.member_id);
    match status.leader {
        0 => "no leader",
        leader if leader == member => "leader",
        _ if status.is_learner => "learner",
        _ => "follower",
    }
}

fn row(endpoint: &str, status: &StatusResponse, furthest: u64) -> Vec<String> {
    let member = status.header.as_ref().map_or(0, |header| header.member_id);
    let role = role(status);
    let behind = match furthest.saturating_sub(status.raft_applied_index) {
        0 => "-".to_owned(),
        entries => entries.to_string(),
    };
    let errors = if status.errors.is_empty() {
        "-".to_owned()
    } else {
        status.errors.join("; ")
    };
    vec![
        endpoint.to_owned(),
        format!("{member:x}"),
        status.version.clone(),
        output::size(status.db_size),
        role.to_owned(),
        status.raft_term.to_string(),
        status.raft_index.to_string(),
        status.raft_applied_index.to_string(),
        behind,
        errors,
    ]
}

/// The members as a majority knows them.
pub async fn listed(cluster: &Cluster) -> Result<MemberListResponse, Failure> {
    let call = |channel| async move {
        let request = MemberListRequest { linearizable: true };
        ClusterClient::new(channel)
            .member_list(request)
            .await
            .map(tonic::Response::into_inner)
    };
    cluster.call(Call::Read, call).await
}

/// `quorate member list`
pub async fn list(args: ClientArgs) -> Result<(), Failure> {
    let cluster = Cluster::new(&args)?;
    let answer = listed(&cluster).await?;
    match args.output {
        Output::Json => {
            let mut text = json::encode(&answer);
            text.push(b'\n');
            output::print(&text);
        }
        Output::Table => {
            let rows: Vec<Vec<String>> = answer
                .members
                .iter()
                .map(|member| {
                    vec![
                        format!("{:x}", member.id),
                        member.name.clone(),
                        member.peer_ur_ls.join(","),
                        member.client_ur_ls.join(","),
                        if member.is_learner { "learner" } else { "voter" }.to_owned(),
                    ]
                })
                .collect();
            let headings = ["MEMBER", "NAME", "PEER URLS", "CLIENT URLS", "ROLE"];
            output::print(output::table(&headings, &rows, output::styled()).as_bytes());
        }
    }
    Ok(())
}
