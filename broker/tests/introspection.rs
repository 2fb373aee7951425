//! Health and reflection over the wire.

#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use support::{Broker, seconds, settle, soon};
use tonic::transport::{Channel, Endpoint};

const SERVICES: [&str; 3] = [
    "",
    "toolpool.v1.BrokerService",
    "toolpool.v1.WorkerPoolService",
];
const ADMIN: &str = "toolpool.v1.AdminService";

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn every_service_serves_until_the_broker_drains() {
    let broker = Broker::start();
    let _batch_that_keeps_it_up = broker.agent().await;
    let health = HealthClient::new(broker.channel().await);
    until_it_drains(&broker, health, &SERVICES, "toolpool.v1.Nothing").await;
}

#[tokio::test]
async fn the_admin_port_knows_of_all_services_and_the_other_not_of_its_own() {
    let (broker, admin) = Broker::start_with_admin(|_| ()).await;
    let _batch_that_keeps_it_up = broker.agent().await;
    let mut health = HealthClient::new(broker.channel().await);
    let hidden = soon(health.check(of(ADMIN))).await;
    assert_eq!(hidden.unwrap_err().code(), Code::NotFound);
    let admin = Endpoint::from_shared(format!("http://{admin}")).unwrap();
    let health = HealthClient::new(admin.connect().await.unwrap());
    let services = [&SERVICES[..], &[ADMIN]].concat();
    until_it_drains(&broker, health, &services, "toolpool.v1.Nothing").await;
}

async fn until_it_drains(
    broker: &Broker,
    mut health: HealthClient<Channel>,
    services: &[&str],
    unknown: &str,
) {
    for service in services {
        let status = soon(health.check(of(service))).await.unwrap().into_inner();
        assert_eq!(status.status(), ServingStatus::Serving, "{service}");
    }
    let unknown = soon(health.check(of(unknown))).await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);

    broker.shutdown.drain.cancel();
    settle().await;
    for service in services {
        let status = soon(health.check(of(service))).await.unwrap().into_inner();
        assert_eq!(status.status(), ServingStatus::NotServing, "{service}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_who_watches_is_told_of_the_drain_and_does_not_hold_up_the_end() {
    let broker = Broker::start();
    let mut health = HealthClient::new(broker.channel().await);
    let watch = health.watch(of("toolpool.v1.BrokerService"));
    let mut statuses = soon(watch).await.unwrap().into_inner();
    let first = soon(statuses.message()).await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);

    let batch = broker.agent().await;
    broker.shutdown.drain.cancel();
    let second = soon(statuses.message()).await.unwrap().unwrap();
    assert_eq!(second.status(), ServingStatus::NotServing);
    let began = tokio::time::Instant::now();
    drop(batch);
    assert!(soon(statuses.message()).await.unwrap().is_none());
    drop(health);
    soon(broker.server).await.unwrap().unwrap();
    assert!(began.elapsed() < seconds(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn reflection_lists_and_describes_the_services() {
    let broker = Broker::start();
    let list = MessageRequest::ListServices(String::new());
    let MessageResponse::ListServicesResponse(listed) = ask(&broker, list).await else {
        panic!("not a list");
    };
    let names: Vec<_> = listed.service.into_iter().map(|of| of.name).collect();
    for wanted in ["grpc.health.v1.Health"].iter().chain(&SERVICES[1..]) {
        assert!(names.iter().any(|name| name == wanted), "{names:?}");
    }
    for symbol in ["toolpool.v1.BrokerService", "toolpool.v1.WorkerFrame"] {
        let symbol = MessageRequest::FileContainingSymbol(symbol.to_owned());
        let MessageResponse::FileDescriptorResponse(described) = ask(&broker, symbol).await else {
            panic!("not a description");
        };
        assert!(!described.file_descriptor_proto.is_empty());
    }
}

async fn ask(broker: &Broker, message: MessageRequest) -> MessageResponse {
    let mut reflection = ServerReflectionClient::new(broker.channel().await);
    let (requests, stream) = tokio::sync::mpsc::channel(1);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(message),
    };
    requests.send(request).await.unwrap();
    let replies = reflection.server_reflection_info(ReceiverStream::new(stream));
    let mut replies = soon(replies).await.unwrap().into_inner();
    let reply: Option<ServerReflectionResponse> = soon(replies.message()).await.unwrap();
    reply.unwrap().message_response.unwrap()
}
