//! The operator's commands against an admin service that answers what it was told to.

mod support;

use toolpool_proto::v1;
use v1::{
    BatchStatus, CallPhase, CallStatus, CatalogueEntry, Explanation, LaneStatus, LeaseStatus,
    PhaseCount, WorkerState, WorkerStatus,
};

use support::fake_admin::{FakeAdmin, State};
use support::{Broker, json, stderr, stdout, toolpool};

fn worker(id: &str) -> WorkerStatus {
    WorkerStatus {
        worker_id: id.to_owned(),
        instance_id: format!("{id}-first"),
        version: "1.2".to_owned(),
        state: WorkerState::Connected.into(),
        slots: 4,
        slots_free: 3,
        tools: vec!["search".to_owned()],
        leases: vec![LeaseStatus {
            lease_id: 7,
            batch_id: "b-1".to_owned(),
            call_id: "call_1".to_owned(),
            tool: "search".to_owned(),
            attempt: 1,
            started: true,
            ..LeaseStatus::default()
        }],
        leases_total: 101,
        ..WorkerStatus::default()
    }
}

fn batch(number: u32) -> BatchStatus {
    BatchStatus {
        batch_id: format!("b-{number}"),
        phases: vec![PhaseCount {
            phase: CallPhase::Held.into(),
            calls: 1,
        }],
        calls: vec![CallStatus {
            call_id: format!("call_{number}"),
            tool: "order".to_owned(),
            phase: CallPhase::Held.into(),
            ..CallStatus::default()
        }],
        ..BatchStatus::default()
    }
}

fn explanation(batch: &str) -> Explanation {
    Explanation {
        batch_id: batch.to_owned(),
        call: Some(CallStatus {
            call_id: "call_1".to_owned(),
            tool: "order".to_owned(),
            phase: CallPhase::Held.into(),
            ..CallStatus::default()
        }),
        why: "Its tool has side effects, and the turn is not sealed.".to_owned(),
        lane: None,
    }
}

/// The first column of a table's rows.
fn first_column(table: &str) -> Vec<&str> {
    let lines = table.lines().skip(1);
    lines
        .filter_map(|line| line.split_whitespace().next())
        .collect()
}

#[test]
fn workers_are_listed_and_one_of_them_with_its_calls() {
    let admin = FakeAdmin::start(State {
        workers: vec![worker("w-1"), worker("w-2")],
        ..State::default()
    });
    let all = admin.run(&["workers"]);
    assert_eq!(all.status.code(), Some(0), "{}", stderr(&all));
    assert_eq!(first_column(&stdout(&all)), ["w-1", "w-2"]);

    let one = admin.run(&["workers", "w-2"]);
    assert_eq!(one.status.code(), Some(0), "{}", stderr(&one));
    let text = stdout(&one);
    assert!(!text.contains("w-1"), "{text}");
    assert!(text.contains("LEASE "), "{text}");
    assert!(text.ends_with("and 100 more\n"), "{text}");
    assert_eq!(
        json(&admin.run(&["workers", "--json"]))[1]["worker_id"],
        "w-2"
    );

    let nobody = admin.run(&["workers", "w-3"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert_eq!(stdout(&nobody), "no worker `w-3` is here\n");
    let nobody = admin.run(&["workers", "--json", "w-3"]);
    assert_eq!(
        (nobody.status.code(), json(&nobody)),
        (Some(1), serde_json::json!([]))
    );
}

#[test]
fn batches_are_listed_by_the_page_or_all() {
    let admin = FakeAdmin::start(State {
        batches: (0..2_500).map(batch).collect(),
        ..State::default()
    });
    let page = stdout(&admin.run(&["batches"]));
    assert_eq!(page.lines().count(), 1 + 50 + 1, "{page}");
    assert!(
        page.ends_with("and 2450 more; --all lists them\n"),
        "{page}"
    );
    assert!(!page.contains("call_0"), "{page}");

    let with_calls = stdout(&admin.run(&["batches", "--calls"]));
    assert!(with_calls.contains("call_19"), "{with_calls}");
    assert!(
        with_calls.ends_with("and 2480 more; --all lists them\n"),
        "{with_calls}"
    );

    let all = stdout(&admin.run(&["batches", "--all"]));
    assert_eq!(all.lines().count(), 1 + 2_500);
    assert!(all.lines().last().unwrap().starts_with("b-2499 "), "{all}");

    let one = admin.run(&["batches", "b-7", "--json"]);
    assert_eq!(json(&one)["batches"][0]["calls"][0]["call_id"], "call_7");
    let none = admin.run(&["batches", "b-none"]);
    assert_eq!(none.status.code(), Some(1));
    assert_eq!(stdout(&none), "no batch `b-none` is open\n");
}

#[test]
fn why_says_it_for_each_batch_that_has_such_a_call() {
    let admin = FakeAdmin::start(State {
        explanations: vec![explanation("b-1"), explanation("b-2")],
        ..State::default()
    });
    let both = admin.run(&["why", "call_1"]);
    assert_eq!(both.status.code(), Some(0), "{}", stderr(&both));
    assert_eq!(
        stdout(&both),
        "call_1 order in batch b-1: held\n  Its tool has side effects, and the turn is not sealed.\n\n\
         call_1 order in batch b-2: held\n  Its tool has side effects, and the turn is not sealed.\n"
    );
    let one = json(&admin.run(&["why", "--json", "--batch", "b-2", "call_1"]));
    assert_eq!(one.as_array().unwrap().len(), 1);
    assert_eq!(one[0]["call"]["phase"], "HELD");

    let twenty = (0..20).map(|number| explanation(&format!("b-{number}")));
    admin.state().explanations = twenty.collect();
    let text = stdout(&admin.run(&["why", "call_1"]));
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("and more, maybe"), "{text}");

    let none = admin.run(&["why", "call_2"]);
    assert_eq!(none.status.code(), Some(1));
    assert_eq!(stdout(&none), "no open batch has a call `call_2`\n");
}

#[test]
fn a_drain_is_asked_for_again_while_the_session_is_busy() {
    let admin = FakeAdmin::start(State {
        workers: vec![worker("w-1")],
        busy: 2,
        ..State::default()
    });
    let drained = admin.run(&["drain", "w-1"]);
    assert_eq!(drained.status.code(), Some(0), "{}", stderr(&drained));
    assert_eq!(
        stdout(&drained),
        "w-1 is draining; 101 calls are still with it\n"
    );
    assert_eq!(admin.state().workers[0].state(), WorkerState::Draining);

    let nobody = admin.run(&["drain", "w-3"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert_eq!(stdout(&nobody), "no worker `w-3` is here\n");
}

#[test]
fn how_a_time_is_given_is_in_the_usage() {
    let mut command = toolpool();
    let wrong = command.args(["drain", "--wait", "20s", "w-1"]).output();
    let wrong = wrong.unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(
        stderr(&wrong).contains("--wait[=TIME]"),
        "{}",
        stderr(&wrong)
    );
}

#[test]
fn a_drain_can_be_waited_for() {
    let admin = FakeAdmin::start(State {
        workers: vec![worker("w-1"), worker("w-2")],
        leaves_after: Some(3),
        ..State::default()
    });
    let gone = admin.run(&["drain", "w-1", "--wait"]);
    assert_eq!(gone.status.code(), Some(0), "{}", stderr(&gone));
    assert!(
        stdout(&gone).starts_with("w-1 is gone, after "),
        "{}",
        stdout(&gone)
    );

    admin.state().leaves_after = None;
    let stays = admin.run(&["drain", "--wait=100ms", "w-2"]);
    assert_eq!(stays.status.code(), Some(1), "{}", stderr(&stays));
    let text = stdout(&stays);
    assert!(
        text.starts_with("after 100 ms w-2 is draining; 101 calls are still with it\nLEASE "),
        "{text}"
    );
    // However often: a worker that has no time to answer is there.
    admin.state().silent = 4;
    let stays = admin.run(&["drain", "--json", "--wait=100ms", "w-2"]);
    assert_eq!(json(&stays)["gone"], false);
    assert_eq!(json(&stays)["worker"]["state"], "DRAINING");

    admin.state().silent = 1;
    let busy = admin.run(&["workers", "w-2"]);
    assert_eq!(busy.status.code(), Some(2), "{}", stdout(&busy));
    assert!(stderr(&busy).contains("busy"), "{}", stderr(&busy));
}

#[tokio::test]
async fn another_process_under_the_same_id_is_another_worker() {
    let admin = FakeAdmin::start(State {
        workers: vec![worker("w-1")],
        ..State::default()
    });
    let mut command = admin.command(&["drain", "w-1", "--wait=20s"]);
    let waits = tokio::task::spawn_blocking(move || command.output());
    support::eventually("it is asked to drain", async || {
        admin.state().workers[0].state() == WorkerState::Draining
    })
    .await;
    admin.state().workers = vec![WorkerStatus {
        instance_id: "another".to_owned(),
        ..worker("w-1")
    }];
    let gone = waits.await.unwrap().unwrap();
    assert_eq!(gone.status.code(), Some(0), "{}", stderr(&gone));
}

#[test]
fn top_prints_once_where_there_is_no_terminal() {
    let admin = FakeAdmin::start(State {
        workers: vec![worker("w-1")],
        lanes: vec![LaneStatus {
            entry: Some(CatalogueEntry {
                tool: Some(v1::Tool {
                    name: "search".to_owned(),
                    ..v1::Tool::default()
                }),
                ..CatalogueEntry::default()
            }),
            ..LaneStatus::default()
        }],
        batches: (0..2_500).map(batch).collect(),
        ..State::default()
    });
    let printed = admin.run(&["top"]);
    assert_eq!(printed.status.code(), Some(0), "{}", stderr(&printed));
    let text = stdout(&printed);
    let tables: Vec<_> = text.split("\n\n").collect();
    assert_eq!(first_column(tables[0]), ["search"]);
    assert_eq!(first_column(tables[1]), ["w-1"]);
    assert!(tables[2].contains("\nb-6 "), "{text}");
    assert!(tables[2].contains("\nand 2486 more\n"), "{text}");
    assert!(tables[2].contains("\nb-2493 "), "{text}");
    assert!(
        tables[2].lines().last().unwrap().starts_with("b-2499 "),
        "{text}"
    );
    assert!(!text.contains('\x1b'), "{text}");

    let asked: Vec<_> = admin
        .state()
        .asked
        .iter()
        .map(|page| page.page_size)
        .collect();
    assert_eq!(asked, [20, 20], "what lies between is not asked for");
}

#[test]
fn a_port_that_is_none_of_an_admins_is_said_to_be() {
    // Its own port for agents and workers.
    let mut broker = Broker::start(&[]);
    let mut command = toolpool();
    let wrong = command
        .args(["workers", "--admin", &broker.url])
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    let said = stderr(&wrong);
    assert!(
        said.contains("it may be the broker's port for agents and workers"),
        "{said}"
    );

    let admin = broker.admin_address();
    let mut command = toolpool();
    let wrong = command
        .args(["tools", "--broker", &format!("http://{admin}")])
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    let said = stderr(&wrong);
    assert!(said.contains("it may be the broker's admin port"), "{said}");

    // Nothing listens on this one.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut command = toolpool();
    let nobody = command
        .env("TOOLPOOL_ADMIN", free.to_string())
        .arg("top")
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(2));
    let said = stderr(&nobody);
    assert!(
        said.contains(&format!("no broker's admin port answers at http://{free}")),
        "{said}"
    );
    assert!(said.contains("kubectl port-forward"), "{said}");
}
