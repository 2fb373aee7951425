//! Agents that read slowly, fall silent or never begin.

use tokio::time::{Instant, sleep};
use tonic::Code;
use toolpool_proto::v1::{self, Effect, ErrorCode};

use crate::support::batch::expect;
use crate::support::worker::{read_only, register, side_effecting};
use crate::support::{A_MOMENT, Broker, seconds, settle, soon};

#[tokio::test(start_paused = true)]
async fn a_finished_batch_waits_for_its_reader_but_not_for_ever() {
    // A few large packets, for which the way to the agent's connection would have room.
    let broker = Broker::start_with(|config| config.max_open_batches = 1);
    let mut worker = broker.worker("w", 3, [read_only("look_up")]).await;
    let agent = broker.agent().await;
    for n in 0..3 {
        agent.call(&n.to_string(), "look_up", "{}").await;
    }
    agent.seal().await;
    for assignment in worker.assignments(3).await {
        worker.answer(&assignment, &"a".repeat(1_100_000)).await;
    }
    sleep(seconds(20)).await;
    let full = broker.open(v1::Open::default()).await.err().unwrap();
    assert_eq!(full.code(), Code::ResourceExhausted);
    sleep(seconds(20)).await;
    broker.agent().await;
    let status = agent.finished().await.err().unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded);
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
    worker.answer_next("done").await;
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
async fn an_agent_that_never_opens_is_told_so() {
    let broker = Broker::start();
    let asked = Instant::now();
    let status = broker.open_with(Vec::new(), |_| ()).await.err().unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert_eq!(asked.elapsed(), seconds(10));
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
