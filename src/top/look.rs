//! One look at a broker: everything that the screen shows.

use tonic::Status;
use toolpool_proto::v1;
use v1::{BatchStatus, LaneStatus, ListBatchesRequest, ListBatchesResponse, WorkerStatus};

use crate::command::{Admin, workers};

/// The batches of a page with their calls. The broker may give fewer: its pages have a size.
const PAGE: u32 = 20;
/// What a broker showed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Look {
    pub(crate) workers: Vec<WorkerStatus>,
    pub(crate) lanes: Vec<LaneStatus>,
    pub(crate) batches: Batches,
}

/// Open batches with their calls.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batches {
    /// The first page.
    pub(crate) oldest: Vec<BatchStatus>,
    /// The last page, without what the first has.
    pub(crate) latest: Vec<BatchStatus>,
    /// All that are open.
    pub(crate) open: u32,
}

impl Batches {
    /// How many are neither among the oldest nor among the latest.
    pub(crate) fn between(&self) -> usize {
        let shown = self.oldest.len() + self.latest.len();
        usize::try_from(self.open)
            .unwrap_or(usize::MAX)
            .saturating_sub(shown)
    }
}

impl Look {
    /// Asks for all of it at once.
    pub(crate) async fn take(admin: &mut Admin) -> Result<Self, Status> {
        let (mut for_workers, mut for_lanes) = (admin.clone(), admin.clone());
        let (workers, lanes, batches) = tokio::try_join!(
            workers(&mut for_workers, None),
            lanes(&mut for_lanes),
            batches(admin),
        )?;
        Ok(Self {
            workers,
            lanes,
            batches,
        })
    }
}

async fn lanes(admin: &mut Admin) -> Result<Vec<LaneStatus>, Status> {
    let mut request = v1::ListLanesRequest::default();
    let mut lanes = Vec::new();
    loop {
        let page = admin.list_lanes(request.clone()).await?.into_inner();
        lanes.extend(page.lanes);
        // Each page goes on behind the one before it, and the last one nowhere.
        if page.next_page_token <= request.page_token {
            return Ok(lanes);
        }
        request.page_token = page.next_page_token;
    }
}

async fn batches(admin: &mut Admin) -> Result<Batches, Status> {
    let first = page(admin, false).await?;
    let mut batches = Batches {
        oldest: first.batches,
        latest: Vec::new(),
        open: first.open,
    };
    if !first.next_page_token.is_empty() {
        let last = page(admin, true).await?;
        batches.open = last.open;
        batches.latest = last.batches;
        batches.latest.reverse();
        let is_shown = |of: &BatchStatus| {
            let mut oldest = batches.oldest.iter();
            oldest.any(|batch| batch.batch_id == of.batch_id)
        };
        batches.latest.retain(|batch| !is_shown(batch));
    }
    Ok(batches)
}

/// The oldest batches, or the newest.
async fn page(admin: &mut Admin, newest_first: bool) -> Result<ListBatchesResponse, Status> {
    let request = ListBatchesRequest {
        page_size: PAGE,
        with_calls: true,
        newest_first,
        ..ListBatchesRequest::default()
    };
    Ok(admin.list_batches(request).await?.into_inner())
}
