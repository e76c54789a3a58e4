//! Shows a list again and again: redrawn on a terminal, where it changes elsewhere. A service that
//! is away is waited for.

use crate::cli::output;
use crate::failure::{UNAVAILABLE, exit_code};
use std::io::IsTerminal as _;
use std::time::Duration;

/// How often a list that is watched is asked for.
const EVERY: Duration = Duration::from_secs(2);
/// Moves the cursor to the top and clears the screen.
const CLEAR: &[u8] = b"\x1b[H\x1b[2J";

/// Shows what is asked for, until it cannot be.
///
/// # Errors
/// When the service answers with an error.
pub(super) async fn run(
    shown: impl AsyncFn() -> anyhow::Result<String>,
    json: bool,
) -> anyhow::Result<()> {
    let (mut last, mut away) = (None, false);
    loop {
        match shown().await {
            Ok(shown) => {
                away = false;
                if std::io::stdout().is_terminal() && !json {
                    output::raw(CLEAR)?;
                    output::line(&shown)?;
                } else if last.as_ref() != Some(&shown) {
                    output::line(&shown)?;
                }
                output::flush()?;
                last = Some(shown);
            }
            Err(error) if exit_code(&error) == UNAVAILABLE => {
                if !std::mem::replace(&mut away, true) {
                    output::note(&format!("{error:#}; trying until it is there again"));
                }
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(EVERY).await;
    }
}
