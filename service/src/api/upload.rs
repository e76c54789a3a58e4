//! Reads the bodies of submissions, bounded by bytes and by progress.
//!
//! A body counts against what is under way as it arrives. One that turns out to be
//! large waits for room among the large ones, so these keep no small one from its way;
//! one that does not move gives its room back.

use super::error::ApiError;
use super::extract::{too_large, too_slow, unreadable};
use super::{LARGE_UNDER_WAY, MAX_REQUEST, SHARE, UNDER_WAY};
use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use http_body_util::BodyExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// Up to how many bytes a body is small.
const SMALL: usize = 1024 * 1024;
/// How long a body may stand still, by default.
const STALL: Duration = Duration::from_secs(5);
/// The slowest body that is read, in bytes per second, once it had as long as it may stand still.
const SLOWEST: usize = 256 * 1024;

/// Room for the bodies that are read and worked on.
#[derive(Clone)]
pub(super) struct Uploads {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    /// How long a body may stand still.
    stall: Duration,
}

/// A body, and the room that it takes until it has been worked on.
pub(super) struct Upload {
    pub(super) bytes: Vec<u8>,
    _room: Vec<OwnedSemaphorePermit>,
}

impl Default for Uploads {
    fn default() -> Self {
        let shares = |bytes: usize| Arc::new(Semaphore::new(bytes / SHARE));
        Self { small: shares(UNDER_WAY), large: shares(LARGE_UNDER_WAY), stall: STALL }
    }
}

impl Uploads {
    /// Reads a body.
    pub(super) async fn read(
        &self,
        headers: &HeaderMap,
        mut body: Body,
    ) -> Result<Upload, ApiError> {
        let declared = declared(headers)?;
        let mut upload = Upload { bytes: Vec::new(), _room: Vec::new() };
        let (mut shares, mut large_since) = (0, None);
        loop {
            let frame = timeout(self.stall, body.frame()).await.map_err(|_| too_slow())?;
            let Some(frame) = frame else { return Ok(upload) };
            let frame = frame.map_err(unreadable)?;
            let Ok(data) = frame.into_data() else { continue };
            let size = upload.bytes.len() + data.len();
            if size > MAX_REQUEST {
                return Err(too_large(MAX_REQUEST));
            }
            if size > SMALL && large_since.is_none() {
                let rest = declared.unwrap_or(MAX_REQUEST).max(size).div_ceil(SHARE) - shares;
                upload._room.push(room(&self.large, rest).await?);
                upload.bytes.reserve(declared.unwrap_or(size).saturating_sub(upload.bytes.len()));
                large_since = Some((Instant::now(), size));
            } else if size <= SMALL && size.div_ceil(SHARE) > shares {
                let more = size.div_ceil(SHARE) - shares;
                upload._room.push(room(&self.small, more).await?);
                shares += more;
            }
            if let Some((since, from)) = large_since
                && since.elapsed()
                    > self.stall + Duration::from_secs(((size - from) / SLOWEST) as u64)
            {
                return Err(too_slow());
            }
            upload.bytes.extend_from_slice(&data);
        }
    }
}

/// The length that a request says its body has.
fn declared(headers: &HeaderMap) -> Result<Option<usize>, ApiError> {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > MAX_REQUEST) {
        return Err(too_large(MAX_REQUEST));
    }
    Ok(length)
}

async fn room(of: &Arc<Semaphore>, shares: usize) -> Result<OwnedSemaphorePermit, ApiError> {
    let shares = u32::try_from(shares).unwrap_or(u32::MAX);
    let stopping = |_| ApiError::stopping();
    Arc::clone(of).acquire_many_owned(shares).await.map_err(stopping)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{StreamExt as _, stream};

    fn said(length: usize) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, length.to_string().parse().unwrap());
        headers
    }

    /// A body that sends so much and then stands still.
    fn stalled(size: usize) -> Body {
        let sent = stream::iter([Ok::<_, std::io::Error>(vec![b'x'; size])]);
        Body::from_stream(sent.chain(stream::pending()))
    }

    #[tokio::test]
    async fn what_stands_still_keeps_no_room_and_small_bodies_do_not_wait_for_it() {
        let stall = Duration::from_secs(1);
        let uploads = Uploads { stall, ..Uploads::default() };
        let count = 2 * LARGE_UNDER_WAY / MAX_REQUEST;
        let headers = said(MAX_REQUEST);
        let stalling = futures_util::future::join_all(
            (0..count).map(|_| uploads.read(&headers, stalled(2 * SMALL))),
        );
        let began = Instant::now();
        let small = async {
            tokio::time::sleep(stall / 5).await;
            let small = uploads.read(&said(3), Body::from("abc")).await.ok().unwrap();
            assert_eq!(small.bytes, b"abc");
            assert!(began.elapsed() < stall, "it waited for those that stand still");
        };
        let (stalled, ()) = tokio::join!(stalling, small);
        assert!(stalled.iter().all(Result::is_err));
        assert!(began.elapsed() < stall * 10, "{:?}", began.elapsed());
        assert_eq!(uploads.large.available_permits(), LARGE_UNDER_WAY / SHARE);
        assert_eq!(uploads.small.available_permits(), UNDER_WAY / SHARE);
    }

    #[tokio::test]
    async fn the_largest_finds_room_and_one_byte_more_is_refused() {
        let uploads = Uploads::default();
        let body = || Body::from(vec![b'x'; MAX_REQUEST]);
        for headers in [said(MAX_REQUEST), HeaderMap::new()] {
            let upload = uploads.read(&headers, body()).await.ok().unwrap();
            assert_eq!(upload.bytes.len(), MAX_REQUEST);
        }
        assert!(uploads.read(&said(MAX_REQUEST + 1), body()).await.is_err());
        let more = Body::from(vec![b'x'; MAX_REQUEST + 1]);
        assert!(uploads.read(&HeaderMap::new(), more).await.is_err());
    }
}
