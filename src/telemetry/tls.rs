//! TLS to a collector: who is trusted, who this is, and the way there.
//!
//! Not tonic's own: with it compiled in, the connections that the broker listens on are of two kinds, and calls pay for that
//! (`docs/architecture.md` has the figures).

use std::fmt;
use std::io;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::variables::for_traces;

#[derive(Clone)]
pub(super) struct Tls(TlsConnector);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// An error names the variable and its file.
    pub(super) fn of_variables() -> Result<Self> {
        let trusts = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("there is no TLS to be had")?
            .with_root_certificates(roots()?);
        let mut config = match (certificates("CLIENT_CERTIFICATE")?, key()?) {
            (Some(certificates), Some(key)) => {
                trusts.with_client_auth_cert(certificates, key).context(
                    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY",
                )?
            }
            (None, None) => trusts.with_no_client_auth(),
            _ => bail!(
                "of OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY one is set without the other"
            ),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Dials when there is something to send.
    pub(super) fn connect(&self, endpoint: &Endpoint) -> Channel {
        let connector = self.0.clone();
        endpoint.connect_with_connector_lazy(service_fn(move |uri: Uri| {
            let connector = connector.clone();
            async move {
                let host = uri.host().unwrap_or_default();
                let host = host
                    .trim_start_matches('[')
                    .trim_end_matches(']')
                    .to_owned();
                let port = uri.port_u16().unwrap_or(443);
                let stream = TcpStream::connect((host.as_str(), port)).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::try_from(host).map_err(io::Error::other)?;
                let stream = connector.connect(name, stream).await?;
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        }))
    }
}

fn roots() -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if let Some(trusted) = certificates("CERTIFICATE")? {
        for certificate in trusted {
            let added = roots.add(certificate);
            added.context("OTEL_EXPORTER_OTLP_CERTIFICATE: what is in it cannot be trusted")?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        ensure!(
            !roots.is_empty(),
            "the system has no certificates of whom to trust; name a file in OTEL_EXPORTER_OTLP_CERTIFICATE"
        );
    }
    Ok(roots)
}

fn certificates(what: &str) -> Result<Option<Vec<CertificateDer<'static>>>> {
    let Some((pem, place)) = file(what)? else {
        return Ok(None);
    };
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = read.with_context(|| format!("{place} cannot be read"))?;
    ensure!(!certificates.is_empty(), "{place} has no CERTIFICATE in it");
    Ok(Some(certificates))
}

fn key() -> Result<Option<PrivateKeyDer<'static>>> {
    let Some((pem, place)) = file("CLIENT_KEY")? else {
        return Ok(None);
    };
    let key = PrivateKeyDer::from_pem_slice(&pem);
    Ok(Some(
        key.with_context(|| format!("{place} has no key in it"))?,
    ))
}

/// The file that a variable names, and both names.
fn file(what: &str) -> Result<Option<(Vec<u8>, String)>> {
    let Some((name, path)) = for_traces(what) else {
        return Ok(None);
    };
    let place = format!("{name}: {path}");
    let pem = std::fs::read(&path).with_context(|| format!("{place} cannot be read"))?;
    Ok(Some((pem, place)))
}
