//! Server reflection: what the server offers, for tools that do not have the `.proto` files.

use tonic::service::Routes;
use tonic_reflection::server::{Builder, Error};

/// Adds both versions of the reflection service, which names these services; clients still ask for the older one.
pub(crate) fn add_to(routes: Routes, services: &[&str]) -> Result<Routes, Error> {
    Ok(routes
        .add_service(describe(services).build_v1()?)
        .add_service(describe(services).build_v1alpha()?))
}

fn describe<'a>(services: &[&str]) -> Builder<'a> {
    let builder = Builder::configure()
        .register_encoded_file_descriptor_set(toolpool_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    let itself = ["grpc.reflection.v1.ServerReflection"];
    let named = services.iter().chain(&itself);
    named.fold(builder, |builder, name| builder.with_service_name(*name))
}
