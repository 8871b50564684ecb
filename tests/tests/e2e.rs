//! Outside tests: they play a user and know nothing of the product but addresses and credentials. Tests of one part live
//! in parts.

#[path = "e2e/api.rs"]
mod api;
#[path = "e2e/backup.rs"]
mod backup;
#[path = "e2e/clerk.rs"]
mod clerk;
#[path = "e2e/crash.rs"]
mod crash;
#[path = "e2e/deaths.rs"]
mod deaths;
#[path = "e2e/disk.rs"]
mod disk;
#[path = "e2e/inputs.rs"]
mod inputs;
#[path = "e2e/lease.rs"]
mod lease;
#[path = "e2e/load.rs"]
mod load;
#[path = "e2e/machine.rs"]
mod machine;
#[path = "e2e/reaper.rs"]
mod reaper;
#[path = "e2e/retention.rs"]
mod retention;
#[path = "e2e/rollout.rs"]
mod rollout;
#[path = "e2e/runner.rs"]
mod runner;
#[path = "e2e/safeguards.rs"]
mod safeguards;
#[path = "e2e/sample.rs"]
mod sample;
#[path = "e2e/secrets.rs"]
mod secrets;
#[path = "e2e/tester.rs"]
mod tester;
#[path = "e2e/testers.rs"]
mod testers;
#[path = "e2e/train.rs"]
mod train;
#[path = "e2e/visitors.rs"]
mod visitors;
#[path = "e2e/world.rs"]
mod world;
