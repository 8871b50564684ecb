//! The folder into which mails go where no mail server is set. The HTML of a mail is shown in a frame of its own, without
//! scripts and under a policy of its own.

use std::path::PathBuf;

use axum::{
    extract::Path,
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};

use super::{Visit, show};
use crate::{
    http::{
        problem::Problem,
        ui::{
            MAIL_POLICY,
            mailbox::{MailLine, MailboxView, OpenMail},
        },
    },
    mailbox::{self, FolderMail},
};

fn not_there() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not-found", "there is no such mail in the server's mail folder")
}

fn folder(visit: &Visit) -> Result<PathBuf, Problem> {
    visit.app.config.mail.folder.clone().ok_or_else(not_there)
}

/// Reads the folder away from the threads that serve.
async fn read<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T, Problem> {
    let failed = |error: String| {
        tracing::error!(error, "the mail folder could not be read");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", "the mail folder could not be read")
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer.map_err(|error| failed(error.to_string())),
        Err(error) => Err(failed(error.to_string())),
    }
}

async fn mails(folder: PathBuf) -> Result<Vec<FolderMail>, Problem> {
    read(move || match mailbox::list(&folder) {
        // No mail was written yet.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        answer => answer,
    })
    .await
}

fn line(mail: FolderMail) -> MailLine {
    MailLine { id: mail.id, subject: mail.subject, to: mail.to, at_ms: mail.at_ms }
}

/// The mails, newest first.
pub(in crate::http) async fn show_mailbox(visit: Visit) -> Result<Response, Problem> {
    let mails = mails(folder(&visit)?).await?;
    let view = MailboxView { mails: mails.into_iter().map(line).collect(), open: None };
    Ok(show!(visit, view))
}

/// One mail beside the others.
pub(in crate::http) async fn show_mail(visit: Visit, Path(id): Path<String>) -> Result<Response, Problem> {
    let mails = mails(folder(&visit)?).await?;
    let mail = mails.iter().find(|mail| mail.id == id).ok_or_else(not_there)?;
    let open = OpenMail {
        id: mail.id.clone(),
        subject: mail.subject.clone(),
        from: visit.app.config.mail.from.clone(),
        to: mail.to.clone(),
        at_ms: mail.at_ms,
        text: mail.text.clone(),
    };
    let view = MailboxView { mails: mails.into_iter().map(line).collect(), open: Some(open) };
    Ok(show!(visit, view))
}

/// The HTML part of a mail, for its frame.
pub(in crate::http) async fn show_mail_html(visit: Visit, Path(id): Path<String>) -> Result<Response, Problem> {
    let folder = folder(&visit)?;
    let mail = read(move || Ok(mailbox::read(&folder, &id))).await?.ok_or_else(not_there)?;
    let mut response = Html(mail.html).into_response();
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(MAIL_POLICY));
    Ok(response)
}
