//! Spans as OTLP's messages, by the crate of their published definitions. Not here: sending them.

use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span as OtlpSpan, Status,
        span::{Link as OtlpLink, SpanKind},
        status::StatusCode,
    },
};
use prost::Message as _;

use crate::app::traces::{Kind, Link, Span, Value};

const NANOS_PER_MS: u64 = 1_000_000;

/// One request with all of these spans.
pub(super) fn encoded(instance: &str, spans: &[Span]) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let about = [("service.name", "windlass"), ("service.version", version), ("service.instance.id", instance)];
    let resource = Resource {
        attributes: about.into_iter().map(|(name, text)| attribute(name, &Value::from(text))).collect(),
        ..Resource::default()
    };
    let scope = InstrumentationScope { name: "windlass".into(), version: version.into(), ..Default::default() };
    let scope_spans =
        vec![ScopeSpans { scope: Some(scope), spans: spans.iter().map(written).collect(), ..Default::default() }];
    let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, ..Default::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

/// How many spans of a request an answer says that it did not take. An answer that cannot be read says none.
pub(super) fn refused(answer: &[u8]) -> u64 {
    let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
    answer.partial_success.map_or(0, |partly| u64::try_from(partly.rejected_spans).unwrap_or_default())
}

fn written(span: &Span) -> OtlpSpan {
    let kind = match span.kind {
        Kind::Server => SpanKind::Server,
        Kind::Internal => SpanKind::Internal,
        Kind::Client => SpanKind::Client,
    };
    let failed = |word: &str| Status { code: StatusCode::Error.into(), message: word.into() };
    OtlpSpan {
        trace_id: span.trace.0.to_vec(),
        span_id: span.id.0.to_vec(),
        parent_span_id: span.parent.map_or_else(Vec::new, |parent| parent.0.to_vec()),
        name: span.name.clone(),
        kind: kind.into(),
        start_time_unix_nano: span.start.0.saturating_mul(NANOS_PER_MS),
        end_time_unix_nano: span.end.0.saturating_mul(NANOS_PER_MS),
        attributes: span.attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
        links: span.links.iter().map(link).collect(),
        status: span.error.map(failed),
        ..OtlpSpan::default()
    }
}

fn link(link: &Link) -> OtlpLink {
    OtlpLink {
        trace_id: link.trace.0.to_vec(),
        span_id: link.span.0.to_vec(),
        attributes: vec![attribute("windlass.link", &Value::from(link.what))],
        ..OtlpLink::default()
    }
}

fn attribute(name: &str, value: &Value) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(any(value)), ..KeyValue::default() }
}

fn any(value: &Value) -> AnyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text.clone()),
        Value::Number(number) => any_value::Value::IntValue(*number),
    };
    AnyValue { value: Some(value) }
}
