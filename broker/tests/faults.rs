//! Streams that are cut, outcomes that come late or twice, readers that stop, and the end under load.

mod support;

use std::time::Duration;

use support::agent::{FakeAgent, call, delta, start, whole};
use support::batch::expect;
use support::worker::{
    FakeWorker, attempts, error, once, read_only, register, side_effecting, tool,
};
use support::{A_MOMENT, Broker, millis, seconds, settle, soon, time};
use tokio::time::{Instant, sleep};
use tonic::Code;
use toolpool_proto::v1::agent_frame::Frame as FromAgent;
use toolpool_proto::v1::pool_frame::Frame;
use toolpool_proto::v1::worker_frame::Frame as FromWorker;
use toolpool_proto::v1::{self, Effect, ErrorCode, OnDisconnect};

/// A worker that has a side-effecting call, and the agent that waits for it.
async fn sending(broker: &Broker) -> (FakeWorker, FakeAgent, v1::Assignment) {
    let mut worker = broker.worker("w", 1, [side_effecting("send")]).await;
    let agent = broker.agent().await;
    agent.call("a", "send", "{}").await;
    agent.seal().await;
    let assignment = worker.assignment().await;
    (worker, agent, assignment)
}

/// The same worker, back after a break, with these leases.
fn back(running: &[u64]) -> v1::Register {
    v1::Register {
        running_leases: running.to_vec(),
        ..register("w", 1, [side_effecting("send")])
    }
}

/// Another process under the same id.
fn restarted() -> v1::Register {
    v1::Register {
        instance_id: "w-2".to_owned(),
        ..back(&[])
    }
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_comes_twice_counts_once_and_is_acknowledged_twice() {
    let broker = Broker::start();
    let (mut worker, agent, assignment) = sending(&broker).await;
    worker.answer(&assignment, "first").await;
    assert_eq!(worker.acknowledged().await, assignment.lease_id);
    worker.answer(&assignment, "second").await;
    assert_eq!(worker.acknowledged().await, assignment.lease_id);
    assert_eq!(agent.finished().await.unwrap().text("a"), "first");
}

#[tokio::test(start_paused = true)]
async fn an_outcome_of_another_attempt_is_fenced_off_and_acknowledged() {
    let broker = Broker::start();
    let mut slow = broker
        .worker("slow", 1, [tool("look_up", attempts(2))])
        .await;
    let agent = broker.agent().await;
    agent.call("a", "look_up", "{}").await;
    agent.seal().await;
    let first = slow.assignment().await;
    slow.cut();
    let mut worker = broker.worker("w", 1, [tool("look_up", attempts(2))]).await;
    let second = worker.assignment().await;
    assert_ne!(first.lease_id, second.lease_id);
    // Of the attempt that was given up, through the wrong worker's stream at that.
    worker.answer(&first, "first").await;
    assert_eq!(worker.acknowledged().await, first.lease_id);
    worker.answer(&second, "second").await;
    assert_eq!(agent.finished().await.unwrap().text("a"), "second");
}

#[tokio::test(start_paused = true)]
async fn a_late_outcome_after_its_attempts_timeout_is_fenced_off_and_frees_the_slot() {
    let broker = Broker::start();
    let policy = v1::Policy {
        attempt_timeout: Some(support::wire(seconds(1))),
        ..attempts(2)
    };
    let mut worker = broker.worker("w", 2, [tool("look_up", policy)]).await;
    let agent = broker.agent().await;
    agent.call("a", "look_up", "{}").await;
    agent.seal().await;
    let first = worker.assignment().await;
    assert_eq!(worker.cancel().await, first.lease_id);
    let second = worker.assignment().await;
    worker.answer(&first, "late").await;
    assert_eq!(worker.acknowledged().await, first.lease_id);
    worker.answer(&second, "in time").await;
    assert_eq!(agent.finished().await.unwrap().text("a"), "in time");
}

#[tokio::test(start_paused = true)]
async fn an_outcome_for_a_lease_of_another_life_of_the_broker_is_acknowledged_and_forgotten() {
    let first_life = Broker::start();
    let (_worker, agent, old) = sending(&first_life).await;
    drop(agent);
    let broker = Broker::start();
    let mut worker = broker.join(back(&[old.lease_id])).await.unwrap();
    let news = worker.news().await.unwrap();
    let revoked = Frame::Revoked(v1::Revoked {
        lease_id: old.lease_id,
    });
    assert_eq!(news, Some(revoked));
    let agent = broker.agent().await;
    agent.call("a", "send", "{}").await;
    agent.seal().await;
    let assignment = worker.assignment().await;
    assert_ne!(assignment.lease_id, old.lease_id);
    worker.answer(&old, "of another life").await;
    assert_eq!(worker.acknowledged().await, old.lease_id);
    worker.answer(&assignment, "of this life").await;
    assert_eq!(agent.finished().await.unwrap().text("a"), "of this life");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_comes_back_keeps_its_side_effecting_calls() {
    let broker = Broker::start();
    let (worker, agent, assignment) = sending(&broker).await;
    worker.cut();
    sleep(seconds(4)).await;
    let mut worker = broker.join(back(&[assignment.lease_id])).await.unwrap();
    // Its one slot is in use.
    let other = broker.agent().await;
    other.call("b", "send", "{}").await;
    other.seal().await;
    worker.expect_no_assignment_within(seconds(10)).await;
    worker.answer(&assignment, "sent").await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.text("a"), "sent");
    assert_eq!(batch.ledger("a").attempts, 1);
    assert_eq!(worker.assignment().await.call_id, "b");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dials_again_while_its_old_stream_seems_open_keeps_its_calls_too() {
    let broker = Broker::start();
    let (old, agent, assignment) = sending(&broker).await;
    let worker = broker.join(back(&[assignment.lease_id])).await.unwrap();
    worker.answer(&assignment, "sent").await;
    assert_eq!(agent.finished().await.unwrap().text("a"), "sent");
    drop(old);
}

#[tokio::test(start_paused = true)]
async fn a_reset_of_a_workers_stream_is_a_break_and_not_its_end() {
    let broker = Broker::start();
    let (worker, agent, assignment) = sending(&broker).await;
    worker.reset();
    sleep(seconds(4)).await;
    let worker = broker.join(back(&[assignment.lease_id])).await.unwrap();
    worker.answer(&assignment, "sent").await;
    assert_eq!(agent.finished().await.unwrap().text("a"), "sent");
}

#[tokio::test(start_paused = true)]
async fn a_half_close_of_a_workers_stream_is_its_end() {
    let broker = Broker::start();
    let (mut worker, agent, _) = sending(&broker).await;
    let closed = Instant::now();
    worker.half_close();
    let batch = agent.finished().await.unwrap();
    assert_eq!(closed.elapsed(), Duration::ZERO, "nobody waits for it");
    assert_eq!(batch.error("a").code(), ErrorCode::OutcomeUnknown);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_does_not_come_back_in_time_loses_its_calls() {
    let broker = Broker::start();
    let (worker, agent, assignment) = sending(&broker).await;
    let broke = Instant::now();
    worker.cut();
    let batch = agent.finished().await.unwrap();
    assert_eq!(broke.elapsed(), seconds(5));
    assert_eq!(batch.error("a").code(), ErrorCode::OutcomeUnknown);
    let mut worker = broker.join(back(&[assignment.lease_id])).await.unwrap();
    let revoked = worker.news().await.unwrap();
    assert!(matches!(revoked, Some(Frame::Revoked(of)) if of.lease_id == assignment.lease_id));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_given_to_another_worker_meanwhile_is_cancelled_when_its_worker_comes_back()
 {
    let broker = Broker::start();
    let look_up = || tool("look_up", attempts(2));
    let mut away = broker.worker("away", 1, [look_up()]).await;
    let agent = broker.agent().await;
    agent.call("a", "look_up", "{}").await;
    agent.seal().await;
    let first = away.assignment().await;
    away.cut();
    let mut other = broker.worker("other", 1, [look_up()]).await;
    let second = other.assignment().await;
    let back = v1::Register {
        running_leases: vec![first.lease_id],
        ..register("away", 1, [look_up()])
    };
    let mut away = broker.join(back).await.unwrap();
    assert_eq!(away.cancel().await, first.lease_id);
    let stopped = error(ErrorCode::Cancelled, "stopped");
    away.fail(&first, stopped).await;
    assert_eq!(away.acknowledged().await, first.lease_id);
    other.answer(&second, "done").await;
    assert_eq!(agent.finished().await.unwrap().text("a"), "done");
}

#[tokio::test(start_paused = true)]
async fn leases_that_nobody_knows_are_revoked_at_once() {
    let broker = Broker::start();
    let mut worker = broker.join(back(&[7, 8])).await.unwrap();
    for lease_id in [7, 8] {
        let revoked = Frame::Revoked(v1::Revoked { lease_id });
        assert_eq!(worker.news().await.unwrap(), Some(revoked));
    }
}

#[tokio::test(start_paused = true)]
async fn an_assignment_that_never_arrived_is_made_again_even_of_a_side_effecting_call() {
    let broker = Broker::start();
    let (worker, agent, lost) = sending(&broker).await;
    worker.cut();
    // The same process, and it has never heard of the lease.
    let mut worker = broker.join(back(&[])).await.unwrap();
    let again = worker.assignment().await;
    assert_eq!((again.attempt, &*again.call_id), (1, "a"));
    assert_ne!(again.lease_id, lost.lease_id);
    assert_eq!(again.idempotency_key, lost.idempotency_key);
    worker.answer(&again, "sent").await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.text("a"), "sent");
    assert_eq!(batch.ledger("a").attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_started_and_is_forgotten_is_not_made_again() {
    let broker = Broker::start();
    let (worker, agent, started) = sending(&broker).await;
    let lease_id = started.lease_id;
    worker
        .send(FromWorker::Started(v1::LeaseStarted { lease_id }))
        .await;
    settle().await;
    worker.cut();
    let mut worker = broker.join(back(&[])).await.unwrap();
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.error("a").code(), ErrorCode::OutcomeUnknown);
    worker.expect_no_assignment().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_never_arrives_is_given_up_in_the_end() {
    let broker = Broker::start();
    let (mut worker, agent, _) = sending(&broker).await;
    for _ in 1..5 {
        worker.cut();
        worker = broker.join(back(&[])).await.unwrap();
        sleep(millis(200)).await;
    }
    worker.cut();
    let worker = broker.join(back(&[])).await.unwrap();
    let batch = agent.finished().await.unwrap();
    let error = batch.error("a");
    assert_eq!(
        (error.code(), error.effect()),
        (ErrorCode::WorkerLost, Effect::NotStarted),
        "{error:?}"
    );
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn the_catalogue_comes_in_pages() {
    let broker = Broker::start();
    let names: Vec<String> = (0..25).map(|n| format!("tool-{n:02}")).collect();
    let tools = names.iter().map(|name| read_only(name)).collect::<Vec<_>>();
    let _worker = broker
        .join(v1::Register {
            tools,
            ..register("w", 1, [read_only("x")])
        })
        .await
        .unwrap();
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListToolsRequest {
            page_size: 10,
            page_token,
            ..Default::default()
        };
        let mut client = broker.client().await;
        let page = soon(client.list_tools(request)).await.unwrap().into_inner();
        assert!(page.tools.len() <= 10);
        seen.extend(page.tools.into_iter().map(|entry| entry.tool.unwrap().name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, names);
}

#[tokio::test(start_paused = true)]
async fn a_second_live_worker_under_an_id_is_refused() {
    let broker = Broker::start();
    let (worker, agent, assignment) = sending(&broker).await;
    let status = broker.join(restarted()).await.err().unwrap();
    assert_eq!(status.code(), Code::AlreadyExists, "{status:?}");
    assert!(
        status.message().contains("register.worker_id w"),
        "{status:?}"
    );
    worker.answer(&assignment, "sent").await;
    assert_eq!(agent.finished().await.unwrap().text("a"), "sent");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_worker_has_lost_its_earlier_lifes_calls_and_may_dial_again() {
    let broker = Broker::start();
    let (worker, agent, _) = sending(&broker).await;
    worker.cut();
    settle().await;
    let status = broker.join(restarted()).await.err().unwrap();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("dial again"), "{status:?}");
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.error("a").code(), ErrorCode::OutcomeUnknown);
    assert!(
        batch.elapsed() < seconds(1),
        "known before the grace is over"
    );
    let mut worker = broker.join(restarted()).await.unwrap();
    let agent = broker.agent().await;
    agent.call("a", "send", "{}").await;
    agent.seal().await;
    worker.assignment().await;
}

#[tokio::test(start_paused = true)]
async fn missed_beats_give_harmless_calls_to_another_worker_and_side_effects_a_grace() {
    let broker = Broker::start();
    let tools = || [tool("look_up", attempts(2)), side_effecting("send")];
    let mut silent = broker.worker("silent", 2, tools()).await;
    silent.go_silent();
    let agent = broker.agent().await;
    agent.call("look", "look_up", "{}").await;
    agent.call("sent", "send", "{}").await;
    agent.seal().await;
    silent.assignments(2).await;
    let went = Instant::now();
    let mut other = broker.worker("other", 2, tools()).await;
    let again = other.assignment().await;
    assert!(went.elapsed() >= seconds(15) && went.elapsed() <= seconds(20));
    assert_eq!((&*again.call_id, again.attempt), ("look", 2));
    other.answer(&again, "done").await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.text("look"), "done");
    assert_eq!(batch.error("sent").code(), ErrorCode::OutcomeUnknown);
    assert!(went.elapsed() <= seconds(25), "{:?}", went.elapsed());
    other.expect_no_assignment_within(seconds(30)).await;
}

#[tokio::test(start_paused = true)]
async fn any_packet_is_a_sign_of_life() {
    let broker = Broker::start();
    let (worker, agent, assignment) = sending(&broker).await;
    worker.go_silent();
    for _ in 0..6 {
        sleep(seconds(9)).await;
        let started = v1::LeaseStarted {
            lease_id: assignment.lease_id,
        };
        worker.send(FromWorker::Started(started)).await;
    }
    worker.answer(&assignment, "sent").await;
    assert_eq!(agent.finished().await.unwrap().text("a"), "sent");
}

#[tokio::test(start_paused = true)]
async fn the_broker_beats_too() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 1, [read_only("look_up")]).await;
    assert_eq!(time(worker.registered.beat_interval), seconds(5));
    assert_eq!(worker.registered.missed_beats, 3);
    let began = Instant::now();
    for _ in 0..3 {
        let beat = worker.link.frame().await.unwrap();
        assert!(matches!(beat, Some(Frame::Beat(_))), "{beat:?}");
    }
    assert_eq!(began.elapsed(), seconds(15));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_drains_gets_nothing_new_and_finishes_what_it_has() {
    let broker = Broker::start();
    let mut leaving = broker.worker("leaving", 2, [side_effecting("send")]).await;
    let agent = broker.agent().await;
    agent.call("a", "send", "{}").await;
    agent.seal().await;
    let assignment = leaving.assignment().await;
    leaving.drain().await;
    assert!(matches!(leaving.news().await, Ok(Some(Frame::DrainAck(_)))));
    let other = broker.agent().await;
    other.call("b", "send", "{}").await;
    other.seal().await;
    leaving.expect_no_assignment_within(seconds(5)).await;
    leaving.answer(&assignment, "sent").await;
    assert_eq!(agent.finished().await.unwrap().text("a"), "sent");
    let mut fresh = broker.worker("fresh", 1, [side_effecting("send")]).await;
    assert_eq!(fresh.assignment().await.call_id, "b");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_drains_takes_no_new_batches_and_finishes_open_ones() {
    let broker = Broker::start();
    let tools = [read_only("look_up"), side_effecting("send")];
    let worker = broker.worker("w", 4, tools).await.serve(seconds(1));
    let mut agents = Vec::new();
    for _ in 0..8 {
        let agent = broker.agent().await;
        agent.call("a", "look_up", "{}").await;
        agent.call("b", "send", "{}").await;
        agents.push(agent);
    }
    settle().await;
    broker.shutdown.drain.cancel();
    settle().await;
    let status = broker.open(v1::Open::default()).await.err().unwrap();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("draining"), "{status:?}");
    let request = v1::ExecuteBatchRequest::default();
    let status = broker.execute_batch(request).await.err().unwrap();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    for agent in agents {
        agent.call("c", "look_up", "{}").await;
        agent.seal().await;
        let batch = agent.finished().await.unwrap();
        assert_eq!(batch.succeeded(), ["a", "b", "c"]);
    }
    assert_eq!(worker.count(), 24);
    let ended = soon(broker.server).await.unwrap();
    assert!(ended.is_ok(), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn workers_are_told_of_a_drain_and_their_streams_end_in_good_order() {
    let broker = Broker::start();
    let (mut worker, agent, assignment) = sending(&broker).await;
    broker.shutdown.drain.cancel();
    assert!(matches!(worker.news().await, Ok(Some(Frame::Drain(_)))));
    // One that joins now is needed all the same, and told at once.
    let mut late = broker.worker("late", 1, [read_only("look_up")]).await;
    assert!(matches!(late.news().await, Ok(Some(Frame::Drain(_)))));
    worker.answer(&assignment, "sent").await;
    assert_eq!(agent.finished().await.unwrap().text("a"), "sent");
    worker.ended().await.unwrap();
    late.ended().await.unwrap();
    assert!(soon(broker.server).await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn when_the_grace_is_over_every_open_batch_is_delivered_with_what_it_has() {
    let broker = Broker::start_with(|config| config.drain_grace = seconds(3));
    let tools = [tool("look_up", attempts(3)), side_effecting("send")];
    let mut worker = broker.worker("w", 2, tools).await;
    let mut agents = Vec::new();
    for _ in 0..5 {
        let agent = broker.agent().await;
        agent.call("a", "look_up", "{}").await;
        agent.call("b", "look_up", "{}").await;
        agents.push(agent);
    }
    let assignments = worker.assignments(2).await;
    let asked = Instant::now();
    broker.shutdown.drain.cancel();
    sleep(seconds(1)).await;
    worker.answer(&assignments[0], "done").await;
    let mut succeeded = 0;
    for agent in agents {
        let batch = agent.finished().await.unwrap();
        assert_eq!(batch.results.len(), 2);
        for result in &batch.results {
            if batch.succeeded().contains(&&*result.id) {
                succeeded += 1;
            } else {
                assert_eq!(batch.error(&result.id).code(), ErrorCode::Cancelled);
            }
        }
    }
    assert_eq!((succeeded, asked.elapsed()), (1, seconds(3)));
    assert!(soon(broker.server).await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_second_word_ends_the_broker_at_once() {
    let broker = Broker::start();
    let (_worker, _agent, _) = sending(&broker).await;
    broker.shutdown.drain.cancel();
    sleep(seconds(1)).await;
    let asked = Instant::now();
    broker.shutdown.now.cancel();
    assert!(soon(broker.server).await.unwrap().is_ok());
    assert_eq!(asked.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_finished_batch_waits_for_its_reader_but_not_for_ever() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 40, [read_only("look_up")]).await;
    let mine = || v1::Open {
        batch_id: Some("mine".to_owned()),
        ..Default::default()
    };
    let agent = broker.agent_with(mine()).await;
    for n in 0..40 {
        agent.call(&n.to_string(), "look_up", "{}").await;
    }
    agent.seal().await;
    for assignment in worker.assignments(40).await {
        worker.answer(&assignment, &"a".repeat(1_100_000)).await;
    }
    sleep(seconds(20)).await;
    let taken = broker.open(mine()).await.err().unwrap();
    assert_eq!(taken.code(), Code::AlreadyExists);
    sleep(seconds(20)).await;
    broker.agent_with(mine()).await;
    drop(agent);
}

#[tokio::test(start_paused = true)]
async fn a_large_finished_batch_comes_whole_to_a_slow_reader() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 9, [read_only("look_up")]).await;
    let agent = broker.agent().await;
    for n in 0..9 {
        agent.call(&n.to_string(), "look_up", "{}").await;
    }
    agent.seal().await;
    for assignment in worker.assignments(9).await {
        worker.answer(&assignment, &"a".repeat(3_000_000)).await;
    }
    sleep(seconds(20)).await;
    assert_eq!(agent.finished().await.unwrap().succeeded().len(), 9);
}

#[tokio::test(start_paused = true)]
async fn silence_in_the_middle_of_a_block_truncates_the_turn() {
    let broker = Broker::start();
    let tools = [read_only("look_up"), side_effecting("send")];
    let mut worker = broker.worker("w", 9, tools).await;
    let agent = broker.agent().await;
    agent.call("runs", "look_up", "{}").await;
    agent.call("held", "send", "{}").await;
    let runs = worker.assignment().await;
    worker.answer(&runs, "done").await;
    // Silence between blocks is a model that thinks.
    sleep(seconds(200)).await;
    agent.start(0, "open", "look_up").await;
    sleep(seconds(100)).await;
    agent.delta(0, "{").await;
    settle().await;
    let batch = agent.finished().await.unwrap();
    let elapsed = batch.elapsed();
    assert!(
        elapsed >= seconds(420) && elapsed < seconds(421),
        "{elapsed:?}"
    );
    assert_eq!(batch.succeeded(), ["runs"]);
    let try_again = (true, Effect::NotStarted);
    let open = batch.error("open");
    expect(
        open,
        ErrorCode::Incomplete,
        try_again,
        &["look_up", "fell silent"],
    );
    expect(
        batch.error("held"),
        ErrorCode::TruncatedTurn,
        try_again,
        &["send"],
    );
    worker.expect_no_assignment().await;
}

#[tokio::test(start_paused = true)]
async fn an_agents_breach_of_the_protocol_is_refused_with_the_fields_name() {
    let broker = Broker::start();
    let _worker = broker.worker("w", 9, [read_only("look_up")]).await;
    let stop = || FromAgent::BlockStop(v1::BlockStop { index: 3 });
    let key = v1::Call {
        idempotency_key: Some(String::new()),
        ..whole("a", "look_up", "{}")
    };
    let seal = v1::Seal { turn_end: Some(0) };
    let breaches: [(&str, Vec<FromAgent>); 9] = [
        ("block_delta.index 3", vec![delta(3, "{}")]),
        ("block_stop.index 3", vec![stop()]),
        (
            "block_start.index 3",
            vec![start(3, "a", "x"), start(3, "b", "x")],
        ),
        ("block_start.id", vec![start(0, "", "look_up")]),
        ("call.id", vec![call(&"a".repeat(257), "look_up", "{}")]),
        ("call.idempotency_key", vec![FromAgent::Call(key)]),
        ("seal.turn_end", vec![FromAgent::Seal(seal)]),
        ("open", vec![FromAgent::Open(v1::Open::default())]),
        (
            "seal",
            vec![FromAgent::Seal(v1::Seal { turn_end: None }), stop()],
        ),
    ];
    for (field, frames) in breaches {
        let agent = broker.agent().await;
        let sent = Instant::now();
        agent.send_all(frames.clone()).await;
        let status = agent.refused().await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains(field), "{field}: {status:?}");
        assert_eq!(sent.elapsed(), Duration::ZERO, "{field}");

        let mut first = vec![FromAgent::Open(v1::Open::default())];
        first.extend(frames);
        let status = match broker.open_with(first, |_| ()).await {
            Err(status) => status,
            Ok(agent) => agent.refused().await,
        };
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains(field), "{field}: {status:?}");
        assert_eq!(
            sent.elapsed(),
            Duration::ZERO,
            "{field}, in the first packet"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_opening_that_breaks_the_protocol_is_refused_with_the_fields_name() {
    let broker = Broker::start();
    let negative = prost_types::Duration {
        seconds: -1,
        nanos: 0,
    };
    let open = |change: fn(&mut v1::Open)| {
        let mut open = v1::Open::default();
        change(&mut open);
        open
    };
    let late = v1::Open {
        deadline: Some(negative),
        ..Default::default()
    };
    let openings = [
        (
            "open.batch_id",
            open(|open| open.batch_id = Some(String::new())),
        ),
        (
            "open.batch_id",
            open(|open| open.batch_id = Some("a b".to_owned())),
        ),
        (
            "open.max_parallel",
            open(|open| open.max_parallel = Some(0)),
        ),
        (
            "open.on_disconnect",
            open(|open| open.on_disconnect = Some(0)),
        ),
        ("open.deadline", late),
    ];
    for (field, opening) in openings {
        let status = broker.open(opening).await.err().unwrap();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains(field), "{field}: {status:?}");
    }
    let first = vec![call("a", "look_up", "{}")];
    let status = broker.open_with(first, |_| ()).await.err().unwrap();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(status.message().contains("open"), "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_breaks_the_protocol_has_what_runs_called_off() {
    let broker = Broker::start();
    let tools = [read_only("look_up"), side_effecting("send")];
    let mut worker = broker.worker("w", 9, tools).await;
    let agent = broker.agent().await;
    agent.call("runs", "look_up", "{}").await;
    agent.call("held", "send", "{}").await;
    let runs = worker.assignment().await;
    agent.stop(9).await;
    assert_eq!(worker.cancel().await, runs.lease_id);
    agent.refused().await;
    worker.expect_no_assignment_within(seconds(5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_too_large_is_refused_as_such() {
    let broker = Broker::start_with(|config| {
        config.max_arguments_bytes = 1024;
        config.max_result_bytes = 1024;
        config.max_batch_bytes = 1024;
    });
    let mut worker = broker.worker("w", 9, [read_only("look_up")]).await;
    let large = || call("large", "look_up", &" ".repeat(5 << 20));
    let open = v1::Open {
        on_disconnect: Some(OnDisconnect::Finish.into()),
        ..Default::default()
    };
    let agent = broker.agent_with(open).await;
    agent.call("runs", "look_up", "{}").await;
    let runs = worker.assignment().await;
    agent.send(large()).await;
    let status = agent.refused().await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains("too large"), "{status:?}");
    assert_eq!(worker.cancel().await, runs.lease_id);

    let first = vec![FromAgent::Open(v1::Open::default()), large()];
    let status = broker.open_with(first, |_| ()).await.err().unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");

    worker.answer(&runs, &" ".repeat(5 << 20)).await;
    let status = worker.ended().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_never_opens_is_told_so() {
    let broker = Broker::start();
    let asked = Instant::now();
    let status = broker.open_with(Vec::new(), |_| ()).await.err().unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert_eq!(asked.elapsed(), seconds(10));
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_breaks_the_protocol_is_refused_with_the_fields_name() {
    let broker = Broker::start();
    let of = |change: fn(&mut v1::Register)| {
        let mut register = register("w", 1, [read_only("look_up")]);
        change(&mut register);
        register
    };
    let registrations = [
        ("register.worker_id", of(|worker| worker.worker_id.clear())),
        (
            "register.instance_id",
            of(|worker| worker.instance_id.clear()),
        ),
        ("register.slots", of(|worker| worker.slots = 0)),
        ("register.tools", of(|worker| worker.tools.clear())),
        (
            "register.tools",
            of(|worker| worker.tools.push(read_only("look_up"))),
        ),
        (
            "tools[].name",
            of(|worker| worker.tools[0].name = "-".to_owned()),
        ),
        (
            "tools[look_up].input_schema",
            of(|worker| worker.tools[0].input_schema = "{".into()),
        ),
        (
            "tools[look_up].policy.rate",
            of(|worker| {
                worker.tools[0].policy = Some(v1::Policy {
                    rate: Some(-1.0),
                    ..once()
                });
            }),
        ),
        (
            "tools[look_up].policy.effects",
            of(|worker| {
                worker.tools[0].policy = Some(v1::Policy {
                    effects: Some(0),
                    ..once()
                });
            }),
        ),
    ];
    for (field, register) in registrations {
        let status = broker.join(register).await.err().unwrap();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains(field), "{field}: {status:?}");
    }
    assert!(broker.list_tools().await.is_empty());
    let beat = vec![FromWorker::Beat(v1::Beat {})];
    let status = broker.link(beat).await.err().unwrap();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(status.message().contains("register"), "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn a_workers_breach_of_the_protocol_is_refused_with_the_fields_name() {
    let broker = Broker::start();
    let outcome = v1::Outcome {
        lease_id: 7,
        ending: None,
    };
    let breaches = [
        ("outcome.ending", FromWorker::Outcome(outcome)),
        ("register", FromWorker::Register(back(&[]))),
    ];
    for (field, frame) in breaches {
        let (mut worker, agent, _) = sending(&broker).await;
        worker.send(frame).await;
        let status = worker.ended().await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains(field), "{field}: {status:?}");
        let batch = agent.finished().await.unwrap();
        assert_eq!(batch.error("a").code(), ErrorCode::OutcomeUnknown);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_stream_that_is_cut_before_its_first_frame() {
    let broker = Broker::start();
    for _ in 0..3 {
        broker.dial().await.cut();
    }
    let _worker = broker
        .worker("w", 1, [read_only("look_up")])
        .await
        .serve(A_MOMENT);
    let batch = broker.run(&[("a", "look_up", "{}")]).await;
    assert_eq!(batch.text("a"), "done");
}

#[tokio::test(start_paused = true)]
async fn workers_and_tools_have_a_limit_and_who_is_over_it_may_dial_again_later() {
    let broker = Broker::start_with(|config| {
        config.max_workers = 2;
        config.max_tools = 2;
    });
    let first = broker
        .worker("w1", 1, [read_only("a"), read_only("b")])
        .await;
    let more = register("w2", 1, [read_only("a"), read_only("c")]);
    let status = broker.join(more).await.err().unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains("max_tools"), "{status:?}");
    let _second = broker.worker("w2", 1, [read_only("a")]).await;
    let third = || register("w3", 1, [read_only("b")]);
    let status = broker.join(third()).await.err().unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains("max_workers"), "{status:?}");
    // Its place is free once its time to come back is over.
    first.cut();
    sleep(seconds(6)).await;
    broker.join(third()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_comes_back_with_other_slots_is_refused() {
    let broker = Broker::start();
    let (worker, agent, assignment) = sending(&broker).await;
    worker.cut();
    settle().await;
    let larger = v1::Register {
        slots: 2,
        ..back(&[assignment.lease_id])
    };
    let status = broker.join(larger).await.err().unwrap();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(status.message().contains("register.slots"), "{status:?}");
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.error("a").code(), ErrorCode::OutcomeUnknown);
}
