//! How long a batch takes, its deadlines, its ledger and its progress.

use std::time::Duration;

use tokio::time::sleep;
use toolpool_proto::v1::call_progress::{Ended, Event, Queued, Started};
use toolpool_proto::v1::{self, ErrorCode, Limit, Policy, TimeoutScope};

use crate::support::agent::whole;
use crate::support::worker::{attempts, error, read_only, tool};
use crate::support::{Broker, millis, seconds, settle, time, wire};

#[tokio::test(start_paused = true)]
async fn a_batch_takes_as_long_as_its_slowest_call() {
    let broker = Broker::start();
    let quick = broker.worker("q", 99, [read_only("quick")]).await;
    let slow = broker.worker("s", 99, [read_only("slow")]).await;
    let (_quick, _slow) = (quick.serve(millis(100)), slow.serve(seconds(3)));
    let agent = broker.agent().await;
    for n in 0..20 {
        let tool = if n == 7 { "slow" } else { "quick" };
        agent.call(&n.to_string(), tool, "{}").await;
    }
    agent.seal().await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.elapsed(), seconds(3));
    let summed = time(batch.summary.summed_run);
    assert_eq!(summed, seconds(3) + 19 * millis(100));
}

#[tokio::test(start_paused = true)]
async fn the_rpcs_deadline_gives_a_finished_batch_a_little_before_it() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 9, [read_only("look_up")]).await;
    let open = v1::agent_frame::Frame::Open(v1::Open::default());
    let agent = broker
        .open_with(vec![open], |request| request.set_timeout(seconds(10)))
        .await
        .unwrap();
    agent.call("quick", "look_up", "{}").await;
    agent.call("slow", "look_up", "{}").await;
    agent.seal().await;
    let assignments = worker.assignments(2).await;
    assert!(time(assignments[1].timeout) >= seconds(9));
    worker.answer(&assignments[0], "done").await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.elapsed(), millis(9_750));
    assert_eq!(batch.text("quick"), "done");
    assert_eq!(batch.error("slow").timeout(), TimeoutScope::Batch);
    assert_eq!(worker.cancel().await, assignments[1].lease_id);
}

#[tokio::test(start_paused = true)]
async fn the_rpcs_deadline_holds_for_complete_turns_too() {
    let broker = Broker::start();
    let _worker = broker.worker("w", 9, [read_only("look_up")]).await;
    let mut request = tonic::Request::new(v1::ExecuteBatchRequest {
        calls: vec![whole("a", "look_up", "{}")],
        ..Default::default()
    });
    request.set_timeout(seconds(1));
    let mut client = broker.client().await;
    let response = client.execute_batch(request).await.unwrap().into_inner();
    assert_eq!(time(response.finished.unwrap().elapsed), millis(900));
}

#[tokio::test(start_paused = true)]
async fn the_shorter_of_the_batchs_own_deadline_and_the_operators_counts() {
    let broker = Broker::start_with(|config| config.batch_timeout = seconds(5));
    let _worker = broker.worker("w", 9, [read_only("look_up")]).await;
    for (asked, given) in [(2, 2), (100, 5)] {
        let open = v1::Open {
            deadline: Some(wire(seconds(asked))),
            ..Default::default()
        };
        let agent = broker.agent_with(open).await;
        agent.call("a", "look_up", "{}").await;
        assert_eq!(agent.finished().await.unwrap().elapsed(), seconds(given));
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_ledger_adds_up() {
    let broker = Broker::start();
    let policy = Policy {
        rate: Some(0.5),
        ..Default::default()
    };
    let mut worker = broker.worker("w", 1, [tool("send", policy)]).await;
    let agent = broker.agent().await;
    agent.call("first", "send", "{}").await;
    sleep(seconds(1)).await;
    agent.start(0, "second", "send").await;
    settle().await;
    sleep(seconds(1)).await;
    agent.stop(0).await;
    settle().await;
    sleep(seconds(3)).await;
    // Held until here. Then 2 s for the rate, and 1 s more for the slot, which is free after 3 s; then 4 s to run.
    agent.seal().await;
    let first = worker.assignment().await;
    sleep(seconds(3)).await;
    worker.answer(&first, "done").await;
    let second = worker.assignment().await;
    sleep(seconds(4)).await;
    worker.answer(&second, "done").await;
    let batch = agent.finished().await.unwrap();
    let ledger = batch.ledger("second");
    let close = |time: Duration, to: Duration| time >= to && time <= to + millis(5);
    let began = time(ledger.block_began);
    let complete = time(ledger.block_complete);
    let waits = [ledger.held, ledger.limit_wait, ledger.slot_wait, ledger.ran].map(time);
    assert!(
        close(began, seconds(1)) && close(complete, seconds(2)),
        "{ledger:?}"
    );
    for (wait, expected) in waits.into_iter().zip([3, 2, 1, 4]) {
        assert!(close(wait, seconds(expected)), "{ledger:?}");
    }
    assert_eq!(ledger.limited_by(), Limit::Rate);
    assert_eq!(
        complete + waits.into_iter().sum::<Duration>(),
        time(ledger.ended)
    );
    assert_eq!(time(ledger.ended), batch.elapsed());
    assert_eq!((ledger.attempts, ledger.worker_id()), (1, "w"));
}

#[tokio::test(start_paused = true)]
async fn progress_tells_what_becomes_of_each_call_but_never_its_result() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 1, [tool("look_up", attempts(2))]).await;
    let open = v1::Open {
        progress: true,
        ..Default::default()
    };
    let mut agent = broker.agent_with(open).await;
    let mut events = Vec::new();
    agent.call("a", "look_up", "{}").await;
    let first = worker.assignment().await;
    agent.call("b", "look_up", "{}").await;
    settle().await;
    let half = v1::ToolProgress {
        message: "half way".to_owned(),
        fraction: Some(0.5),
    };
    let says = v1::worker_frame::Frame::Progress(v1::LeaseProgress {
        lease_id: first.lease_id,
        progress: Some(half.clone()),
    });
    worker.send(says).await;
    sleep(seconds(1)).await;
    worker.answer(&first, "done").await;
    let second = worker.assignment().await;
    let no = error(ErrorCode::ToolFailed, "no");
    worker.fail(&second, no).await;
    for _ in 0..6 {
        let progress = agent.progress().await;
        events.push((
            progress.id,
            progress.event.unwrap(),
            time(progress.at).as_secs(),
        ));
    }
    let started = || {
        Event::Started(Started {
            worker_id: "w".to_owned(),
            attempt: 1,
        })
    };
    let ended = |error: Option<ErrorCode>| {
        Event::Ended(Ended {
            error: error.map(Into::into),
        })
    };
    let of = |id: &str| -> Vec<_> {
        let own = events.iter().filter(|(of, ..)| of == id);
        own.map(|(_, event, at)| (event.clone(), *at)).collect()
    };
    assert_eq!(
        of("a"),
        [(started(), 0), (Event::Tool(half), 0), (ended(None), 1)]
    );
    let failed = ended(Some(ErrorCode::ToolFailed));
    assert_eq!(
        of("b"),
        [(Event::Queued(Queued {}), 0), (started(), 1), (failed, 1)]
    );
    agent.seal().await;
    let batch = agent.finished().await.unwrap();
    assert!(batch.progress.is_empty());
    assert_eq!(batch.text("a"), "done");
}

#[tokio::test(start_paused = true)]
async fn progress_comes_only_if_it_is_wanted() {
    let broker = Broker::start();
    let _worker = broker
        .worker("w", 1, [read_only("look_up")])
        .await
        .serve(seconds(1));
    let batch = broker
        .run(&[("a", "look_up", "{}"), ("b", "look_up", "{}")])
        .await;
    assert!(batch.progress.is_empty());
}
