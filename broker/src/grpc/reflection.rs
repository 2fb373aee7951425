//! Server reflection: what the server offers, for tools that do not have the `.proto` files.

use tonic::service::Routes;
use tonic_reflection::server::{Builder, Error};

/// Adds both versions of the reflection service; clients still ask for the older one.
pub(crate) fn add_to(routes: Routes) -> Result<Routes, Error> {
    Ok(routes
        .add_service(describe().build_v1()?)
        .add_service(describe().build_v1alpha()?))
}

fn describe<'a>() -> Builder<'a> {
    Builder::configure()
        .register_encoded_file_descriptor_set(toolpool_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
