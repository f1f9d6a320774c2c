//! Crashes: of the servers, of the process that ran them, and of a start half-way.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use tenantry_stack::{Error, Server, Stack, down, status};

use crate::place::{
    Place, eventually, fill, first_order, is_running, kill_9, pooled, start_all, value,
};

#[tokio::test]
async fn data_survives_the_death_of_everything() {
    let place = Place::new();
    let mut stack = Stack::open(place.options()).await.unwrap();
    start_all(&mut stack).await;
    fill(&stack).await;
    // The tests' servers do not flush at commit.
    value(&stack.superuser_config(), "CHECKPOINT").await;
    for server in [Server::Pooler, Server::Replica(1), Server::Primary] {
        kill_9(stack.pid(server).unwrap());
    }
    drop(stack);

    let mut stack = Stack::open(place.options()).await.unwrap();
    start_all(&mut stack).await;
    assert_eq!(first_order(&pooled(&stack, "shop")).await.as_deref(), Some("first"));
    stack.stop().await.unwrap();
    place.expect_no_processes().await;
}

#[tokio::test]
async fn a_server_that_dies_is_reported_and_can_be_started_again() {
    let place = Place::new();
    let mut stack = Stack::open(place.without_replica()).await.unwrap();
    stack.start_primary().await.unwrap();
    kill_9(stack.pid(Server::Primary).unwrap());
    let exit = stack.wait_for_exit().await;
    assert_eq!(exit.server, Server::Primary);
    assert!(exit.how.contains("SIGKILL"), "{exit:?}");
    let message = Error::from(exit).to_string();
    assert!(message.starts_with("the primary ended on its own (signal: 9"), "{message}");
    assert_eq!(stack.pid(Server::Primary), None);

    // At once, while the dead postmaster's children may still be there.
    stack.start_primary().await.unwrap();
    stack.kill_server(Server::Primary).await.unwrap();
    stack.start_primary().await.unwrap();
    assert!(value(&stack.superuser_config(), "SELECT 1").await.is_some());
    stack.stop().await.unwrap();
}

/// A process that runs a stack and knows nothing of its fate.
async fn run_and_kill(place: &Place) {
    let mut up = place.run_apart("recovery::apart_run_until_killed");
    // The pooler is the last to start, and is noted down a moment before it answers.
    eventually("the servers", async || {
        assert_eq!(up.try_wait().unwrap(), None, "the other process failed");
        let seen = status(&place.data_dir()).await;
        seen.is_ok_and(|seen| is_running(&seen, Server::Pooler))
    })
    .await;

    let locked = Stack::open(place.options()).await.unwrap_err();
    assert!(matches!(&locked, Error::Locked { pid: Some(pid), .. } if *pid == up.id()));
    assert!(locked.hint().unwrap().contains(&up.id().to_string()));
    assert!(matches!(down(&place.data_dir()).await, Err(Error::Locked { .. })));
    assert_eq!(status(&place.data_dir()).await.unwrap().owner_pid, Some(up.id()));

    up.kill().unwrap();
    up.wait().unwrap();
    let seen = status(&place.data_dir()).await.unwrap();
    assert_eq!(seen.owner_pid, None);
    assert!(is_running(&seen, Server::Primary), "{seen:?}");
}

#[tokio::test]
#[ignore = "run, and killed, by the tests of interrupted runs"]
async fn apart_run_until_killed() {
    let Some(options) = Place::of_caller() else { return };
    let mut stack = Stack::open(options).await.unwrap();
    start_all(&mut stack).await;
    let exit = stack.wait_for_exit().await;
    panic!("{exit:?}");
}

#[tokio::test]
async fn down_stops_what_an_interrupted_run_left() {
    let place = Place::new();
    run_and_kill(&place).await;
    let stopped = down(&place.data_dir()).await.unwrap();
    let servers: Vec<Server> = stopped.iter().map(|it| it.server).collect();
    assert_eq!(servers, [Server::Pooler, Server::Replica(1), Server::Primary]);
    place.expect_no_processes().await;
    assert_eq!(down(&place.data_dir()).await.unwrap(), []);
}

#[tokio::test]
async fn open_takes_over_from_an_interrupted_run() {
    let place = Place::new();
    run_and_kill(&place).await;
    // Without its note, the postmaster is still known by its own file and its command line.
    fs::remove_file(place.data_dir().join("run/primary.pid")).unwrap();
    let mut stack = Stack::open(place.options()).await.unwrap();
    assert!(place.processes().is_empty(), "{:?}", place.processes());
    start_all(&mut stack).await;
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn down_and_status_where_there_is_nothing() {
    let place = Place::new();
    assert_eq!(down(&place.data_dir()).await.unwrap(), []);
    assert!(!is_running(&status(&place.data_dir()).await.unwrap(), Server::Primary));
    assert!(!place.data_dir().exists());
}

#[tokio::test]
async fn a_half_made_cluster_is_made_anew() {
    let place = Place::new();
    let mut stack = Stack::open(place.without_replica()).await.unwrap();
    let unfinished = stack.data_dir().join("primary.tmp");
    fs::create_dir_all(unfinished.join("base")).unwrap();
    fs::write(unfinished.join("PG_VERSION"), "15\n").unwrap();
    stack.start_primary().await.unwrap();
    assert!(!unfinished.exists());
    stack.stop().await.unwrap();
}

/// Something that has nothing to do with us, and belongs to the servers' user.
struct Bystander(Child);

impl Bystander {
    fn new(uid: u32, gid: u32) -> Self {
        let mut command = Command::new("sleep");
        command.arg("600");
        if crate::place::is_root() {
            command.uid(uid).gid(gid);
        }
        Self(command.spawn().unwrap())
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn a_process_that_got_an_old_number_is_left_alone() {
    let place = Place::new();
    let mut stack = Stack::open(place.without_replica()).await.unwrap();
    stack.start_primary().await.unwrap();
    let data = stack.data_dir().to_owned();
    let note = fs::read_to_string(data.join("run/primary.pid")).unwrap();
    let old_pid = stack.pid(Server::Primary).unwrap().to_string();
    let postmaster = fs::read_to_string(data.join("primary/postmaster.pid")).unwrap();
    stack.stop().await.unwrap();
    drop(stack);

    let owner = fs::metadata(data.join("primary")).unwrap();
    let mut bystander = Bystander::new(owner.uid(), owner.gid());
    let new_pid = bystander.0.id().to_string();
    fs::write(data.join("run/primary.pid"), note.replace(&old_pid, &new_pid)).unwrap();
    let stale = postmaster.replacen(&old_pid, &new_pid, 1);
    fs::write(data.join("primary/postmaster.pid"), stale).unwrap();

    assert!(!is_running(&status(&data).await.unwrap(), Server::Primary));
    assert_eq!(down(&data).await.unwrap(), []);
    let mut stack = Stack::open(place.without_replica()).await.unwrap();
    stack.start_primary().await.unwrap();
    assert_eq!(bystander.0.try_wait().unwrap(), None);
    stack.stop().await.unwrap();
}
