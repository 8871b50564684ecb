//! The promoter: copies an image by digest from one registry to another, so that the tag at the destination never shows
//! anything but the whole image. How one blob moves is in `transfer`, what belongs to an image in `graph`.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use pipelines::ids::Digest;
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
};

use super::{
    calls::Manifest,
    client::RegistryClient,
    error::{PromoteError, RegistryError},
    graph::{self, Descriptor, Graph, Origin, media_type},
    reference::{Reference, Repository, Tag},
    transfer::{Route, carry},
};

/// What is promoted, and where to. Reads by digest, so it does not matter what the source's tags show by now.
#[derive(Clone, Debug)]
pub struct Promotion {
    /// The registry that has the image.
    pub source: RegistryClient,
    /// Its repository there.
    pub source_repository: Repository,
    /// The image: an index or a single manifest.
    pub digest: Digest,
    /// The registry that is to have it.
    pub destination: RegistryClient,
    /// Its repository there.
    pub destination_repository: Repository,
    /// The tag that is to show it there, written last.
    pub tag: Tag,
}

/// The bounds of a promotion; those of the connections are in [`super::ClientLimits`].
#[derive(Clone, Debug)]
pub struct PromoteOptions {
    /// How many blobs and manifests of this image are worked on at once.
    pub parallel: usize,
    /// Whether signatures, attestations and SBOMs that are attached to the image go with it.
    pub attached: bool,
    /// How many manifests an image may have, with what is attached.
    pub manifests_max: usize,
    /// How many bytes its manifests may have together; they are held in memory.
    pub manifests_max_bytes: u64,
    /// How deep indexes may lie in indexes.
    pub depth_max: usize,
    /// How far signatures upon signatures are followed.
    pub attached_depth_max: usize,
    /// How many different blobs it may have.
    pub blobs_max: usize,
    /// How many bytes its blobs may have together.
    pub blobs_max_bytes: u64,
}

impl Default for PromoteOptions {
    fn default() -> Self {
        Self {
            parallel: 6,
            attached: true,
            manifests_max: 1_000,
            manifests_max_bytes: 64 * 1024 * 1024,
            depth_max: 4,
            attached_depth_max: 3,
            blobs_max: 10_000,
            blobs_max_bytes: 256 * 1024 * 1024 * 1024,
        }
    }
}

/// What a promotion is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromotePhase {
    /// It reads what belongs to the image.
    #[default]
    Reading,
    /// It copies layers and configs.
    Blobs,
    /// It writes manifests, children first.
    Manifests,
    /// It writes the tag.
    Tagging,
    /// It looks whether the tag shows the digest.
    Verifying,
    /// The image is there.
    Done,
}

/// How far a promotion is. The totals are known from [`PromotePhase::Blobs`] on.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PromoteProgress {
    /// What it does now.
    pub phase: PromotePhase,
    /// How many different blobs the image has.
    pub blobs_total: u64,
    /// How many of them were copied.
    pub blobs_copied: u64,
    /// How many were mounted from another repository.
    pub blobs_mounted: u64,
    /// How many were there before.
    pub blobs_skipped: u64,
    /// The bytes of all blobs.
    pub bytes_total: u64,
    /// The bytes copied, with those of blobs that are on their way.
    pub bytes_copied: u64,
    /// The bytes mounted.
    pub bytes_mounted: u64,
    /// The bytes that were there before.
    pub bytes_skipped: u64,
    /// How many manifests the image has, with what is attached.
    pub manifests_total: u64,
    /// How many of them were written.
    pub manifests_copied: u64,
    /// How many were there before.
    pub manifests_skipped: u64,
}

/// A promotion that succeeded.
#[derive(Clone, Debug)]
pub struct Promoted {
    /// What the tag shows at the destination, read back after it was written.
    pub digest: Digest,
    /// Whether the tag was written, or showed the digest before.
    pub is_tag_new: bool,
    /// The counts.
    pub counts: PromoteProgress,
    /// Layers that were not copied because they must not be (non-distributable, with addresses of their own).
    pub foreign: Vec<Digest>,
    /// Tags of signatures that show something else at the destination; they were left as they are.
    pub kept: Vec<Tag>,
}

/// Promotes an image. Safe to repeat, and to drop at any point: what is there is not copied again, and the tag is
/// written only when all else is there. `progress` always holds the newest state; nobody has to read it.
///
/// # Errors
/// [`PromoteError`] says on which side it failed; nothing was tagged then, except with [`PromoteError::TagDiffers`] or
/// where reading the tag back failed.
pub async fn promote(
    promotion: &Promotion,
    options: &PromoteOptions,
    progress: &watch::Sender<PromoteProgress>,
) -> Result<Promoted, PromoteError> {
    progress.send_replace(PromoteProgress::default());
    let source = Origin { client: promotion.source.clone(), repository: promotion.source_repository.clone() };
    let destination =
        Origin { client: promotion.destination.clone(), repository: promotion.destination_repository.clone() };
    // What the destination has is looked up while the source is still being read: between two houses each question costs
    // a round trip, and none of these waits for another's answer.
    let (walk, begun) =
        tokio::try_join!(graph::read(&source, &promotion.digest, options), look(&destination, promotion))?;
    let (blobs, mut manifests) = (walk.blobs(), walk.manifests());
    manifests.retain(|manifest| *manifest != promotion.digest);
    let (graph, mut known) = tokio::try_join!(
        walk.attach(&source, &promotion.digest, options),
        look_for_parts(&destination, blobs, manifests, options),
    )?;
    progress.send_modify(|progress| {
        progress.phase = PromotePhase::Blobs;
        progress.blobs_total = graph.blobs.len() as u64;
        progress.bytes_total = graph.blobs.iter().map(|blob| blob.size).sum();
        progress.manifests_total = graph.groups.iter().map(|group| group.len() as u64).sum();
    });
    let Graph { groups, blobs, foreign, referrers, attached, root } = graph;
    let all: Vec<Manifest> = groups.iter().flatten().cloned().collect();
    let route = Arc::new(Route { source, destination: destination.clone(), progress: progress.clone() });
    known.insert(root.digest.clone(), begun.has_root);
    let known = Arc::new(known);
    let on_the_way = Arc::clone(&known);
    each(blobs, options.parallel, move |blob| {
        let is_there = on_the_way.get(&blob.digest).copied();
        carry(Arc::clone(&route), blob, is_there)
    })
    .await?;

    progress.send_modify(|progress| progress.phase = PromotePhase::Manifests);
    // Where nothing is attached to it, the image is stored by its tag alone, which is last.
    let is_last = referrers.is_empty() && attached.is_empty();
    for mut group in groups {
        group.retain(|manifest| !(is_last && manifest.digest == root.digest));
        let (destination, progress, known) = (destination.clone(), progress.clone(), Arc::clone(&known));
        let write_one = move |manifest: Manifest| {
            let is_there = known.get(&manifest.digest).copied();
            write(destination.clone(), manifest, is_there, progress.clone())
        };
        each(group, options.parallel, write_one).await?;
    }
    list_referrers(&destination, referrers).await?;
    let kept = write_attached_tags(&destination, &all, attached).await?;

    progress.send_modify(|progress| progress.phase = PromotePhase::Tagging);
    let (digest, is_tag_new) = write_tag(&destination, &root, &promotion.tag, begun.shown, progress).await?;
    progress.send_modify(|progress| {
        progress.phase = PromotePhase::Done;
        match (is_last, is_tag_new && !begun.has_root) {
            (true, true) => progress.manifests_copied += 1,
            (true, false) => progress.manifests_skipped += 1,
            (false, _) => {}
        }
    });
    let foreign = foreign.into_iter().map(|layer| layer.digest).collect();
    Ok(Promoted { digest, is_tag_new, counts: progress.borrow().clone(), foreign, kept })
}

/// What the destination had when a promotion began.
struct Begun {
    /// Whether it holds the image's manifest.
    has_root: bool,
    /// What the tag shows.
    shown: Option<Digest>,
}

async fn look(destination: &Origin, promotion: &Promotion) -> Result<Begun, PromoteError> {
    let Origin { client, repository } = destination;
    let shown = async {
        match client.resolve(repository, &promotion.tag).await {
            Ok(digest) => Ok(Some(digest)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    };
    let found = tokio::try_join!(client.manifest_exists(repository, &promotion.digest), shown);
    let (has_root, shown) = found.map_err(PromoteError::Destination)?;
    Ok(Begun { has_root, shown })
}

/// Which of the image's blobs and manifests the destination has.
async fn look_for_parts(
    destination: &Origin,
    blobs: Vec<Digest>,
    manifests: Vec<Digest>,
    options: &PromoteOptions,
) -> Result<HashMap<Digest, bool>, PromoteError> {
    let questions = blobs.into_iter().map(|digest| (digest, true));
    let manifests = manifests.into_iter().map(|digest| (digest, false));
    let questions = questions.chain(manifests).collect();
    let destination = destination.clone();
    let found = each(questions, options.parallel.saturating_mul(2), move |(digest, is_blob)| {
        let Origin { client, repository } = destination.clone();
        async move {
            let is_there = if is_blob {
                client.blob_exists(&repository, &digest).await
            } else {
                client.manifest_exists(&repository, &digest).await
            };
            Ok((digest, is_there.map_err(PromoteError::Destination)?))
        }
    });
    Ok(found.await?.into_iter().collect())
}

/// Copies the image that a reference names now to another reference, which must have a tag: `registry copy SRC DST`.
///
/// # Errors
/// As [`promote`]; [`PromoteError::BadDestination`] where the destination has no tag or another digest than the source.
pub async fn copy(
    (source, source_reference): (&RegistryClient, &Reference),
    (destination, destination_reference): (&RegistryClient, &Reference),
    options: &PromoteOptions,
    progress: &watch::Sender<PromoteProgress>,
) -> Result<Promoted, PromoteError> {
    let bad = |why| PromoteError::BadDestination { reference: destination_reference.to_string(), why };
    let tag = destination_reference.tag.clone().ok_or_else(|| bad("it has no tag"))?;
    let digest = match (&source_reference.digest, &source_reference.tag) {
        (Some(digest), _) => digest.clone(),
        (None, Some(tag)) => source.resolve(&source_reference.repository, tag).await.map_err(PromoteError::Source)?,
        (None, None) => return Err(bad("the source names neither a tag nor a digest")),
    };
    if destination_reference.digest.as_ref().is_some_and(|wanted| *wanted != digest) {
        return Err(bad("it names another digest than the source has"));
    }
    let promotion = Promotion {
        source: source.clone(),
        source_repository: source_reference.repository.clone(),
        digest,
        destination: destination.clone(),
        destination_repository: destination_reference.repository.clone(),
        tag,
    };
    promote(&promotion, options, progress).await
}

/// Writes a manifest under its digest, unless it is there; `is_there` says so where it was looked up before.
async fn write(
    destination: Origin,
    manifest: Manifest,
    is_there: Option<bool>,
    progress: watch::Sender<PromoteProgress>,
) -> Result<(), PromoteError> {
    let Origin { client, repository } = &destination;
    let is_there = match is_there {
        Some(is_there) => is_there,
        None => client.manifest_exists(repository, &manifest.digest).await.map_err(PromoteError::Destination)?,
    };
    if is_there {
        progress.send_modify(|progress| progress.manifests_skipped += 1);
        return Ok(());
    }
    client.put_manifest(repository, &manifest, None).await.map_err(PromoteError::Destination)?;
    progress.send_modify(|progress| progress.manifests_copied += 1);
    Ok(())
}

/// Keeps the list of referrers under the fallback tag where the destination does not keep it by itself (distribution
/// specification, "Referrers Tag Schema"). Only adds: what the destination lists besides stays.
async fn list_referrers(destination: &Origin, referrers: Vec<(Digest, Vec<Descriptor>)>) -> Result<(), PromoteError> {
    let Origin { client, repository } = destination;
    for (subject, wanted) in referrers {
        let listed = client.referrers(repository, &subject).await.map_err(PromoteError::Destination)?;
        let known: HashSet<&Digest> = listed.manifests.iter().map(|referrer| &referrer.digest).collect();
        let missing: Vec<Descriptor> =
            wanted.into_iter().filter(|referrer| !known.contains(&referrer.digest)).collect();
        if listed.by_api || missing.is_empty() {
            continue;
        }
        let manifests: Vec<Descriptor> = listed.manifests.into_iter().chain(missing).collect();
        let index = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": media_type::INDEX,
            "manifests": manifests,
        });
        let bytes = bytes::Bytes::from(index.to_string());
        let index = Manifest { digest: Digest::of(&bytes), media_type: media_type::INDEX.to_owned(), bytes };
        let tag = Tag::attached(&subject, "");
        client.put_manifest(repository, &index, Some(&tag)).await.map_err(PromoteError::Destination)?;
    }
    Ok(())
}

/// Writes cosign's tags. One that shows something else stays: signatures made at the destination must not vanish.
async fn write_attached_tags(
    destination: &Origin,
    manifests: &[Manifest],
    attached: Vec<(Tag, Digest)>,
) -> Result<Vec<Tag>, PromoteError> {
    let Origin { client, repository } = destination;
    let mut kept = Vec::new();
    for (tag, digest) in attached {
        match client.resolve(repository, &tag).await {
            Ok(shown) if shown == digest => {}
            Ok(_) => kept.push(tag),
            Err(error) if error.is_not_found() => {
                let manifest = manifests.iter().find(|manifest| manifest.digest == digest);
                if let Some(manifest) = manifest {
                    client.put_manifest(repository, manifest, Some(&tag)).await.map_err(PromoteError::Destination)?;
                }
            }
            Err(error) => return Err(PromoteError::Destination(error)),
        }
    }
    Ok(kept)
}

/// Writes the tag, unless it shows the image already: a repeat must not fail at an immutable tag. Gives what it shows
/// afterwards, and whether it was written.
async fn write_tag(
    destination: &Origin,
    root: &Manifest,
    tag: &Tag,
    shown: Option<Digest>,
    progress: &watch::Sender<PromoteProgress>,
) -> Result<(Digest, bool), PromoteError> {
    let Origin { client, repository } = destination;
    if shown.as_ref() == Some(&root.digest) {
        match verify(destination, &root.digest, tag).await {
            // Somebody moved it meanwhile.
            Err(PromoteError::TagDiffers { .. }) => {}
            other => return other.map(|digest| (digest, false)),
        }
    }
    if let Err(error) = client.put_manifest(repository, root, Some(tag)).await {
        // A tag that must not be written twice may have been written by somebody else since it was looked at.
        let is_done = matches!(error, RegistryError::Blocked { .. })
            && client.resolve(repository, tag).await.is_ok_and(|shown| shown == root.digest);
        if !is_done {
            return Err(PromoteError::Destination(error));
        }
    }
    progress.send_modify(|progress| progress.phase = PromotePhase::Verifying);
    verify(destination, &root.digest, tag).await.map(|digest| (digest, true))
}

/// Reads the tag back. The bytes are fetched and hashed, because a header is only what the registry says of itself.
async fn verify(destination: &Origin, expected: &Digest, tag: &Tag) -> Result<Digest, PromoteError> {
    let shown = destination.client.manifest_by_tag(&destination.repository, tag).await;
    let found = shown.map_err(PromoteError::Destination)?.digest;
    if found == *expected {
        Ok(found)
    } else {
        Err(PromoteError::TagDiffers { tag: tag.to_string(), expected: expected.clone(), found })
    }
}

/// Does `work` for each item in a task of its own, `parallel` at once. The first error ends the others; so does dropping
/// the future.
pub(super) async fn each<T, R, F, W>(items: Vec<T>, parallel: usize, work: F) -> Result<Vec<R>, PromoteError>
where
    F: Fn(T) -> W,
    W: Future<Output = Result<R, PromoteError>> + Send + 'static,
    R: Send + 'static,
{
    let mut tasks = JoinSet::new();
    let mut results = Vec::with_capacity(items.len());
    for item in items {
        if tasks.len() >= parallel.max(1)
            && let Some(done) = tasks.join_next().await
        {
            results.push(joined(done)?);
        }
        tasks.spawn(work(item));
    }
    while let Some(done) = tasks.join_next().await {
        results.push(joined(done)?);
    }
    Ok(results)
}

fn joined<R>(done: Result<Result<R, PromoteError>, JoinError>) -> Result<R, PromoteError> {
    done.unwrap_or_else(|error| {
        if error.is_panic() {
            std::panic::resume_unwind(error.into_panic());
        }
        Err(PromoteError::Interrupted)
    })
}
