//! Contracts with outside parties, held against a document. Today there is one: `docs/openapi.json`, which says what the
//! server's API does, held against a running server. Of Harbor the product uses the distribution API only, which is tested
//! with a real registry in `parts`.

#[path = "contracts/openapi.rs"]
mod openapi;
#[path = "contracts/schema.rs"]
mod schema;
#[path = "contracts/server.rs"]
mod server;
