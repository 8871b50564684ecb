//! The catalog of base configs: Helm charts that also say how an image is built, and what a pipeline file comes to with
//! one of them. Not here: building images, and rendering charts for Kubernetes.

pub mod base;
pub mod catalog;
pub mod delivery;
pub mod dockerfile;
pub mod ignore;
pub mod mirror;
mod quantity;
pub mod schema;
