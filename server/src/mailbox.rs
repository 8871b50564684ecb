//! The folder into which mails go where no mail server is set: lists and reads them, for the mailbox page and the demo.

use std::path::Path;

use mail_parser::MessageParser;

/// Bytes of one mail.
const MAIL_BYTES_MAX: u64 = 1 << 20;
/// Mails that are listed; older ones stay in the folder.
pub const MAILS_MAX: usize = 500;

/// A mail of the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderMail {
    /// Its file's name, by which it is asked for again.
    pub id: String,
    /// When it was written, in milliseconds since 1970 UTC.
    pub at_ms: i64,
    /// Its Message-ID.
    pub message_id: String,
    /// Whom it is for.
    pub to: String,
    /// Its subject.
    pub subject: String,
    /// Its text part.
    pub text: String,
    /// Its HTML part.
    pub html: String,
}

/// The newest mails of `folder`, newest first; what cannot be read as a mail is left out.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(folder: &Path) -> std::io::Result<Vec<FolderMail>> {
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".eml") && !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names.iter().take(MAILS_MAX).filter_map(|name| read(folder, name)).collect())
}

/// One mail of `folder`.
#[must_use]
pub fn read(folder: &Path, id: &str) -> Option<FolderMail> {
    let is_name = id.ends_with(".eml")
        && !id.starts_with('.')
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    let path = folder.join(id);
    if !is_name || std::fs::metadata(&path).ok()?.len() > MAIL_BYTES_MAX {
        return None;
    }
    let bytes = std::fs::read(&path).ok()?;
    let message = MessageParser::default().parse(&bytes)?;
    Some(FolderMail {
        id: id.to_owned(),
        at_ms: id.split('-').next()?.parse().ok()?,
        message_id: message.message_id().unwrap_or_default().to_owned(),
        to: message.to().and_then(|to| to.first()).and_then(|to| to.address()).unwrap_or_default().to_owned(),
        subject: message.subject().unwrap_or_default().to_owned(),
        text: message.body_text(0).map(std::borrow::Cow::into_owned).unwrap_or_default(),
        html: message.body_html(0).map(std::borrow::Cow::into_owned).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_is_read_whatever_its_encoding_and_a_climbing_name_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mail = "To: qa@example.com\r\nSubject: =?utf-8?b?6K+36aqM5pS2?=\r\nMessage-ID: <a@b>\r\n\
                    Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n5L2g5aW9\r\n";
        std::fs::write(folder.path().join("000000000000007-a.eml"), mail).unwrap();
        std::fs::write(folder.path().join(".b.eml"), mail).unwrap();
        let listed = list(folder.path()).unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!((listed[0].at_ms, listed[0].subject.as_str(), listed[0].text.trim()), (7, "请验收", "你好"));
        assert_eq!(listed[0].to, "qa@example.com");
        assert!(read(folder.path(), "../x.eml").is_none());
    }
}
