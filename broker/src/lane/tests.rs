//! Random event lists against real lanes and seats, with a session and a batch played by the test.

use std::time::Duration;

use bytes::Bytes;

use super::lease::{Call, Ending};
use super::queue::BatchKey;
use super::*;
use crate::config::Config;
use crate::id::{LeaseId, WorkerId};
use crate::mailbox::{Address, Mailbox, mailbox};
use crate::policy::PolicyPatch;

const LISTS: u64 = 10_000;
const EVENTS: usize = 40;

/// What lanes share, for tests.
pub(crate) fn context() -> LaneContext {
    LaneContext {
        metrics: Metrics::new(&Config::default()).unwrap(),
        leases: Arc::new(LeaseIds::new()),
        tasks: TaskTracker::new(),
        shutdown: CancellationToken::new(),
        max_queued: 12,
        no_worker_wait: Duration::from_secs(10),
    }
}

fn policy(rate: Option<(f64, u32)>, max_in_flight: Option<u32>) -> Policy {
    let patch = PolicyPatch {
        rate: rate.map(|(rate, _)| rate),
        burst: rate.map(|(_, burst)| burst),
        max_in_flight,
        ..PolicyPatch::default()
    };
    patch.effective(Duration::from_mins(1))
}

/// A worker's session, played by the test.
struct Worker {
    seat: Arc<Seat>,
    orders: Mailbox<Order>,
    leases: Vec<Lease>,
    slots: usize,
}

/// A tool, its limits, and what was seen to start.
struct Tool {
    lane: Arc<Lane>,
    policy: Arc<Policy>,
    starts: Vec<Instant>,
}

#[derive(Debug, PartialEq)]
enum Fate {
    Queued { tool: usize, ticket: Ticket },
    Running(LeaseId),
    Over,
}

struct World {
    rng: fastrand::Rng,
    tools: Vec<Tool>,
    workers: Vec<Worker>,
    inbox: Mailbox<Notice>,
    notices: Address<Notice>,
    /// By position, which is unique over all batches here.
    fates: Vec<Fate>,
    next_key: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (notices, inbox) = mailbox(10_000);
        let context = context();
        let tools = (0..rng.usize(1..4)).map(|n| {
            let rate = rng
                .bool()
                .then(|| (f64::from(rng.u32(1..50)), rng.u32(1..4)));
            let in_flight = rng.bool().then(|| rng.u32(1..4));
            let policy = Arc::new(policy(rate, in_flight));
            let lane = Lane::new(Arc::from(format!("tool-{n}")), context.clone());
            lane.set_limits(&policy, None);
            Tool {
                lane,
                policy,
                starts: Vec::new(),
            }
        });
        let tools = tools.collect();
        Self {
            rng,
            tools,
            workers: Vec::new(),
            inbox,
            notices,
            fates: Vec::new(),
            next_key: 0,
        }
    }

    fn any(&mut self, many: usize) -> Option<usize> {
        (many > 0).then(|| self.rng.usize(..many))
    }

    fn join(&mut self) {
        let slots = self.rng.usize(1..4);
        let key = SeatKey(self.next_key);
        self.next_key += 1;
        let (seat, orders) = Seat::new(key, WorkerId::from(format!("worker-{}", key.0)), slots);
        for tool in &self.tools {
            tool.lane.join(Arc::clone(&seat));
        }
        self.workers.push(Worker {
            seat,
            orders,
            leases: Vec::new(),
            slots,
        });
    }

    fn leave(&mut self) {
        let Some(index) = self.any(self.workers.len()) else {
            return;
        };
        let mut worker = self.workers.swap_remove(index);
        worker.seat.close();
        for tool in &self.tools {
            tool.lane.leave(worker.seat.key);
        }
        drop(worker.orders.close());
    }

    fn offer(&mut self) {
        let tool = self.rng.usize(..self.tools.len());
        let position = self.fates.len();
        let now = Instant::now();
        let Tool { lane, policy, .. } = &self.tools[tool];
        let call = Arc::new(Call {
            position,
            batch: "batch".into(),
            batch_key: BatchKey(self.rng.u64(..3)),
            id: position.to_string().into(),
            tool: Arc::clone(lane.tool()),
            arguments: Bytes::new(),
            idempotency_key: None,
            policy: Arc::clone(policy),
            notices: self.notices.clone(),
            trace: None,
        });
        let deadline = now + Duration::from_hours(1);
        let attempt = Attempt {
            call,
            number: 1,
            wait_until: deadline,
            call_deadline: deadline,
            span: None,
        };
        let fate = match lane.offer(attempt, now) {
            Offer::Dispatched(dispatch) => {
                self.tools[tool].starts.push(now);
                Fate::Running(dispatch.lease)
            }
            Offer::Queued(ticket) => Fate::Queued { tool, ticket },
            Offer::Refused(_) => Fate::Over,
        };
        self.fates.push(fate);
    }

    fn withdraw(&mut self) {
        let Some(position) = self.any(self.fates.len()) else {
            return;
        };
        let Fate::Queued { tool, ticket } = self.fates[position] else {
            return;
        };
        if self.tools[tool]
            .lane
            .withdraw(ticket, Instant::now())
            .is_some()
        {
            self.fates[position] = Fate::Over;
        }
    }

    /// An outcome, a fence with a late outcome, or a lease that is simply dropped.
    fn end_a_lease(&mut self) {
        let Some(index) = self.any(self.workers.len()) else {
            return;
        };
        let Some(lease) = self.any(self.workers[index].leases.len()) else {
            return;
        };
        let mut lease = self.workers[index].leases.swap_remove(lease);
        match self.rng.u8(..4) {
            0 => drop(lease),
            1 => {
                lease.fence();
                self.fates[lease.call().position] = Fate::Over;
            }
            _ => lease.settle(Ending::Lost),
        }
    }

    /// Reads what the lanes have said, and holds it against what is permitted.
    fn observe(&mut self) {
        let mut notices = Vec::new();
        self.inbox.collect_ready(&mut notices);
        for notice in notices {
            match notice {
                Notice::Dispatched(Dispatch {
                    position,
                    lease,
                    at,
                    ..
                }) => {
                    let Fate::Queued { tool, .. } = self.fates[position] else {
                        panic!("call {position} started twice: {:?}", self.fates[position]);
                    };
                    self.tools[tool].starts.push(at);
                    self.fates[position] = Fate::Running(lease);
                }
                Notice::Refused { position, .. } => {
                    assert!(
                        matches!(self.fates[position], Fate::Queued { .. }),
                        "only a waiting call is refused"
                    );
                    self.fates[position] = Fate::Over;
                }
                Notice::Settled {
                    position, lease, ..
                } => {
                    assert_eq!(
                        self.fates[position],
                        Fate::Running(lease),
                        "a lease ends once, and only when open"
                    );
                    self.fates[position] = Fate::Over;
                }
                Notice::Progress { .. } | Notice::Look(_) => {}
            }
        }
        for worker in &mut self.workers {
            let mut orders = Vec::new();
            worker.orders.collect_ready(&mut orders);
            for order in orders {
                if let Order::Assign(lease) = order {
                    worker.leases.push(lease);
                }
            }
            assert!(
                worker.leases.len() <= worker.slots,
                "more leases than slots"
            );
            assert_eq!(
                worker.seat.free(),
                worker.slots - worker.leases.len(),
                "a slot is lost"
            );
        }
        for tool in &self.tools {
            let name = tool.lane.tool();
            let leases = self.workers.iter().flat_map(|worker| &worker.leases);
            let in_flight = leases.filter(|lease| &lease.call().tool == name).count();
            if let Some(most) = tool.policy.max_in_flight {
                assert!(
                    in_flight <= most.get() as usize,
                    "{name}: {in_flight} in flight"
                );
            }
        }
    }

    fn check_rates(&self) {
        for Tool { policy, starts, .. } in &self.tools {
            let Some(rate) = policy.rate else { continue };
            for (n, from) in starts.iter().enumerate() {
                for (m, to) in starts.iter().enumerate().skip(n) {
                    let permitted =
                        f64::from(rate.burst.get()) + rate.per_second * (*to - *from).as_secs_f64();
                    let started = u32::try_from(m - n + 1).unwrap();
                    assert!(
                        f64::from(started) <= permitted + 1e-6,
                        "{started} starts, {permitted} permitted"
                    );
                }
            }
        }
    }

    /// Lets every lease end and time pass: with a worker there, nobody may be left waiting.
    async fn settle_all(&mut self) {
        self.join();
        for _ in 0..200 {
            tokio::time::advance(Duration::from_secs(1)).await;
            tokio::task::yield_now().await;
            self.observe();
            for worker in &mut self.workers {
                worker.leases.clear();
            }
            self.observe();
            if self.fates.iter().all(|fate| *fate == Fate::Over) {
                return;
            }
        }
        panic!("somebody waits for ever: {:?}", self.fates);
    }
}

async fn run_list(seed: u64) {
    fastrand::seed(seed);
    let mut world = World::new(seed);
    for _ in 0..EVENTS {
        match world.rng.u8(..20) {
            0..=8 => world.offer(),
            9 => world.withdraw(),
            10..=14 => world.end_a_lease(),
            15 => world.join(),
            16 => world.leave(),
            17 => {
                let tool = world.rng.usize(..world.tools.len());
                world.tools[tool]
                    .lane
                    .pause(Duration::from_millis(world.rng.u64(..500)));
            }
            _ => {
                tokio::time::advance(Duration::from_millis(world.rng.u64(1..400))).await;
                tokio::task::yield_now().await;
            }
        }
        world.observe();
    }
    world.settle_all().await;
    world.check_rates();
    for tool in &world.tools {
        for worker in &world.workers {
            tool.lane.leave(worker.seat.key);
        }
        assert!(
            tool.lane.is_idle(),
            "calls in flight are counted after all have ended"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn random_event_lists_keep_every_limit_and_lose_no_slot_no_token_and_no_call() {
    for seed in 0..LISTS {
        let list = std::panic::AssertUnwindSafe(run_list(seed));
        if let Err(panic) = futures_util::FutureExt::catch_unwind(list).await {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
