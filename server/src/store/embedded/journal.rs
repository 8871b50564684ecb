//! Entries of the journal on their way in, and pages of them. Their chain lives in `store::audit`.

use pipelines::{
    ids::ServiceName,
    journal::{ENTRY_VERSION, Entry},
};

use super::{
    super::{
        audit,
        engine::{Batch, Direction, KeyRange},
        tables::{JOURNAL, JOURNAL_BY_SERVICE},
    },
    EmbeddedStore, LIST_MAX, NewEntry, StoreError, under,
};

impl EmbeddedStore {
    /// Writes a line into the journal, and waits until it is on disk. For commands that have the store to themselves.
    ///
    /// # Errors
    /// Those of storing.
    pub fn note_now(&self, entry: NewEntry) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        Self::add_entry(&mut batch, entry, None);
        Ok(self.engine.commit(&batch)?)
    }

    pub(super) fn add_entry(batch: &mut Batch, new: NewEntry, change: Option<(String, String)>) {
        let entry = Entry {
            version: ENTRY_VERSION,
            seq: 0,
            at: new.at,
            service: new.service,
            origin: new.origin,
            subject: new.subject,
            word: new.word.to_owned(),
            change,
            changed: new.changed,
            detail: new.detail,
            previous: None,
            digest: None,
        };
        audit::append(batch, entry);
    }

    pub(super) fn journal_page(
        &self,
        service: Option<&ServiceName>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let limit = limit.min(LIST_MAX);
        let Some(service) = service else {
            let mut range = KeyRange::all();
            if let Some(before) = before {
                range = range.before(&before.to_be_bytes());
            }
            return self.list(JOURNAL, &range, Direction::Backward, limit);
        };
        let prefix = under(service, &[]);
        let mut range = KeyRange::prefix(&prefix);
        if let Some(before) = before {
            range = range.before(&under(service, &before.to_be_bytes()));
        }
        let keys = self.engine.scan(JOURNAL_BY_SERVICE, &range, Direction::Backward, limit)?;
        let mut found = Vec::with_capacity(keys.len());
        for (key, _) in keys {
            if let Some(entry) = self.get(JOURNAL, key.get(prefix.len()..).unwrap_or_default())? {
                found.push(entry);
            }
        }
        Ok(found)
    }
}
