//! Numbers requests: the id is in every log line of the request, in the answer's header and in every error.

use axum::{
    Json,
    extract::Request,
    http::{HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use rand::RngCore;
use tracing::Instrument;

use super::problem::Problem;

/// The header that carries the id.
pub const REQUEST_ID: &str = "x-request-id";

/// The id of a request, among its extensions.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

/// Gives the request an id and puts it into the answer; a problem gets it into its body too.
pub async fn number_request(mut request: Request, next: Next) -> Response {
    let mut bytes = [0; 8];
    rand::rng().fill_bytes(&mut bytes);
    let id = hex::encode(bytes);
    // Paths of approval links hold what opens them: only the first two parts of a path are logged.
    let path: String = request.uri().path().split('/').take(3).collect::<Vec<_>>().join("/");
    let span = tracing::info_span!("request", id, method = %request.method(), path);
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).instrument(span).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let headers = response.headers().clone();
        let status = response.status();
        response = Json(Problem { request_id: Some(id.clone()), ..problem }).into_response();
        *response.status_mut() = status;
        for (name, value) in &headers {
            if name != header::CONTENT_LENGTH {
                response.headers_mut().insert(name, value.clone());
            }
        }
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}
