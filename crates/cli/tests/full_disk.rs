//! A full disk: writes are refused with a clear error, reads and deletes go on, nothing acknowledged is lost, and with
//! room again, and the alarm cleared, all goes on. Needs a small file system of its own, which only root can mount: skipped elsewhere, required in CI.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Dir, Server, wait_for};
use quorate_proto::etcdserverpb::alarm_request::AlarmAction;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{AlarmRequest, DeleteRangeRequest, PutRequest, RangeRequest};
use tonic::Code;

/// A tmpfs, unmounted in the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, size: &str) -> Result<SmallDisk, String> {
        std::fs::create_dir_all(at).map_err(|error| error.to_string())?;
        mount(
            &["-t", "tmpfs", "-o", &format!("size={size}"), "quorate-test"],
            at,
        )?;
        Ok(SmallDisk(at.to_owned()))
    }

    fn grow(&self, size: &str) {
        mount(&["-o", &format!("remount,size={size}")], &self.0).expect("the disk grows");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(args: &[&str], at: &Path) -> Result<(), String> {
    let output = Command::new("mount")
        .args(args)
        .arg(at)
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

fn request(n: usize) -> PutRequest {
    let value = vec![(n % 251) as u8; 512 << 10];
    PutRequest {
        key: key(n).into(),
        value: value.into(),
        ..PutRequest::default()
    }
}

fn key(n: usize) -> Vec<u8> {
    format!("fill/{n:06}").into_bytes()
}

async fn check(server: &Server, acknowledged: &[usize]) {
    let mut kv = server.kv().await;
    for n in acknowledged {
        let range = RangeRequest {
            key: key(*n).into(),
            ..RangeRequest::default()
        };
        let answer = kv.range(range).await.expect("reads are served").into_inner();
        assert_eq!(answer.kvs.len(), 1, "{n} was acknowledged");
        assert_eq!(answer.kvs[0].value, request(*n).value, "{n}");
    }
}

/// Clears all alarms, one by one: each names its member.
async fn disarm(server: &Server) {
    let mut client = MaintenanceClient::new(server.try_channel().await.expect("a connection"));
    let list = AlarmRequest {
        action: AlarmAction::Get.into(),
        ..AlarmRequest::default()
    };
    let raised = client
        .alarm(list)
        .await
        .expect("alarms are listed")
        .into_inner()
        .alarms;
    for alarm in raised {
        let clear = AlarmRequest {
            action: AlarmAction::Deactivate.into(),
            member_id: alarm.member_id,
            alarm: alarm.alarm,
        };
        client.alarm(clear).await.expect("the alarm is cleared");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_loses_nothing() {
    let dir = Dir::new("full");
    let disk = match SmallDisk::mount(&dir.path().join("disk"), "320m") {
        Ok(disk) => disk,
        Err(why) => {
            println!("skipped: a small file system cannot be mounted here: {why}");
            assert!(std::env::var_os("CI").is_none(), "required in CI");
            return;
        }
    };
    let mut server = Server::single(&disk.0, &[]);
    server.log = dir.path().join("n1.log");
    server.start_and_serve().await;

    let mut acknowledged = Vec::new();
    let mut kv = server.kv().await;
    let refusal = loop {
        let n = acknowledged.len();
        assert!(n < 4_000, "2 GB were acknowledged on a disk of 320 MB");
        match kv.put(request(n)).await {
            Ok(_) => acknowledged.push(n),
            Err(status) => break status,
        }
    };
    println!("{} puts of 512 KiB, then: {refusal}", acknowledged.len());
    assert!(!acknowledged.is_empty());
    assert_eq!(
        (refusal.code(), refusal.message()),
        (
            Code::ResourceExhausted,
            "etcdserver: mvcc: database space exceeded"
        ),
        "{}",
        server.log_text()
    );
    check(&server, &acknowledged).await;
    assert!(server.ended().is_none(), "the server still runs");

    let delete = DeleteRangeRequest {
        key: key(0).into(),
        ..DeleteRangeRequest::default()
    };
    let deleted = kv
        .delete_range(delete)
        .await
        .expect("deletes are served")
        .into_inner()
        .deleted;
    assert_eq!((deleted, acknowledged.remove(0)), (1, 0));

    disk.grow("1g");
    let next = acknowledged.len() + 1;
    wait_for("writes to be accepted again", async || {
        // As with etcd the alarm stays until an operator clears it, and comes again if there is still no room.
        disarm(&server).await;
        kv.put(request(next)).await.ok()
    })
    .await;
    acknowledged.push(next);
    server.kill();
    server.start_and_serve().await;
    check(&server, &acknowledged).await;
}
