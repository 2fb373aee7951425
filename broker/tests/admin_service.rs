//! What operators see of a broker at work, and what they do to a worker. The admin port is a real one, so the clock runs.

mod support;

use support::admin::get;
use support::agent::FakeAgent;
use support::operator::{Operator, channel};
use support::worker::{read_only, register, side_effecting};
use support::{Broker, seconds, settle, soon, time};
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use toolpool_proto::v1;
use v1::admin_service_client::AdminServiceClient;
use v1::pool_frame::Frame;
use v1::{CallPhase, WorkerState};

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
