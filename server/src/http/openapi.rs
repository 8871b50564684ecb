//! The description of the API (OpenAPI 3.1), made from the routes themselves: each route's own documentation, the role
//! that it asks for, and the problem that it may answer. Not here: the shapes (`api::model`).

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use utoipa::{
    OpenApi, PartialSchema, ToSchema,
    openapi::{
        Content, OpenApi as Description, Ref, ResponseBuilder,
        extensions::ExtensionsBuilder,
        path::{HttpMethod, Operation, PathItem},
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};

use super::{access::Access, problem::Problem};

/// Where it is served.
pub const PATH: &str = "/api/openapi.json";
/// The name of the way to sign in.
const BEARER: &str = "bearer";

#[derive(OpenApi)]
#[openapi(info(
    title = "Windlass",
    version = "v1",
    description = "The delivery server's API. Every answer has `apiVersion` and `kind`; times are milliseconds since \
        1970, UTC. Errors are problems as RFC 9457 has them, with a `next` action and the `request_id` under which the \
        server's log has more.",
    license(name = "Apache-2.0", identifier = "Apache-2.0")
))]
struct Base;

/// A description of no routes yet.
#[must_use]
pub fn base() -> Description {
    let mut description = Base::openapi();
    let components = description.components.get_or_insert_default();
    let scheme =
        Http::builder().scheme(HttpAuthScheme::Bearer).description(Some("A token of `windlass login`.")).build();
    components.add_security_scheme(BEARER, SecurityScheme::Http(scheme));
    components.schemas.insert(Problem::name().into_owned(), Problem::schema());
    description
}

/// Says of an operation who may call it and how it fails.
pub(super) fn complete(operation: &mut Operation, access: Access) {
    operation.security = Some(match access {
        Access::Role(_) => vec![SecurityRequirement::new(BEARER, Vec::<String>::new())],
        Access::Public | Access::Proof | Access::Runner => Vec::new(),
    });
    operation.extensions = Some(ExtensionsBuilder::new().add("x-windlass-access", access.word()).build());
    let problem = Content::new(Some(Ref::from_schema_name(Problem::name())));
    let response = ResponseBuilder::new().description("a problem").content("application/problem+json", problem);
    operation.responses.responses.insert("default".into(), response.build().into());
}

/// The operations of a path, each with its method's word.
pub(super) fn operations(item: &mut PathItem) -> Vec<(HttpMethod, &mut Operation)> {
    [
        (HttpMethod::Get, &mut item.get),
        (HttpMethod::Put, &mut item.put),
        (HttpMethod::Post, &mut item.post),
        (HttpMethod::Delete, &mut item.delete),
        (HttpMethod::Patch, &mut item.patch),
    ]
    .into_iter()
    .filter_map(|(method, operation)| operation.as_mut().map(|operation| (method, operation)))
    .collect()
}

/// Its text, as it is served and as it lies in `docs`.
#[must_use]
pub fn text(description: &Description) -> String {
    // Sorted keys by way of the value, so that the text stays the same when routes are moved about.
    let value = serde_json::to_value(description).unwrap_or_default();
    let mut text = serde_json::to_string_pretty(&value).unwrap_or_default();
    text.push('\n');
    text
}

pub(super) fn served(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
