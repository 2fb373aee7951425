//! One look at a broker: everything that the screen shows.

use tonic::Status;
use toolpool_proto::v1;
use v1::{BatchStatus, LaneStatus, ListBatchesRequest, ListBatchesResponse, WorkerStatus};

use crate::command::{Admin, workers};

/// The batches of a page with their calls. The broker may give fewer: its pages have a size.
const PAGE: u32 = 20;
/// The most batches that a page without calls can have.
const LARGEST_PAGE: u32 = 1_000;
/// The most pages that are turned to find the latest: 10,000 batches can be open unless a broker was set otherwise.
const MOST_TURNED: usize = 16;

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
    let first = page(admin, PAGE, String::new(), true).await?;
    let mut batches = Batches {
        oldest: first.batches,
        latest: Vec::new(),
        open: first.open,
    };
    let mut token = first.next_page_token;
    let mut passed = u32::try_from(batches.oldest.len()).unwrap_or(u32::MAX);
    // What lies between is passed over in large pages without calls, as far as the last page.
    for _ in 0..MOST_TURNED {
        let between = batches.open.saturating_sub(passed).saturating_sub(PAGE);
        if token.is_empty() || between == 0 {
            break;
        }
        let turned = page(admin, between.min(LARGEST_PAGE), token, false).await?;
        passed = passed.saturating_add(u32::try_from(turned.batches.len()).unwrap_or(u32::MAX));
        batches.open = turned.open;
        token = turned.next_page_token;
    }
    // It may come in parts, and further batches may be opened meanwhile.
    for _ in 0..MOST_TURNED {
        if token.is_empty() || batches.latest.len() >= PAGE as usize {
            break;
        }
        let last = page(admin, PAGE, token, true).await?;
        batches.open = last.open;
        batches.latest.extend(last.batches);
        token = last.next_page_token;
    }
    Ok(batches)
}

async fn page(
    admin: &mut Admin,
    page_size: u32,
    page_token: String,
    with_calls: bool,
) -> Result<ListBatchesResponse, Status> {
    let request = ListBatchesRequest {
        batch_id: String::new(),
        page_size,
        page_token,
        with_calls,
    };
    Ok(admin.list_batches(request).await?.into_inner())
}
