//! The two ends of a blob's way: a reader that goes on by range after a cut, and an upload session. The copying between
//! them is in `transfer`.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use pipelines::ids::Digest;
use reqwest::{Body, Response};
use url::Url;

use super::{
    client::{Access, Call, RegistryClient, within},
    error::RegistryError,
    graph::Descriptor,
    reference::Repository,
    retry::Patience,
};

/// A read that got this far since its last failure has all its tries again.
const PROGRESS_BYTES: u64 = 1024 * 1024;

/// Reads a blob from a position on. A cut connection is continued by a ranged read, so that the other end of the copy
/// does not notice. What is read is not verified here: that is the work of the one who hashes it.
pub(super) struct BlobReader {
    client: RegistryClient,
    call: Call,
    size: u64,
    position: u64,
    /// The answer that is being read, and how many of its first bytes are to be thrown away.
    response: Option<(Response, u64)>,
    patience: Patience,
    failed_at: u64,
}

impl BlobReader {
    pub(super) fn new(client: RegistryClient, repository: &Repository, blob: &Descriptor, position: u64) -> Self {
        let call = client.blob_call(Method::GET, repository, &blob.digest);
        let patience = Patience::new(&client.inner.limits);
        Self { client, call, size: blob.size, position, response: None, patience, failed_at: position }
    }

    /// The next bytes, or `None` when all of the blob was read.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        while self.position < self.size {
            match self.next_once().await {
                Ok(Some(bytes)) => {
                    self.position += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Ok(None) => {}
                Err(error) => {
                    self.response = None;
                    if self.position >= self.failed_at.saturating_add(PROGRESS_BYTES) {
                        self.patience = Patience::new(&self.client.inner.limits);
                    }
                    self.failed_at = self.position;
                    self.patience.wait(error).await?;
                }
            }
        }
        Ok(None)
    }

    /// Some bytes, or nothing yet.
    async fn next_once(&mut self) -> Result<Option<Bytes>, RegistryError> {
        if self.response.is_none() {
            self.response = Some(self.open().await?);
        }
        let Some((response, to_skip)) = &mut self.response else { return Ok(None) };
        let idle = Duration::from_millis(self.client.inner.limits.idle_timeout_ms);
        let what = &self.call.what;
        let chunk = async { response.chunk().await.map_err(|error| RegistryError::transport(what, error)) };
        let Some(mut chunk) = within(idle, what, chunk).await? else {
            return Err(RegistryError::unreachable(what, format!("the blob ended after {} bytes", self.position)));
        };
        let skipped = (*to_skip).min(chunk.len() as u64);
        *to_skip -= skipped;
        let _ = chunk.split_to(skipped as usize);
        if self.position + chunk.len() as u64 > self.size {
            return Err(self.wrong_size("more".to_owned()));
        }
        Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
    }

    async fn open(&mut self) -> Result<(Response, u64), RegistryError> {
        if self.position > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", self.position))
                .map_err(|_| RegistryError::protocol(&self.call.what, "a bad range"))?;
            self.call.headers.insert(header::RANGE, range);
        }
        let response = self.client.send(&self.call).await?;
        let is_partial = response.status() == StatusCode::PARTIAL_CONTENT;
        let starts_at = if is_partial { content_range_start(&response).unwrap_or(self.position) } else { 0 };
        if starts_at > self.position {
            return Err(RegistryError::protocol(&self.call.what, "it sent a later range than was asked for"));
        }
        let wanted = self.size - starts_at;
        match response.content_length() {
            Some(length) if length != wanted => Err(self.wrong_size((starts_at + length).to_string())),
            // A registry that does not know ranges sends the blob from its start.
            _ => Ok((response, self.position - starts_at)),
        }
    }

    fn wrong_size(&self, found: String) -> RegistryError {
        let (what, expected) = (self.call.what.clone(), format!("{} bytes", self.size));
        RegistryError::Corrupt { what, expected, found: format!("{found} bytes") }
    }
}

fn content_range_start(response: &Response) -> Option<u64> {
    let value = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    value.trim().strip_prefix("bytes")?.trim_start().split('-').next()?.parse().ok()
}

/// An upload that was begun. Its address is a secret of the session, so it is never shown.
pub(super) struct Upload {
    location: Url,
}

/// What became of the wish to upload.
pub(super) enum Begun {
    /// The registry had the blob in the other repository: nothing to send.
    Mounted,
    /// The bytes are to be sent.
    Upload(Upload),
}

impl RegistryClient {
    /// Begins an upload, or mounts the blob from another repository of the same registry.
    pub(super) async fn begin_upload(
        &self,
        repository: &Repository,
        digest: &Digest,
        mount_from: Option<&Repository>,
    ) -> Result<Begun, RegistryError> {
        let mut url = self.url(&format!("{repository}/blobs/uploads/"));
        let access = match mount_from {
            Some(from) => {
                url.query_pairs_mut().append_pair("mount", digest.as_str()).append_pair("from", from.as_str());
                Access::Mount { from: from.clone(), to: repository.clone() }
            }
            None => Access::PullPush(repository.clone()),
        };
        let call = Call::new(Method::POST, url, access, self.upload_what(repository, digest));
        let response = self.send(&call).await?;
        if mount_from.is_some() && response.status() == StatusCode::CREATED {
            return Ok(Begun::Mounted);
        }
        // 202, also as the answer to a mount: the registry could not mount and opened an upload instead.
        let location = self.upload_location(&response, &call)?;
        location
            .map(|location| Begun::Upload(Upload { location }))
            .ok_or_else(|| RegistryError::protocol(&call.what, "an upload without a location"))
    }

    /// How many bytes of an upload arrived, or `None` where the registry no longer knows the upload (some forget it
    /// when a connection is cut) or does not say.
    pub(super) async fn upload_offset(
        &self,
        upload: &mut Upload,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<u64>, RegistryError> {
        let call = self.upload_call(Method::GET, upload, repository, digest);
        let response = match self.send(&call).await {
            Ok(response) => response,
            Err(RegistryError::NotFound { .. } | RegistryError::Rejected { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        if let Some(location) = self.upload_location(&response, &call)? {
            upload.location = location;
        }
        let range = response.headers().get(header::RANGE).and_then(|value| value.to_str().ok());
        let last =
            range.and_then(|range| range.trim_start_matches("bytes=").split_once('-')?.1.trim().parse::<u64>().ok());
        Ok(last.map(|last| last.saturating_add(1)))
    }

    /// Sends the rest of a blob, from `offset` on, and closes the upload: the registry verifies the digest and keeps it.
    pub(super) async fn finish_upload(
        &self,
        upload: &Upload,
        repository: &Repository,
        blob: &Descriptor,
        offset: u64,
        body: Body,
    ) -> Result<(), RegistryError> {
        let mut call = self.upload_call(Method::PUT, upload, repository, &blob.digest);
        call.url.query_pairs_mut().append_pair("digest", blob.digest.as_str());
        call.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        call.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(blob.size - offset));
        if offset > 0 && offset < blob.size {
            let range = HeaderValue::from_str(&format!("{offset}-{}", blob.size - 1))
                .map_err(|_| RegistryError::protocol(&call.what, "a bad range"))?;
            call.headers.insert(header::CONTENT_RANGE, range);
        }
        self.send_stream(&call, body).await.map(|_| ())
    }

    /// Gives an upload up, as well as it goes: the registry throws a forgotten one away by itself some day.
    pub(super) async fn cancel_upload(&self, upload: &Upload, repository: &Repository, digest: &Digest) {
        let call = self.upload_call(Method::DELETE, upload, repository, digest);
        let patience = Duration::from_millis(self.inner.limits.connect_timeout_ms);
        let sent = within(patience, &call.what, self.send(&call)).await;
        if let Err(error) = sent {
            tracing::debug!(%error, "an upload was left for the registry to clean up");
        }
    }

    /// Stores a small blob from memory and gives its digest.
    ///
    /// # Errors
    /// As [`RegistryError`] says.
    pub async fn push_blob(&self, repository: &Repository, bytes: Bytes) -> Result<Digest, RegistryError> {
        let blob = Descriptor::of("application/octet-stream", &bytes);
        if self.blob_exists(repository, &blob.digest).await? {
            return Ok(blob.digest);
        }
        let mut patience = Patience::new(&self.inner.limits);
        let limit = Duration::from_millis(self.inner.limits.commit_timeout_ms);
        loop {
            let Begun::Upload(upload) = self.begin_upload(repository, &blob.digest, None).await? else { continue };
            let sent = self.finish_upload(&upload, repository, &blob, 0, Body::from(bytes.clone()));
            match within(limit, &self.upload_what(repository, &blob.digest), sent).await {
                Ok(()) => return Ok(blob.digest),
                Err(error) => patience.wait(error).await?,
            }
        }
    }

    pub(super) fn upload_what(&self, repository: &Repository, digest: &Digest) -> String {
        format!("upload of {digest} to {repository} at {}", self.host())
    }

    fn upload_call(&self, method: Method, upload: &Upload, repository: &Repository, digest: &Digest) -> Call {
        let (url, access) = (upload.location.clone(), Access::PullPush(repository.clone()));
        Call::new(method, url, access, self.upload_what(repository, digest))
    }

    /// The address of an upload, relative to the call's. Registries behind a proxy that ends TLS often name themselves
    /// by http; our own host is then spoken to as before, so that neither blob nor proof goes out in the clear.
    fn upload_location(&self, response: &Response, call: &Call) -> Result<Option<Url>, RegistryError> {
        let Some(value) = response.headers().get(header::LOCATION) else { return Ok(None) };
        let location = value.to_str().ok().and_then(|text| call.url.join(text).ok());
        let bad = || RegistryError::protocol(&call.what, "a bad upload location");
        let mut location = location.ok_or_else(bad)?;
        let endpoint = &self.inner.endpoint;
        if endpoint.scheme() == "https" && location.scheme() == "http" {
            if location.host() != endpoint.host() {
                return Err(RegistryError::protocol(&call.what, "an upload location without https"));
            }
            location.set_scheme("https").map_err(|()| bad())?;
            location.set_port(endpoint.port()).map_err(|()| bad())?;
        }
        Ok(Some(location))
    }
}
