//! The graph of an image: what a manifest points to and what is attached to it, read from the source and put into the
//! order in which it may be written. Nothing is written here.

use std::collections::{BTreeMap, HashMap, HashSet};

use pipelines::ids::Digest;
use serde::{Deserialize, Serialize};

use super::{
    calls::Manifest,
    client::RegistryClient,
    error::{PromoteError, RegistryError},
    promote::{PromoteOptions, each},
    reference::{Repository, Tag},
};

/// The suffixes under which cosign keeps signatures, attestations and SBOMs as tags.
const ATTACHED_SUFFIXES: [&str; 3] = [".sig", ".att", ".sbom"];

/// The media types that are known here.
pub(super) mod media_type {
    pub(in super::super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub(in super::super) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
    pub(in super::super) const ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
    pub(in super::super) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub(in super::super) const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// All of them, as the value of an `Accept` header.
    pub(in super::super) const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
         application/vnd.oci.image.manifest.v1+json, application/vnd.oci.artifact.manifest.v1+json, \
         application/vnd.docker.distribution.manifest.list.v2+json, \
         application/vnd.docker.distribution.manifest.v2+json";

    pub(super) fn is_index(text: &str) -> bool {
        matches!(text, INDEX | DOCKER_LIST)
    }

    pub(super) fn is_manifest(text: &str) -> bool {
        matches!(text, INDEX | IMAGE | ARTIFACT | DOCKER_LIST | DOCKER_IMAGE)
    }

    /// Layers that a registry must not be sent, in the words of the image specification and of Docker before it.
    pub(super) fn is_foreign(text: &str) -> bool {
        text.starts_with("application/vnd.oci.image.layer.nondistributable.v1.")
            || text.starts_with("application/vnd.docker.image.rootfs.foreign.diff.")
    }
}

/// How one piece of content points to another (image specification, "Content Descriptors").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// The digest of its bytes.
    pub digest: Digest,
    /// How many bytes it has.
    pub size: u64,
    /// Where else it can be had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// What kind of artifact it is, for a referrer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Notes of whoever wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// The descriptor of `bytes`.
    #[must_use]
    pub fn of(media_type: impl Into<String>, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.into(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            urls: Vec::new(),
            artifact_type: None,
            annotations: None,
        }
    }
}

/// The parts of a manifest that matter to a copy.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    blobs: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    digest: Digest,
}

/// What a manifest points to.
struct Parts {
    media_type: String,
    manifests: Vec<Descriptor>,
    blobs: Vec<Descriptor>,
    foreign: Vec<Descriptor>,
    subject: Option<Digest>,
}

/// A manifest of the graph.
pub(super) struct Node {
    pub(super) manifest: Manifest,
    children: Vec<Digest>,
    /// 0 for the image itself, 1 for what is attached to it, 2 for what is attached to that.
    stage: usize,
}

/// An image with everything that belongs to it.
pub(super) struct Graph {
    /// The manifests, in groups: a group may be written when those before it are there. The root is the last of
    /// `image_groups`; what is attached comes after.
    pub(super) groups: Vec<Vec<Manifest>>,
    /// Each blob once.
    pub(super) blobs: Vec<Descriptor>,
    /// The layers that are not copied, because they must not be.
    pub(super) foreign: Vec<Descriptor>,
    /// The referrers of each subject, to be listed at the destination where it does not do that by itself.
    pub(super) referrers: Vec<(Digest, Vec<Descriptor>)>,
    /// The tags by which something is attached.
    pub(super) attached: Vec<(Tag, Digest)>,
    pub(super) root: Manifest,
}

/// Where a graph is read from.
#[derive(Clone)]
pub(super) struct Origin {
    pub(super) client: RegistryClient,
    pub(super) repository: Repository,
}

/// What was read of a graph so far.
#[derive(Default)]
pub(super) struct Walk {
    nodes: HashMap<Digest, Node>,
    blobs: HashMap<Digest, Descriptor>,
    foreign: HashMap<Digest, Descriptor>,
    manifest_bytes: u64,
    blob_bytes: u64,
}

/// Reads the image itself, breadth first and in parallel; what is attached to it is [`Walk::attach`]'s matter.
pub(super) async fn read(origin: &Origin, root: &Digest, options: &PromoteOptions) -> Result<Walk, PromoteError> {
    let mut walk = Walk::default();
    walk.add(origin, vec![(root.clone(), None)], 0, options).await?;
    Ok(walk)
}

struct Attached {
    referrers: Vec<Descriptor>,
    tags: Vec<(Tag, Digest)>,
}

/// What is attached to one manifest, by referrers and by cosign's tags.
async fn look_up_attached(origin: Origin, subject: Digest) -> Result<(Digest, Attached), PromoteError> {
    let Origin { client, repository } = &origin;
    let tag = async |suffix| {
        let tag = Tag::attached(&subject, suffix);
        match client.resolve(repository, &tag).await {
            Ok(digest) => Ok(Some((tag, digest)).filter(|(_, digest)| *digest != subject)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    };
    let [signature, attestation, sbom] = ATTACHED_SUFFIXES;
    let found = tokio::try_join!(client.referrers(repository, &subject), tag(signature), tag(attestation), tag(sbom));
    let (referrers, signature, attestation, sbom) = found.map_err(PromoteError::Source)?;
    let tags = [signature, attestation, sbom].into_iter().flatten().collect();
    Ok((subject, Attached { referrers: referrers.manifests, tags }))
}

impl Walk {
    /// The blobs that are known so far, each once.
    pub(super) fn blobs(&self) -> Vec<Digest> {
        self.blobs.keys().cloned().collect()
    }

    /// The manifests that are known so far.
    pub(super) fn manifests(&self) -> Vec<Digest> {
        self.nodes.keys().cloned().collect()
    }

    /// Reads what is attached to the image, and to that, and puts all into order.
    pub(super) async fn attach(
        mut self,
        origin: &Origin,
        root: &Digest,
        options: &PromoteOptions,
    ) -> Result<Graph, PromoteError> {
        let (mut referrers, mut attached) = (Vec::new(), Vec::new());
        let mut subjects = if options.attached { self.stage(0) } else { Vec::new() };
        for stage in 1.. {
            let (mut tops, mut owners) = (Vec::new(), Vec::new());
            let lookups = each(subjects, options.parallel, {
                let origin = origin.clone();
                move |subject| look_up_attached(origin.clone(), subject)
            });
            for (subject, found) in lookups.await? {
                tops.extend(found.referrers.iter().map(|d| (d.digest.clone(), Some(d.size))));
                tops.extend(found.tags.iter().map(|(_, digest)| (digest.clone(), None)));
                attached.extend(found.tags);
                if !found.referrers.is_empty() {
                    owners.push((subject, found.referrers));
                }
            }
            if tops.is_empty() {
                break;
            }
            if stage > options.attached_depth_max {
                let limit = options.attached_depth_max as u64;
                return Err(PromoteError::TooLarge { of: "levels of signatures upon signatures", limit });
            }
            self.add(origin, tops, stage, options).await?;
            referrers.extend(owners);
            subjects = self.stage(stage);
        }
        self.into_graph(root, referrers, attached)
    }

    /// Reads the manifests of `frontier` and all beneath them.
    async fn add(
        &mut self,
        origin: &Origin,
        mut frontier: Vec<(Digest, Option<u64>)>,
        stage: usize,
        options: &PromoteOptions,
    ) -> Result<(), PromoteError> {
        for _ in 0..=options.depth_max {
            let mut seen = HashSet::new();
            frontier.retain(|(digest, _)| !self.nodes.contains_key(digest) && seen.insert(digest.clone()));
            if frontier.is_empty() {
                return Ok(());
            }
            if self.nodes.len() + frontier.len() > options.manifests_max {
                return Err(PromoteError::TooLarge { of: "manifests", limit: options.manifests_max as u64 });
            }
            let manifests = each(std::mem::take(&mut frontier), options.parallel, {
                let origin = origin.clone();
                move |(digest, size)| read_manifest(origin.clone(), digest, size)
            });
            for manifest in manifests.await? {
                frontier.extend(self.take(manifest, stage, options)?);
            }
        }
        Err(PromoteError::TooLarge { of: "levels of indexes within indexes", limit: options.depth_max as u64 })
    }

    /// Adds a manifest and its blobs; gives the manifests that it points to.
    fn take(
        &mut self,
        mut manifest: Manifest,
        stage: usize,
        options: &PromoteOptions,
    ) -> Result<Vec<(Digest, Option<u64>)>, PromoteError> {
        let parts = parts(&manifest)?;
        manifest.media_type = parts.media_type;
        self.manifest_bytes += manifest.bytes.len() as u64;
        if self.manifest_bytes > options.manifests_max_bytes {
            return Err(PromoteError::TooLarge { of: "bytes of manifests", limit: options.manifests_max_bytes });
        }
        for blob in parts.blobs {
            let size = blob.size;
            match self.blobs.insert(blob.digest.clone(), blob) {
                Some(before) if before.size != size => {
                    let why = format!("blob {} is given two sizes", before.digest);
                    return Err(PromoteError::Unsupported { digest: manifest.digest, why });
                }
                Some(_) => {}
                None => self.blob_bytes = self.blob_bytes.saturating_add(size),
            }
        }
        if self.blobs.len() > options.blobs_max {
            return Err(PromoteError::TooLarge { of: "blobs", limit: options.blobs_max as u64 });
        }
        if self.blob_bytes > options.blobs_max_bytes {
            return Err(PromoteError::TooLarge { of: "bytes of blobs", limit: options.blobs_max_bytes });
        }
        self.foreign.extend(parts.foreign.into_iter().map(|layer| (layer.digest.clone(), layer)));
        let children: Vec<Digest> = parts.manifests.iter().map(|child| child.digest.clone()).collect();
        self.nodes.insert(manifest.digest.clone(), Node { manifest, children, stage });
        Ok(parts.manifests.into_iter().map(|child| (child.digest, Some(child.size))).collect())
    }

    fn stage(&self, stage: usize) -> Vec<Digest> {
        self.nodes.values().filter(|node| node.stage == stage).map(|node| node.manifest.digest.clone()).collect()
    }

    /// Groups the manifests so that children come before parents and the image before what is attached to it.
    fn into_graph(
        mut self,
        root: &Digest,
        mut referrers: Vec<(Digest, Vec<Descriptor>)>,
        attached: Vec<(Tag, Digest)>,
    ) -> Result<Graph, PromoteError> {
        // A referrers list is only a claim of the registry; the manifest itself says what it refers to.
        for (subject, list) in &mut referrers {
            list.retain(|referrer| {
                let node = self.nodes.get(&referrer.digest);
                node.is_some_and(|node| subject_of(&node.manifest).as_ref() == Some(&*subject))
            });
        }
        referrers.retain(|(_, list)| !list.is_empty());
        let mut heights = HashMap::new();
        let mut groups: BTreeMap<(usize, usize), Vec<Digest>> = BTreeMap::new();
        for (digest, node) in &self.nodes {
            groups.entry((node.stage, height(&self.nodes, digest, &mut heights))).or_default().push(digest.clone());
        }
        let missing =
            || PromoteError::Unsupported { digest: root.clone(), why: "it is not in its own graph".to_owned() };
        let root = self.nodes.get(root).map(|node| node.manifest.clone()).ok_or_else(missing)?;
        let mut take = |digest: Digest| self.nodes.remove(&digest).map(|node| node.manifest);
        let groups = groups.into_values().map(|group| group.into_iter().filter_map(&mut take).collect()).collect();
        let mut blobs: Vec<Descriptor> = self.blobs.into_values().collect();
        // The largest first: the end of the copy is then not one long blob alone.
        blobs.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.digest.cmp(&b.digest)));
        Ok(Graph { groups, blobs, foreign: self.foreign.into_values().collect(), referrers, attached, root })
    }
}

/// How many levels there are beneath a manifest. The graph has no circle, because a digest cannot be inside itself; its
/// depth is bounded by the walk.
fn height(nodes: &HashMap<Digest, Node>, digest: &Digest, known: &mut HashMap<Digest, usize>) -> usize {
    if let Some(height) = known.get(digest) {
        return *height;
    }
    let children = nodes.get(digest).map(|node| node.children.as_slice()).unwrap_or_default();
    let height = children.iter().map(|child| height(nodes, child, known) + 1).max().unwrap_or(0);
    known.insert(digest.clone(), height);
    height
}

async fn read_manifest(origin: Origin, digest: Digest, size: Option<u64>) -> Result<Manifest, PromoteError> {
    let manifest = origin.client.manifest(&origin.repository, &digest).await.map_err(PromoteError::Source)?;
    match size {
        Some(size) if size != manifest.bytes.len() as u64 => Err(PromoteError::Source(RegistryError::Corrupt {
            what: format!("manifest {digest} of {} at {}", origin.repository, origin.client.host()),
            expected: format!("{size} bytes"),
            found: format!("{} bytes", manifest.bytes.len()),
        })),
        _ => Ok(manifest),
    }
}

fn subject_of(manifest: &Manifest) -> Option<Digest> {
    parts(manifest).ok()?.subject
}

/// What a manifest points to, after the ways in which one document could mean two things are excluded.
fn parts(manifest: &Manifest) -> Result<Parts, PromoteError> {
    let unsupported = |why: &str| PromoteError::Unsupported { digest: manifest.digest.clone(), why: why.to_owned() };
    let document: Document = serde_json::from_slice(&manifest.bytes).map_err(|error| PromoteError::Unsupported {
        digest: manifest.digest.clone(),
        why: format!("it cannot be read: {error}"),
    })?;
    let Document { media_type, config, layers, blobs, manifests, subject } = document;
    // Image specification, "Image Index": a document that is an index and an image at once must be refused
    // (CVE-2021-41190), since each registry would take it for what it likes.
    if manifests.is_some() && (config.is_some() || layers.is_some() || blobs.is_some()) {
        return Err(unsupported("it is an index and an image at once"));
    }
    let served = manifest.media_type.as_str();
    let kind = match media_type {
        Some(kind) if media_type::is_manifest(served) && kind != served => {
            return Err(unsupported("its media type is not the one that the registry names"));
        }
        Some(kind) => kind,
        None if media_type::is_manifest(served) => served.to_owned(),
        None if manifests.is_some() => media_type::INDEX.to_owned(),
        None => media_type::IMAGE.to_owned(),
    };
    if !media_type::is_manifest(&kind) {
        return Err(unsupported("its media type is none that can be copied by digest"));
    }
    if media_type::is_index(&kind) != manifests.is_some() {
        return Err(unsupported("its media type is not what it contains"));
    }
    // Some indexes (a build cache) point to layers: those are blobs there.
    let (manifests, cached): (Vec<_>, Vec<_>) =
        manifests.unwrap_or_default().into_iter().partition(|child| media_type::is_manifest(&child.media_type));
    let all = config.into_iter().chain(layers.unwrap_or_default()).chain(blobs.unwrap_or_default()).chain(cached);
    let (foreign, blobs) = all.partition(|blob| media_type::is_foreign(&blob.media_type) && !blob.urls.is_empty());
    Ok(Parts { media_type: kind, manifests, blobs, foreign, subject: subject.map(|subject| subject.digest) })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;

    fn manifest(media_type: &str, document: &serde_json::Value) -> Manifest {
        let bytes = Bytes::from(document.to_string());
        Manifest { digest: Digest::of(&bytes), media_type: media_type.to_owned(), bytes }
    }

    fn descriptor(media_type: &str, content: &str) -> serde_json::Value {
        json!(Descriptor::of(media_type, content.as_bytes()))
    }

    #[test]
    fn a_document_that_is_two_things_at_once_is_refused() {
        let layer = descriptor("application/vnd.oci.image.layer.v1.tar", "layer");
        let both = json!({"schemaVersion": 2, "manifests": [], "layers": [layer]});
        assert!(matches!(parts(&manifest(media_type::INDEX, &both)), Err(PromoteError::Unsupported { .. })));
        let index_as_image = json!({"schemaVersion": 2, "manifests": []});
        assert!(matches!(parts(&manifest(media_type::IMAGE, &index_as_image)), Err(PromoteError::Unsupported { .. })));
        let other = json!({"schemaVersion": 2, "mediaType": media_type::IMAGE, "layers": []});
        assert!(matches!(parts(&manifest(media_type::DOCKER_IMAGE, &other)), Err(PromoteError::Unsupported { .. })));
        let old = json!({"schemaVersion": 1, "mediaType": "application/vnd.docker.distribution.manifest.v1+json"});
        assert!(matches!(parts(&manifest("", &old)), Err(PromoteError::Unsupported { .. })));
    }

    #[test]
    fn a_foreign_layer_is_left_only_when_it_can_be_had_elsewhere() {
        let kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        let mut elsewhere = descriptor(kind, "a");
        elsewhere["urls"] = json!(["https://example.com/layer"]);
        let image =
            json!({"config": descriptor("application/json", "c"), "layers": [elsewhere, descriptor(kind, "b")]});
        let parts = parts(&manifest(media_type::IMAGE, &image)).unwrap();
        assert_eq!(parts.foreign.len(), 1);
        assert_eq!(parts.blobs.len(), 2);
    }

    #[test]
    fn children_are_written_before_parents_and_signatures_after_the_image() {
        let options = PromoteOptions::default();
        let image = manifest(media_type::IMAGE, &json!({"layers": [descriptor("x/y", "layer")]}));
        let child = descriptor(media_type::IMAGE, "");
        let mut inner = child.clone();
        inner["digest"] = json!(image.digest);
        let index = manifest(media_type::INDEX, &json!({"manifests": [inner]}));
        let mut middle = child.clone();
        middle["digest"] = json!(index.digest);
        middle["mediaType"] = json!(media_type::INDEX);
        let root = manifest(media_type::INDEX, &json!({"manifests": [middle, inner]}));
        let signature = manifest(media_type::IMAGE, &json!({"layers": [], "subject": child}));
        let mut walk = Walk::default();
        for (node, stage) in [(&root, 0), (&index, 0), (&image, 0), (&signature, 1)] {
            walk.take(node.clone(), stage, &options).unwrap();
        }
        let lie = Descriptor::of("x/y", &signature.bytes);
        let graph = walk.into_graph(&root.digest, vec![(root.digest.clone(), vec![lie])], Vec::new()).unwrap();
        let order: Vec<Vec<&Digest>> =
            graph.groups.iter().map(|group| group.iter().map(|manifest| &manifest.digest).collect()).collect();
        assert_eq!(order, [[&image.digest], [&index.digest], [&root.digest], [&signature.digest]]);
        assert!(graph.referrers.is_empty(), "a referrer of something else was taken");
    }

    #[test]
    fn fuzz_manifest() {
        let image = json!({"schemaVersion": 2, "mediaType": media_type::IMAGE, "config": descriptor("application/vnd.oci.image.config.v1+json", "{}"),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", "layer")], "subject": descriptor(media_type::IMAGE, "x")});
        let index =
            json!({"schemaVersion": 2, "manifests": [descriptor(media_type::IMAGE, "a"), descriptor("x/y", "b")]});
        let (image, index) = (image.to_string(), index.to_string());
        let served =
            [media_type::IMAGE, media_type::INDEX, media_type::DOCKER_IMAGE, media_type::DOCKER_LIST, "text/plain", ""];
        fuzz::feed("manifest", &[image.as_bytes(), index.as_bytes()], &served, |bytes| {
            let mut word = String::new();
            for kind in served {
                let bytes = Bytes::copy_from_slice(bytes);
                let given = Manifest { digest: Digest::of(&bytes), media_type: kind.to_owned(), bytes };
                match parts(&given) {
                    Ok(found) => {
                        let pointed = found.manifests.len() + found.blobs.len() + found.foreign.len();
                        if pointed * 70 > given.bytes.len() {
                            return Err(format!("{} bytes point to {pointed} things", given.bytes.len()));
                        }
                        if media_type::is_index(&found.media_type) && !media_type::is_manifest(&found.media_type) {
                            return Err(format!("{} is what cannot be copied", found.media_type));
                        }
                        if media_type::is_manifest(kind) && found.media_type != kind {
                            return Err(format!("served as {kind}, taken for {}", found.media_type));
                        }
                        word.push_str(if found.manifests.is_empty() { "i" } else { "x" });
                    }
                    Err(PromoteError::Unsupported { why, .. }) => word.push_str(why.get(..12).unwrap_or("?")),
                    Err(other) => return Err(format!("another error: {other}")),
                }
            }
            Ok(word)
        });
    }
}
