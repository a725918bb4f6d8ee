//! `wardian serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use serde_json::json;
use tokio::net::TcpListener;
use wardian_gateway::{Gateway, GatewayConfig};
use wardian_sandbox::{Capabilities, Launcher, LauncherConfig, Tier};
use wardian_server::{Admin, ReaderLimits, ServerConfig};
use wardian_session::{Engine, EngineConfig};
use wardian_store::Store;

use crate::config::{self, AdminListen, Config, open_store};
use crate::failure::{Failure, Outcome, print, setup, usage};
use crate::host;
use crate::telemetry::{self, Telemetry};

/// Serves the HTTP API: `POST /v1/x/run` and what belongs to it (docs/run.md).
///
/// Reads the model provider's key from ANTHROPIC_API_KEY. Prints one line of JSON with its address when it is ready;
/// logs are JSON lines on the standard error (WARDIAN_LOG=debug shows more). SIGTERM ends it after the runs under way.
#[derive(clap::Args)]
pub struct Arguments {
    /// The configuration file; `wardian config` prints one
    #[arg(long, env = "WARDIAN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:8700]
    #[arg(long, env = "WARDIAN_LISTEN", value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Where /metrics, /livez and /readyz are shown without a key; `none` switches it off [default: 127.0.0.1:8701]
    #[arg(long, env = "WARDIAN_ADMIN_LISTEN", value_name = "ADDR:PORT")]
    admin_listen: Option<String>,
    /// Sessions, their workspaces, and the store [default: wardian-data]
    #[arg(long, env = "WARDIAN_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where model requests go [default: `https://api.anthropic.com`]
    #[arg(long, env = "WARDIAN_UPSTREAM", value_name = "URL")]
    upstream: Option<String>,
    /// A host folder that every sandbox sees, read-only; may be given again
    #[arg(long, value_name = "DIR")]
    read_only: Vec<PathBuf>,
    /// A proxy in front does TLS: allow an address that is not a loopback one
    #[arg(long)]
    behind_tls_proxy: bool,
    /// Serve although this host gives no control groups: one sandbox can then starve the others of memory
    #[arg(long)]
    allow_no_cgroup: bool,
    /// After SIGTERM, how long what is under way may go on [default: 30]
    #[arg(long, env = "WARDIAN_DRAIN_TIMEOUT", value_name = "SECONDS")]
    drain_timeout: Option<u64>,
    /// A collector of OpenTelemetry's that traces and metrics are sent to (OTLP over HTTP); off by default
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// The folder with the static binaries wardian-guest and wardian-agent
    #[arg(long, env = "WARDIAN_LIBEXEC_DIR", value_name = "DIR")]
    libexec_dir: Option<PathBuf>,
}

/// Serves until it is told to stop.
pub async fn serve(arguments: Arguments) -> Outcome {
    let libexec_dir = arguments.libexec_dir.clone();
    let config = configuration(arguments)?;
    let key = host::api_key()?;
    let libexec_dir = host::libexec_dir(libexec_dir)?;
    host::log_json("info");
    host::raise_descriptor_limit();

    let owner = host::owner();
    let telemetry = Telemetry::new(config.otlp_endpoint.as_ref()).map_err(usage)?;
    let tracer = telemetry.tracer();
    let meter = telemetry.meter();
    let store = open_store(&config.data_dir)?;
    telemetry::watch(&meter, &store);
    let store: Arc<dyn Store> = Arc::new(store);
    let upstream = GatewayConfig {
        metrics: wardian_gateway::Metrics::new(&meter),
        tracer: tracer.clone(),
        ..GatewayConfig::new(config.upstream.clone(), key, owner.as_str())
    };
    let gateway = Gateway::new(upstream, Arc::clone(&store)).map_err(setup)?;
    let doctor = "`wardian doctor` says what this host can do, and what mends what it can't";
    let state_dir = absolute(&config.data_dir)?.join("launcher");
    let launcher = Launcher::start(LauncherConfig::new(libexec_dir, state_dir))
        .map_err(|error| setup(error).hint(doctor))?;
    for missing in &launcher.capabilities().missing {
        tracing::warn!(what = missing.what, mend = missing.mend, "this host lacks something for sandboxes");
    }
    check_tier(launcher.capabilities(), config.allow_no_cgroup)?;
    let engine = EngineConfig {
        metrics: wardian_session::Metrics::new(&meter),
        tracer: tracer.clone(),
        ..engine_config(&config, owner)?
    };
    let engine = Engine::start(engine, Arc::clone(&store), gateway, launcher).await.map_err(setup)?;
    let listener = bind(config.listen, "--listen names another address; port 0 takes a free one").await?;
    let admin = bind_admin(config.admin_listen).await?;
    let address = listener.local_addr().map_err(setup)?;
    let ready = json!({
        "listening": address.to_string(),
        "base_url": format!("http://{address}"),
        "admin": admin.as_ref().and_then(|admin| admin.local_addr().ok()).map(|at| at.to_string()),
        "data_dir": config.data_dir,
        "tier": engine.capabilities().tier,
    });
    print(&ready.to_string())?;
    let server = ServerConfig {
        hosts: config.hosts,
        origins: config.origins,
        max_connections: config.max_connections,
        readers: ReaderLimits::of(config.max_connections),
        failed_logins_per_minute: config.failed_logins_per_minute,
        drain_timeout: config.drain_timeout,
        metrics: wardian_server::Metrics::new(&meter),
        tracer,
        admin: admin.map(|listener| Admin::new(listener, telemetry.scrape())),
        canary: config.canary,
        retention: config.retention,
        clock: host::now,
        ..ServerConfig::default()
    };
    wardian_server::serve(listener, server, engine, store, host::asked_to_stop()).await.map_err(setup)?;
    // The exporters' threads are waited for, which needs this runtime.
    tokio::task::spawn_blocking(move || telemetry.shut_down()).await.map_err(setup)?;
    Ok(ExitCode::SUCCESS)
}

async fn bind(address: SocketAddr, hint: &str) -> Result<TcpListener, Failure> {
    let bound = TcpListener::bind(address).await.with_context(|| format!("listen on {address}"));
    bound.map_err(|error| setup(error).hint(hint))
}

/// The admin listener. Two servers on one machine, neither of which was told where to show its metrics, both serve.
async fn bind_admin(listen: AdminListen) -> Result<Option<TcpListener>, Failure> {
    match listen {
        AdminListen::Off => Ok(None),
        AdminListen::At(address) => {
            bind(address, "--admin-listen names another address, or `none`").await.map(Some)
        }
        AdminListen::Default(address) => {
            let bound = TcpListener::bind(address).await;
            if let Err(error) = &bound {
                tracing::warn!(%address, %error, "no metrics are shown: name an address with --admin-listen");
            }
            Ok(bound.ok())
        }
    }
}

/// Many users on a host that cannot hold each to its memory: only when the operator says so.
fn check_tier(host: &Capabilities, allow_no_cgroup: bool) -> Result<(), Failure> {
    if host.tier == Tier::Full || allow_no_cgroup {
        return Ok(());
    }
    let mend = host.missing.first().map_or_else(String::new, |missing| format!("{}; ", missing.mend));
    Err(setup(anyhow!("serve many users: this host gives no control groups (tier {})", host.tier))
        .hint(format!("{mend}or --allow-no-cgroup, where all users may share one fate")))
}

/// Flags and environment over the file over the defaults.
fn configuration(arguments: Arguments) -> Result<Config, Failure> {
    let mut written = config::read(arguments.config.as_deref())?;
    if let Some(listen) = arguments.listen {
        written.listen = listen;
    }
    if let Some(admin_listen) = arguments.admin_listen {
        written.admin_listen = admin_listen;
    }
    if let Some(data_dir) = arguments.data_dir {
        written.data_dir = data_dir;
    }
    if let Some(upstream) = arguments.upstream {
        written.upstream = upstream;
    }
    if let Some(seconds) = arguments.drain_timeout {
        written.server.drain_timeout_seconds = seconds;
    }
    if let Some(endpoint) = arguments.otlp_endpoint {
        written.telemetry.otlp_endpoint = endpoint;
    }
    written.read_only.extend(arguments.read_only);
    written.behind_tls_proxy |= arguments.behind_tls_proxy;
    written.allow_no_cgroup |= arguments.allow_no_cgroup;
    written.check()
}

fn engine_config(config: &Config, owner: String) -> Result<EngineConfig, Failure> {
    Ok(EngineConfig {
        read_only: config.read_only.clone(),
        defaults: config.limits,
        ceilings: config.ceilings,
        sessions: config.sessions,
        caps: config.caps,
        default_model: config.default_model.clone(),
        sandbox_limits: config.sandbox.clone(),
        clock: host::now,
        ..EngineConfig::new(absolute(&config.data_dir)?, owner)
    })
}

fn absolute(path: &std::path::Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| setup(anyhow!(error).context(format!("find {}", path.display()))))
}

#[cfg(test)]
mod tests {
    use wardian_sandbox::Missing;

    use super::*;

    #[test]
    fn a_host_without_control_groups_is_refused_unless_allowed() {
        let missing = Missing { what: "control groups".to_owned(), mend: "run as root".to_owned() };
        let host = |tier| Capabilities {
            tier,
            uid_per_tenant: false,
            idmapped_mounts: false,
            exec_groups: false,
            agent: true,
            missing: vec![missing.clone()],
        };
        assert!(check_tier(&host(Tier::Full), false).is_ok());
        assert!(check_tier(&host(Tier::NoCgroup), true).is_ok());
        let refused = format!("{:?}", check_tier(&host(Tier::NoCgroup), false).unwrap_err());
        assert!(refused.contains("run as root") && refused.contains("--allow-no-cgroup"), "{refused}");
    }
}
