//! A backup as a download: a stream as long as what the server keeps.

use std::{
    io::{self, Write},
    sync::Arc,
};

use axum::{
    body,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::model;
use crate::{
    app::App,
    http::{access::Signed, extract::Body, problem::Problem},
};

/// Pieces that wait for a slow reader.
const PIECES_MAX: usize = 8;
/// Bytes of a piece.
const PIECE_BYTES: usize = 64 << 10;

/// A copy of everything that the server keeps, as of now: a file that `windlass restore` reads. A file that is cut is known
/// as such. With the key only for an admin.
#[utoipa::path(post, path = "/api/v1/backup", tag = "server", request_body = model::BackupInput,
    responses((status = 200, description = "the backup", body = Vec<u8>, content_type = "application/gzip")))]
pub async fn make_backup(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Body(input): Body<model::BackupInput>,
) -> Result<Response, Problem> {
    let backup = app.backup(input.with_key, &caller).await?;
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    tokio::task::spawn_blocking(move || {
        let pipe = io::BufWriter::with_capacity(PIECE_BYTES, Pipe(sender.clone()));
        match backup.write(pipe) {
            Ok(written) => tracing::info!(files = written.files, bytes = written.bytes, "a backup was made"),
            Err(error) => {
                tracing::error!(error = ?error, "a backup broke off");
                // The connection is cut, so nobody takes it for a whole one.
                let _ = sender.blocking_send(Err(io::Error::other("the backup broke off")));
            }
        }
    });
    let body = body::Body::from_stream(ReceiverStream::new(pieces));
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/gzip"));
    headers.insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment; filename=\"windlass-backup.tar.gz\""),
    );
    Ok(response)
}

/// Hands what is written to the reader of the answer, and waits while they are slow.
struct Pipe(mpsc::Sender<Result<Bytes, io::Error>>);

impl Write for Pipe {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(Ok(Bytes::copy_from_slice(piece))).map_err(gone)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
