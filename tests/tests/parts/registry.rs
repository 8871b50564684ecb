//! The promoter between two real image registries, with a proxy in front of them that breaks connections, refuses and
//! lies as registries do.

#[path = "registry/image.rs"]
mod image;
#[path = "registry/proxy.rs"]
mod proxy;
#[path = "registry/tls.rs"]
mod tls;

use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Method;
use image::{INDEX, descriptor, manifest, noise, push_image, raw};
use integrations::registry::{
    ClientLimits, Manifest, PromoteError, PromoteOptions, PromotePhase, PromoteProgress, Promoted, Promotion,
    Reference, RegistryClient, RegistryConfig, RegistryError, Repository, Tag, copy, promote,
};
use pipelines::ids::Digest;
use proxy::{Act, Proxy};
use serde_json::json;
use tests::{Part, Registry, Tier, evidence::record, require};
use tokio::sync::watch;
use url::Url;

const READER: (&str, &str) = ("reader", "the test registry's password");
const WRITER: (&str, &str) = ("writer", "the production registry's password");

/// A client that does not wait long between its tries.
fn client(url: Url, (user, password): (&str, &str)) -> RegistryClient {
    let mut config = RegistryConfig::new(url).with_credentials(user, password.into());
    config.limits = ClientLimits { backoff_min_ms: 5, backoff_max_ms: 50, attempts: 4, ..ClientLimits::default() };
    RegistryClient::new(config).unwrap()
}

/// Two real registries, each with a password of its own and a proxy in front of it.
struct Two {
    test: Registry,
    production: Registry,
    source: Proxy,
    destination: Proxy,
}

impl Two {
    async fn start() -> Self {
        let test = Registry::start(Some(READER)).await.unwrap();
        let production = Registry::start(Some(WRITER)).await.unwrap();
        let (source, destination) = (Proxy::start(&test.url()).await, Proxy::start(&production.url()).await);
        Self { test, production, source, destination }
    }

    /// The test registry, past the proxy.
    fn filler(&self) -> RegistryClient {
        client(self.test.url().parse().unwrap(), READER)
    }

    fn promotion(&self, digest: &Digest) -> Promotion {
        Promotion {
            source: client(self.source.url(), READER),
            source_repository: "shop/checkout".parse().unwrap(),
            digest: digest.clone(),
            destination: client(self.destination.url(), WRITER),
            destination_repository: "live/checkout".parse().unwrap(),
            tag: "v1".parse().unwrap(),
        }
    }

    async fn promote(&self, digest: &Digest) -> Result<Promoted, PromoteError> {
        promote(&self.promotion(digest), &PromoteOptions::default(), &watch::Sender::new(PromoteProgress::default()))
            .await
    }

    /// What the destination shows under a tag or digest, asked without proxy and client.
    async fn shows(&self, name: &str) -> (u16, Bytes) {
        let (status, _, bytes) = raw(&self.production, &format!("live/checkout/manifests/{name}")).await;
        (status, bytes)
    }

    async fn assert_arrived(&self, image: &Manifest) {
        let (status, bytes) = self.shows("v1").await;
        assert_eq!((status, &bytes), (200, &image.bytes), "the tag does not show the image's bytes");
        let document: serde_json::Value = serde_json::from_slice(&image.bytes).unwrap();
        for blob in document["layers"].as_array().into_iter().flatten().chain([&document["config"]]) {
            let digest = blob["digest"].as_str().unwrap();
            let (status, _, bytes) = raw(&self.production, &format!("live/checkout/blobs/{digest}")).await;
            assert_eq!((status, Digest::of(&bytes).as_str()), (200, digest), "a blob is missing or other");
        }
    }

    async fn assert_nothing_is_tagged(&self) {
        assert_eq!(self.production.tags("live/checkout").await.unwrap(), Vec::<String>::new());
    }
}

fn shop() -> Repository {
    "shop/checkout".parse().unwrap()
}

/// An image of one large and two small layers, in the test registry.
async fn one_image(two: &Two, seed: u64) -> Manifest {
    let layers = [noise(seed, 3_000_000), noise(seed + 1, 20_000), noise(seed + 2, 1)];
    push_image(&two.filler(), &shop(), &layers, json!({}), Some(&"latest".parse().unwrap())).await
}

/// The path of an image's largest layer.
fn large_layer(image: &Manifest) -> String {
    let document: serde_json::Value = serde_json::from_slice(&image.bytes).unwrap();
    format!("/blobs/{}", document["layers"][0]["digest"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_arrives_whole_with_its_signatures_and_a_second_promotion_copies_nothing() {
    if !require(&[Part::Registry]) {
        return;
    }
    let two = Two::start().await;
    let filler = two.filler();
    let shared = noise(1, 2_000_000);
    let mut children = Vec::new();
    for seed in [10, 20] {
        let layers = [shared.clone(), noise(seed, 700_000), Bytes::new()];
        children.push(push_image(&filler, &shop(), &layers, json!({}), None).await);
    }
    let manifests: Vec<_> = children.iter().map(|child| descriptor(&child.media_type, &child.bytes)).collect();
    let root = manifest(INDEX, &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}));
    filler.put_manifest(&shop(), &root, Some(&"latest".parse().unwrap())).await.unwrap();
    // A signature as a referrer (this registry keeps no list of them: the fallback tag does), and one by cosign's tag.
    let subject = json!({"subject": descriptor(INDEX, &root.bytes), "artifactType": "application/x.signature"});
    let referrer = push_image(&filler, &shop(), &[noise(30, 500)], subject, None).await;
    let list = json!({
        "schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(&referrer.media_type, &referrer.bytes)],
    });
    let fallback: Tag = root.digest.as_str().replace(':', "-").parse().unwrap();
    filler.put_manifest(&shop(), &manifest(INDEX, &list), Some(&fallback)).await.unwrap();
    let cosign: Tag = format!("{fallback}.sig").parse().unwrap();
    let signature = push_image(&filler, &shop(), &[noise(40, 500)], json!({}), Some(&cosign)).await;

    let progress = watch::Sender::new(PromoteProgress::default());
    let first = promote(&two.promotion(&root.digest), &PromoteOptions::default(), &progress).await.unwrap();
    assert_eq!((&first.digest, first.is_tag_new), (&root.digest, true));
    assert_eq!((first.counts.phase, progress.borrow().clone()), (PromotePhase::Done, first.counts.clone()));
    // Shared, two of their own, the empty one, configs (equal bytes: one for the images, one for the signatures),
    // and the two signatures: each once.
    assert_eq!((first.counts.blobs_total, first.counts.blobs_copied), (8, 8));
    assert_eq!(first.counts.bytes_copied, first.counts.bytes_total);
    assert_eq!((first.counts.manifests_total, first.counts.manifests_copied), (5, 5));
    for child in &children {
        assert_eq!(two.shows(child.digest.as_str()).await, (200, child.bytes.clone()));
        assert_eq!(two.shows(referrer.digest.as_str()).await, (200, referrer.bytes.clone()));
        two.source.seen().iter().for_each(|seen| assert!(!seen.is_write(), "the source was written to: {seen:?}"));
    }
    assert_eq!(two.shows("v1").await, (200, root.bytes.clone()));
    assert_eq!(two.shows(cosign.as_str()).await, (200, signature.bytes.clone()));
    let listed = client(two.production.url().parse().unwrap(), WRITER);
    let listed = listed.referrers(&"live/checkout".parse().unwrap(), &root.digest).await.unwrap();
    assert_eq!(listed.manifests.iter().map(|found| &found.digest).collect::<Vec<_>>(), [&referrer.digest]);
    let writes: Vec<_> = two.destination.seen().into_iter().filter(proxy::Seen::is_write).collect();
    assert!(writes.last().unwrap().path.ends_with("/manifests/v1?"), "the tag was not last: {:?}", writes.last());

    let before = two.destination.seen().len();
    let second = two.promote(&root.digest).await.unwrap();
    assert_eq!((second.digest, second.is_tag_new), (root.digest, false));
    assert_eq!((second.counts.blobs_copied, second.counts.blobs_skipped, second.counts.bytes_copied), (0, 8, 0));
    let again = two.destination.seen().split_off(before);
    assert!(!again.iter().any(proxy::Seen::is_write), "a repeat wrote something: {again:?}");
    record(
        "promotion copies an image graph by digest, byte for byte, tag last",
        Tier::RealPart,
        "8 blobs, 5 manifests",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_killed_in_the_middle_of_a_blob_goes_on_where_it_was() {
    if !require(&[Part::Registry]) {
        return;
    }
    let two = Two::start().await;
    let image = one_image(&two, 100).await;
    two.source.fault(Method::GET, large_layer(&image), 1, Act::StallAnswer(1_000_000));
    let progress = watch::Sender::new(PromoteProgress::default());
    let mut seen = progress.subscribe();
    let promotion = two.promotion(&image.digest);
    {
        let options = PromoteOptions::default();
        let killed = promote(&promotion, &options, &progress);
        let small_ones_arrived = async {
            two.source.stalled().await;
            seen.wait_for(|progress| progress.blobs_copied == 3).await.unwrap();
        };
        tokio::select! {
            result = killed => panic!("the promotion ended while a blob stood still: {result:?}"),
            () = small_ones_arrived => {}
        }
    }
    two.assert_nothing_is_tagged().await;
    assert_eq!(two.shows(image.digest.as_str()).await.0, 404, "the manifest came before its blobs");
    let resumed = two.promote(&image.digest).await.unwrap();
    assert_eq!((resumed.counts.blobs_skipped, resumed.counts.blobs_copied), (3, 1));
    two.assert_arrived(&image).await;
    record("a killed promotion goes on, and nothing is tagged before it is whole", Tier::RealPart, "3 of 4 blobs kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_cuts_a_blob_is_read_on_by_range() {
    if !require(&[Part::Registry]) {
        return;
    }
    let two = Two::start().await;
    let image = one_image(&two, 200).await;
    two.source.fault(Method::GET, large_layer(&image), 2, Act::CutAnswer(700_000));
    let promoted = two.promote(&image.digest).await.unwrap();
    assert_eq!((two.source.faults_left(), promoted.counts.blobs_copied), (0, 4));
    two.assert_arrived(&image).await;
    let reads = two.source.seen().into_iter().filter(|seen| seen.path.contains(&large_layer(&image)));
    let ranges: Vec<_> = reads.map(|seen| seen.header("range").map(str::to_owned)).collect();
    // What was under way when the connection was reset may be lost too: it goes on at the last byte that was read.
    let begins = ranges.iter().map(|range| match range {
        None => Some(0),
        Some(range) => range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok(),
    });
    let begins: Option<Vec<u32>> = begins.collect();
    let [0, second, third] = begins.unwrap_or_default()[..] else { panic!("not three reads: {ranges:?}") };
    assert!(0 < second && second <= 700_000, "{ranges:?}");
    assert!(second < third && third <= second + 700_000, "{ranges:?}");
    // The destination did not notice: one upload for each blob.
    let uploads = two.destination.seen().into_iter().filter(|seen| seen.method == Method::POST);
    assert_eq!(uploads.count(), 4);
    record("a connection cut in the middle of a blob is healed", Tier::RealPart, "2 cuts, read on by range");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_cuts_an_upload_gets_the_blob_again() {
    if !require(&[Part::Registry]) {
        return;
    }
    let two = Two::start().await;
    let image = one_image(&two, 300).await;
    two.destination.fault(Method::PUT, "/blobs/uploads/", 2, Act::CutRequest(300_000));
    two.destination.fault(Method::PUT, "/blobs/uploads/", 1, Act::LoseAnswer);
    two.destination.fault(Method::PUT, "/manifests/v1", 1, Act::LoseAnswer);
    let promoted = two.promote(&image.digest).await.unwrap();
    assert_eq!((two.destination.faults_left(), promoted.counts.blobs_copied), (0, 4));
    assert_eq!(promoted.counts.bytes_copied, promoted.counts.bytes_total);
    two.assert_arrived(&image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_keeps_a_broken_upload_gets_only_the_rest() {
    if !require(&[Part::Registry]) {
        return;
    }
    let two = Two::start().await;
    let image = push_image(&two.filler(), &shop(), &[noise(400, 5_000_000)], json!({}), None).await;
    let promotion = two.promotion(&image.digest);
    let config: serde_json::Value = serde_json::from_slice(&image.bytes).unwrap();
    let config = two.filler().read_blob(&shop(), &config["config"]["digest"].as_str().unwrap().parse().unwrap()).await;
    promotion.destination.push_blob(&promotion.destination_repository, config.unwrap()).await.unwrap();
    two.destination.fault(Method::PUT, "/blobs/uploads/", 1, Act::KeepAndCutRequest(3_500_000));
    let promoted = two.promote(&image.digest).await.unwrap();
    assert_eq!((promoted.counts.blobs_copied, promoted.counts.bytes_copied), (1, 5_000_000));
    two.assert_arrived(&image).await;
    let puts: Vec<_> = two.destination.seen().into_iter().filter(|seen| seen.method == Method::PUT).collect();
    let rest = puts.iter().find(|put| put.header("content-range").is_some()).expect("the upload was begun anew");
    assert_eq!(rest.header("content-range"), Some("3500000-4999999"));
    assert_eq!(rest.header("content-length"), Some("1500000"));
    let ranges: Vec<_> = two.source.seen().iter().filter_map(|seen| seen.header("range").map(str::to_owned)).collect();
    let start: u64 = ranges[0].trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    assert!((2_000_000..=3_500_000).contains(&start), "read from {start}: too little or too much again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_is_waited_for_and_a_long_one_is_given_back() {
    if !require(&[Part::Registry]) {
        return;
    }
    let two = Two::start().await;
    let image = one_image(&two, 500).await;
    let slow = |seconds: u32| Act::Answer(429, vec![("retry-after", seconds.to_string())], "slow down");
    two.source.fault(Method::GET, "/manifests/sha256:", 1, slow(1));
    two.destination.fault(Method::POST, "/blobs/uploads/", 2, slow(1));
    two.destination.fault(Method::PUT, "/manifests/v1", 1, slow(1));
    let began = Instant::now();
    two.promote(&image.digest).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(3), "it did not wait as it was told");
    assert_eq!(two.source.faults_left() + two.destination.faults_left(), 0);
    two.assert_arrived(&image).await;

    let next = one_image(&two, 510).await;
    two.destination.fault(Method::POST, "/blobs/uploads/", usize::MAX, slow(3600));
    let error = two.promote(&next.digest).await.unwrap_err();
    assert!(matches!(error, PromoteError::Destination(RegistryError::RateLimited { .. })), "{error:?}");
    assert!(error.is_transient());
    assert_eq!(error.registry().unwrap().retry_after(), Some(Duration::from_secs(3600)));
    two.assert_arrived(&image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_fails_is_asked_again_but_not_for_ever() {
    if !require(&[Part::Registry]) {
        return;
    }
    let two = Two::start().await;
    let image = one_image(&two, 600).await;
    let fail = |status| Act::Answer(status, Vec::new(), "storage is away");
    two.source.fault(Method::GET, large_layer(&image), 1, fail(500));
    two.destination.fault(Method::HEAD, large_layer(&image), 1, fail(503));
    two.destination.fault(Method::PUT, "/blobs/uploads/", 2, fail(500));
    two.destination.fault(Method::PUT, "/manifests/v1", 1, fail(502));
    two.promote(&image.digest).await.unwrap();
    assert_eq!(two.source.faults_left() + two.destination.faults_left(), 0);
    two.assert_arrived(&image).await;

    let next = one_image(&two, 610).await;
    two.destination.fault(Method::PUT, "/manifests/", usize::MAX, fail(500));
    let error = two.promote(&next.digest).await.unwrap_err();
    let PromoteError::Destination(RegistryError::Failing { status: 500, words, .. }) = &error else {
        panic!("{error:?}");
    };
    assert_eq!(words, "storage is away");
    let tries = two.destination.seen();
    // The first image took two.
    let tries = tries.iter().filter(|seen| seen.method == Method::PUT && seen.path.contains("/manifests/v1")).skip(2);
    assert_eq!(tries.count(), 4, "not the number of attempts of the client");
    two.assert_arrived(&image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_gone_is_unreachable_and_the_promotion_works_when_it_is_back() {
    if !require(&[Part::Registry]) {
        return;
    }
    let mut two = Two::start().await;
    let image = one_image(&two, 700).await;
    let mut promotion = two.promotion(&image.digest);
    promotion.destination = client(two.production.url().parse().unwrap(), WRITER);
    let (options, progress) = (PromoteOptions::default(), watch::Sender::new(PromoteProgress::default()));
    two.production.kill();
    let error = promote(&promotion, &options, &progress).await.unwrap_err();
    assert!(matches!(error, PromoteError::Destination(RegistryError::Unreachable { .. })), "{error:?}");
    assert!(error.is_transient());
    two.production.restart().await.unwrap();
    promote(&promotion, &options, &progress).await.unwrap();
    two.assert_arrived(&image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_said_and_nothing_goes_on_without_one() {
    if !require(&[Part::Registry]) {
        return;
    }
    let two = Two::start().await;
    let image = one_image(&two, 800).await;
    let mut promotion = two.promotion(&image.digest);
    promotion.destination = client(two.destination.url(), (WRITER.0, "wrong"));
    let (options, progress) = (PromoteOptions::default(), watch::Sender::new(PromoteProgress::default()));
    let error = promote(&promotion, &options, &progress).await.unwrap_err();
    assert!(matches!(error, PromoteError::Destination(RegistryError::Unauthorised { .. })), "{error:?}");
    assert!(!error.is_transient());
    for seen in two.destination.seen() {
        let is_first_question = seen.path == "/v2/?";
        assert_eq!(seen.header("authorization").is_none(), is_first_question, "{seen:?}");
    }
    let blobs_and_parallel = 4 * 2;
    assert!(two.destination.seen().len() <= 1 + blobs_and_parallel, "a refusal was asked again and again");
    let shown = format!("{error:?} {promotion:?}");
    assert!(!shown.contains("wrong") && !shown.contains(READER.1), "a password is shown: {shown}");

    // Both are asked at once: only one of them refuses.
    promotion.destination = client(two.destination.url(), WRITER);
    promotion.source = client(two.source.url(), (READER.0, "wrong"));
    let error = promote(&promotion, &options, &progress).await.unwrap_err();
    assert!(matches!(error, PromoteError::Source(RegistryError::Unauthorised { .. })), "{error:?}");
    let anonymous = RegistryClient::new(RegistryConfig::new(two.source.url())).unwrap();
    let error = anonymous.resolve(&shop(), &"latest".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorised { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_another_digest_are_refused_and_nothing_is_tagged() {
    if !require(&[Part::Registry]) {
        return;
    }
    let two = Two::start().await;
    let image = one_image(&two, 900).await;
    let layer = large_layer(&image);
    two.source.fault(Method::GET, &layer, 1, Act::FlipBit);
    let error = two.promote(&image.digest).await.unwrap_err();
    let PromoteError::Source(RegistryError::Corrupt { expected, found, .. }) = &error else { panic!("{error:?}") };
    assert!(layer.ends_with(expected) && expected != found);
    assert_eq!(raw(&two.production, &format!("live/checkout{layer}")).await.0, 404, "the corrupt blob was kept");
    two.assert_nothing_is_tagged().await;

    two.source.fault(Method::GET, "/manifests/sha256:", 1, Act::FlipBit);
    let error = two.promote(&image.digest).await.unwrap_err();
    assert!(matches!(error, PromoteError::Source(RegistryError::Corrupt { .. })), "{error:?}");
    two.assert_nothing_is_tagged().await;
    two.promote(&image.digest).await.unwrap();
    two.assert_arrived(&image).await;
    record("corrupt bytes of a registry are refused and never tagged", Tier::RealPart, "one flipped bit");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_and_an_immutable_tag_are_told_in_the_words_of_the_registry() {
    if !require(&[Part::Registry]) {
        return;
    }
    let two = Two::start().await;
    let image = one_image(&two, 1000).await;
    let gate = r#"{"errors":[{"code":"PROJECTPOLICYVIOLATION","message":"image is not scanned"}]}"#;
    two.source.fault(Method::GET, "/manifests/", 1, Act::Answer(412, Vec::new(), gate));
    let error = two.promote(&image.digest).await.unwrap_err();
    let PromoteError::Source(RegistryError::Blocked { status: 412, words, .. }) = &error else { panic!("{error:?}") };
    assert_eq!(words, "PROJECTPOLICYVIOLATION image is not scanned");

    // An answer to HEAD carries no words: the client has to ask for them.
    let gate = Act::Answer(412, Vec::new(), gate);
    two.source.fault(Method::HEAD, "/manifests/latest", 1, gate.clone());
    two.source.fault(Method::GET, "/manifests/latest", 1, gate);
    let error = client(two.source.url(), READER).resolve(&shop(), &"latest".parse().unwrap()).await.unwrap_err();
    assert!(error.to_string().ends_with("image is not scanned"), "{error}");

    let immutable = r#"{"errors":[{"code":"PRECONDITION","message":"matched by an immutable rule"}]}"#;
    two.destination.fault(Method::PUT, "/manifests/v1", 1, Act::Answer(412, Vec::new(), immutable));
    let error = two.promote(&image.digest).await.unwrap_err();
    let PromoteError::Destination(RegistryError::Blocked { words, .. }) = &error else { panic!("{error:?}") };
    assert_eq!(words, "PRECONDITION matched by an immutable rule");
    assert!(!error.is_transient());
    two.assert_nothing_is_tagged().await;

    let missing = two.promote(&Digest::of(b"no such image")).await.unwrap_err();
    assert!(matches!(missing, PromoteError::Source(RegistryError::NotFound { .. })), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn within_one_registry_blobs_are_mounted_or_copied_where_they_cannot_be() {
    if !require(&[Part::Registry]) {
        return;
    }
    let two = Two::start().await;
    let image = one_image(&two, 1100).await;
    let proxy = &two.source;
    let registry = client(proxy.url(), READER);
    let digest_reference = Reference::by_digest(registry.host(), shop(), image.digest.clone());
    let tagged = |repository: &str| {
        let text = format!("{}/{repository}:v1", registry.host());
        text.parse::<Reference>().unwrap()
    };
    let (options, progress) = (PromoteOptions::default(), watch::Sender::new(PromoteProgress::default()));
    let (from, to) = ((&registry, &digest_reference), tagged("shop/live"));
    let mounted = copy(from, (&registry, &to), &options, &progress).await.unwrap();
    assert_eq!((mounted.counts.blobs_mounted, mounted.counts.bytes_copied), (4, 0));

    // 202 to a mount is an upload session, and the way on.
    proxy.fault(Method::POST, "/v2/shop/other/blobs/uploads/", 4, Act::ForgetMount);
    let to = tagged("shop/other");
    let copied = copy(from, (&registry, &to), &options, &progress).await.unwrap();
    assert_eq!((copied.counts.blobs_mounted, copied.counts.blobs_copied, proxy.faults_left()), (0, 4, 0));
    for repository in ["shop/live", "shop/other"] {
        let (status, _, bytes) = raw(&two.test, &format!("{repository}/manifests/v1")).await;
        assert_eq!((status, bytes), (200, image.bytes.clone()));
    }
    let untagged = Reference::by_digest(registry.host(), shop(), image.digest.clone());
    let error = copy(from, (&registry, &untagged), &options, &progress).await.unwrap_err();
    assert!(matches!(error, PromoteError::BadDestination { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_service_is_asked_for_what_is_needed_and_its_refusal_is_final() {
    if !require(&[Part::Registry]) {
        return;
    }
    let registry = Registry::start(None).await.unwrap();
    let proxy = Proxy::with_tokens(&registry.url(), WRITER.0, WRITER.1).await;
    let allowed = client(proxy.url(), WRITER);
    let layers = [noise(1200, 200_000), noise(1201, 10)];
    let image = push_image(&allowed, &shop(), &layers, json!({}), None).await;
    let source = Reference::by_digest(allowed.host(), shop(), image.digest.clone());
    let to: Reference = format!("{}/live/checkout:v1", allowed.host()).parse().unwrap();
    let (options, progress) = (PromoteOptions::default(), watch::Sender::new(PromoteProgress::default()));
    let promoted = copy((&allowed, &source), (&allowed, &to), &options, &progress).await.unwrap();
    assert_eq!((promoted.digest, promoted.counts.blobs_mounted), (image.digest.clone(), 3));
    let asked = proxy.seen().iter().filter(|seen| seen.path.starts_with("/token")).count();
    assert!((3..=6).contains(&asked), "{asked} tokens were fetched: they are not kept, or one is used for all");
    let mount = "scope=repository%3Alive%2Fcheckout%3Apull%2Cpush&scope=repository%3Ashop%2Fcheckout%3Apull";
    assert!(proxy.seen().iter().any(|seen| seen.path.contains(mount)), "no token for both sides of a mount");

    let before = proxy.seen().len();
    let refused = client(proxy.url(), (WRITER.0, "wrong"));
    let error = refused.resolve(&shop(), &"v1".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorised { .. }), "{error:?}");
    let after = proxy.seen().split_off(before);
    assert!(after.iter().all(|seen| seen.path == "/v2/?" || seen.path.starts_with("/token")), "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_another_host_carries_no_credentials() {
    if !require(&[Part::Registry]) {
        return;
    }
    let registry = Registry::start(None).await.unwrap();
    let front = Proxy::with_tokens(&registry.url(), WRITER.0, WRITER.1).await;
    let storage = Proxy::start(&registry.url()).await;
    let allowed = client(front.url(), WRITER);
    let blob = noise(1300, 1000);
    let digest = allowed.push_blob(&shop(), blob.clone()).await.unwrap();
    let path = format!("/v2/shop/checkout/blobs/{digest}");
    let there = storage.url().join(&path).unwrap().to_string();
    front.fault(Method::GET, &path, 1, Act::Answer(307, vec![("location", there)], ""));
    assert_eq!(allowed.read_blob(&shop(), &digest).await.unwrap(), blob);
    let seen = storage.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("authorization"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_listed_and_deleted_manifests_are_gone() {
    if !require(&[Part::Registry]) {
        return;
    }
    let two = Two::start().await;
    let image = one_image(&two, 1400).await;
    let filler = two.filler();
    filler.put_manifest(&shop(), &image, Some(&"second".parse().unwrap())).await.unwrap();
    let mut tags = filler.tags(&shop()).await.unwrap();
    tags.sort();
    assert_eq!(tags, ["latest", "second"]);
    assert!(filler.manifest_exists(&shop(), &image.digest).await.unwrap());
    filler.delete_manifest(&shop(), &image.digest).await.unwrap();
    assert!(!filler.manifest_exists(&shop(), &image.digest).await.unwrap());
    let gone = filler.resolve(&shop(), &"latest".parse().unwrap()).await;
    assert!(gone.is_err_and(|error| error.is_not_found()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_must_not_be_distributed_stays_where_it_is() {
    if !require(&[Part::Registry]) {
        return;
    }
    let (source, destination) = (tls::Registry::start().await, tls::Registry::start().await);
    let filler = source.client();
    let mut foreign =
        descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", &noise(1500, 5_000_000));
    foreign["urls"] = json!(["https://vendor.example.com/base.tar.gz"]);
    let image = push_image(&filler, &shop(), &[noise(1501, 100)], json!({}), None).await;
    let mut document: serde_json::Value = serde_json::from_slice(&image.bytes).unwrap();
    document["layers"].as_array_mut().unwrap().insert(0, foreign.clone());
    let image = manifest(&image.media_type, &document);
    filler.put_manifest(&shop(), &image, None).await.unwrap();
    let promotion = Promotion {
        source: filler,
        source_repository: shop(),
        digest: image.digest.clone(),
        destination: destination.client(),
        destination_repository: shop(),
        tag: "v1".parse().unwrap(),
    };
    let (options, progress) = (PromoteOptions::default(), watch::Sender::new(PromoteProgress::default()));
    let promoted = promote(&promotion, &options, &progress).await.unwrap();
    assert_eq!(promoted.foreign.iter().map(Digest::as_str).collect::<Vec<_>>(), [foreign["digest"].as_str().unwrap()]);
    assert_eq!((promoted.counts.blobs_total, promoted.counts.blobs_copied), (2, 2));
    let shown = destination.client().manifest_by_tag(&shop(), &"v1".parse().unwrap()).await.unwrap();
    assert_eq!(shown.bytes, image.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_with_a_certificate_of_an_own_authority_needs_that_authority() {
    if !require(&[Part::Registry]) {
        return;
    }
    let registry = tls::Registry::start().await;
    let mut config = RegistryConfig::new(registry.url());
    config.limits = ClientLimits { attempts: 2, backoff_min_ms: 5, ..ClientLimits::default() };
    let stranger = RegistryClient::new(config).unwrap();
    let error = stranger.push_blob(&shop(), noise(1600, 10)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error:?}");
    let friend = registry.client();
    let image = push_image(&friend, &shop(), &[noise(1600, 300_000)], json!({}), Some(&"v1".parse().unwrap())).await;
    assert_eq!(friend.resolve(&shop(), &"v1".parse().unwrap()).await.unwrap(), image.digest);
}
