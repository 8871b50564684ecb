//! The promoter beside `skopeo copy`: the same image between two image registries, as a process each, in turns. An empty
//! destination, one changed layer, and nothing to do.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tests::{
    Part, Registry, Tier, Windlass,
    bench::{conditions, median},
    evidence::record_as,
    http_client,
    process::output,
    require,
};

const ROUNDS: usize = 5;
const REPOSITORY: &str = "shop/checkout";
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// A base, a runtime, two layers of packages, the code.
const LAYERS_BYTES: [usize; 5] = [30_000_000, 45_000_000, 12_000_000, 3_000_000, 400_000];
const CASES: [&str; 3] = ["empty destination", "one layer changed", "nothing to do"];

#[derive(Clone, Copy, PartialEq)]
enum Program {
    Windlass,
    Skopeo,
}

#[tokio::main]
async fn main() -> Result<()> {
    if !require(&[Part::Bench, Part::Registry]) {
        return Ok(());
    }
    let conditions = conditions();
    let source = Registry::start(None).await?;
    let first = push(&source, 1).await?;
    let second = push(&source, 2).await?;
    let (mut ours, mut theirs): ([Vec<f64>; 3], [Vec<f64>; 3]) = Default::default();
    for round in 0..=ROUNDS {
        let turns =
            if round % 2 == 0 { [Program::Skopeo, Program::Windlass] } else { [Program::Windlass, Program::Skopeo] };
        for program in turns {
            // A registry of its own for each: a blob that another repository has is mounted, not copied.
            let destination = Registry::start(None).await?;
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
    let mut parts = Vec::new();
    for case in 0..CASES.len() {
        let (our_ms, their_ms) = (median(&ours[case]), median(&theirs[case]));
        parts.push(format!("{} {:.2}× ({our_ms:.0} ms to {their_ms:.0} ms)", CASES[case], our_ms / their_ms));
    }
    let size_mb = LAYERS_BYTES.iter().sum::<usize>() / 1_000_000;
    let figure = format!("its time: {}; {size_mb} MB, {ROUNDS} rounds, {conditions}", parts.join(", "));
    println!("{figure}");
    record_as("a promotion beside skopeo copy", Tier::RealPart, figure, "make bench");
    Ok(())
}

async fn copy(program: Program, source: &Registry, destination: &Registry, digest: &str) -> Result<Duration> {
    let from = format!("{}/{REPOSITORY}@{digest}", source.host_port());
    let to = format!("{}/live/checkout:v1", destination.host_port());
    let mut command = match program {
        Program::Windlass => {
            let mut windlass = Command::new(Windlass::binary()?);
            windlass.args(["registry", "copy", "--plain-http", &from, &to]);
            windlass
        }
        Program::Skopeo => {
            let mut skopeo = Command::new("skopeo");
            // Without `--preserve-digests` it may write another manifest, which would not be the one approved.
            skopeo.args(["copy", "--quiet", "--all", "--preserve-digests"]);
            skopeo.args(["--src-tls-verify=false", "--dest-tls-verify=false"]);
            skopeo.args([format!("docker://{from}"), format!("docker://{to}")]);
            skopeo
        }
    };
    let started = Instant::now();
    output(&mut command)?;
    let took = started.elapsed();
    let shown = destination.digest("live/checkout", "v1").await?.context("the copy is not there")?;
    ensure!(shown == digest, "{shown} was copied, not {digest}");
    Ok(took)
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
    let put = http_client().put(format!("{}/v2/{REPOSITORY}/manifests/{digest}", registry.url()));
    put.header("content-type", IMAGE).body(manifest).send().await?.error_for_status()?;
    Ok(digest)
}

/// Gives the blob's descriptor.
async fn push_blob(registry: &Registry, media_type: &str, bytes: Vec<u8>) -> Result<Value> {
    let http = http_client();
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
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
