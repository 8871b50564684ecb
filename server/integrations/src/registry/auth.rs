//! Proving who we are: Basic, and the Bearer challenge with its token service (distribution specification, "Token
//! Authentication Specification"). Where credentials are given, nothing ever goes on without them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use base64::Engine as _;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Mutex;
use url::Url;

use super::{
    client::{Access, Credentials, Inner, RegistryClient},
    error::RegistryError,
};

/// The tokens that are kept; past it, all are dropped and asked for anew.
const TOKENS_MAX: usize = 512;
/// The largest answer of a token service.
const TOKEN_ANSWER_MAX_BYTES: u64 = 256 * 1024;
/// How long a token lives when its service does not say (the specification's default), and at most.
const TOKEN_LIFE_DEFAULT_S: u64 = 60;
const TOKEN_LIFE_MAX_S: u64 = 3_600;

/// What is known about how a registry wants to be spoken to.
pub(super) struct Auth {
    credentials: Option<Credentials>,
    state: Mutex<State>,
}

struct State {
    scheme: Scheme,
    tokens: HashMap<String, Token>,
}

#[derive(Clone)]
enum Scheme {
    /// Nothing was asked yet.
    Unknown,
    /// The registry asks for nothing.
    Open,
    Basic,
    Bearer {
        realm: Url,
        service: Option<String>,
    },
}

struct Token {
    value: SecretString,
    expires: Instant,
}

/// What is sent to prove who we are.
pub(super) struct Proof {
    header: Option<HeaderValue>,
    /// Whether it was made for this very try, so that a refusal of it is final.
    is_fresh: bool,
}

impl Proof {
    pub(super) fn header(&self) -> Option<&HeaderValue> {
        self.header.as_ref()
    }

    fn none() -> Self {
        Self { header: None, is_fresh: false }
    }
}

impl Auth {
    pub(super) fn new(credentials: Option<Credentials>) -> Self {
        Self { credentials, state: Mutex::new(State { scheme: Scheme::Unknown, tokens: HashMap::new() }) }
    }

    fn basic(&self) -> Option<HeaderValue> {
        let Credentials { username, password } = self.credentials.as_ref()?;
        let pair = zeroize::Zeroizing::new(format!("{username}:{}", password.expose_secret()));
        let encoded = base64::engine::general_purpose::STANDARD.encode(pair.as_bytes());
        secret_header(&format!("Basic {encoded}"))
    }
}

impl Access {
    /// The scopes that this access needs.
    fn scopes(&self) -> Vec<String> {
        match self {
            Self::Pull(repository) => vec![format!("repository:{repository}:pull")],
            Self::PullPush(repository) => vec![format!("repository:{repository}:pull,push")],
            Self::Delete(repository) => vec![format!("repository:{repository}:pull,push,delete")],
            // A mount reads on one side and writes on the other; a token for one of them is refused or ignored.
            Self::Mount { from, to } => {
                vec![format!("repository:{to}:pull,push"), format!("repository:{from}:pull")]
            }
        }
    }
}

impl RegistryClient {
    /// Forgets all tokens, so that the next call asks for new ones.
    pub(super) async fn forget_tokens(&self) {
        self.inner.auth.state.lock().await.tokens.clear();
    }
}

impl Inner {
    /// The proof for `access`, by what is known of the registry. With credentials, the registry is asked first how it
    /// wants them, so that no call goes out anonymously that should not.
    pub(super) async fn proof(&self, access: &Access) -> Result<Proof, RegistryError> {
        let mut state = self.auth.state.lock().await;
        if matches!(state.scheme, Scheme::Unknown) {
            if self.auth.credentials.is_none() {
                return Ok(Proof::none());
            }
            state.scheme = self.ask_scheme().await?;
        }
        match state.scheme.clone() {
            Scheme::Unknown | Scheme::Open => Ok(Proof::none()),
            Scheme::Basic => Ok(Proof { header: self.auth.basic(), is_fresh: true }),
            Scheme::Bearer { realm, service } => self.token(&mut state, &realm, service.as_deref(), access).await,
        }
    }

    /// A better proof after a 401, or `None` where there is none and the refusal is final.
    pub(super) async fn answer_challenge(
        &self,
        headers: &HeaderMap,
        access: &Access,
        used: &Proof,
    ) -> Result<Option<Proof>, RegistryError> {
        if used.is_fresh {
            return Ok(None);
        }
        let mut state = self.auth.state.lock().await;
        state.scheme = match self.scheme(headers)? {
            Some(scheme) => scheme,
            None => return Ok(None),
        };
        match state.scheme.clone() {
            Scheme::Unknown | Scheme::Open => Ok(None),
            Scheme::Basic => Ok(self.auth.basic().map(|header| Proof { header: Some(header), is_fresh: true })),
            Scheme::Bearer { realm, service } => {
                let key = access.scopes().join(" ");
                let refused = |token: &Token| {
                    let sent = used.header.as_ref().map(HeaderValue::as_bytes);
                    sent == Some(format!("Bearer {}", token.value.expose_secret()).as_bytes())
                };
                if state.tokens.get(&key).is_some_and(refused) {
                    state.tokens.remove(&key);
                }
                let proof = self.token(&mut state, &realm, service.as_deref(), access).await?;
                Ok(Some(Proof { is_fresh: true, ..proof }))
            }
        }
    }

    /// Asks the registry's root how it wants to be spoken to.
    async fn ask_scheme(&self) -> Result<Scheme, RegistryError> {
        let what = format!("registry {}", self.host);
        let mut url = self.endpoint.clone();
        url.set_path("/v2/");
        let response = self.plain_get(url, None, &what).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let scheme = self.scheme(response.headers())?;
            return scheme.ok_or_else(|| RegistryError::protocol(what, "a 401 without a challenge that we know"));
        }
        self.checked(response, &what).await.map(|_| Scheme::Open)
    }

    /// The scheme of a challenge: Bearer before Basic.
    fn scheme(&self, headers: &HeaderMap) -> Result<Option<Scheme>, RegistryError> {
        let what = || format!("registry {}", self.host);
        let mut found = None;
        for value in headers.get_all(header::WWW_AUTHENTICATE) {
            let Ok(text) = value.to_str() else { continue };
            let Ok(challenges) = http_auth::parse_challenges(text) else { continue };
            for challenge in challenges {
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    let param = |name: &str| {
                        let mut params = challenge.params.iter();
                        params.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_unescaped())
                    };
                    let realm = param("realm").and_then(|realm| Url::parse(&realm).ok());
                    let realm = realm.ok_or_else(|| RegistryError::protocol(what(), "a challenge without a realm"))?;
                    if realm.scheme() != "https" && self.endpoint.scheme() == "https" {
                        return Err(RegistryError::protocol(what(), "a token service without https"));
                    }
                    self.may_lead(&realm, &what())?;
                    return Ok(Some(Scheme::Bearer { realm, service: param("service") }));
                }
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    found = Some(Scheme::Basic);
                }
            }
        }
        Ok(found)
    }

    /// The token for `access`, from before or from the token service. The lock is held meanwhile, so that many calls at
    /// once ask for it once.
    async fn token(
        &self,
        state: &mut State,
        realm: &Url,
        service: Option<&str>,
        access: &Access,
    ) -> Result<Proof, RegistryError> {
        let scopes = access.scopes();
        let key = scopes.join(" ");
        if let Some(token) = state.tokens.get(&key).filter(|token| token.expires > Instant::now()) {
            return Ok(Proof { header: Some(self.bearer(&token.value)?), is_fresh: false });
        }
        let token = self.fetch_token(realm, service, &scopes).await?;
        let header = Some(self.bearer(&token.value)?);
        if state.tokens.len() >= TOKENS_MAX {
            state.tokens.clear();
        }
        state.tokens.insert(key, token);
        Ok(Proof { header, is_fresh: true })
    }

    async fn fetch_token(&self, realm: &Url, service: Option<&str>, scopes: &[String]) -> Result<Token, RegistryError> {
        #[derive(serde::Deserialize)]
        struct Answer {
            token: Option<SecretString>,
            access_token: Option<SecretString>,
            expires_in: Option<u64>,
        }
        let what = format!("token service {} of registry {}", realm.host_str().unwrap_or_default(), self.host);
        let mut url = realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            for scope in scopes {
                query.append_pair("scope", scope);
            }
        }
        let asked = Instant::now();
        let response = self.plain_get(url, self.auth.basic(), &what).await?;
        let response = match self.checked(response, &what).await {
            // A token service says 403 for wrong credentials too; that is no gate of the registry.
            Err(RegistryError::Blocked { what, words, .. }) => return Err(RegistryError::Unauthorised { what, words }),
            other => other?,
        };
        let body = self.read(response, TOKEN_ANSWER_MAX_BYTES, &what).await?;
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|_| RegistryError::protocol(&what, "the answer is not a token"))?;
        let value = answer.token.or(answer.access_token).filter(|token| !token.expose_secret().is_empty());
        let value = value.ok_or_else(|| RegistryError::protocol(&what, "the answer has no token"))?;
        let life_s = answer.expires_in.unwrap_or(TOKEN_LIFE_DEFAULT_S).min(TOKEN_LIFE_MAX_S);
        // Given up a fifth early: the clocks differ, and the call has to get there.
        let expires = asked + Duration::from_secs(life_s) * 4 / 5;
        Ok(Token { value, expires })
    }

    /// A token that cannot be sent is an error: going on without it would be going on anonymously.
    fn bearer(&self, token: &SecretString) -> Result<HeaderValue, RegistryError> {
        secret_header(&format!("Bearer {}", token.expose_secret())).ok_or_else(|| {
            RegistryError::protocol(
                format!("token service of registry {}", self.host),
                "the token is not a header value",
            )
        })
    }

    async fn plain_get(
        &self,
        url: Url,
        header: Option<HeaderValue>,
        what: &str,
    ) -> Result<reqwest::Response, RegistryError> {
        self.outgoing.check_url(&url).map_err(|error| RegistryError::Settings { why: error.to_string() })?;
        let mut request = self.http.request(Method::GET, url);
        if let Some(header) = header {
            request = request.header(header::AUTHORIZATION, header);
        }
        let limit = Duration::from_millis(self.limits.answer_timeout_ms);
        let sent = async { request.send().await.map_err(|error| RegistryError::transport(what, error)) };
        super::client::within(limit, what, sent).await
    }
}

fn secret_header(text: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}
