//! One blob on its way from the source to the destination: looked for, mounted, or streamed through with its digest
//! verified on the fly. Nothing is kept on disk. The whole image is `promote`'s matter.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use reqwest::Body;
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    blob::{Begun, BlobReader, Upload},
    client::within,
    error::{PromoteError, RegistryError},
    graph::{Descriptor, Origin},
    promote::PromoteProgress,
    retry::Patience,
};

/// How many pieces are between the two ends of a copy. Each is what one read of a connection gave.
const PIECES_IN_FLIGHT: usize = 4;
/// An upload that got less far than this is begun anew: some registries answer "0-0" for nothing and for one byte.
const RESUME_MIN_BYTES: u64 = 64 * 1024;
/// How far apart the states of the hash are kept, from which a broken upload goes on; and how many at most.
const MARK_EVERY_BYTES: u64 = 1024 * 1024;
const MARKS_MAX: u64 = 1024;

/// The way of a promotion's blobs.
pub(super) struct Route {
    pub(super) source: Origin,
    pub(super) destination: Origin,
    pub(super) progress: watch::Sender<PromoteProgress>,
}

impl Route {
    fn is_within_one_registry(&self) -> bool {
        self.source.client.is_same_registry(&self.destination.client)
    }

    /// A permit of each registry. They are taken in the order of the registries' names, so that two promotions in
    /// opposite directions cannot wait for each other.
    async fn permits(&self) -> Vec<OwnedSemaphorePermit> {
        let mut ends = vec![&self.source.client, &self.destination.client];
        ends.sort_by_key(|client| client.inner.endpoint.as_str());
        if self.is_within_one_registry() {
            ends.truncate(1);
        }
        let mut permits = Vec::new();
        for client in ends {
            // The semaphore is never closed; if it were, the bound would be gone and not the copy.
            permits.extend(Arc::clone(&client.inner.transfers).acquire_owned().await.ok());
        }
        permits
    }
}

/// Brings one blob to the destination, unless it is there; `is_there` says so where it was looked up before.
pub(super) async fn carry(route: Arc<Route>, blob: Descriptor, is_there: Option<bool>) -> Result<(), PromoteError> {
    let Origin { client, repository } = &route.destination;
    let is_there = match is_there {
        Some(is_there) => is_there,
        None => client.blob_exists(repository, &blob.digest).await.map_err(PromoteError::Destination)?,
    };
    if is_there {
        route.progress.send_modify(|progress| {
            progress.blobs_skipped += 1;
            progress.bytes_skipped += blob.size;
        });
        return Ok(());
    }
    let _permits = route.permits().await;
    let mut transfer = Transfer::new(&route, &blob);
    let mut patience = Patience::new(&client.inner.limits);
    let mut has_new_tokens = false;
    let failure = loop {
        let error = match transfer.once().await {
            Ok(()) => return Ok(()),
            Err(PromoteError::Destination(error)) => error,
            // The reader has tried again by itself, and what is corrupt stays so.
            Err(error) => break error,
        };
        let was_resumed = std::mem::take(&mut transfer.is_resumed);
        match error {
            // A token may end between the beginning of an upload and its last request, which cannot be sent twice.
            RegistryError::Unauthorised { .. } if !has_new_tokens => {
                has_new_tokens = true;
                client.forget_tokens().await;
            }
            // The registry does not take the rest of what it said it had: then all of it, from the start.
            RegistryError::Rejected { .. } | RegistryError::NotFound { .. } if was_resumed => transfer.upload = None,
            error => match patience.wait(error).await {
                Ok(()) => {}
                Err(error) => break PromoteError::Destination(error),
            },
        }
    };
    if let Some(upload) = transfer.upload.take() {
        client.cancel_upload(&upload, repository, &blob.digest).await;
    }
    Err(failure)
}

struct Transfer<'a> {
    route: &'a Route,
    blob: &'a Descriptor,
    upload: Option<Upload>,
    /// How far any try has sent; the destination cannot have more.
    sent: u64,
    is_first: bool,
    is_resumed: bool,
    marks: Marks,
}

impl<'a> Transfer<'a> {
    fn new(route: &'a Route, blob: &'a Descriptor) -> Self {
        let marks = Marks::new(blob.size);
        Self { route, blob, upload: None, sent: 0, is_first: true, is_resumed: false, marks }
    }

    /// One try, which goes on where the one before was cut off, if the destination knows.
    async fn once(&mut self) -> Result<(), PromoteError> {
        let offset = self.resume().await.map_err(PromoteError::Destination)?;
        self.is_resumed = offset > 0;
        if self.upload.is_none() && !self.begin().await.map_err(PromoteError::Destination)? {
            return Ok(());
        }
        self.stream(offset).await
    }

    /// How much of the blob the destination has of an earlier try; without one, the upload is given up.
    async fn resume(&mut self) -> Result<u64, RegistryError> {
        let Origin { client, repository } = &self.route.destination;
        let Some(mut upload) = self.upload.take() else { return Ok(0) };
        let offset = client.upload_offset(&mut upload, repository, &self.blob.digest).await?;
        match offset.filter(|offset| (RESUME_MIN_BYTES..=self.sent.min(self.blob.size)).contains(offset)) {
            Some(offset) => {
                self.upload = Some(upload);
                tracing::debug!(blob = %self.blob.digest, offset, "go on with a broken upload");
                Ok(offset)
            }
            None => Ok(0),
        }
    }

    /// Begins an upload; false where there is nothing left to send.
    async fn begin(&mut self) -> Result<bool, RegistryError> {
        let Origin { client, repository } = &self.route.destination;
        let digest = &self.blob.digest;
        // The answer to the last request of a try may be what was lost.
        if !std::mem::take(&mut self.is_first) && client.blob_exists(repository, digest).await? {
            self.count(|progress| &mut progress.blobs_copied, |progress| &mut progress.bytes_copied);
            return Ok(false);
        }
        let from = Some(&self.route.source.repository)
            .filter(|from| self.route.is_within_one_registry() && *from != repository);
        let begun = match client.begin_upload(repository, digest, from).await {
            // Who may not mount may still copy.
            Err(
                RegistryError::Unauthorised { .. }
                | RegistryError::Blocked { .. }
                | RegistryError::NotFound { .. }
                | RegistryError::Rejected { .. },
            ) if from.is_some() => client.begin_upload(repository, digest, None).await?,
            other => other?,
        };
        match begun {
            Begun::Mounted => {
                self.count(|progress| &mut progress.blobs_mounted, |progress| &mut progress.bytes_mounted);
                Ok(false)
            }
            Begun::Upload(upload) => {
                self.upload = Some(upload);
                Ok(true)
            }
        }
    }

    fn count(
        &self,
        blobs: impl Fn(&mut PromoteProgress) -> &mut u64,
        bytes: impl Fn(&mut PromoteProgress) -> &mut u64,
    ) {
        self.route.progress.send_modify(|progress| {
            *blobs(progress) += 1;
            *bytes(progress) += self.blob.size;
        });
    }

    /// Streams the blob from `offset` on and closes the upload.
    async fn stream(&mut self, offset: u64) -> Result<(), PromoteError> {
        let Self { route, blob, upload, sent, marks, .. } = self;
        let Origin { client, repository } = &route.destination;
        let Some(upload) = upload.as_ref() else { return Ok(()) };
        let what = client.upload_what(repository, &blob.digest);
        let idle = Duration::from_millis(client.inner.limits.idle_timeout_ms);
        let commit = Duration::from_millis(client.inner.limits.commit_timeout_ms);
        let (sink, pieces) = mpsc::channel(PIECES_IN_FLIGHT);
        let mut flight = InFlight::new(&route.progress, offset);
        let mut pump = Pump { route, blob, marks, sent, flight: &mut flight, sink, idle, what: &what };
        let answer = if offset == blob.size {
            // Only the end was lost. What is there is still verified before it is kept.
            pump.run(offset).await?;
            drop(pump);
            within(commit, &what, client.finish_upload(upload, repository, blob, offset, Body::from(Bytes::new())))
                .await
        } else {
            let body = Body::wrap_stream(ReceiverStream::new(pieces));
            let put = client.finish_upload(upload, repository, blob, offset, body);
            tokio::pin!(put);
            // `put` is dropped before its last byte where the pump fails, so that the destination cannot keep it.
            let pumped = tokio::select! {
                biased;
                pumped = pump.run(offset) => Some(pumped?),
                answer = &mut put => {
                    answer.map_err(PromoteError::Destination)?;
                    None
                }
            };
            drop(pump);
            match pumped {
                Some(Pumped::Whole) => within(commit, &what, put).await,
                Some(Pumped::Hindered) => match within(commit, &what, put).await {
                    Ok(()) => Err(RegistryError::protocol(&what, "it closed the upload before its end")),
                    Err(error) => Err(error),
                },
                None => Err(RegistryError::protocol(&what, "it accepted the blob before its end")),
            }
        };
        answer.map_err(PromoteError::Destination)?;
        flight.land(blob.size);
        Ok(())
    }
}

/// How far the pump got.
enum Pumped {
    /// All was sent, and it is what the digest says.
    Whole,
    /// The destination's connection takes no more; its answer says why.
    Hindered,
}

/// Reads at the source, hashes, and hands on to the destination's connection.
struct Pump<'a> {
    route: &'a Route,
    blob: &'a Descriptor,
    marks: &'a mut Marks,
    sent: &'a mut u64,
    flight: &'a mut InFlight,
    sink: mpsc::Sender<Result<Bytes, io::Error>>,
    idle: Duration,
    what: &'a str,
}

impl Pump<'_> {
    async fn run(&mut self, offset: u64) -> Result<Pumped, PromoteError> {
        let Origin { client, repository } = &self.route.source;
        let (mut position, mut hasher) = self.marks.last_before(offset);
        let mut reader = BlobReader::new(client.clone(), repository, self.blob, position);
        // The last piece is held back until the digest is known: a corrupt blob is never whole at the destination.
        let mut held: Option<Bytes> = None;
        while let Some(mut piece) = reader.next().await.map_err(PromoteError::Source)? {
            hasher.update(&piece);
            let known = offset.saturating_sub(position).min(piece.len() as u64);
            position += piece.len() as u64;
            self.marks.add(position, &hasher);
            let _ = piece.split_to(known as usize);
            if piece.is_empty() {
                continue;
            }
            if let Some(before) = held.replace(piece)
                && !self.give(before).await?
            {
                return Ok(Pumped::Hindered);
            }
        }
        let found = format!("sha256:{}", hex::encode(hasher.finalize()));
        if found != self.blob.digest.as_str() {
            return Err(PromoteError::Source(RegistryError::Corrupt {
                what: format!("blob {} of {repository} at {}", self.blob.digest, client.host()),
                expected: self.blob.digest.to_string(),
                found,
            }));
        }
        if let Some(last) = held
            && !self.give(last).await?
        {
            return Ok(Pumped::Hindered);
        }
        Ok(Pumped::Whole)
    }

    /// Hands a piece on; false where the other end is gone.
    async fn give(&mut self, piece: Bytes) -> Result<bool, PromoteError> {
        let length = piece.len() as u64;
        match tokio::time::timeout(self.idle, self.sink.send(Ok(piece))).await {
            Ok(Ok(())) => {
                self.flight.add(length);
                *self.sent = (*self.sent).max(self.flight.bytes);
                Ok(true)
            }
            Ok(Err(_)) => Ok(false),
            Err(_) => {
                let why = format!("no byte was taken for {} ms", self.idle.as_millis());
                Err(PromoteError::Destination(RegistryError::unreachable(self.what, why)))
            }
        }
    }
}

/// States of the hash along a blob, so that an upload that broke in the middle goes on without hashing it all again.
struct Marks {
    every_bytes: u64,
    marks: Vec<(u64, Sha256)>,
}

impl Marks {
    fn new(size: u64) -> Self {
        Self { every_bytes: MARK_EVERY_BYTES.max(size / MARKS_MAX), marks: Vec::new() }
    }

    fn add(&mut self, position: u64, hasher: &Sha256) {
        let last = self.marks.last().map_or(0, |(position, _)| *position);
        if position >= last + self.every_bytes {
            self.marks.push((position, hasher.clone()));
        }
    }

    fn last_before(&self, offset: u64) -> (u64, Sha256) {
        let mark = self.marks.iter().rev().find(|(position, _)| *position <= offset);
        mark.cloned().unwrap_or_else(|| (0, Sha256::new()))
    }
}

/// The bytes of a blob that are counted while it is on its way, and taken back where they have to be sent again.
struct InFlight {
    progress: watch::Sender<PromoteProgress>,
    bytes: u64,
}

impl InFlight {
    fn new(progress: &watch::Sender<PromoteProgress>, bytes: u64) -> Self {
        progress.send_modify(|progress| progress.bytes_copied += bytes);
        Self { progress: progress.clone(), bytes }
    }

    fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.progress.send_modify(|progress| progress.bytes_copied += bytes);
    }

    /// The blob is there.
    fn land(mut self, size: u64) {
        let counted = std::mem::take(&mut self.bytes);
        self.progress.send_modify(|progress| {
            progress.bytes_copied = progress.bytes_copied - counted + size;
            progress.blobs_copied += 1;
        });
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.progress.send_modify(|progress| progress.bytes_copied -= self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_gives_the_hash_of_what_lies_before_it() {
        let data: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
        let (mut marks, mut hasher, mut position) = (Marks::new(data.len() as u64), Sha256::new(), 0);
        for piece in data.chunks(100_000) {
            hasher.update(piece);
            position += piece.len() as u64;
            marks.add(position, &hasher);
        }
        assert_eq!(marks.last_before(1000).0, 0);
        let (from, mut resumed) = marks.last_before(3_333_333);
        assert!(from <= 3_333_333 && from > 2_000_000);
        resumed.update(&data[from as usize..]);
        assert_eq!(resumed.finalize(), Sha256::digest(&data));
        assert!(Marks::new(u64::MAX).every_bytes >= u64::MAX / MARKS_MAX);
    }

    #[test]
    fn bytes_on_their_way_are_taken_back_when_they_do_not_arrive() {
        let progress = watch::Sender::new(PromoteProgress::default());
        let mut lost = InFlight::new(&progress, 10);
        lost.add(5);
        assert_eq!(progress.borrow().bytes_copied, 15);
        drop(lost);
        assert_eq!(progress.borrow().bytes_copied, 0);
        InFlight::new(&progress, 10).land(12);
        assert_eq!((progress.borrow().bytes_copied, progress.borrow().blobs_copied), (12, 1));
    }
}
