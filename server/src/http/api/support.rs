//! The support bundle as a download.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};

use crate::{
    app::App,
    http::{access::Signed, problem::Problem},
};

/// What somebody who helps has to see of the server: version, settings, metrics, the last lines of its log, health, pending
/// effects with their errors, the end of the journal. No secret is in it. That it was made is written into the journal.
#[utoipa::path(post, path = "/api/v1/support-bundle", tag = "server",
    responses((status = 200, description = "a tar.gz of text files", body = Vec<u8>, content_type = "application/gzip")))]
pub async fn make_support_bundle(State(app): State<Arc<App>>, Signed(caller): Signed) -> Result<Response, Problem> {
    let mut response = app.support_bundle(&caller).await?.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/gzip"));
    headers.insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment; filename=\"windlass-support.tar.gz\""),
    );
    Ok(response)
}
