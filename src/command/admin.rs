//! Where the broker's admin port is, and what to do if nothing there answers.

use std::error::Error as _;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use toolpool_proto::v1::admin_service_client::AdminServiceClient;

/// The operator's side of a broker.
pub(crate) type Admin = AdminServiceClient<Channel>;

/// Where the broker's admin port is.
#[derive(Args)]
pub(super) struct AdminAddress {
    /// The address of the broker's admin port [default: `http://127.0.0.1:7401`]
    #[arg(long, value_name = "URL", env = "TOOLPOOL_ADMIN")]
    admin: Option<String>,
}

impl AdminAddress {
    /// The longest that a command at a prompt waits for a broker.
    const PATIENCE: Duration = Duration::from_secs(3);
    /// The longest that an answer may take.
    const ANSWER: Duration = Duration::from_secs(10);
    /// A broker that is gone without a word is noticed after at most twice this time.
    const KEEP_ALIVE: Duration = Duration::from_secs(5);
    const FIRST_PAUSE: Duration = Duration::from_millis(50);
    const DEFAULT: &str = "http://127.0.0.1:7401";
    /// A page of batches with their calls, or a catalogue with its schemas, is larger than gRPC's usual 4 MiB.
    const MAX_DECODED: usize = 256 << 20;

    /// As it was given; the scheme may be left out.
    pub(super) fn url(&self) -> String {
        let given = self.admin.as_deref().unwrap_or(Self::DEFAULT);
        if given.contains("://") {
            given.to_owned()
        } else {
            format!("http://{given}")
        }
    }

    /// Dials it, and tries again for a moment: the broker may only just have been started.
    pub(super) async fn connect(&self) -> Result<Admin> {
        let endpoint = self.endpoint()?;
        let deadline = Instant::now() + Self::PATIENCE;
        let mut pause = Self::FIRST_PAUSE;
        loop {
            let error = match timeout_at(deadline, endpoint.connect()).await {
                Ok(Ok(channel)) => {
                    let admin = Admin::new(channel);
                    return Ok(admin.max_decoding_message_size(Self::MAX_DECODED));
                }
                Ok(Err(error)) => anyhow!(error),
                Err(elapsed) => anyhow!(elapsed),
            };
            if Instant::now() + pause >= deadline {
                return Err(error.context(self.advice()));
            }
            sleep(pause).await;
            pause *= 2;
        }
    }

    fn endpoint(&self) -> Result<Endpoint> {
        let url = self.url();
        let wrong = || {
            format!(
                "`{url}` is not the address of an admin port; give it with --admin, such as {}",
                Self::DEFAULT
            )
        };
        anyhow::ensure!(url.starts_with("http://"), wrong());
        let endpoint = Endpoint::from_shared(url.clone()).with_context(wrong)?;
        anyhow::ensure!(endpoint.uri().authority().is_some(), wrong());
        Ok(endpoint
            .timeout(Self::ANSWER)
            .http2_keep_alive_interval(Self::KEEP_ALIVE)
            .keep_alive_timeout(Self::KEEP_ALIVE))
    }

    /// Says what to do about it.
    pub(super) fn explain(&self, status: Status) -> anyhow::Error {
        if is_transport(&status) {
            return anyhow!(status).context(self.advice());
        }
        let said = match status.code() {
            Code::Unimplemented => format!(
                "what answers at {} is no admin port for operators: it may be the broker's port for agents and workers, or a \
                 broker of an older version",
                self.url()
            ),
            code => format!("the broker refused: {} ({code:?})", status.message()),
        };
        anyhow!(crate::output::one_line(&said))
    }

    fn advice(&self) -> String {
        format!(
            "no broker's admin port answers at {}; give its address with --admin or in TOOLPOOL_ADMIN. It may be off \
             (`admin_listen`), and by default only the broker's own machine reaches it: use \
             `kubectl port-forward POD 7401`, or with compose `docker compose exec broker toolpool …`",
            self.url()
        )
    }
}

/// Whether the transport made this status, as opposed to the broker: what comes off the wire has no source.
pub(crate) fn is_transport(status: &Status) -> bool {
    status.source().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> AdminAddress {
        AdminAddress {
            admin: Some(address.to_owned()),
        }
    }

    #[test]
    fn the_scheme_may_be_left_out() {
        assert_eq!(at("10.0.0.1:7401").url(), "http://10.0.0.1:7401");
        assert_eq!(at("http://broker:7401").url(), "http://broker:7401");
        assert_eq!(AdminAddress { admin: None }.url(), "http://127.0.0.1:7401");
    }

    #[test]
    fn an_address_that_is_none_is_said_to_be_none() {
        for wrong in ["https://broker:7401", "http://", "http://a b"] {
            let error = at(wrong).endpoint().unwrap_err().to_string();
            assert!(error.contains("--admin"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_port_for_agents_is_told_from_one_that_is_not_there() {
        let of = at("127.0.0.1:7400");
        let error = of.explain(Status::unimplemented("")).to_string();
        assert!(error.contains("port for agents and workers"), "{error}");
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = of.explain(Status::from_error(Box::new(broken))).to_string();
        assert!(error.contains("kubectl port-forward"), "{error}");
        let denied = of.explain(Status::permission_denied("asked from\nanother machine"));
        assert_eq!(
            denied.to_string(),
            "the broker refused: asked from another machine (PermissionDenied)"
        );
    }
}
