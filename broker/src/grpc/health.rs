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

/// What has a status on the admin port, where whoever watches the broker may ask for all; the empty name stands for the
/// whole server.
const ALL: [&str; 4] = [
    "",
    <BrokerServiceServer<Agents> as NamedService>::NAME,
    <WorkerPoolServiceServer<WorkerPool> as NamedService>::NAME,
    <AdminServiceServer<Operators> as NamedService>::NAME,
];
/// How many of these, the first, have one on the port of agents and workers.
const PUBLIC: usize = 3;

/// The health service's own name.
pub(crate) const NAME: &str = "grpc.health.v1.Health";

/// The statuses of all services on both ports, which go down together.
#[derive(Debug)]
pub(crate) struct Health([(HealthReporter, usize); 2]);

impl Health {
    /// Everything serves; and the services that say so on the public and on the admin port.
    pub(crate) async fn serving() -> (Self, [HealthServer<impl HealthService>; 2]) {
        let (public, on_public) = health_reporter();
        let (admin, on_admin) = health_reporter();
        let health = Self([(public, PUBLIC), (admin, ALL.len())]);
        health.set(ServingStatus::Serving).await;
        (health, [on_public, on_admin])
    }

    /// Follows the broker down: nothing serves any more once it drains, and who watches is let go when the server ends.
    pub(crate) async fn follow(mut self, draining: CancellationToken, ended: CancellationToken) {
        draining.cancelled().await;
        self.set(ServingStatus::NotServing).await;
        ended.cancelled().await;
        for (reporter, services) in &mut self.0 {
            for service in &ALL[..*services] {
                // Ends the streams of those that watch it, which would otherwise keep their connections open.
                reporter.clear_service_status(service).await;
            }
        }
    }

    async fn set(&self, status: ServingStatus) {
        for (reporter, services) in &self.0 {
            for service in &ALL[..*services] {
                reporter.set_service_status(service, status).await;
            }
        }
    }
}
