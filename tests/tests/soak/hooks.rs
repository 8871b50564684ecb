//! Hooks changed at random, signed as the forge signs them, so that they get as far as they can.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use fuzz::Chance;
use tests::{push_body, soak::Counts};

use crate::{
    Setting,
    server::{Server, pull_request},
};

pub(crate) async fn run(setting: &Setting) -> Result<(String, Counts)> {
    let mut server = Server::start().await?;
    let mut chance = Chance::new(setting.seed);
    let end = Instant::now() + setting.time;
    let (mut taken, mut refused) = (0_u64, 0_u64);
    while Instant::now() < end {
        let (event, mut said) = match chance.below(4) {
            0 => ("pull_request", pull_request(&server.lone.head)),
            _ => ("push", push_body(&server.lone.head)),
        };
        for _ in 0..=chance.below(3) {
            chance.change_json(&mut said);
        }
        let text = said.to_string();
        let body = if chance.below(5) == 0 { chance.change_text(&text) } else { text.into_bytes() };
        let number = taken + refused;
        let answer = server.door.hook(event, &format!("soak-{number}"), body.clone()).await;
        let shown = || format!("hook {number}: {}", String::from_utf8_lossy(&body[..body.len().min(2000)]));
        match answer.with_context(shown)?.status().as_u16() {
            202 => taken += 1,
            // So many wait that it is told to come again.
            400 | 413 | 422 | 429 | 503 => refused += 1,
            other => bail!("{} was answered {other}", shown()),
        }
        if number % 500 == 0 {
            server.lone.is_well()?;
        }
    }
    // What was taken is looked at afterwards: the server must survive that as well, and a restart with all of it.
    server.lone.is_well()?;
    server.lone.kill_and_restart().await?;
    server.lone.is_well()?;
    ensure!(taken > 0 && refused > 0, "{taken} were taken and {refused} refused: nothing was shown");
    let counts = Counts { bad_inputs: taken + refused, kills: 1, ..Counts::default() };
    Ok((format!("{} hooks, {taken} taken, {refused} refused", taken + refused), counts))
}
