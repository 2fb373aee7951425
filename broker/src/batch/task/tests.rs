//! What no agent can bring about from outside.

use bytes::Bytes;

use tokio_stream::StreamExt;

use super::*;
use crate::catalogue::Definition;
use crate::grpc::delivery::delivery;
use crate::ingest::{Header, Input};
use crate::lane::tests::context;
use crate::policy::PolicyPatch;
use crate::registry::{Batches, OpenBatch};
use crate::schema::Schema;

fn whole(id: &str, tool: &str) -> Step {
    let header = Header {
        id: id.into(),
        tool: tool.to_owned(),
    };
    Step::Own(Input::Whole {
        header,
        idempotency_key: None,
        arguments: Bytes::from_static(b"{}"),
    })
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_the_broker_costs_one_call_and_tells_the_agent_no_details() {
    let config = Arc::new(Config::default());
    let lanes = context();
    let metrics = Arc::clone(&lanes.metrics);
    let catalogue = Arc::new(Catalogue::new(Arc::clone(&config), lanes));
    catalogue.install_as_is(
        Definition {
            name: "broken".into(),
            description: String::new(),
            input_schema: Bytes::new(),
            policy: PolicyPatch::default(),
        },
        Schema::with_a_defect(),
    );
    tokio::time::advance(config.no_worker_wait).await;
    let (out, mut response) = delivery();
    let open = Open {
        batch: "batch".into(),
        deadline: None,
        max_parallel: None,
        finish_on_disconnect: false,
        progress: false,
        provider: None,
        agent: None,
    };
    let mailbox = Task::mailbox(&config);
    let handle = OpenBatch {
        key: BatchKey(0),
        notices: mailbox.0.clone(),
    };
    let room = Batches::new(1).room().unwrap();
    let place = room.open(&open.batch, handle).unwrap();
    let task = Task::new(Opened {
        metrics,
        open,
        key: BatchKey(0),
        place,
        rpc_deadline: None,
        config,
        catalogue,
        telemetry: Telemetry::default(),
        expire: CancellationToken::new(),
        out,
        mailbox,
    });
    task.run(
        vec![whole("a", "broken"), whole("b", "unknown")],
        Inbound::Nothing,
    )
    .await;

    let mut codes = Vec::new();
    while let Some(packet) = response.next().await {
        for frame in packet.unwrap().frames {
            if let Some(Frame::Result(v1::CallResult {
                ending: Some(v1::call_result::Ending::Error(error)),
                ..
            })) = frame.frame
            {
                assert!(!error.message.contains("defect"), "{}", error.message);
                codes.push(error.code());
            }
        }
    }
    assert_eq!(codes, [v1::ErrorCode::Internal, v1::ErrorCode::UnknownTool]);
}
