//! Limits hold: in flight, slots, rates, batches and calls.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::Code;
use toolpool_proto::v1::{self, Limit, Policy};

use super::{at_most, look_up_and_send};
use crate::support::agent::{call, whole};
use crate::support::worker::{once, read_only, side_effecting, tool};
use crate::support::{Broker, millis, seconds, settle, within};

#[tokio::test(start_paused = true)]
async fn one_at_a_time_is_strictly_in_the_models_order() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, 9, at_most(1)).await;
    agent.start(0, "a", "look_up").await;
    agent.call("b", "look_up", "{}").await;
    agent.call("c", "send", "{}").await;
    agent.call("bad", "look_up", "{").await;
    agent.call("d", "look_up", "{}").await;
    worker.expect_no_assignment_within(seconds(1)).await;
    agent.stop(0).await;
    for id in ["a", "b"] {
        let assignment = worker.assignment().await;
        assert_eq!(assignment.call_id, id);
        worker.expect_no_assignment_within(seconds(1)).await;
        worker.answer(&assignment, "done").await;
    }
    // The next in order is held.
    worker.expect_no_assignment_within(seconds(1)).await;
    agent.seal().await;
    for id in ["c", "d"] {
        let assignment = worker.assignment().await;
        assert_eq!(assignment.call_id, id);
        worker.expect_no_assignment().await;
        worker.answer(&assignment, "done").await;
    }
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["a", "b", "c", "d"]);
    assert_eq!(batch.ledger("d").limited_by(), Limit::MaxParallel);
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_of_a_batch_run_at_once_than_it_asked_for() {
    let broker = Broker::start();
    let worker = broker.worker("w", 99, [read_only("look_up")]).await;
    let worker = worker.serve(seconds(1));
    let agent = broker.agent_with(at_most(3)).await;
    for n in 0..10 {
        agent.call(&n.to_string(), "look_up", "{}").await;
    }
    agent.seal().await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded().len(), 10);
    assert_eq!(*worker.most.lock().unwrap(), 3);
    assert!(batch.elapsed() >= seconds(4) && batch.elapsed() < seconds(5));
}

#[tokio::test(start_paused = true)]
async fn a_worker_never_has_more_calls_than_slots_whatever_tools_they_are_of() {
    let broker = Broker::start();
    let tools = [read_only("a"), read_only("b"), side_effecting("c")];
    let worker = broker.worker("w", 3, tools).await.serve(millis(10));
    let agents = (0..5).map(|_| async {
        let agent = broker.agent().await;
        for n in 0..20 {
            let tool = ["a", "b", "c"][n % 3];
            agent.call(&n.to_string(), tool, "{}").await;
        }
        agent.seal().await;
        agent.finished().await.unwrap().succeeded().len()
    });
    let succeeded = futures_util::future::join_all(agents).await;
    assert_eq!(succeeded, [20; 5]);
    assert_eq!(*worker.most.lock().unwrap(), 3);
    assert_eq!(worker.count(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_tools_calls_in_flight_are_counted_over_all_workers_and_agents() {
    let broker = Broker::start();
    let policy = || Policy {
        max_in_flight: Some(2),
        ..once()
    };
    let mut workers = [
        broker.worker("w1", 9, [tool("look_up", policy())]).await,
        broker.worker("w2", 9, [tool("look_up", policy())]).await,
    ];
    let agents = [broker.agent().await, broker.agent().await];
    for agent in &agents {
        for id in ["a", "b", "c"] {
            agent.call(id, "look_up", "{}").await;
        }
        agent.seal().await;
    }
    settle().await;
    let mut answered = 0;
    let mut running = Vec::new();
    while answered < 6 {
        for (index, worker) in workers.iter_mut().enumerate() {
            while let Some(assignment) = within(millis(1), worker.assignment()).await {
                running.push((index, assignment));
            }
        }
        assert!((1..=2).contains(&running.len()), "{running:?}");
        let (index, assignment) = running.remove(0);
        workers[index].answer(&assignment, "done").await;
        answered += 1;
        sleep(millis(1)).await;
    }
    for agent in agents {
        let batch = agent.finished().await.unwrap();
        assert_eq!(batch.succeeded(), ["a", "b", "c"]);
        assert_eq!(batch.ledger("c").limited_by(), Limit::InFlight);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_held_to_and_used_up_by_64_agents() {
    let broker = Broker::start();
    let limited = Policy {
        rate: Some(100.0),
        burst: Some(10),
        ..once()
    };
    let tools = [tool("look_up", limited)];
    let worker = broker.worker("w", 1_000, tools).await.serve(millis(3));
    let began = Instant::now();
    let mut agents = Vec::new();
    for _ in 0..64 {
        let agent = broker.agent().await;
        let calls = (0..20).map(|n| call(&n.to_string(), "look_up", "{}"));
        agent.send_all(calls).await;
        agents.push(agent);
    }
    tokio::time::sleep_until(began + seconds(10)).await;
    let started = worker.count();
    assert!((990..=1_010).contains(&started), "{started} started");
    let started = worker.started.lock().unwrap();
    for (n, (from, _)) in started.iter().enumerate() {
        let within_a_second = started[n..]
            .iter()
            .take_while(|(at, _)| *at - *from < seconds(1))
            .count();
        assert!(within_a_second <= 110, "{within_a_second} in one second");
    }
}

#[tokio::test(start_paused = true)]
async fn agents_take_turns_under_a_rate_however_much_each_asks_for() {
    let broker = Broker::start();
    let limited = Policy {
        rate: Some(10.0),
        ..once()
    };
    let worker = broker.worker("w", 99, [tool("look_up", limited)]).await;
    let worker = worker.serve(millis(1));
    let large = broker.agent().await;
    large
        .send_all((0..200).map(|n| call(&n.to_string(), "look_up", "{}")))
        .await;
    settle().await;
    let small = broker
        .run(&[("a", "look_up", "{}"), ("b", "look_up", "{}")])
        .await;
    assert_eq!(small.succeeded(), ["a", "b"]);
    assert!(small.elapsed() <= millis(401), "{:?}", small.elapsed());
    assert!(worker.count() < 8);
}

#[tokio::test(start_paused = true)]
async fn open_batches_have_a_limit_and_ids_of_their_own() {
    let broker = Broker::start_with(|config| config.max_open_batches = 2);
    let named = |id: &str| v1::Open {
        batch_id: Some(id.to_owned()),
        ..Default::default()
    };
    let mut first = broker.agent_with(named("a")).await;
    let taken = broker.open(named("a")).await.err().unwrap();
    assert_eq!(taken.code(), Code::AlreadyExists, "{taken:?}");
    assert!(taken.message().contains("open.batch_id"), "{taken:?}");
    let second = broker.agent().await;
    assert_ne!(second.batch_id, "");
    let full = broker.open(v1::Open::default()).await.err().unwrap();
    assert_eq!(full.code(), Code::ResourceExhausted, "{full:?}");
    assert!(full.message().contains("max_open_batches"), "{full:?}");
    first.half_close();
    assert_eq!(first.finished().await.unwrap().summary.batch_id, "a");
    broker.agent_with(named("a")).await;
}

#[tokio::test(start_paused = true)]
async fn a_turn_far_over_the_limit_of_calls_is_refused_as_a_whole() {
    let broker = Broker::start_with(|config| config.max_calls_per_batch = 2);
    let mut worker = broker.worker("w", 9, [read_only("look_up")]).await;
    let agent = broker.agent().await;
    agent.call("runs", "look_up", "{}").await;
    let runs = worker.assignment().await;
    for n in 0..8 {
        agent.call(&n.to_string(), "nobody", "{}").await;
    }
    let status = agent.refused().await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(
        status.message().contains("max_calls_per_batch"),
        "{status:?}"
    );
    assert_eq!(worker.cancel_at_once().await, runs.lease_id);

    let calls = (0..9).map(|n| whole(&n.to_string(), "look_up", "{}"));
    let request = v1::ExecuteBatchRequest {
        calls: calls.collect(),
        ..Default::default()
    };
    let asked = Instant::now();
    let status = broker.execute_batch(request).await.err().unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(asked.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_least_busy_worker_gets_the_call() {
    let broker = Broker::start();
    let mut workers = Vec::new();
    for id in ["w1", "w2", "w3"] {
        workers.push(broker.worker(id, 4, [read_only("look_up")]).await);
    }
    let agent = broker.agent().await;
    for n in 0..6 {
        agent.call(&n.to_string(), "look_up", "{}").await;
    }
    for worker in &mut workers {
        worker.assignments(2).await;
        worker.expect_no_assignment().await;
    }
}
