//! `grpc.health.v1`: each service serves until the broker drains.

use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthService, HealthServer};
use tonic_health::server::{HealthReporter, health_reporter};

use super::admin::Operators;
use super::agent::Agents;
use super::worker::WorkerPool;
use toolpool_proto::v1::admin_service_server::AdminServiceServer;
use toolpool_proto::v1::broker_service_server::BrokerServiceServer;
use toolpool_proto::v1::worker_pool_service_server::WorkerPoolServiceServer;

/// What has a status; the empty name stands for the whole server.
pub(crate) const SERVICES: [&str; 4] = [
    "",
    <BrokerServiceServer<Agents> as NamedService>::NAME,
    <WorkerPoolServiceServer<WorkerPool> as NamedService>::NAME,
    <AdminServiceServer<Operators> as NamedService>::NAME,
];

/// The health service's own name.
pub(crate) const NAME: &str = "grpc.health.v1.Health";

/// The statuses of all services, which go down together.
#[derive(Debug)]
pub(crate) struct Health(HealthReporter);

impl Health {
    /// Everything serves; and the service that says so.
    pub(crate) async fn serving() -> (Self, HealthServer<impl HealthService>) {
        let (reporter, service) = health_reporter();
        let health = Self(reporter);
        health.set(ServingStatus::Serving).await;
        (health, service)
    }

    /// Follows the broker down: nothing serves any more once it drains, and who watches is let go when the server ends.
    pub(crate) async fn follow(mut self, draining: CancellationToken, ended: CancellationToken) {
        draining.cancelled().await;
        self.set(ServingStatus::NotServing).await;
        ended.cancelled().await;
        for service in SERVICES {
            // Ends the streams of those that watch it, which would otherwise keep their connections open.
            self.0.clear_service_status(service).await;
        }
    }

    async fn set(&self, status: ServingStatus) {
        for service in SERVICES {
            self.0.set_service_status(service, status).await;
        }
    }
}
