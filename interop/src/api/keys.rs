//! Keys: puts, ranges, deletes, transactions, old revisions.

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp,
};

use super::{refusal, revision, same};
use crate::Result;

pub(super) async fn put_and_get(client: &mut Client) -> Result {
    let first = revision(client.put("i/a", "1", None).await?.header())?;
    let answer = client
        .put("i/a", "2", Some(PutOptions::new().with_prev_key()))
        .await?;
    same!(answer.prev_key().ok_or("no previous pair")?.value(), b"1");
    same!(revision(answer.header())?, first + 1);
    let answer = client.get("i/a", None).await?;
    let pair = &answer.kvs()[0];
    same!(pair.value(), b"2");
    same!(
        (pair.create_revision(), pair.mod_revision(), pair.version()),
        (first, first + 1, 2)
    );
    let answer = client
        .put("i/a", "", Some(PutOptions::new().with_ignore_value()))
        .await?;
    same!(revision(answer.header())?, first + 2);
    same!(client.get("i/a", None).await?.kvs()[0].value(), b"2");
    same!(client.get("i/absent", None).await?.count(), 0);
    let bytes: Vec<u8> = (0..=255).collect();
    client.put("i/bytes", bytes.clone(), None).await?;
    same!(client.get("i/bytes", None).await?.kvs()[0].value(), bytes);
    Ok(())
}

async fn fill(client: &mut Client, prefix: &str, count: usize) -> Result<i64> {
    let mut last = 0;
    for n in 0..count {
        let answer = client
            .put(format!("{prefix}{n}"), format!("{}", 9 - n), None)
            .await?;
        last = revision(answer.header())?;
    }
    Ok(last)
}

fn keys(answer: &etcd_client::GetResponse) -> Vec<String> {
    answer
        .kvs()
        .iter()
        .map(|pair| String::from_utf8_lossy(pair.key()).into_owned())
        .collect()
}

pub(super) async fn ranges(client: &mut Client) -> Result {
    fill(client, "i/r/", 5).await?;
    let answer = client.get("i/r/", Some(GetOptions::new().with_prefix())).await?;
    same!((answer.count(), answer.kvs().len(), answer.more()), (5, 5, false));
    let answer = client
        .get("i/r/1", Some(GetOptions::new().with_range("i/r/3")))
        .await?;
    same!(keys(&answer), ["i/r/1", "i/r/2"]);
    let answer = client
        .get("i/r/", Some(GetOptions::new().with_prefix().with_keys_only()))
        .await?;
    same!(answer.kvs().iter().all(|pair| pair.value().is_empty()), true);
    let answer = client
        .get("i/r/", Some(GetOptions::new().with_prefix().with_count_only()))
        .await?;
    same!((answer.count(), answer.kvs().len()), (5, 0));
    let answer = client
        .get("i/r/4", Some(GetOptions::new().with_from_key()))
        .await?;
    same!(keys(&answer)[0], "i/r/4");
    let answer = client
        .get("i/r/2", Some(GetOptions::new().with_serializable()))
        .await?;
    same!(answer.kvs()[0].value(), b"7");
    Ok(())
}

pub(super) async fn sorting_and_limits(client: &mut Client) -> Result {
    fill(client, "i/s/", 5).await?;
    let all = || GetOptions::new().with_prefix();
    let answer = client.get("i/s/", Some(all().with_limit(2))).await?;
    same!(
        (keys(&answer), answer.more(), answer.count()),
        (vec!["i/s/0".into(), "i/s/1".into()], true, 5)
    );
    let answer = client
        .get(
            "i/s/",
            Some(all().with_sort(SortTarget::Key, SortOrder::Descend).with_limit(2)),
        )
        .await?;
    same!(keys(&answer), ["i/s/4", "i/s/3"]);
    let answer = client
        .get(
            "i/s/",
            Some(
                all()
                    .with_sort(SortTarget::Value, SortOrder::Ascend)
                    .with_limit(1),
            ),
        )
        .await?;
    same!(keys(&answer), ["i/s/4"]);
    let middle = client.get("i/s/2", None).await?.kvs()[0].mod_revision();
    let answer = client
        .get("i/s/", Some(all().with_min_mod_revision(middle).with_limit(2)))
        .await?;
    same!(
        (keys(&answer), answer.count()),
        (vec!["i/s/2".into(), "i/s/3".into()], 5)
    );
    let answer = client
        .get("i/s/", Some(all().with_max_create_revision(middle)))
        .await?;
    same!(keys(&answer), ["i/s/0", "i/s/1", "i/s/2"]);
    Ok(())
}

pub(super) async fn deletes(client: &mut Client) -> Result {
    let before = fill(client, "i/d/", 4).await?;
    let answer = client.delete("i/d/absent", None).await?;
    same!((answer.deleted(), revision(answer.header())?), (0, before));
    let options = DeleteOptions::new().with_range("i/d/2").with_prev_key();
    let answer = client.delete("i/d/0", Some(options)).await?;
    same!(
        (
            answer.deleted(),
            answer.prev_kvs().len(),
            revision(answer.header())?
        ),
        (2, 2, before + 1)
    );
    same!(answer.prev_kvs()[1].value(), b"8");
    let answer = client
        .delete("i/d/", Some(DeleteOptions::new().with_prefix()))
        .await?;
    same!(answer.deleted(), 2);
    client.put("i/d/0", "again", None).await?;
    same!(client.get("i/d/0", None).await?.kvs()[0].version(), 1);
    Ok(())
}

pub(super) async fn transactions(client: &mut Client) -> Result {
    client.put("i/t/a", "1", None).await?;
    let at = client.get("i/t/a", None).await?.kvs()[0].mod_revision();
    let swap = |expected: i64| {
        Txn::new()
            .when([Compare::mod_revision("i/t/a", CompareOp::Equal, expected)])
            .and_then([TxnOp::put("i/t/a", "2", None), TxnOp::put("i/t/b", "3", None)])
            .or_else([TxnOp::get("i/t/a", None)])
    };
    let answer = client.txn(swap(at)).await?;
    same!((answer.succeeded(), revision(answer.header())?), (true, at + 1));
    let pairs = client.get("i/t/", Some(GetOptions::new().with_prefix())).await?;
    same!(pairs.kvs().iter().all(|pair| pair.mod_revision() == at + 1), true);
    let answer = client.txn(swap(at)).await?;
    same!(
        (
            answer.succeeded(),
            answer.op_responses().len(),
            revision(answer.header())?
        ),
        (false, 1, at + 1)
    );
    for (compare, holds) in [
        (Compare::value("i/t/a", CompareOp::Equal, "2"), true),
        (Compare::value("i/t/a", CompareOp::Greater, "2"), false),
        (Compare::value("i/t/absent", CompareOp::NotEqual, "x"), false),
        (Compare::version("i/t/absent", CompareOp::Equal, 0), true),
        (Compare::version("i/t/a", CompareOp::Greater, 1), true),
        (Compare::create_revision("i/t/b", CompareOp::Less, at + 1), false),
        (Compare::lease("i/t/a", CompareOp::Equal, 0), true),
        (
            Compare::mod_revision("i/t/", CompareOp::Equal, at + 1).with_prefix(),
            true,
        ),
        (
            Compare::create_revision("i/t/", CompareOp::Equal, at + 1).with_prefix(),
            false,
        ),
    ] {
        let answer = client.txn(Txn::new().when([compare.clone()])).await?;
        if answer.succeeded() != holds {
            return Err(format!("{compare:?} is {}", answer.succeeded()).into());
        }
    }
    Ok(())
}

pub(super) async fn nested_transactions(client: &mut Client) -> Result {
    client.put("i/n/a", "1", None).await?;
    let inner = Txn::new()
        .when([Compare::version("i/n/b", CompareOp::Equal, 0)])
        .and_then([TxnOp::put("i/n/b", "made", None)])
        .or_else([TxnOp::delete("i/n/b", None)]);
    let outer = || {
        Txn::new()
            .when([Compare::value("i/n/a", CompareOp::Equal, "0")])
            .and_then([TxnOp::put("i/n/c", "x", None)])
            .or_else([TxnOp::txn(inner.clone()), TxnOp::get("i/n/b", None)])
    };
    let answer = client.txn(outer()).await?;
    same!((answer.succeeded(), answer.op_responses().len()), (false, 2));
    same!(client.get("i/n/b", None).await?.kvs()[0].value(), b"made");
    client.txn(outer()).await?;
    same!(client.get("i/n/b", None).await?.count(), 0);
    Ok(())
}

pub(super) async fn old_revisions(client: &mut Client) -> Result {
    client.put("i/o", "old", None).await?;
    let old = client.get("i/o", None).await?.kvs()[0].mod_revision();
    client.put("i/o", "new", None).await?;
    let at = |revision| Some(GetOptions::new().with_revision(revision));
    same!(client.get("i/o", at(old)).await?.kvs()[0].value(), b"old");
    same!(client.get("i/o", at(old - 1)).await?.count(), 0);
    same!(
        refusal(client.get("i/o", at(old + 1_000_000)).await)?,
        "OutOfRange: etcdserver: mvcc: required revision is a future revision"
    );
    client.compact(old + 1, None).await?;
    same!(client.get("i/o", at(old + 1)).await?.kvs()[0].value(), b"new");
    same!(
        refusal(client.get("i/o", at(old)).await)?,
        "OutOfRange: etcdserver: mvcc: required revision has been compacted"
    );
    same!(
        refusal(client.compact(old + 1, None).await)?,
        "OutOfRange: etcdserver: mvcc: required revision has been compacted"
    );
    Ok(())
}

pub(super) async fn errors(client: &mut Client) -> Result {
    same!(
        refusal(client.put("", "x", None).await)?,
        "InvalidArgument: etcdserver: key is not provided"
    );
    same!(
        refusal(
            client
                .put("i/e", "", Some(PutOptions::new().with_ignore_value()))
                .await
        )?,
        "InvalidArgument: etcdserver: key not found"
    );
    same!(
        refusal(
            client
                .put("i/e", "", Some(PutOptions::new().with_lease(4_711)))
                .await
        )?,
        "NotFound: etcdserver: requested lease not found"
    );
    let twice = Txn::new().and_then([TxnOp::put("i/e", "1", None), TxnOp::put("i/e", "2", None)]);
    same!(
        refusal(client.txn(twice).await)?,
        "InvalidArgument: etcdserver: duplicate key given in txn request"
    );
    let many: Vec<TxnOp> = (0..129).map(|n| TxnOp::get(format!("i/e/{n}"), None)).collect();
    same!(
        refusal(client.txn(Txn::new().and_then(many)).await)?,
        "InvalidArgument: etcdserver: too many operations in txn request"
    );
    same!(
        refusal(client.put("i/e", vec![0; 1_572_865], None).await)?,
        "InvalidArgument: etcdserver: request is too large"
    );
    same!(
        refusal(client.lease_revoke(4_711).await)?,
        "NotFound: etcdserver: requested lease not found"
    );
    Ok(())
}
