//! Streams that are cut at moments drawn by lot. Whatever the moment: no slot is lost, and the next batch runs.

#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use support::agent::FakeAgent;
use support::worker::{
    FakeWorker, answer, attempts, error, failure, register, side_effecting, tool,
};
use support::{A_MOMENT, Broker, millis, seconds, settle, within};
use tokio::time::sleep;
use tonic::Code;
use toolpool_proto::v1::pool_frame::Frame;
use toolpool_proto::v1::worker_frame::Frame as FromWorker;
use toolpool_proto::v1::{self, ErrorCode, OnDisconnect};

const SEEDS: u64 = 300;

#[tokio::test(start_paused = true)]
async fn a_cut_at_any_moment_leaves_every_slot_free_and_no_batch_open() {
    for seed in 0..SEEDS {
        let run = AssertUnwindSafe(cut_at_some_moment(seed)).catch_unwind();
        if let Err(panic) = run.await {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

const SLOTS: u32 = 3;

fn tools() -> [v1::Tool; 3] {
    let limited = v1::Policy {
        max_in_flight: Some(2),
        ..attempts(2)
    };
    [
        tool("look_up", attempts(3)),
        tool("limited", limited),
        side_effecting("send"),
    ]
}

/// Some agents and workers, each of which may be cut, reset or half-closed at any step. Then another batch runs.
async fn cut_at_some_moment(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    // The broker draws lots too.
    fastrand::seed(seed);
    let broker = Broker::start_with(|config| {
        config.max_open_batches = 4;
        config.call_timeout = seconds(30);
    });
    let mut workers: Vec<Worker> = Vec::new();
    let mut agents: Vec<FakeAgent> = Vec::new();
    let mut calls = 0;
    for id in ["w0", "w1"] {
        workers.push(Worker::join(&broker, id).await);
    }
    for _ in 0..random.usize(5..40) {
        match random.u8(..12) {
            0 | 1 if agents.len() < 4 => {
                let action = if random.bool() {
                    OnDisconnect::Finish
                } else {
                    OnDisconnect::Cancel
                };
                let open = v1::Open {
                    on_disconnect: Some(action.into()),
                    max_parallel: random.bool().then(|| random.u32(1..4)),
                    progress: random.bool(),
                    ..Default::default()
                };
                // A batch that was left to finish may still have the place.
                agents.extend(broker.open(open).await.ok());
            }
            2..=5 if !agents.is_empty() => {
                let agent = random.choice(&agents).unwrap();
                let tool = random.choice(["look_up", "limited", "send"]).unwrap();
                calls += 1;
                agent.call(&calls.to_string(), tool, "{}").await;
            }
            6 if !agents.is_empty() => {
                let agent = agents.swap_remove(random.usize(..agents.len()));
                match random.u8(..4) {
                    0 => agent.cut(),
                    1 => agent.reset(),
                    2 => drop(agent),
                    _ => {
                        agent.seal().await;
                        if random.bool() {
                            settle().await;
                        }
                        agent.cut();
                    }
                }
            }
            7 | 8 => random.choice(&mut workers).unwrap().step(&mut random).await,
            9 => {
                let index = random.usize(..workers.len());
                let worker = workers.swap_remove(index);
                workers.push(worker.gone(&broker, &mut random).await);
            }
            _ => sleep(millis(random.u64(..500))).await,
        }
    }
    // Everything ends: agents by a seal or a break, what runs by an outcome.
    for agent in agents {
        if random.bool() {
            agent.cut();
        } else {
            agent.seal().await;
            let finished = tokio::spawn(agent.finished());
            while !finished.is_finished() {
                for worker in &mut workers {
                    worker.answer_all().await;
                }
                sleep(millis(100)).await;
            }
            finished.await.unwrap().unwrap();
        }
    }
    // Batches that were left to finish have as long as a call may take.
    for _ in 0..70 {
        for worker in &mut workers {
            worker.answer_all().await;
        }
        sleep(seconds(1)).await;
    }
    all_is_free(&broker, workers).await;
}

/// As many calls run at once as there are slots, and as many batches are open as may be.
async fn all_is_free(broker: &Broker, mut workers: Vec<Worker>) {
    let mut agents = Vec::new();
    for _ in 0..4 {
        agents.push(broker.agent().await);
    }
    for n in 0..workers.len() * SLOTS as usize - 2 {
        let agent = &agents[n % 4];
        agent.call(&format!("last-{n}"), "look_up", "{}").await;
    }
    for agent in &agents[..2] {
        agent.call("limited", "limited", "{}").await;
    }
    settle().await;
    for worker in &mut workers {
        worker.hear().await;
        assert_eq!(worker.running.len(), SLOTS as usize, "{:?}", worker.running);
    }
    for worker in &mut workers {
        worker.answer_all().await;
    }
    for agent in agents {
        agent.seal().await;
        let batch = agent.finished().await.unwrap();
        assert_eq!(batch.succeeded().len(), batch.results.len());
    }
}

/// A worker that keeps books.
struct Worker {
    id: String,
    life: u32,
    stream: FakeWorker,
    running: Vec<u64>,
}

impl Worker {
    async fn join(broker: &Broker, id: &str) -> Self {
        Self {
            id: id.to_owned(),
            life: 0,
            stream: broker.worker(id, SLOTS, tools()).await,
            running: Vec::new(),
        }
    }

    /// Takes in what has come.
    async fn hear(&mut self) {
        while let Some(news) = within(A_MOMENT, self.stream.news()).await {
            match news {
                Ok(Some(Frame::Assignment(assignment))) => {
                    assert!(!self.running.contains(&assignment.lease_id));
                    self.running.push(assignment.lease_id);
                    assert!(
                        self.running.len() <= SLOTS as usize,
                        "more calls than slots"
                    );
                }
                Ok(Some(Frame::Cancel(cancel))) => {
                    let stopped = error(ErrorCode::Cancelled, "stopped");
                    self.end(failure(cancel.lease_id, stopped)).await;
                }
                Ok(Some(Frame::Revoked(revoked))) => {
                    self.running.retain(|lease| *lease != revoked.lease_id);
                }
                Ok(Some(_)) => {}
                other => panic!("{} lost its stream: {other:?}", self.id),
            }
        }
    }

    async fn end(&mut self, outcome: FromWorker) {
        let FromWorker::Outcome(of) = &outcome else {
            panic!("{outcome:?}")
        };
        self.running.retain(|lease| *lease != of.lease_id);
        self.stream.send(outcome).await;
    }

    /// Hears, then ends something, perhaps twice.
    async fn step(&mut self, random: &mut fastrand::Rng) {
        self.hear().await;
        let Some(lease) = random.choice(&self.running).copied() else {
            return;
        };
        let outcome = if random.bool() {
            answer(lease, "done")
        } else {
            let no = v1::CallError {
                retryable: random.bool(),
                ..error(ErrorCode::ToolFailed, "no")
            };
            failure(lease, no)
        };
        self.end(outcome.clone()).await;
        if random.u8(..4) == 0 {
            self.stream.send(outcome).await;
        }
    }

    async fn answer_all(&mut self) {
        self.hear().await;
        for lease in std::mem::take(&mut self.running) {
            self.stream.send(answer(lease, "done")).await;
        }
    }

    /// Breaks in some way, and is back: as the same process that remembers all, some or none of its leases, or as a
    /// new one.
    async fn gone(self, broker: &Broker, random: &mut fastrand::Rng) -> Self {
        let Self {
            id,
            mut life,
            stream: mut worker,
            mut running,
        } = self;
        match random.u8(..3) {
            0 => worker.cut(),
            1 => worker.reset(),
            _ => {
                worker.half_close();
                settle().await;
                life += 1;
            }
        }
        sleep(millis(random.u64(..8_000))).await;
        if random.u8(..4) == 0 {
            life += 1;
        }
        if life > 0 && random.bool() || running.len() > 1 && random.bool() {
            running.truncate(1);
        }
        let register = v1::Register {
            instance_id: format!("{id}-{life}"),
            running_leases: running.clone(),
            ..register(&id, SLOTS, tools())
        };
        let worker = loop {
            match broker.join(register.clone()).await {
                Ok(worker) => break worker,
                Err(status) if status.code() == Code::Unavailable => settle().await,
                Err(status) => panic!("{id}: {status:?}"),
            }
        };
        Self {
            id,
            life,
            stream: worker,
            running,
        }
    }
}
