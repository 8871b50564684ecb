//! Sends what is encoded already to a receiver of OTLP over HTTP (OpenTelemetry protocol specification 1.x, OTLP/HTTP with
//! protobuf), once; says whether it may be sent again, and when. Not here: what is sent, and the sending again.

use std::{
    io::Write as _,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use pipelines::errors::chain;
use reqwest::{
    StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::{outgoing::Outgoing, retry_after::retry_after};

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// The longest wait that a receiver can ask for.
const ASKED_WAIT_MAX: Duration = Duration::from_secs(600);

/// Why it was not taken.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// A setting is not good.
    #[error("{0}")]
    Settings(String),
    /// It may be sent again: the receiver is not there, or says that it cannot take it now.
    #[error("{why}")]
    Later {
        /// What was seen.
        why: String,
        /// How long the receiver wants to be left alone, where it says so; 600 s at most.
        after: Option<Duration>,
    },
    /// The receiver will not take it, however often it is sent.
    #[error("the receiver answered {status}")]
    Refused {
        /// Its answer.
        status: StatusCode,
    },
}

/// Where the receiver is.
#[derive(Clone, Debug)]
pub struct OtlpConfig {
    /// The whole address: `https://otel.example.com/v1/traces`.
    pub endpoint: Url,
    /// Headers that go along.
    pub headers: Vec<(String, SecretString)>,
    /// Certificate authorities to trust besides the system's, PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// Send it compressed.
    pub gzip: bool,
    /// How long an answer may take, in milliseconds.
    pub answer_ms: u64,
    /// Where calls may lead.
    pub outgoing: Outgoing,
}

/// The client of one receiver. Calls may run at once. Sending the same again is harmless where its ids are the same.
#[derive(Clone, Debug)]
pub struct OtlpClient {
    http: reqwest::Client,
    endpoint: Url,
    headers: HeaderMap,
    gzip: bool,
    outgoing: Outgoing,
}

impl OtlpClient {
    /// Makes the client; nothing is sent yet.
    ///
    /// # Errors
    /// [`OtlpError::Settings`] where a header or a certificate cannot be read.
    pub fn new(config: OtlpConfig) -> Result<Self, OtlpError> {
        let settings = |why: String| OtlpError::Settings(why);
        let OtlpConfig { endpoint, headers: given, ca_pem, gzip, answer_ms, outgoing } = config;
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            let name: HeaderName = name.parse().map_err(|_| settings("a header has a name that is none".into()))?;
            // The value is not in the error: it may be a key.
            let value = HeaderValue::from_str(value.expose_secret());
            let mut value = value.map_err(|_| settings(format!("the value of the header {name} cannot be sent")))?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        if gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let http = outgoing
            .http_client(&endpoint, ca_pem.as_deref(), |builder| builder.timeout(Duration::from_millis(answer_ms)));
        let http = http.map_err(settings)?;
        Ok(Self { http, endpoint, headers, gzip, outgoing })
    }

    /// Sends one message; gives the answer's body.
    ///
    /// # Errors
    /// [`OtlpError::Later`] where the specification lets it be sent again: no connection, no answer in time, 429, 502, 503,
    /// 504. [`OtlpError::Refused`] for all other answers; a redirect is one.
    pub async fn send(&self, message: &[u8]) -> Result<Bytes, OtlpError> {
        let later = |why: String| OtlpError::Later { why, after: None };
        self.outgoing.check_url(&self.endpoint).map_err(|error| later(error.to_string()))?;
        let body =
            if self.gzip { zipped(message).map_err(|error| later(error.to_string()))? } else { message.to_vec() };
        let request = self.http.post(self.endpoint.clone()).headers(self.headers.clone()).body(body);
        let mut response = request.send().await.map_err(|error| later(chain(&error.without_url())))?;
        match response.status() {
            StatusCode::OK => {}
            status if may_come_again(status) => {
                let why = format!("the receiver answered {status}");
                return Err(OtlpError::Later { why, after: asked_wait(response.headers()) });
            }
            status => return Err(OtlpError::Refused { status }),
        }
        let mut answer = Vec::new();
        // It has been taken by now: what the receiver says of it matters less.
        while let Ok(Some(piece)) = response.chunk().await {
            if answer.len() + piece.len() > ANSWER_BYTES_MAX {
                break;
            }
            answer.extend_from_slice(&piece);
        }
        Ok(answer.into())
    }
}

fn may_come_again(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

fn asked_wait(headers: &HeaderMap) -> Option<Duration> {
    retry_after(headers, SystemTime::now()).map(|wait| wait.min(ASKED_WAIT_MAX))
}

fn zipped(message: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(message)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use reqwest::header::RETRY_AFTER;

    use super::*;

    fn asked(text: &str) -> Option<Duration> {
        asked_wait(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]))
    }

    #[test]
    fn a_wait_is_read_in_seconds_and_as_a_date_and_is_bounded() {
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("9999999"), Some(ASKED_WAIT_MAX));
        assert_eq!(asked("Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO));
        assert_eq!(asked("Fri, 31 Dec 2100 23:59:59 GMT"), Some(ASKED_WAIT_MAX));
        assert_eq!(asked("soon"), None);
        assert_eq!(asked_wait(&HeaderMap::new()), None);
    }

    #[test]
    fn a_header_that_cannot_be_sent_is_refused_without_its_value() {
        let config = |headers: &[(&str, &str)]| OtlpConfig {
            endpoint: "http://127.0.0.1:4318/v1/traces".parse().unwrap(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), SecretString::from(*value))).collect(),
            ca_pem: None,
            gzip: true,
            answer_ms: 1_000,
            outgoing: Outgoing::default(),
        };
        assert!(OtlpClient::new(config(&[("x-key", "abc")])).is_ok());
        let error = OtlpClient::new(config(&[("x-key", "abc\n123")])).unwrap_err().to_string();
        assert!(error.contains("x-key") && !error.contains("abc"), "{error}");
        assert!(OtlpClient::new(config(&[("x key", "abc")])).is_err());
        let shown = format!("{:?}", OtlpClient::new(config(&[("x-key", "abc")])).unwrap());
        assert!(!shown.contains("abc"), "{shown}");
    }

    #[tokio::test]
    async fn an_address_of_the_neighbourhood_is_not_called() {
        let client = OtlpClient::new(OtlpConfig {
            endpoint: "http://169.254.169.254/v1/traces".parse().unwrap(),
            headers: Vec::new(),
            ca_pem: None,
            gzip: false,
            answer_ms: 1_000,
            outgoing: Outgoing::default(),
        });
        let error = client.unwrap().send(b"").await.unwrap_err();
        assert!(error.to_string().contains("outgoing.addresses"), "{error}");
    }
}
