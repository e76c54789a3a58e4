//! Removes an endpoint without a running service: its queues at the broker, and its name from
//! the records, as `endpoint remove` does with one.

use crate::admin::provision::tell_service;
use crate::broker::retire::{RetireError, retire};
use crate::cli::DeprovisionArgs;
use crate::cli::output;
use crate::config::Settings;
use crate::failure::{self, Failure, GENERAL, REFUSED, advice};
use crate::model::Removed;
use crate::store::Store;
use clutch_common::link::{Fault, Transport};

/// Removes an endpoint and says what was done.
///
/// # Errors
/// When there is no such endpoint, an instance of it runs, it has tasks without an
/// outcome and this was not accepted, or the broker cannot be used.
pub(crate) async fn run(settings: &Settings, args: &DeprovisionArgs) -> anyhow::Result<()> {
    let transport = settings.transport()?;
    settings.state.prepare()?;
    let store = Store::open(&settings.state).await?;
    let removed = remove(&store, transport.as_ref(), args).await;
    store.close().await;
    let removed = removed?;
    if settings.json {
        return output::json(&removed);
    }
    Ok(output::line(&removed.words())?)
}

async fn remove(
    store: &Store,
    transport: &dyn Transport,
    args: &DeprovisionArgs,
) -> anyhow::Result<Removed> {
    let Some(endpoint) = store.endpoint(&args.endpoint).await? else {
        let known = store.endpoint_names(10).await?.join(", ");
        let words = format!("there is no endpoint '{}'; known are: {known}", args.endpoint);
        return Err(Failure::new(GENERAL, words).into());
    };
    let address = transport.address();
    let connection = transport
        .connect("clutch/service/deprovision")
        .await
        .map_err(|fault| failed(&fault, &address))?;
    let removed = retire(store, connection.as_ref(), &endpoint, args.end_tasks).await;
    if removed.is_ok() {
        tell_service(connection.as_ref()).await;
    }
    connection.close().await;
    removed.map_err(|error| match error {
        RetireError::Running(_) => Failure::new(REFUSED, error.to_string()).into(),
        RetireError::Pending(words) => Failure::new(GENERAL, words).into(),
        RetireError::Broker(fault) => failed(&fault, &address).into(),
        RetireError::Store(error) => error.into(),
    })
}

fn failed(fault: &Fault, address: &str) -> Failure {
    let advice = advice(fault);
    let separator = if advice.is_empty() { "" } else { "; " };
    let words = format!("cannot deprovision at {address}: {fault}{separator}{advice}");
    Failure::new(failure::code(fault), words)
}
