//! `member add`, `remove`, `promote` and `update`: one call each. What takes several steps is in [`super::replace`].

use quorate_proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberPromoteRequest, MemberPromoteResponse,
    MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest, ResponseHeader,
};
use quorate_proto::json;

use super::{Call, Cluster, Failure, members};
use crate::args::{AddArgs, MemberArgs, Output, UpdateArgs};
use crate::output;
use crate::urls::Url;

/// `quorate member add`
pub async fn add(args: AddArgs) -> Result<(), Failure> {
    let cluster = Cluster::new(&args.client)?;
    let urls = peer_urls(&args.peer_urls)?;
    let answer = call_add(&cluster, &urls, args.learner).await?;
    let id = answer.member.as_ref().map_or(0, |member| member.id);
    let text = || {
        let kind = if args.learner { "added as learner" } else { "added" };
        format!(
            "Member {id:x} {kind} to cluster {:x}\n\n{}",
            cluster_id(&answer.header),
            environment(&args.name, id, &answer.members)
        )
    };
    print(args.client.output, &answer, text);
    Ok(())
}

/// `quorate member remove`
pub async fn remove(args: MemberArgs) -> Result<(), Failure> {
    let cluster = Cluster::new(&args.client)?;
    let id = find(&cluster, &args.member).await?;
    let answer = call_remove(&cluster, id).await?;
    let text = || {
        let cluster = cluster_id(&answer.header);
        format!("Member {id:x} removed from cluster {cluster:x}\n")
    };
    print(args.client.output, &answer, text);
    Ok(())
}

/// `quorate member promote`
pub async fn promote(args: MemberArgs) -> Result<(), Failure> {
    let cluster = Cluster::new(&args.client)?;
    let id = find(&cluster, &args.member).await?;
    let answer = call_promote(&cluster, id).await?;
    let text = || {
        let cluster = cluster_id(&answer.header);
        format!("Member {id:x} promoted in cluster {cluster:x}\n")
    };
    print(args.client.output, &answer, text);
    Ok(())
}

/// `quorate member update`
pub async fn update(args: UpdateArgs) -> Result<(), Failure> {
    let cluster = Cluster::new(&args.client)?;
    let urls = peer_urls(&args.peer_urls)?;
    let id = find(&cluster, &args.member).await?;
    let call = |channel| {
        let request = MemberUpdateRequest {
            id,
            peer_ur_ls: urls.clone(),
        };
        async move {
            let answer = ClusterClient::new(channel).member_update(request).await;
            answer.map(tonic::Response::into_inner)
        }
    };
    let answer = cluster.call(Call::Write, call).await?;
    let text = || {
        let cluster = cluster_id(&answer.header);
        format!("Member {id:x} updated in cluster {cluster:x}\n")
    };
    print(args.client.output, &answer, text);
    Ok(())
}

/// Asks the cluster to add a member.
pub async fn call_add(
    cluster: &Cluster,
    urls: &[String],
    learner: bool,
) -> Result<MemberAddResponse, Failure> {
    let call = |channel| {
        let request = MemberAddRequest {
            peer_ur_ls: urls.to_vec(),
            is_learner: learner,
        };
        async move {
            let answer = ClusterClient::new(channel).member_add(request).await;
            answer.map(tonic::Response::into_inner)
        }
    };
    cluster.call(Call::Write, call).await
}

/// Asks the cluster to remove a member.
pub async fn call_remove(cluster: &Cluster, id: u64) -> Result<MemberRemoveResponse, Failure> {
    let call = |channel| async move {
        let request = MemberRemoveRequest { id };
        let answer = ClusterClient::new(channel).member_remove(request).await;
        answer.map(tonic::Response::into_inner)
    };
    cluster.call(Call::Write, call).await
}

/// Asks the cluster to make a learner a voter.
pub async fn call_promote(cluster: &Cluster, id: u64) -> Result<MemberPromoteResponse, Failure> {
    let call = |channel| async move {
        let request = MemberPromoteRequest { id };
        let answer = ClusterClient::new(channel).member_promote(request).await;
        answer.map(tonic::Response::into_inner)
    };
    cluster.call(Call::Write, call).await
}

/// The peer URLs of an option, in the form in which they are listed.
pub fn peer_urls(given: &[String]) -> Result<Vec<String>, Failure> {
    let parsed = given
        .iter()
        .map(|text| Url::parse(text).map(|url| url.to_string()));
    let parsed: Result<Vec<String>, _> = parsed.collect();
    parsed.map_err(|error| Failure::usage(format!("--peer-urls: {error}")))
}

/// The id of the member that is called so.
async fn find(cluster: &Cluster, called: &str) -> Result<u64, Failure> {
    let listed = members::listed(cluster).await?.members;
    match pick(&listed, called)? {
        Some(member) => Ok(member.id),
        None => Err(no_such_member(&listed, called)),
    }
}

/// The member with this name or, if there is none, with this id in hexadecimal.
pub fn pick<'a>(members: &'a [Member], called: &str) -> Result<Option<&'a Member>, Failure> {
    let mut named = members.iter().filter(|member| member.name == called);
    if let Some(member) = named.next().filter(|_| !called.is_empty()) {
        return match named.next() {
            None => Ok(Some(member)),
            Some(other) => Err(Failure::refused(format!(
                "{called:?} is the name of several members ({:x}, {:x}): say the id",
                member.id, other.id
            ))),
        };
    }
    let id = u64::from_str_radix(called, 16).ok();
    Ok(members.iter().find(|member| Some(member.id) == id))
}

/// Says who there is.
pub fn no_such_member(members: &[Member], called: &str) -> Failure {
    let all: Vec<String> = members.iter().map(describe).collect();
    Failure::refused(format!(
        "there is no member {called:?}. The members are {}",
        all.join(", ")
    ))
}

/// Name and id.
pub fn describe(member: &Member) -> String {
    match member.name.is_empty() {
        true => format!("{:x} at {}", member.id, member.peer_ur_ls.join(",")),
        false => format!("{} ({:x})", member.name, member.id),
    }
}

/// What the new member's environment must say, as etcdctl prints it.
fn environment(name: &str, id: u64, members: &[Member]) -> String {
    let new = members.iter().find(|member| member.id == id);
    let urls = new.map_or_else(String::new, |member| member.peer_ur_ls.join(","));
    format!(
        "ETCD_NAME=\"{name}\"\nETCD_INITIAL_CLUSTER=\"{}\"\nETCD_INITIAL_ADVERTISE_PEER_URLS=\"{urls}\"\n\
         ETCD_INITIAL_CLUSTER_STATE=\"existing\"\n",
        initial_cluster(name, id, members)
    )
}

/// `--initial-cluster` for a member that was just added. Members that have not been started have no names yet and are left out.
pub fn initial_cluster(name: &str, id: u64, members: &[Member]) -> String {
    let named = members.iter().flat_map(|member| {
        let name = if member.id == id { name } else { &member.name };
        member.peer_ur_ls.iter().map(move |url| (name, url))
    });
    let named = named.filter(|(name, _)| !name.is_empty());
    let parts: Vec<String> = named.map(|(name, url)| format!("{name}={url}")).collect();
    parts.join(",")
}

/// The cluster's id.
pub fn cluster_id(header: &Option<ResponseHeader>) -> u64 {
    header.as_ref().map_or(0, |header| header.cluster_id)
}

fn print<M: prost::Message + prost::Name>(form: Output, answer: &M, text: impl FnOnce() -> String) {
    match form {
        Output::Table => output::print(text().as_bytes()),
        Output::Json => {
            let mut json = json::encode(answer);
            json.push(b'\n');
            output::print(&json);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str) -> Member {
        Member {
            id,
            name: name.into(),
            peer_ur_ls: vec![format!("http://h:{id}")],
            ..Member::default()
        }
    }

    #[test]
    fn members_are_found_by_name_and_by_id() {
        let all = [
            member(0xa, "n1"),
            member(0xb, "a"),
            member(0xc, ""),
            member(0xd, "n1"),
        ];
        let found = |called| pick(&all, called).map(|found| found.map(|member| member.id));
        assert_eq!(found("a"), Ok(Some(0xb)), "a name comes before an id");
        assert_eq!(found("c"), Ok(Some(0xc)));
        assert_eq!(
            (found(""), found("n9"), found("9")),
            (Ok(None), Ok(None), Ok(None))
        );
        assert!(
            found("n1")
                .unwrap_err()
                .message
                .contains("several members (a, d)")
        );
        let said = no_such_member(&all[1..3], "x").message;
        assert!(
            said.ends_with("The members are a (b), c at http://h:12"),
            "{said}"
        );
    }

    #[test]
    fn a_new_member_is_told_of_those_that_have_names() {
        let all = [member(1, "n1"), member(2, ""), member(3, "")];
        assert_eq!(
            environment("n3", 3, &all),
            "ETCD_NAME=\"n3\"\nETCD_INITIAL_CLUSTER=\"n1=http://h:1,n3=http://h:3\"\n\
             ETCD_INITIAL_ADVERTISE_PEER_URLS=\"http://h:3\"\nETCD_INITIAL_CLUSTER_STATE=\"existing\"\n"
        );
    }
}
