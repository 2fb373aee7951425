//! `toolpool broker`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Arg, ArgMatches, Args, FromArgMatches};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use toolpool_broker::config::{Config, SETTINGS, Sources};
use toolpool_broker::{Admin, Operations, Shutdown, Telemetry};

use crate::logging;
use crate::output::Output;
use crate::signals::Signals;
use crate::telemetry::{BROKER_QUEUE, Export};

/// Run the broker that agents and workers dial
///
/// Prints `listening on ADDRESS` on stdout once it does, and `admin listening on ADDRESS` for probes and metrics. SIGTERM or SIGINT drains it: no new batch is taken, open ones may
/// finish. A second signal ends it at once, with 128 and the signal's number as its exit code.
///
/// Every setting can be given in the file (`max_parallel = 8`), in the environment (`TOOLPOOL_MAX_PARALLEL=8`) or as a flag
/// (`--max-parallel 8`); a flag wins over the environment, and that over the file.
///
/// Traces go, over gRPC, to the collector that `OTEL_EXPORTER_OTLP_ENDPOINT` names (`http://…`, `https://…`); OpenTelemetry's
/// other variables hold too.
#[derive(Args)]
pub(crate) struct Broker {
    /// A TOML file of settings, and of policies in tables such as `[tools.search]`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the settings that would hold, as a file (without the `[tools.NAME]` policies), and end
    #[arg(long)]
    print_config: bool,
    /// End when stdin does
    #[arg(long, hide = true)]
    exit_with_parent: bool,
    #[command(flatten)]
    flags: SettingFlags,
}

/// A flag for each setting of the broker's table.
struct SettingFlags(Vec<(String, String)>);

impl Args for SettingFlags {
    fn augment_args(command: clap::Command) -> clap::Command {
        let flags = SETTINGS.iter().map(|setting| {
            Arg::new(setting.key)
                .long(setting.key.replace('_', "-"))
                .value_name("VALUE")
                .help_heading("Settings")
                .help(format!(
                    "{} [permitted: {}; default: {}]",
                    setting.doc.trim(),
                    setting.permitted,
                    setting.default
                ))
        });
        command.args(flags)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = SETTINGS.iter().filter_map(|setting| {
            let value = matches.get_one::<String>(setting.key)?;
            Some((setting.key.to_owned(), value.clone()))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Broker {
    pub(super) fn run(self) -> Result<ExitCode> {
        let text = |name: std::ffi::OsString| name.into_string().ok();
        let env = std::env::vars_os();
        let config = Config::load(Sources {
            file: self.config,
            env: env
                .filter_map(|(name, value)| Some((text(name)?, text(value)?)))
                .collect(),
            flags: self.flags.0,
        })?;
        if self.print_config {
            Output::new().line(config.to_toml().trim_end())?;
            return Ok(ExitCode::SUCCESS);
        }
        let export = Export::start("toolpool-broker", BROKER_QUEUE)?;
        let telemetry = export.as_ref().map(Export::broker).unwrap_or_default();
        let runtime = runtime(config.threads)?;
        let code = runtime.block_on(serve(config, telemetry, self.exit_with_parent));
        // What is still open then is not waited for.
        runtime.shutdown_background();
        if let Some(export) = export {
            export.finish();
        }
        code
    }
}

async fn serve(config: Config, telemetry: Telemetry, exit_with_parent: bool) -> Result<ExitCode> {
    let signals = Signals::watch(exit_with_parent)?;
    let listen = config.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!("cannot listen on {listen}; choose another address with --listen (port 0 lets the system choose)")
    })?;
    let address = listener
        .local_addr()
        .context("the listener has no address")?;
    let admin = admin(config.admin_listen).await?;
    let mut output = Output::new();
    output.line(format!("listening on {address}"))?;
    if let Some(admin) = &admin {
        let address = admin.address().context("the admin port has no address")?;
        // Whoever has read the first line may have stopped reading.
        let _ = output.line(format!("admin listening on {address}"));
    }
    let shutdown = Shutdown {
        drain: signals.drain.clone(),
        now: signals.now.clone(),
    };
    signals
        .run(toolpool_broker::run_with(
            config,
            listener,
            shutdown,
            Operations { admin, telemetry },
        ))
        .await
}

async fn admin(listen: Option<SocketAddr>) -> Result<Option<Admin>> {
    let Some(listen) = listen else {
        return Ok(None);
    };
    let admin = Admin::bind(listen).await.with_context(|| {
        format!(
            "cannot listen on {listen}, which is admin_listen; choose another address with --admin-listen (port 0 lets \
             the system choose), or have none with --admin-listen off"
        )
    })?;
    Ok(Some(admin.with_log(logging::control())))
}

/// One thread runs everything on the thread that waits for it, which saves the wake-ups between threads.
fn runtime(threads: usize) -> Result<Runtime> {
    let mut builder = if threads == 1 {
        Builder::new_current_thread()
    } else {
        Builder::new_multi_thread()
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder
        .enable_all()
        .build()
        .context("cannot start the runtime")
}
