//! Whether a service container answers: asks over HTTP/1.0 until it does, and says what it found otherwise.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{ContainerState, DockerError, Engine};

/// Bytes of an answer that are read.
const MAX_ANSWER_BYTES: usize = 16 * 1024;
/// Characters of a body that are told.
const MAX_BODY_CHARS: usize = 500;
/// Lines of output that are told when the container ended.
const TAIL_LINES: u16 = 20;

/// What is asked, and how often.
#[derive(Debug, Clone)]
pub struct HealthCheck {
    /// Name of the container.
    pub container: String,
    /// Where it can be reached from the host.
    pub address: SocketAddr,
    /// `Host` header; a service may route by it.
    pub host: String,
    /// Path with its query.
    pub path: String,
    /// Time in which it has to become healthy.
    pub deadline: Duration,
    /// Time between two questions.
    pub interval: Duration,
    /// Time for one answer.
    pub attempt_timeout: Duration,
    /// Good answers in a row that count as healthy.
    pub required_successes: u32,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It answered 2xx or 3xx as often as required.
    Healthy {
        /// Questions that were asked.
        attempts: u32,
        /// Milliseconds that it took.
        took_ms: u64,
    },
    /// The container ended.
    Exited {
        /// Exit code.
        code: i64,
        /// Whether the kernel killed it for its memory.
        out_of_memory: bool,
        /// Its last lines.
        log_tail: Vec<String>,
    },
    /// There is no such container.
    Gone,
    /// It answers with another status.
    Answers {
        /// Last status.
        status: u16,
        /// Start of the last body.
        body_start: String,
    },
    /// The container runs, but nothing listens on the port.
    Refuses,
    /// It accepts the connection and does not answer in time.
    Silent,
    /// It answers something that is not HTTP.
    NotHttp {
        /// Start of what it sent.
        start: String,
    },
}

impl std::fmt::Display for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Healthy { took_ms, .. } => write!(f, "it is healthy after {took_ms} ms"),
            Self::Exited { code, out_of_memory, log_tail } => {
                write!(f, "the container exited with code {code}")?;
                if *out_of_memory {
                    write!(f, " because it used more memory than it may")?;
                }
                match log_tail.last() {
                    Some(line) => write!(f, "; its last line: {line}"),
                    None => write!(f, " and printed nothing"),
                }
            }
            Self::Gone => write!(f, "the container is gone"),
            Self::Answers { status, body_start } if body_start.is_empty() => write!(f, "it answers {status}"),
            Self::Answers { status, body_start } => write!(f, "it answers {status}: {body_start}"),
            Self::Refuses => write!(f, "the container runs, but nothing listens on its port"),
            Self::Silent => write!(f, "it accepts connections, but does not answer in time"),
            Self::NotHttp { start } => write!(f, "it does not answer in HTTP: {start}"),
        }
    }
}

impl Engine {
    /// Asks until the service is healthy, its container has ended, or the time is over; then tells the last finding.
    ///
    /// # Errors
    /// Only when the engine cannot be asked; an unhealthy service is a finding.
    pub async fn wait_healthy(&self, check: &HealthCheck) -> Result<Health, DockerError> {
        if !check.path.starts_with('/') || check.path.contains(['\r', '\n', ' ']) || check.host.contains(['\r', '\n']) {
            return Err(DockerError::InvalidSpec { reason: format!("{:?} is not a path to ask for", check.path) });
        }
        let start = Instant::now();
        let mut restarts = None;
        let mut attempts = 0;
        let mut successes = 0;
        loop {
            attempts += 1;
            let finding = probe(check).await;
            match finding {
                Health::Answers { status: 200..=399, .. } => successes += 1,
                _ => successes = 0,
            }
            if successes >= check.required_successes.max(1) {
                let took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
                return Ok(Health::Healthy { attempts, took_ms });
            }
            if successes == 0
                && let Some(ended) = self.look_for_end(&check.container, &mut restarts).await?
            {
                return Ok(ended);
            }
            if start.elapsed() + check.interval > check.deadline {
                return Ok(finding);
            }
            tokio::time::sleep(check.interval).await;
        }
    }

    /// Tells when the container ended, also when the engine keeps starting it again.
    async fn look_for_end(&self, name: &str, restarts: &mut Option<i64>) -> Result<Option<Health>, DockerError> {
        let Some(found) = self.inspect(name).await? else { return Ok(Some(Health::Gone)) };
        let count = found.restart_count.unwrap_or(0);
        let before = *restarts.get_or_insert(count);
        let state = found.state.clone().unwrap_or_default();
        let (code, out_of_memory) = match super::state_of(&found) {
            ContainerState::Exited { code, out_of_memory } => (code, out_of_memory),
            ContainerState::Restarting => (state.exit_code.unwrap_or(-1), state.oom_killed.unwrap_or(false)),
            // It was started again between two looks.
            _ if count > before => (state.exit_code.unwrap_or(-1), state.oom_killed.unwrap_or(false)),
            _ => return Ok(None),
        };
        let log_tail = self.output_tail(name, TAIL_LINES).await.unwrap_or_default();
        Ok(Some(Health::Exited { code, out_of_memory, log_tail }))
    }
}

/// One question. HTTP/1.0, so that the body comes as it is and ends with the connection.
async fn probe(check: &HealthCheck) -> Health {
    let ask = async {
        let mut stream = TcpStream::connect(check.address).await?;
        let question = format!(
            "GET {} HTTP/1.0\r\nHost: {}\r\nUser-Agent: windlass-health\r\nAccept: */*\r\nConnection: close\r\n\r\n",
            check.path, check.host
        );
        stream.write_all(question.as_bytes()).await?;
        let mut answer = Vec::new();
        // Not every server closes: the head is enough.
        let mut buffer = [0; 4096];
        while answer.len() < MAX_ANSWER_BYTES {
            let more = stream.read(&mut buffer);
            let read = if has_head(&answer) {
                match tokio::time::timeout(Duration::from_millis(100), more).await {
                    Ok(read) => read.unwrap_or(0),
                    Err(_) => 0,
                }
            } else {
                more.await?
            };
            if read == 0 {
                break;
            }
            answer.extend_from_slice(&buffer[..read]);
        }
        Ok::<_, std::io::Error>(answer)
    };
    match tokio::time::timeout(check.attempt_timeout, ask).await {
        Err(_) => Health::Silent,
        // The engine's proxy accepts before the service listens, and hangs up without a byte.
        Ok(Err(_)) => Health::Refuses,
        Ok(Ok(answer)) if answer.is_empty() => Health::Refuses,
        Ok(Ok(answer)) => read_answer(&answer),
    }
}

fn has_head(answer: &[u8]) -> bool {
    answer.windows(4).any(|window| window == b"\r\n\r\n")
}

fn read_answer(answer: &[u8]) -> Health {
    let text = String::from_utf8_lossy(answer);
    let status = text
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|status| status.get(..3))
        .and_then(|status| status.parse().ok());
    let start = |text: &str| text.chars().take(MAX_BODY_CHARS).collect::<String>().trim().to_owned();
    match status {
        Some(status) => {
            let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            Health::Answers { status, body_start: start(body) }
        }
        None => Health::NotHttp { start: start(&text) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let answer = read_answer(b"HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\nno database\n");
        assert_eq!(answer, Health::Answers { status: 503, body_start: "no database".to_owned() });
        assert_eq!(read_answer(b"SSH-2.0-x"), Health::NotHttp { start: "SSH-2.0-x".to_owned() });
        let answer = read_answer(b"HTTP/1.0 200 OK\r\n\r\n");
        assert_eq!(answer, Health::Answers { status: 200, body_start: String::new() });
    }
}
