//! The calls of the distribution protocol that fit into one answer: manifests, tags, referrers, small blobs. Streams of
//! blobs are in `blob`, authentication and retries in `client`.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use pipelines::ids::Digest;
use url::Url;

use super::{
    client::{Access, Call, RegistryClient},
    error::RegistryError,
    graph::{Descriptor, media_type},
    reference::{Repository, Tag},
};

const DIGEST_HEADER: &str = "docker-content-digest";

/// A manifest as the registry holds it. The bytes are the digest's; they are never parsed and written again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The digest of `bytes`, computed here.
    pub digest: Digest,
    /// The media type under which it is stored.
    pub media_type: String,
    /// The bytes.
    pub bytes: Bytes,
}

/// What refers to a manifest: signatures, attestations, SBOMs.
#[derive(Clone, Debug, Default)]
pub struct Referrers {
    /// The referring manifests.
    pub manifests: Vec<Descriptor>,
    /// Whether the registry keeps the list itself (OCI 1.1), or a client has to, under a fallback tag.
    pub by_api: bool,
}

/// A tag or a digest, where the protocol takes either.
#[derive(Clone, Copy)]
enum Name<'a> {
    Tag(&'a Tag),
    Digest(&'a Digest),
}

impl std::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl RegistryClient {
    /// The digest that a tag shows now.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] where there is no such tag; [`RegistryError::Blocked`] where a gate guards it.
    pub async fn resolve(&self, repository: &Repository, tag: &Tag) -> Result<Digest, RegistryError> {
        let headers = self.head_manifest(repository, Name::Tag(tag)).await?;
        match self.digest_header(&headers, &self.manifest_what(repository, Name::Tag(tag)))? {
            Some(digest) => Ok(digest),
            // The header is only recommended; the bytes say it too.
            None => Ok(self.manifest_by_tag(repository, tag).await?.digest),
        }
    }

    /// Whether the repository holds the manifest.
    ///
    /// # Errors
    /// As [`RegistryError`] says, but never `NotFound`.
    pub async fn manifest_exists(&self, repository: &Repository, digest: &Digest) -> Result<bool, RegistryError> {
        found(self.head_manifest(repository, Name::Digest(digest)).await)
    }

    /// A manifest by digest; bytes of another digest are refused.
    ///
    /// # Errors
    /// [`RegistryError::Corrupt`] for other bytes, [`RegistryError::TooLarge`] past the client's bound.
    pub async fn manifest(&self, repository: &Repository, digest: &Digest) -> Result<Manifest, RegistryError> {
        self.get_manifest(repository, Name::Digest(digest)).await
    }

    /// The manifest that a tag shows now.
    ///
    /// # Errors
    /// [`RegistryError::Corrupt`] where the registry names another digest than that of the bytes.
    pub async fn manifest_by_tag(&self, repository: &Repository, tag: &Tag) -> Result<Manifest, RegistryError> {
        self.get_manifest(repository, Name::Tag(tag)).await
    }

    /// Stores a manifest under its digest, or under a tag. Everything that it points to must be there before.
    ///
    /// # Errors
    /// [`RegistryError::Blocked`] for an immutable tag (412) or a missing right (403).
    pub async fn put_manifest(
        &self,
        repository: &Repository,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> Result<(), RegistryError> {
        let name = tag.map_or(Name::Digest(&manifest.digest), Name::Tag);
        let mut call = self.manifest_call(Method::PUT, repository, name, Access::PullPush(repository.clone()));
        let kind = HeaderValue::from_str(&manifest.media_type)
            .map_err(|_| RegistryError::protocol(&call.what, "the media type is not a header value"))?;
        call.headers.insert(header::CONTENT_TYPE, kind);
        call.body = manifest.bytes.clone();
        let response = self.send(&call).await?;
        match self.digest_header(response.headers(), &call.what)? {
            Some(stored) if stored != manifest.digest => Err(corrupt(&call.what, &manifest.digest, &stored)),
            _ => Ok(()),
        }
    }

    /// Deletes a manifest with all its tags. Registries that do not allow it answer [`RegistryError::Rejected`].
    ///
    /// # Errors
    /// As [`RegistryError`] says.
    pub async fn delete_manifest(&self, repository: &Repository, digest: &Digest) -> Result<(), RegistryError> {
        let access = Access::Delete(repository.clone());
        self.send(&self.manifest_call(Method::DELETE, repository, Name::Digest(digest), access)).await.map(|_| ())
    }

    /// Takes a tag away and leaves the manifest. Many registries cannot: [`RegistryError::Rejected`] or `Failing`.
    ///
    /// # Errors
    /// As [`RegistryError`] says.
    pub async fn delete_tag(&self, repository: &Repository, tag: &Tag) -> Result<(), RegistryError> {
        let access = Access::Delete(repository.clone());
        self.send(&self.manifest_call(Method::DELETE, repository, Name::Tag(tag), access)).await.map(|_| ())
    }

    /// All tags of a repository, in the registry's order.
    ///
    /// # Errors
    /// [`RegistryError::TooLarge`] where there are more pages than the client's bound.
    pub async fn tags(&self, repository: &Repository) -> Result<Vec<String>, RegistryError> {
        #[derive(serde::Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let mut url = self.url(&format!("{repository}/tags/list"));
        url.set_query(Some("n=1000"));
        let what = format!("tags of {repository} at {}", self.host());
        let pages = self.pages::<Page>(url, Access::Pull(repository.clone()), &what).await?;
        Ok(pages.into_iter().filter_map(|page| page.tags).flatten().collect())
    }

    /// What refers to a manifest, by the API of OCI 1.1 or the fallback tag of the same specification.
    ///
    /// # Errors
    /// As [`RegistryError`] says; a manifest that nothing refers to has an empty list.
    pub async fn referrers(&self, repository: &Repository, digest: &Digest) -> Result<Referrers, RegistryError> {
        #[derive(serde::Deserialize)]
        struct Page {
            manifests: Option<Vec<Descriptor>>,
        }
        let what = format!("referrers of {digest} in {repository} at {}", self.host());
        let url = self.url(&format!("{repository}/referrers/{digest}"));
        let join = |pages: Vec<Page>| pages.into_iter().filter_map(|page| page.manifests).flatten().collect();
        let fallback = Tag::attached(digest, "");
        // Both at once: a registry that lacks the API would cost another round trip for the tag.
        let (listed, tagged) = tokio::join!(
            self.pages::<Page>(url, Access::Pull(repository.clone()), &what),
            self.manifest_by_tag(repository, &fallback)
        );
        match listed {
            Ok(pages) => return Ok(Referrers { manifests: join(pages), by_api: true }),
            Err(RegistryError::NotFound { .. } | RegistryError::Rejected { .. }) => {}
            Err(error) => return Err(error),
        }
        match tagged {
            Ok(index) => {
                let page = serde_json::from_slice(&index.bytes)
                    .map_err(|_| RegistryError::protocol(what, "the fallback tag is not an index"))?;
                Ok(Referrers { manifests: join(vec![page]), by_api: false })
            }
            Err(error) if error.is_not_found() => Ok(Referrers::default()),
            Err(error) => Err(error),
        }
    }

    /// Whether the repository holds the blob.
    ///
    /// # Errors
    /// As [`RegistryError`] says, but never `NotFound`.
    pub async fn blob_exists(&self, repository: &Repository, digest: &Digest) -> Result<bool, RegistryError> {
        let call = self.blob_call(Method::HEAD, repository, digest);
        found(self.send(&call).await)
    }

    /// A small blob, such as an image's config; bytes of another digest are refused.
    ///
    /// # Errors
    /// [`RegistryError::TooLarge`] past the client's bound for manifests, [`RegistryError::Corrupt`] for other bytes.
    pub async fn read_blob(&self, repository: &Repository, digest: &Digest) -> Result<Bytes, RegistryError> {
        let call = self.blob_call(Method::GET, repository, digest);
        let (_, _, bytes) = self.send_and_read(&call).await?;
        match Digest::of(&bytes) {
            found if found != *digest => Err(corrupt(&call.what, digest, &found)),
            _ => Ok(bytes),
        }
    }

    pub(super) fn blob_call(&self, method: Method, repository: &Repository, digest: &Digest) -> Call {
        let what = format!("blob {digest} of {repository} at {}", self.host());
        let url = self.url(&format!("{repository}/blobs/{digest}"));
        Call::new(method, url, Access::Pull(repository.clone()), what)
    }

    fn manifest_what(&self, repository: &Repository, name: Name<'_>) -> String {
        match name {
            Name::Tag(tag) => format!("tag {tag} of {repository} at {}", self.host()),
            Name::Digest(digest) => format!("manifest {digest} of {repository} at {}", self.host()),
        }
    }

    fn manifest_call(&self, method: Method, repository: &Repository, name: Name<'_>, access: Access) -> Call {
        let url = self.url(&format!("{repository}/manifests/{name}"));
        let mut call = Call::new(method, url, access, self.manifest_what(repository, name));
        call.headers.insert(header::ACCEPT, HeaderValue::from_static(media_type::ACCEPTED));
        call
    }

    async fn head_manifest(&self, repository: &Repository, name: Name<'_>) -> Result<HeaderMap, RegistryError> {
        let access = Access::Pull(repository.clone());
        match self.send(&self.manifest_call(Method::HEAD, repository, name, access)).await {
            Ok(response) => Ok(response.headers().clone()),
            // An answer to HEAD has no body: what gate it was, only the answer to GET can say.
            Err(error @ (RegistryError::Blocked { .. } | RegistryError::Unauthorised { .. })) => {
                Err(self.get_manifest(repository, name).await.err().unwrap_or(error))
            }
            Err(error) => Err(error),
        }
    }

    async fn get_manifest(&self, repository: &Repository, name: Name<'_>) -> Result<Manifest, RegistryError> {
        let call = self.manifest_call(Method::GET, repository, name, Access::Pull(repository.clone()));
        let (headers, _, bytes) = self.send_and_read(&call).await?;
        let digest = Digest::of(&bytes);
        let expected = match name {
            Name::Digest(digest) => Some(digest.clone()),
            Name::Tag(_) => self.digest_header(&headers, &call.what)?,
        };
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(corrupt(&call.what, &expected, &digest));
        }
        let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        Ok(Manifest { digest, media_type, bytes })
    }

    fn digest_header(&self, headers: &HeaderMap, what: &str) -> Result<Option<Digest>, RegistryError> {
        let Some(value) = headers.get(DIGEST_HEADER) else { return Ok(None) };
        let digest = value.to_str().ok().and_then(|text| text.parse().ok());
        digest.map(Some).ok_or_else(|| RegistryError::protocol(what, "the digest it names is not a sha256 digest"))
    }

    /// All pages of a list, each bounded as a manifest is.
    async fn pages<T: serde::de::DeserializeOwned>(
        &self,
        first: Url,
        access: Access,
        what: &str,
    ) -> Result<Vec<T>, RegistryError> {
        let pages_max = self.inner.limits.list_pages_max;
        let (mut next, mut pages) = (Some(first), Vec::new());
        while let Some(url) = next.take() {
            if pages.len() == pages_max {
                let limit_bytes = self.inner.limits.manifest_max_bytes.saturating_mul(pages_max as u64);
                return Err(RegistryError::TooLarge { what: what.to_owned(), limit_bytes });
            }
            let call = Call::new(Method::GET, url, access.clone(), what.to_owned());
            let (headers, url, bytes) = self.send_and_read(&call).await?;
            let page = serde_json::from_slice(&bytes);
            pages.push(page.map_err(|_| RegistryError::protocol(what, "the list is not of the expected form"))?);
            next = next_page(&headers, &url).filter(|next| next.origin() == self.inner.endpoint.origin());
        }
        Ok(pages)
    }
}

pub(super) fn corrupt(what: &str, expected: &Digest, found: &Digest) -> RegistryError {
    RegistryError::Corrupt { what: what.to_owned(), expected: expected.to_string(), found: found.to_string() }
}

fn found<T>(answer: Result<T, RegistryError>) -> Result<bool, RegistryError> {
    match answer {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// The next page of a list (RFC 8288: `Link: </v2/…>; rel="next"`).
fn next_page(headers: &HeaderMap, base: &Url) -> Option<Url> {
    let value = headers.get(header::LINK)?.to_str().ok()?;
    let (target, params) = value.strip_prefix('<')?.split_once('>')?;
    let is_next = params.split(';').any(|param| matches!(param.trim(), "rel=next" | "rel=\"next\""));
    if is_next { base.join(target).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_read_from_the_link() {
        let base = Url::parse("http://h:5000/v2/a/tags/list?n=2").unwrap();
        let next = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::LINK, text.parse().unwrap());
            next_page(&headers, &base).map(String::from)
        };
        let wanted = Some("http://h:5000/v2/a/tags/list?last=b&n=2".to_owned());
        assert_eq!(next("</v2/a/tags/list?last=b&n=2>; rel=\"next\""), wanted);
        assert_eq!(next("</v2/a/tags/list?last=b&n=2>; rel=\"prev\""), None);
        assert_eq!(next("nonsense"), None);
    }

    #[test]
    fn fuzz_link_of_a_list() {
        let base = Url::parse("https://registry.example.com/v2/a/tags/list?n=2").unwrap();
        let samples: [&[u8]; 2] =
            [b"</v2/a/tags/list?last=b&n=2>; rel=\"next\"", b"<https://other.example.com/x>; rel=next"];
        fuzz::feed("link-of-a-list", &samples, &["<", ">", "; rel=next", "//other.example.com", "http:"], |bytes| {
            let Ok(value) = http::HeaderValue::from_bytes(bytes) else { return Ok("no header".into()) };
            let mut headers = HeaderMap::new();
            headers.insert(header::LINK, value);
            let next = next_page(&headers, &base);
            let is_same = next.as_ref().is_some_and(|next| next.origin() == base.origin());
            Ok(format!("{} {is_same}", next.is_some()))
        });
    }
}
