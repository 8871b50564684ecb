//! The promoter beside `skopeo copy`: the same image between two image registries, as a process each, in an order that
//! is drawn anew each round. An empty destination, one new layer, and nothing new; plain and with TLS; beside each other
//! and 20 ms of round trip apart.

#[path = "promote/relay.rs"]
mod relay;

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tests::{
    Part, Registry, Tier, Windlass,
    bench::{Goal, Row, conditions, median},
    evidence::record_as,
    process::output,
    require,
};

use relay::Relay;

const ROUNDS: usize = 5;
const REPOSITORY: &str = "shop/checkout";
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// A base, a runtime, packages, the code: 210 MB. The last is the one that changes.
const LAYERS_BYTES: [usize; 8] =
    [80_000_000, 50_000_000, 30_000_000, 20_000_000, 12_000_000, 6_000_000, 2_000_000, 10_000_000];
const CASES: [(&str, f64); 3] = [("empty destination", 0.6), ("one layer new", 0.5), ("nothing new", 0.5)];
/// Added to each round trip.
const FAR: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, PartialEq)]
enum Program {
    Windlass,
    Skopeo,
}

/// A registry as the programs see it.
struct Side {
    registry: Registry,
    relay: Option<Relay>,
}

impl Side {
    async fn start(tls: bool, far: bool) -> Result<Self> {
        let registry = if tls { Registry::start_tls().await? } else { Registry::start(None).await? };
        let relay = if far { Some(Relay::start(&registry.host_port(), FAR).await?) } else { None };
        Ok(Self { registry, relay })
    }

    fn host_port(&self) -> String {
        self.relay.as_ref().map_or_else(|| self.registry.host_port(), |relay| relay.address().to_string())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    if !require(&[Part::Bench, Part::Registry]) {
        return Ok(());
    }
    let conditions = conditions();
    // Neither always has the other's heat before it; the seed is printed, the order can be had again.
    let seed = std::env::var("WINDLASS_BENCH_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("seed {seed} (WINDLASS_BENCH_SEED repeats its order)");
    let mut dice = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut parts = Vec::new();
    for (tls, far) in [(false, false), (true, false), (false, true), (true, true)] {
        let way = match (tls, far) {
            (false, false) => "plain",
            (true, false) => "TLS",
            (false, true) => "plain, 20 ms",
            (true, true) => "TLS, 20 ms",
        };
        let (ours, theirs) = measure(tls, far, &mut dice).await?;
        for (case, (name, goal)) in CASES.into_iter().enumerate() {
            let (our_ms, their_ms) = (median(&ours[case]), median(&theirs[case]));
            let row = format!("promotion, {name}, {way}");
            Row::new(&row, our_ms, Some(their_ms), "ms", Goal::RatioAtMost(goal)).note();
            parts.push(format!("{name}, {way} {:.2}×", our_ms / their_ms));
        }
    }
    let size_mb = LAYERS_BYTES.iter().sum::<usize>() / 1_000_000;
    let figure = format!("its time: {}; {size_mb} MB, {ROUNDS} rounds, {conditions}", parts.join("; "));
    record_as("a promotion beside skopeo copy", Tier::RealPart, figure, "make bench");
    Ok(())
}

/// The times of ours and of skopeo's, for each case.
async fn measure(tls: bool, far: bool, dice: &mut u64) -> Result<([Vec<f64>; 3], [Vec<f64>; 3])> {
    let source = Side::start(tls, far).await?;
    let first = push(&source.registry, 1).await?;
    let second = push(&source.registry, 2).await?;
    let (mut ours, mut theirs): ([Vec<f64>; 3], [Vec<f64>; 3]) = Default::default();
    for round in 0..=ROUNDS {
        let mut turns = [Program::Skopeo, Program::Windlass];
        if next(dice).is_multiple_of(2) {
            turns.reverse();
        }
        for program in turns {
            // A registry of its own for each: a blob that another repository has is mounted, not copied.
            let destination = Side::start(tls, far).await?;
            for (case, digest) in [&first, &second, &second].into_iter().enumerate() {
                let took = copy(program, &source, &destination, digest).await?;
                // The first round warms the disk's cache and is not counted.
                if round > 0 {
                    let took_ms = took.as_secs_f64() * 1000.0;
                    if program == Program::Windlass { ours[case].push(took_ms) } else { theirs[case].push(took_ms) }
                }
            }
        }
    }
    Ok((ours, theirs))
}

/// xorshift64*
fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 8
}

async fn copy(program: Program, source: &Side, destination: &Side, digest: &str) -> Result<Duration> {
    let from = format!("{}/{REPOSITORY}@{digest}", source.host_port());
    let to = format!("{}/live/checkout:v1", destination.host_port());
    let authorities = (source.registry.ca_file(), destination.registry.ca_file());
    let mut command = match program {
        Program::Windlass => {
            let mut windlass = Command::new(Windlass::binary()?);
            windlass.args(["registry", "copy", &from, &to]);
            match authorities {
                (Some(from), Some(to)) => windlass.arg("--src-ca-file").arg(from).arg("--dst-ca-file").arg(to),
                _ => windlass.arg("--plain-http"),
            };
            windlass
        }
        Program::Skopeo => {
            let mut skopeo = Command::new("skopeo");
            // Without `--preserve-digests` it may write another manifest, which would not be the one approved.
            skopeo.args(["copy", "--quiet", "--all", "--preserve-digests"]);
            match authorities {
                (Some(from), Some(to)) => {
                    skopeo.arg("--src-cert-dir").arg(authority_dir(from)?);
                    skopeo.arg("--dest-cert-dir").arg(authority_dir(to)?);
                }
                _ => {
                    skopeo.args(["--src-tls-verify=false", "--dest-tls-verify=false"]);
                }
            }
            skopeo.args([format!("docker://{from}"), format!("docker://{to}")]);
            skopeo
        }
    };
    let started = Instant::now();
    output(&mut command)?;
    let took = started.elapsed();
    let shown = destination.registry.digest("live/checkout", "v1").await?.context("the copy is not there")?;
    ensure!(shown == digest, "{shown} was copied, not {digest}");
    Ok(took)
}

/// A folder with the authority alone, as skopeo wants it.
fn authority_dir(ca_file: &Path) -> Result<std::path::PathBuf> {
    let dir = ca_file.with_file_name("authority");
    std::fs::create_dir_all(&dir)?;
    std::fs::copy(ca_file, dir.join("ca.crt"))?;
    Ok(dir)
}

/// Pushes an image whose last layer is made of `seed`, the others are always the same; gives its digest.
async fn push(registry: &Registry, seed: u64) -> Result<String> {
    let config = json!({"architecture": "amd64", "os": "linux", "seed": seed}).to_string();
    let last = LAYERS_BYTES.len() - 1;
    let mut layers = Vec::new();
    for (number, length) in LAYERS_BYTES.into_iter().enumerate() {
        let layer = noise(if number == last { 1000 + seed } else { number as u64 + 1 }, length);
        layers.push(push_blob(registry, LAYER, layer).await?);
    }
    let config = push_blob(registry, CONFIG, config.into_bytes()).await?;
    let manifest = json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": layers}).to_string();
    let digest = digest(manifest.as_bytes());
    let put = registry.http().put(format!("{}/v2/{REPOSITORY}/manifests/{digest}", registry.url()));
    put.header("content-type", IMAGE).body(manifest).send().await?.error_for_status()?;
    Ok(digest)
}

/// Gives the blob's descriptor.
async fn push_blob(registry: &Registry, media_type: &str, bytes: Vec<u8>) -> Result<Value> {
    let http = registry.http();
    let (digest, size) = (digest(&bytes), bytes.len());
    let session = http.post(format!("{}/v2/{REPOSITORY}/blobs/uploads/", registry.url())).send().await?;
    let place = session.headers().get("location").context("the registry gave no place for a blob")?.to_str()?;
    http.put(format!("{place}&digest={digest}")).body(bytes).send().await?.error_for_status()?;
    Ok(json!({"mediaType": media_type, "digest": digest, "size": size}))
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Bytes that do not compress, behind gzip's magic number: neither program looks further.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = vec![0x1f, 0x8b];
    while bytes.len() < length {
        bytes.extend_from_slice(&next(&mut state).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
