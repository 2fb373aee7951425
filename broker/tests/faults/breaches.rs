//! Breaches of the protocol, each refused with the name of the field.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;
use toolpool_proto::v1::agent_frame::Frame as FromAgent;
use toolpool_proto::v1::worker_frame::Frame as FromWorker;
use toolpool_proto::v1::{self, ErrorCode, OnDisconnect};

use super::{back, sending};
use crate::support::agent::{call, delta, start, whole};
use crate::support::worker::{once, read_only, register, side_effecting};
use crate::support::{Broker, seconds};

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
    assert_eq!(worker.cancel_at_once().await, runs.lease_id);
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
    assert_eq!(worker.cancel_at_once().await, runs.lease_id);

    let first = vec![FromAgent::Open(v1::Open::default()), large()];
    let status = broker.open_with(first, |_| ()).await.err().unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");

    worker.answer(&runs, &" ".repeat(5 << 20)).await;
    let status = worker.ended().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
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
