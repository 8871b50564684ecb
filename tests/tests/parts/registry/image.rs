//! Images for tests: made of random bytes, pushed by the client that is tested, and read back without it.

use bytes::Bytes;
use integrations::registry::{Descriptor, Manifest, RegistryClient, Repository, Tag};
use pipelines::ids::Digest;
use serde_json::{Value, json};
use tests::Registry;

pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Bytes that look random and are the same for the same seed (xorshift64*).
pub(super) fn noise(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

/// A descriptor of `bytes` as JSON.
pub(super) fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!(Descriptor::of(media_type, bytes))
}

/// A manifest of a document; the bytes are what `serde_json` writes.
pub(super) fn manifest(media_type: &str, document: &Value) -> Manifest {
    let bytes = Bytes::from(serde_json::to_vec_pretty(document).unwrap());
    Manifest { digest: Digest::of(&bytes), media_type: media_type.to_owned(), bytes }
}

/// Pushes an image of these layers, under its digest or a tag.
pub(super) async fn push_image(
    client: &RegistryClient,
    repository: &Repository,
    layers: &[Bytes],
    more: Value,
    tag: Option<&Tag>,
) -> Manifest {
    let config = Bytes::from(json!({"architecture": "amd64", "os": "linux", "layers": layers.len()}).to_string());
    for blob in layers.iter().chain([&config]) {
        client.push_blob(repository, blob.clone()).await.unwrap();
    }
    let mut document = json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": descriptor(CONFIG, &config),
        "layers": layers.iter().map(|layer| descriptor(LAYER, layer)).collect::<Vec<_>>(),
    });
    if let (Value::Object(document), Value::Object(more)) = (&mut document, more) {
        document.extend(more);
    }
    let manifest = manifest(IMAGE, &document);
    client.put_manifest(repository, &manifest, tag).await.unwrap();
    manifest
}

/// The raw answer of a registry to a read: status, media type, bytes. Not through the client that is tested.
pub(super) async fn raw(registry: &Registry, path: &str) -> (u16, String, Bytes) {
    let accept = [INDEX, IMAGE, "application/vnd.docker.distribution.manifest.v2+json"].join(", ");
    let mut request = tests::http_client().get(format!("{}/v2/{path}", registry.url())).header("accept", accept);
    if let Some((user, password)) = registry.auth() {
        request = request.basic_auth(user, Some(password));
    }
    let answer = request.send().await.unwrap();
    let kind = answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
    (answer.status().as_u16(), kind.unwrap_or_default(), answer.bytes().await.unwrap())
}
