//! Provisions an endpoint: registers its name, declares its queues, writes its
//! `endpoint.toml`. Needs no running service. Every step can be repeated.

use crate::cli::ProvisionArgs;
use crate::config::Settings;
use crate::endpoint_file::{EndpointFile, Existing};
use crate::failure::{CONFIG, Failure, GENERAL, REFUSED, UNAVAILABLE, usage};
use crate::output;
use crate::store::{Endpoint, Registration, Store};
use clutch_common::clock::now_ms;
use clutch_common::id::EndpointId;
use clutch_common::link::{Fault, Terms, Transport, transport};
use clutch_common::topology::{self, QueueKind};
use serde::Serialize;
use std::path::PathBuf;

/// The longest name.
const MAX_NAME: usize = 64;

/// What provisioning did.
#[derive(Debug, Serialize)]
struct Report {
    id: EndpointId,
    name: String,
    queue: QueueKind,
    file: PathBuf,
    /// Whether the name is new.
    created: bool,
    /// Whether the file was written.
    file_created: bool,
    /// Whether a file that is there differs from what would be written.
    file_edited: bool,
}

/// Provisions an endpoint and says what was done.
///
/// # Errors
/// When name, id or kind of queue contradict what is recorded or what exists at
/// the broker, when the broker cannot be used, or the file cannot be written.
pub async fn run(settings: &Settings, args: &ProvisionArgs) -> anyhow::Result<()> {
    check_name(&args.name)?;
    let broker = settings.broker()?;
    let bad_url = |error: clutch_common::link::InvalidUrl| usage(error.to_string());
    let dialled = transport(broker, &Terms::default()).map_err(bad_url)?;
    let endpoint_url = args.endpoint_broker.as_deref().unwrap_or(broker);
    transport(endpoint_url, &Terms::default()).map_err(bad_url)?;
    settings.state.prepare()?;
    let store = Store::open(&settings.state).await?;
    let provisioned = provision(&store, dialled.as_ref(), endpoint_url, args).await;
    store.close().await;
    let report = provisioned?;
    if settings.json {
        return output::json(&report);
    }
    Ok(tell(&report)?)
}

async fn provision(
    store: &Store,
    transport: &dyn Transport,
    endpoint_url: &str,
    args: &ProvisionArgs,
) -> anyhow::Result<Report> {
    let wanted = Registration {
        name: &args.name,
        id: args.id,
        queue: args.queue.map(QueueKind::from),
        now_ms: now_ms(),
    };
    let (endpoint, created) = store.register(&wanted).await?;
    let Endpoint { id, name, queue } = endpoint;
    let file = EndpointFile::new(id, &name, endpoint_url, args.heartbeat, args.blocked_timeout);
    let existing = file.compare(&args.out)?;
    let shared = store.shared_queue_kind().await?.unwrap_or(queue);
    declare(transport, id, queue, shared)
        .await
        .map_err(|fault| refusal(&fault, &transport.address(), shared))?;
    store.declared(id, shared).await?;
    if existing == Existing::Absent {
        file.write(&args.out)?;
    }
    Ok(Report {
        id,
        name,
        queue,
        file: std::path::absolute(&args.out)?,
        created,
        file_created: existing == Existing::Absent,
        file_edited: existing == Existing::Edited,
    })
}

fn check_name(name: &str) -> anyhow::Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(allowed) {
        return Err(usage(format!(
            "'{name}' cannot be the name of an endpoint: 1 to {MAX_NAME} of A-Z a-z 0-9 . _ -"
        )));
    }
    Ok(())
}

async fn declare(
    transport: &dyn Transport,
    id: EndpointId,
    queue: QueueKind,
    shared: QueueKind,
) -> Result<(), Fault> {
    let connection = transport.connect("clutch/service/provision").await?;
    let declared = async {
        connection.declare(&topology::shared(shared)).await?;
        connection.declare(&topology::endpoint(id, queue)).await
    }
    .await;
    connection.close().await;
    declared
}

fn refusal(fault: &Fault, address: &str, shared: QueueKind) -> Failure {
    let message = format!("cannot provision at the broker {address}: {fault}");
    match fault {
        Fault::Mismatch(_) => Failure::new(
            CONFIG,
            format!(
                "{message}; it was declared with other terms than ours (shared queues: {}): \
                 provision with the --queue kind it has, or delete it at the broker once it is \
                 empty and provision again",
                shared.as_str()
            ),
        ),
        Fault::Credentials(_) | Fault::Forbidden(_) => Failure::new(
            REFUSED,
            format!("{message}; the user in --broker needs to configure, write and read"),
        ),
        Fault::Refused(_) | Fault::Unreachable(_) | Fault::Tls(_) => {
            Failure::new(UNAVAILABLE, format!("{message}; is it running, and is --broker right?"))
        }
        Fault::Closed(_) | Fault::Blocked { .. } | Fault::ConfirmTimeout(_) => {
            Failure::new(UNAVAILABLE, format!("{message}; provisioning again continues"))
        }
        Fault::Missing(_) | Fault::Locked(_) | Fault::Protocol(_) => Failure::new(GENERAL, message),
    }
}

fn tell(report: &Report) -> std::io::Result<()> {
    let file = report.file.display();
    let what = if report.created { "provisioned" } else { "was provisioned before" };
    output::line(&format!("{} {what}: {}", report.name, report.id))?;
    if report.file_created {
        output::line(&format!("wrote {file}: carry it to the endpoint, it holds a password"))
    } else if report.file_edited {
        output::line(&format!(
            "{file} is this endpoint's and differs from what would be written (edits, or other \
             terms): it is left alone; move it away to have it written anew"
        ))
    } else {
        output::line(&format!("{file} is there and as it should be"))
    }
}
