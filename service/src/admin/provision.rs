//! Provisions an endpoint: registers its name, declares its queues, writes its
//! `endpoint.toml`. Needs no running service. Every step can be repeated.

use crate::admin::endpoint_file::{EndpointFile, Existing, check_writable};
use crate::broker::ownership;
use crate::cli::ProvisionArgs;
use crate::cli::output;
use crate::config::{Settings, reachable};
use crate::failover;
use crate::failure::{Failure, REFUSED, advice, code, is_in_doubt};
use crate::publishing::to_queue;
use crate::state_folder::StateFolder;
use crate::store::{Endpoint, Registration, Store};
use clutch_common::id::EndpointId;
use clutch_common::link::ownership::{Claim, claim};
use clutch_common::link::{Connection, Fault, Transport};
use clutch_common::system::clock::now_ms;
use clutch_common::topology::{self, QueueKind};
use serde::Serialize;
use std::path::PathBuf;

/// The report of a provisioning.
#[derive(Debug, Serialize)]
pub(crate) struct ProvisionReport {
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
pub(crate) async fn run(settings: &Settings, args: &ProvisionArgs) -> anyhow::Result<()> {
    let report = endpoint(settings, args).await?;
    if settings.json {
        return output::json(&report);
    }
    Ok(tell(&report)?)
}

/// Provisions an endpoint.
pub(crate) async fn endpoint(
    settings: &Settings,
    args: &ProvisionArgs,
) -> anyhow::Result<ProvisionReport> {
    let transport = settings.transport()?;
    let endpoint_url = match &args.endpoint_broker {
        Some(url) => url.expose(),
        None => settings.broker()?,
    };
    reachable(endpoint_url)?;
    settings.state.prepare()?;
    let store = Store::open(&settings.state).await?;
    let provisioned =
        provision(&store, &settings.state, transport.as_ref(), endpoint_url, args).await;
    store.close().await;
    provisioned
}

async fn provision(
    store: &Store,
    state: &StateFolder,
    transport: &dyn Transport,
    endpoint_url: &str,
    args: &ProvisionArgs,
) -> anyhow::Result<ProvisionReport> {
    check_writable(&args.out)?;
    let address = transport.address();
    let earlier = store.places().await?;
    let place = transport.prepare(&earlier).await.map_err(|fault| unprepared(&fault, &address))?;
    let endpoint_url = &named(endpoint_url, place.as_ref())?;
    let wanted = Registration {
        name: args.name.clone(),
        id: args.id,
        queue: args.queue.map(QueueKind::from),
        lost_after: args.lost_after,
        now_ms: now_ms(),
    };
    let (endpoint, created) = store.register(wanted).await?;
    let id = endpoint.id;
    let done = carry_out(store, state, transport, endpoint_url, args, (endpoint, created)).await;
    if let (Ok(_), Some((_, place))) = (&done, &place) {
        store.prepared(place).await?;
    }
    if let Err(error) = &done
        && created
        && !is_in_doubt(error)
    {
        // An endpoint that never was would keep its name for ever.
        store.forget_undeclared(id).await?;
    }
    done
}

/// Declares what a registered endpoint needs, and writes its file. A failure that is in
/// doubt may have left the queue.
async fn carry_out(
    store: &Store,
    state: &StateFolder,
    transport: &dyn Transport,
    endpoint_url: &str,
    args: &ProvisionArgs,
    (endpoint, created): (Endpoint, bool),
) -> anyhow::Result<ProvisionReport> {
    let address = transport.address();
    let Endpoint { id, name, queue, .. } = endpoint;
    let file = EndpointFile::new(id, &name, endpoint_url, args.heartbeat, args.blocked_timeout)
        .with_topics(&args.topic);
    let existing = file.compare(&args.out)?;
    let shared = store.shared_queue_kind().await?.unwrap_or(queue);
    let connection = transport
        .connect("clutch/service/provision")
        .await
        .map_err(|fault| refusal(&fault, &address))?;
    let service = store.service_id().await?;
    let declared = match claim(connection.as_ref(), service, shared).await {
        Ok(Claim::Ours) => declare(connection.as_ref(), id, queue, shared).await,
        Ok(Claim::Theirs { words, .. }) => {
            connection.close().await;
            return Err(not_ours(&ownership::refused(Some(service), state, &words), &address));
        }
        Err(fault) => Err(fault),
    };
    if declared.is_ok() && store.declared(id, shared).await? {
        tell_service(connection.as_ref()).await;
    }
    connection.close().await;
    declared.map_err(|fault| {
        let undone = matches!(fault, Fault::Mismatch(_) | Fault::Forbidden(_));
        let refused = refused_declaring(&fault, &address, shared);
        if undone { refused } else { refused.in_doubt() }
    })?;
    if existing == Existing::Absent {
        file.write(&args.out)?;
    }
    Ok(ProvisionReport {
        id,
        name,
        queue,
        file: std::path::absolute(&args.out)?,
        created,
        file_created: existing == Existing::Absent,
        file_edited: existing == Existing::Edited,
    })
}

async fn declare(
    connection: &dyn Connection,
    id: EndpointId,
    queue: QueueKind,
    shared: QueueKind,
) -> Result<(), Fault> {
    connection.declare(&topology::shared(shared)).await?;
    connection.declare(&topology::endpoint(id, queue)).await
}

/// Tells a service that is collecting that there is something in its records to
/// look at. One that is started later looks anyway.
pub(crate) async fn tell_service(connection: &dyn Connection) {
    let told = async {
        let mut outlet = connection.outlet().await?;
        let results = to_queue(topology::RESULTS_QUEUE.to_owned());
        outlet.publish(&results, failover::barrier()).await?;
        outlet.settled().await
    };
    if let Err(fault) = told.await {
        tracing::warn!(
            %fault,
            "a running service does not know that the queue was declared again: restart it, so \
             that it looks for tasks that were lost with the old queue"
        );
    }
}

/// The endpoint's URL, with the option that tells the place from others of its
/// kind.
fn named(url: &str, place: Option<&(&'static str, String)>) -> anyhow::Result<String> {
    let Some((option, value)) = place else { return Ok(url.to_owned()) };
    let mut named = url::Url::parse(url)?;
    if !named.query_pairs().any(|(key, _)| key == *option) {
        named.query_pairs_mut().append_pair(option, value);
    }
    Ok(named.into())
}

/// The failure for a place to provision in that cannot be made.
fn unprepared(fault: &Fault, address: &str) -> Failure {
    Failure::new(code(fault), format!("cannot provision in {address}: {fault}"))
}

/// The failure for a broker or folder where the results belong to another service.
fn not_ours(refused: &str, address: &str) -> anyhow::Error {
    let words = format!("cannot provision at {address}: {refused}; nothing was provisioned");
    Failure::new(REFUSED, words).into()
}

fn refusal(fault: &Fault, address: &str) -> Failure {
    let passing = matches!(
        fault,
        Fault::Closed(_) | Fault::Blocked { .. } | Fault::ConfirmTimeout(_) | Fault::Rejected(_)
    );
    let advice = if passing { "provisioning again continues" } else { advice(fault) };
    let separator = if advice.is_empty() { "" } else { "; " };
    Failure::new(code(fault), format!("cannot provision at {address}: {fault}{separator}{advice}"))
}

/// A refusal of what was declared: something of another kind may be there.
fn refused_declaring(fault: &Fault, address: &str, shared: QueueKind) -> Failure {
    let refusal = refusal(fault, address);
    if !matches!(fault, Fault::Mismatch(_)) {
        return refusal;
    }
    Failure::new(
        code(fault),
        format!(
            "{refusal}; --queue chooses the kind of an endpoint's queue (the queues that all \
             endpoints share are {} here)",
            shared.as_str()
        ),
    )
}

fn tell(report: &ProvisionReport) -> std::io::Result<()> {
    let file = report.file.display();
    let what = if report.created { "provisioned" } else { "was provisioned before" };
    output::line(&format!("{} {what}: {}", report.name, report.id))?;
    if report.file_created {
        output::line(&format!("wrote {file}: carry it to the endpoint, and keep it private"))
    } else if report.file_edited {
        output::line(&format!(
            "{file} is this endpoint's, with settings of its own: it is left alone"
        ))
    } else {
        output::line(&format!("{file} is there and as it should be"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::BrokerArgs;
    use crate::failure::{CONFIG, exit_code};
    use crate::store::conformance::store;
    use crate::stub_broker::Broker;
    use std::path::Path;
    use std::time::Duration;

    fn args(name: &str, out: &Path) -> ProvisionArgs {
        ProvisionArgs {
            broker: BrokerArgs::default(),
            name: name.to_owned(),
            id: None,
            out: out.to_path_buf(),
            queue: None,
            heartbeat: Duration::from_secs(10),
            blocked_timeout: Duration::from_secs(60),
            lost_after: None,
            topic: Vec::new(),
            endpoint_broker: None,
        }
    }

    async fn provisioned(
        store: &Store,
        broker: &Broker,
        args: &ProvisionArgs,
    ) -> anyhow::Result<ProvisionReport> {
        provision(store, &StateFolder::new("/s"), broker, "amqp://h", args).await
    }

    #[tokio::test]
    async fn provisioning_again_changes_nothing() {
        let (temp, store) = store().await;
        let broker = Broker::default();
        let out = temp.path().join("endpoint.toml");
        let args = args("lab", &out);
        let first = provisioned(&store, &broker, &args).await.unwrap();
        let text = std::fs::read_to_string(&out).unwrap();
        let again = provisioned(&store, &broker, &args).await.unwrap();
        assert!(first.created && first.file_created);
        assert_eq!(again.id, first.id);
        assert!(!again.created && !again.file_created && !again.file_edited);
        assert_eq!(std::fs::read_to_string(&out).unwrap(), text);
        let expected = [
            topology::owner(store.service_id().await.unwrap(), QueueKind::Classic),
            topology::shared(QueueKind::Classic),
            topology::endpoint(first.id, QueueKind::Classic),
        ];
        assert_eq!(broker.declared(), [expected.clone(), expected].concat());
    }

    #[tokio::test]
    async fn a_file_with_edits_or_of_another_endpoint_stays_as_it_is() {
        let (temp, store) = store().await;
        let broker = Broker::default();
        let out = temp.path().join("endpoint.toml");
        provisioned(&store, &broker, &args("lab", &out)).await.unwrap();
        let edited = format!("{}[engine]\nslots = 1\n", std::fs::read_to_string(&out).unwrap());
        std::fs::write(&out, &edited).unwrap();
        let again = provisioned(&store, &broker, &args("lab", &out)).await.unwrap();
        assert!(again.file_edited && !again.file_created);
        let error = provisioned(&store, &broker, &args("other", &out)).await.unwrap_err();
        assert!(error.to_string().contains("belongs to another endpoint"), "{error}");
        assert_eq!(std::fs::read_to_string(&out).unwrap(), edited);
    }

    #[tokio::test]
    async fn the_shared_queues_keep_the_kind_they_were_first_given() {
        let (temp, store) = store().await;
        let broker = Broker::default();
        let first = args("lab", &temp.path().join("a.toml"));
        provisioned(&store, &broker, &first).await.unwrap();
        let quorum = ProvisionArgs {
            queue: Some(crate::cli::QueueArg::Quorum),
            ..args("big", &temp.path().join("b.toml"))
        };
        let big = provisioned(&store, &broker, &quorum).await.unwrap();
        let declared = broker.declared();
        assert_eq!(declared[4], topology::shared(QueueKind::Classic));
        assert_eq!(declared[5], topology::endpoint(big.id, QueueKind::Quorum));
    }

    #[tokio::test]
    async fn a_mismatch_at_the_broker_says_what_to_do_and_writes_no_file() {
        let (temp, store) = store().await;
        let broker = Broker::default();
        broker.refuse_declaring(Fault::Mismatch("inequivalent arg 'x-queue-type'".into()));
        let out = temp.path().join("endpoint.toml");
        let error = provisioned(&store, &broker, &args("lab", &out)).await.unwrap_err();
        let words = error.to_string();
        assert!(words.contains("x-queue-type") && words.contains("--queue"), "{words}");
        assert_eq!(exit_code(&error), CONFIG);
        assert!(!out.exists());
        assert!(store.endpoint("lab").await.unwrap().is_none(), "the name is taken");
        let quorum =
            ProvisionArgs { queue: Some(crate::cli::QueueArg::Quorum), ..args("lab", &out) };
        let again = provisioned(&store, &Broker::default(), &quorum).await.unwrap();
        assert_eq!((again.queue, again.file_created), (QueueKind::Quorum, true));
    }

    #[tokio::test]
    async fn a_failure_leaves_no_endpoint_unless_the_broker_may_have_its_queue() {
        let (temp, store) = store().await;
        let out = temp.path().join("endpoint.toml");
        for (fault, left) in
            [(Fault::Forbidden("no".into()), false), (Fault::Closed("gone".into()), true)]
        {
            let broker = Broker::default();
            broker.refuse_declaring(fault);
            provisioned(&store, &broker, &args("lab", &out)).await.unwrap_err();
            assert_eq!(store.endpoint("lab").await.unwrap().is_some(), left);
        }
        let known = store.endpoint("lab").await.unwrap().unwrap();
        let again = provision(
            &store,
            &StateFolder::new("/s"),
            &Broker::default(),
            "amqp://h",
            &args("lab", &out),
        )
        .await;
        assert_eq!(again.unwrap().id, known.id);
        let broker = Broker::default();
        broker.refuse_declaring(Fault::Forbidden("no".into()));
        provisioned(&store, &broker, &args("lab", &out)).await.unwrap_err();
        assert!(store.endpoint("lab").await.unwrap().is_some(), "one that was there before stays");
    }

    #[tokio::test]
    async fn a_place_that_cannot_be_written_to_is_told_before_anything_is_done() {
        let (temp, store) = store().await;
        let broker = Broker::default();
        let out = temp.path().join("none/endpoint.toml");
        let error = provisioned(&store, &broker, &args("lab", &out)).await.unwrap_err();
        assert!(error.to_string().contains("nothing was provisioned"), "{error}");
        assert!(broker.declared().is_empty());
        assert!(store.endpoint("lab").await.unwrap().is_none());
    }
}
