//! What operators see of a broker at work, and what they do to a worker. The admin port is a real one, so the clock runs.

#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use std::net::SocketAddr;

use support::admin::get;
use support::agent::FakeAgent;
use support::worker::{attempts, error, once, read_only, register, side_effecting, tool};
use support::{Broker, seconds, settle, soon, time, wire};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use toolpool_proto::v1;
use v1::admin_service_client::AdminServiceClient;
use v1::pool_frame::Frame;
use v1::{CallPhase, ErrorCode, LaneBlock, WorkerState};

async fn channel(admin: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{admin}")).unwrap();
    soon(endpoint.connect()).await.unwrap()
}

struct Operator(AdminServiceClient<Channel>);

impl Operator {
    async fn at(admin: SocketAddr) -> Self {
        Self(AdminServiceClient::new(channel(admin).await))
    }

    async fn workers(&mut self) -> Vec<v1::WorkerStatus> {
        let request = v1::ListWorkersRequest::default();
        let workers = soon(self.0.list_workers(request)).await;
        workers.unwrap().into_inner().workers
    }

    async fn lane(&mut self, tool: &str) -> v1::LaneStatus {
        let request = v1::ListLanesRequest {
            tool: tool.to_owned(),
            ..Default::default()
        };
        let lanes = soon(self.0.list_lanes(request)).await;
        let [lane] = <[_; 1]>::try_from(lanes.unwrap().into_inner().lanes).unwrap();
        lane
    }

    async fn batches(&mut self, request: v1::ListBatchesRequest) -> v1::ListBatchesResponse {
        let batches = soon(self.0.list_batches(request)).await;
        batches.unwrap().into_inner()
    }

    async fn why(&mut self, call: &str) -> v1::Explanation {
        let request = v1::ExplainCallRequest {
            call_id: call.to_owned(),
            batch_id: String::new(),
        };
        let explained = soon(self.0.explain_call(request)).await;
        let explanations = explained.unwrap().into_inner().explanations;
        let [one] = <[_; 1]>::try_from(explanations).unwrap();
        one
    }

    async fn drain(&mut self, worker: &str) -> Result<v1::WorkerStatus, Code> {
        let worker_id = worker.to_owned();
        let drained = soon(self.0.drain_worker(v1::DrainWorkerRequest { worker_id })).await;
        let drained = drained.map_err(|status| status.code())?.into_inner();
        Ok(drained.worker.unwrap())
    }

    /// What it says of a call, which must have all the words.
    async fn expect_why(
        &mut self,
        call: &str,
        phase: CallPhase,
        words: &[&str],
    ) -> v1::Explanation {
        let explained = self.why(call).await;
        let status = explained.call.as_ref().unwrap();
        assert_eq!((status.phase(), &*status.call_id), (phase, call));
        for word in words {
            assert!(explained.why.contains(word), "{word}: {}", explained.why);
        }
        explained
    }
}

/// Tools that each make a call wait for something else.
fn tools_to_wait_for() -> [v1::Tool; 5] {
    let rated = v1::Policy {
        rate: Some(0.01),
        burst: Some(1),
        queue_timeout: Some(wire(seconds(500))),
        call_timeout: Some(wire(seconds(500))),
        ..once()
    };
    let one_at_a_time = v1::Policy {
        max_in_flight: Some(1),
        ..once()
    };
    let pauses = v1::Policy {
        retry_backoff: Some(wire(seconds(20))),
        ..attempts(2)
    };
    [
        read_only("read"),
        side_effecting("send"),
        tool("rated", rated),
        tool("single", one_at_a_time),
        tool("pauses", pauses),
    ]
}

#[tokio::test]
async fn every_reason_to_wait_is_said() {
    let (broker, admin) = Broker::start_with_admin(|_| ()).await;
    let mut worker = broker.worker("w", 4, tools_to_wait_for()).await;
    let mut operator = Operator::at(admin).await;
    let agent = broker.agent().await;
    for (id, tool) in [
        ("rated_1", "rated"),
        ("single_1", "single"),
        ("pauses_1", "pauses"),
        ("read_1", "read"),
    ] {
        agent.call(id, tool, "{}").await;
    }
    let running = worker.assignments(4).await;
    let again = v1::CallError {
        retryable: true,
        ..error(ErrorCode::ToolFailed, "busy")
    };
    worker.fail(&running[2], again).await;
    for (id, tool) in [
        ("rated_2", "rated"),
        ("rated_3", "rated"),
        ("single_2", "single"),
        ("held", "send"),
    ] {
        agent.call(id, tool, "{}").await;
    }
    agent.call("read_2", "read", "{}").await;
    let second = worker.assignment().await;
    assert_eq!(second.call_id, "read_2");
    agent.call("read_3", "read", "{}").await;
    agent.start(9, "open", "read").await;
    settle().await;

    let words = ["Attempt 1 of 1", "has been with w", "w was last heard of"];
    let run = operator
        .expect_why("single_1", CallPhase::Running, &words)
        .await;
    let call = run.call.unwrap();
    assert_eq!(call.lease_id, Some(running[1].lease_id));
    assert_eq!(call.ledger.unwrap().worker_id.as_deref(), Some("w"));
    let words = [
        "2 calls wait, 1 of them before it",
        "its own turn comes in 200.0s",
    ];
    operator
        .expect_why("rated_3", CallPhase::Queued, &words)
        .await;
    let words = [
        "rated may start 0.01 calls a second",
        "2 calls wait, of which it is the next",
    ];
    let rated = operator
        .expect_why("rated_2", CallPhase::Queued, &words)
        .await;
    let call = rated.call.unwrap();
    assert!(time(call.time_left) > seconds(400));
    let ledger = call.ledger.unwrap();
    assert!(ledger.limited_by() == v1::Limit::Rate && !time(ledger.limit_wait).is_zero());
    let lane = rated.lane.unwrap();
    assert_eq!((lane.queued, lane.blocked()), (2, LaneBlock::Rate));
    assert!(time(lane.next_look) > seconds(80));
    let words = ["1 calls in flight (max_in_flight)"];
    operator
        .expect_why("single_2", CallPhase::Queued, &words)
        .await;
    let words = ["Attempt 1 of 2 failed", "retry_backoff"];
    operator
        .expect_why("pauses_1", CallPhase::Backoff, &words)
        .await;
    let words = ["side effects", "until the turn is sealed"];
    operator.expect_why("held", CallPhase::Held, &words).await;
    let words = ["All slots of its one worker"];
    let waits = operator
        .expect_why("read_3", CallPhase::Queued, &words)
        .await;
    assert_eq!(waits.lane.unwrap().blocked(), LaneBlock::Slot);
    let words = ["block is not complete", "agent_silence"];
    operator
        .expect_why("open", CallPhase::Streaming, &words)
        .await;

    worker.answer(&running[3], "found").await;
    assert_eq!(worker.assignment().await.call_id, "read_3");
    let words = ["It has ended: ok", "other calls have not ended"];
    operator
        .expect_why("read_1", CallPhase::Ended, &words)
        .await;
    let nothing = v1::ExplainCallRequest {
        call_id: "none".to_owned(),
        batch_id: String::new(),
    };
    let status = soon(operator.0.explain_call(nothing)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn a_batchs_own_order_and_fan_out_are_said() {
    let (broker, admin) = Broker::start_with_admin(|_| ()).await;
    let mut worker = broker.worker("w", 4, [read_only("read")]).await;
    let mut operator = Operator::at(admin).await;
    let open = |most| v1::Open {
        max_parallel: Some(most),
        ..Default::default()
    };
    let strict = broker.agent_with(open(1)).await;
    strict.call("a_1", "read", "{}").await;
    strict.call("a_2", "read", "{}").await;
    let two = broker.agent_with(open(2)).await;
    for id in ["b_1", "b_2", "b_3"] {
        two.call(id, "read", "{}").await;
    }
    worker.assignments(3).await;
    settle().await;
    let words = ["model's order", "a_1 before it"];
    operator.expect_why("a_2", CallPhase::Ready, &words).await;
    let words = ["2 calls at a time (max_parallel)"];
    operator.expect_why("b_3", CallPhase::Ready, &words).await;
}

#[tokio::test]
async fn tools_without_a_worker_and_pauses_are_said() {
    let (broker, admin) = Broker::start_with_admin(|_| ()).await;
    let mut worker = broker
        .worker("w", 4, [read_only("read"), read_only("gone")])
        .await;
    let mut leaves = broker.worker("v", 4, [read_only("left")]).await;
    leaves.half_close();
    leaves.ended().await.unwrap();
    let mut operator = Operator::at(admin).await;
    let agent = broker.agent().await;
    agent.call("paused", "read", "{}").await;
    let call = worker.assignment().await;
    let later = v1::CallError {
        retry_after: Some(wire(seconds(3))),
        ..error(ErrorCode::RateLimited, "later")
    };
    worker.fail(&call, later).await;
    settle().await;
    agent.call("behind", "read", "{}").await;
    agent.call("nobody", "left", "{}").await;
    settle().await;
    let words = ["asked not to be called"];
    let paused = operator
        .expect_why("behind", CallPhase::Queued, &words)
        .await;
    assert_eq!(paused.lane.unwrap().blocked(), LaneBlock::Pause);
    let words = ["No worker has served left", "no_worker_wait"];
    operator
        .expect_why("nobody", CallPhase::Queued, &words)
        .await;
}

#[tokio::test]
async fn lanes_show_their_load_their_policy_and_their_latest_calls() {
    let (broker, admin) = Broker::start_with_admin(|config| {
        let operator = toml::from_str("max_in_flight = 7").unwrap();
        config.tools.insert("read".to_owned(), operator);
    })
    .await;
    let worker = broker.worker("w", 4, [read_only("read")]).await;
    let serving = worker.serve(support::millis(20));
    let mut operator = Operator::at(admin).await;
    let before = operator.lane("read").await;
    assert_eq!((before.calls_ended, before.recent_runs), (0, None));
    let calls = [("a", "read", "{}"), ("b", "read", "{}"), ("c", "read", "[")];
    broker.run(&calls).await;
    let lane = operator.lane("read").await;
    assert_eq!((lane.calls_ended, lane.calls_failed), (3, 1));
    let runs = lane.recent_runs.unwrap();
    assert_eq!(runs.runs, 2);
    assert!(time(runs.median) >= support::millis(20) && time(runs.longest) >= time(runs.median));
    let entry = lane.entry.unwrap();
    let tool = entry.tool.unwrap();
    assert_eq!(tool.policy.unwrap().max_in_flight, Some(7));
    assert_eq!((entry.workers, tool.input_schema.len()), (1, 0));
    drop(serving);
}

#[tokio::test]
async fn batches_come_the_oldest_first_in_pages_with_their_calls() {
    let (broker, admin) = Broker::start_with_admin(|_| ()).await;
    let mut worker = broker
        .worker("w", 9, [read_only("read"), side_effecting("send")])
        .await;
    let mut operator = Operator::at(admin).await;
    let mut agents: Vec<FakeAgent> = Vec::new();
    for id in ["z", "y", "x"] {
        let open = v1::Open {
            batch_id: Some(id.to_owned()),
            ..Default::default()
        };
        let agent = broker.agent_with(open).await;
        agent.call("a", "read", "{}").await;
        agent.call("b", "send", "{}").await;
        agents.push(agent);
    }
    worker.assignments(3).await;
    settle().await;
    let two = v1::ListBatchesRequest {
        page_size: 2,
        ..Default::default()
    };
    let first = operator.batches(two.clone()).await;
    let ids = |page: &v1::ListBatchesResponse| -> Vec<_> {
        page.batches
            .iter()
            .map(|batch| batch.batch_id.clone())
            .collect()
    };
    assert_eq!((ids(&first), first.open), (vec!["z".into(), "y".into()], 3));
    let rest = v1::ListBatchesRequest {
        page_token: first.next_page_token.clone(),
        with_calls: true,
        ..two
    };
    let second = operator.batches(rest).await;
    assert_eq!(
        (ids(&second), &*second.next_page_token),
        (vec!["x".into()], "")
    );
    let batch = &second.batches[0];
    let phases: Vec<_> = batch
        .phases
        .iter()
        .map(|of| (of.phase(), of.calls))
        .collect();
    assert_eq!(phases, [(CallPhase::Held, 1), (CallPhase::Running, 1)]);
    let calls: Vec<_> = batch
        .calls
        .iter()
        .map(|call| (&*call.call_id, call.phase()))
        .collect();
    assert_eq!(calls, [("a", CallPhase::Running), ("b", CallPhase::Held)]);
    assert_eq!((batch.turn_end, batch.delivering), (None, false));
    assert!(time(batch.time_left) > seconds(500));
    assert!(first.batches[0].calls.is_empty());

    let mut newest = v1::ListBatchesRequest {
        page_size: 2,
        newest_first: true,
        ..Default::default()
    };
    let first = operator.batches(newest.clone()).await;
    newest.page_token = first.next_page_token.clone();
    let second = operator.batches(newest).await;
    let pages = [ids(&first), ids(&second)];
    assert_eq!(pages.concat(), ["x", "y", "z"]);
    assert_eq!(&*second.next_page_token, "");

    let wrong = v1::ListBatchesRequest {
        page_token: "x".to_owned(),
        ..Default::default()
    };
    let status = soon(operator.0.list_batches(wrong)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_worker_that_is_taken_out_gets_nothing_new_and_is_asked_to_leave() {
    let (broker, admin) = Broker::start_with_admin(|_| ()).await;
    let mut operator = Operator::at(admin).await;
    assert_eq!(operator.drain("w").await, Err(Code::NotFound));
    let mut old = broker.worker("w", 2, [read_only("read")]).await;
    let agent = broker.agent().await;
    agent.call("a", "read", "{}").await;
    let call = old.assignment().await;
    let mut new = broker.worker("v", 2, [read_only("read")]).await;

    let drained = operator.drain("w").await.unwrap();
    assert_eq!(
        (drained.state(), drained.taken_out),
        (WorkerState::Draining, true)
    );
    assert_eq!(
        (drained.slots, drained.slots_free, drained.leases_total),
        (2, 1, 1)
    );
    let lease = &drained.leases[0];
    assert_eq!(
        (&*lease.call_id, lease.lease_id, lease.attempt),
        ("a", call.lease_id, 1)
    );
    let Ok(Some(Frame::Drain(v1::Drain { leave: true }))) = old.news().await else {
        panic!("the worker is not asked to leave");
    };
    // A worker in a language whose runtime does not know the word goes on: it gets nothing all the same.
    for id in ["b", "c", "d"] {
        agent.call(id, "read", "{}").await;
    }
    let others = new.assignments(2).await;
    old.expect_no_assignment_within(support::millis(50)).await;
    old.answer(&call, "found").await;
    assert_eq!(old.acknowledged().await, call.lease_id);

    // Nor does it after a break.
    old.cut();
    let mut back = broker
        .join(register("w", 2, [read_only("read")]))
        .await
        .unwrap();
    let Ok(Some(Frame::Drain(v1::Drain { leave: true }))) = back.news().await else {
        panic!("the worker is not asked again");
    };
    back.expect_no_assignment_within(support::millis(50)).await;
    let states: Vec<_> = (operator.workers().await.iter())
        .map(|worker| (worker.worker_id.clone(), worker.state()))
        .collect();
    let (draining, connected) = (WorkerState::Draining, WorkerState::Connected);
    assert_eq!(states, [("v".into(), connected), ("w".into(), draining)]);

    // Nor once it was given up; its next process is another worker.
    back.half_close();
    back.ended().await.unwrap();
    let mut again = broker.worker("w", 2, [read_only("read")]).await;
    let Ok(Some(Frame::Drain(v1::Drain { leave: true }))) = again.news().await else {
        panic!("the worker is not asked for the third time");
    };
    again.expect_no_assignment_within(support::millis(50)).await;
    again.half_close();
    again.ended().await.unwrap();
    let next = v1::Register {
        instance_id: "another".to_owned(),
        ..register("w", 2, [read_only("read")])
    };
    let mut next = broker.join(next).await.unwrap();
    let last = next.assignment().await;
    for (worker, call) in [(&new, &others[0]), (&new, &others[1]), (&next, &last)] {
        worker.answer(call, "found").await;
    }
    agent.seal().await;
    assert_eq!(agent.finished().await.unwrap().succeeded().len(), 4);
}

#[tokio::test]
async fn a_batch_that_is_being_delivered_is_shown_as_that() {
    const MANY: u32 = 24;
    let (broker, admin) = Broker::start_with_admin(|_| ()).await;
    let mut worker = broker.worker("w", MANY, [read_only("read")]).await;
    let mut operator = Operator::at(admin).await;
    let agent = broker.agent().await;
    for number in 0..MANY {
        agent.call(&number.to_string(), "read", "{}").await;
    }
    agent.seal().await;
    // More packets than wait for the connection.
    let large = "x".repeat(1 << 20);
    for call in worker.assignments(MANY as usize).await {
        worker.answer(&call, &large).await;
    }
    let shown = soon(async {
        loop {
            let page = operator.batches(v1::ListBatchesRequest::default()).await;
            if page.batches.iter().all(|batch| batch.delivering) {
                return page;
            }
            settle().await;
        }
    })
    .await;
    assert_eq!(shown.batches.len(), 1);
    assert_eq!(
        agent.finished().await.unwrap().succeeded().len(),
        MANY as usize
    );
}

#[tokio::test]
async fn a_call_whose_worker_is_away_says_so() {
    let (broker, admin) = Broker::start_with_admin(|_| ()).await;
    let mut worker = broker.worker("w", 1, [side_effecting("send")]).await;
    let mut operator = Operator::at(admin).await;
    let agent = broker.agent().await;
    agent.call("a", "send", "{}").await;
    agent.seal().await;
    worker.assignment().await;
    worker.cut();
    settle().await;
    let words = ["w is away: its stream broke"];
    operator.expect_why("a", CallPhase::Running, &words).await;
    // Taken out while it is away, it is marked.
    let drained = operator.drain("w").await.unwrap();
    assert_eq!(
        (drained.state(), drained.taken_out),
        (WorkerState::Away, true)
    );
}

#[tokio::test]
async fn operators_do_not_keep_probes_out() {
    let (_broker, admin) = Broker::start_with_admin(|_| ()).await;
    let mut operators = Vec::new();
    let mut turned_away = 0;
    for _ in 0..80 {
        let endpoint = Endpoint::from_shared(format!("http://{admin}")).unwrap();
        let mut operator = AdminServiceClient::new(endpoint.connect_lazy());
        let asked = soon(operator.list_workers(v1::ListWorkersRequest::default())).await;
        turned_away += usize::from(asked.is_err_and(|status| {
            assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
            true
        }));
        operators.push(operator);
        if operators.len() % 20 == 0 {
            let (status, body) = soon(get(admin, "/healthz")).await;
            assert_eq!((status, &*body), (200, "ok\n"));
        }
    }
    assert_eq!(turned_away, 80 - 16);
}

#[tokio::test]
async fn the_port_describes_its_services() {
    let (_broker, admin) = Broker::start_with_admin(|_| ()).await;
    let mut reflection = ServerReflectionClient::new(channel(admin).await);
    let list = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let replies = reflection.server_reflection_info(tokio_stream::once(list));
    let mut replies = soon(replies).await.unwrap().into_inner();
    let reply = soon(replies.message()).await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(listed)) = reply.message_response else {
        panic!("not a list");
    };
    let names: Vec<_> = listed.service.into_iter().map(|of| of.name).collect();
    assert!(
        names.contains(&"toolpool.v1.AdminService".to_owned()),
        "{names:?}"
    );
    assert!(
        names.contains(&"grpc.health.v1.Health".to_owned()),
        "{names:?}"
    );
    assert!(
        !names.contains(&"toolpool.v1.BrokerService".to_owned()),
        "{names:?}"
    );
}

/// Each worker and each lane is on one page, in order, however large they are.
#[tokio::test]
async fn lists_come_in_pages_that_every_client_takes() {
    let (broker, admin) = Broker::start_with_admin(|_| ()).await;
    let names = |worker: usize| (0..900).map(move |tool| format!("{worker}_{tool:0>120}"));
    let mut workers = Vec::new();
    for worker in 0..11 {
        let mut register = register(&format!("w{worker:02}"), 1, [read_only("one")]);
        register
            .tools
            .extend(names(worker).map(|name| read_only(&name)));
        workers.push(broker.join(register).await.unwrap());
    }
    let mut operator = Operator::at(admin).await;
    let (mut ids, mut pages) = (Vec::new(), 0);
    let mut request = v1::ListWorkersRequest::default();
    loop {
        let page = soon(operator.0.list_workers(request.clone())).await;
        let page = page.unwrap().into_inner();
        ids.extend(page.workers.into_iter().map(|worker| worker.worker_id));
        pages += 1;
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert!(
        pages > 1 && ids.len() == 11 && ids.is_sorted(),
        "{pages}: {ids:?}"
    );
    let (mut tools, mut pages) = (Vec::new(), 0);
    let mut request = v1::ListLanesRequest::default();
    loop {
        let page = soon(operator.0.list_lanes(request.clone())).await;
        let page = page.unwrap().into_inner();
        let names = page
            .lanes
            .into_iter()
            .map(|lane| lane.entry.unwrap().tool.unwrap().name);
        tools.extend(names);
        pages += 1;
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert!(pages > 1 && tools.len() == 11 * 900 + 1 && tools.is_sorted());
}
