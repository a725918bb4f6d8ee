//! Files: the rows of them, since the bytes lie elsewhere.

use rusqlite::{Connection, params};
use wardian_protocol::{FileId, OrgId, SessionId};

use super::query::Query;
use super::row::{self, Reading};
use crate::{
    Error, ExpiredFile, FileQuery, FileRecord, MAX_FILENAME_BYTES, MAX_PAGE_ROWS, MAX_USER_BYTES, NewFile,
};

const FILES: &str =
    "SELECT id, org_id, user_id, filename, mime_type, size_bytes, created_us, expires_us, session_id
    FROM files WHERE org_id = ?";

pub(super) fn create(connection: &Connection, file: &NewFile) -> Result<(), Error> {
    row::name("file name", &file.filename, MAX_FILENAME_BYTES)?;
    row::name("media type", &file.mime_type, MAX_FILENAME_BYTES)?;
    let size = i64::try_from(file.size_bytes)
        .map_err(|_| Error::Invalid { what: "file size", why: "no file is that large" })?;
    super::identity::user_of(connection, &file.org_id, file.user_id.as_deref())?;
    row::insert(
        connection,
        "file",
        file.id.as_str(),
        "INSERT INTO files
             (org_id, id, user_id, filename, mime_type, size_bytes, created_us, expires_us, session_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            file.org_id.as_str(),
            file.id.as_str(),
            file.user_id,
            file.filename,
            file.mime_type,
            size,
            row::micros(file.created_at)?,
            file.expires_at.map(row::micros).transpose()?,
            file.session_id.as_ref().map(SessionId::as_str),
        ],
    )
}

pub(super) fn find(
    connection: &Connection,
    org_id: &OrgId,
    id: &FileId,
) -> Result<Option<FileRecord>, Error> {
    let mut query = Query::new(FILES, org_id);
    query.when("id = ?", Some(id.to_string()));
    Ok(query.rows(connection, "files", &[], read)?.pop())
}

pub(super) fn list(
    connection: &Connection,
    org_id: &OrgId,
    asked: &FileQuery,
) -> Result<Vec<FileRecord>, Error> {
    let (size, limit) = (asked.ids.len(), usize::try_from(MAX_PAGE_ROWS).unwrap_or(usize::MAX));
    if size > limit {
        return Err(Error::TooLarge { what: "list of file ids", size, limit });
    }
    row::text("user", asked.user_id.as_deref().unwrap_or_default(), MAX_USER_BYTES)?;
    list_query(org_id, asked).rows(connection, "files", &[], read)
}

pub(super) fn list_query(org_id: &OrgId, asked: &FileQuery) -> Query {
    let mut query = Query::new(FILES, org_id);
    query.one_of("id", asked.ids.iter().map(FileId::as_str));
    query.when("session_id = ?", asked.session_id.as_ref().map(ToString::to_string));
    query.when("user_id = ?", asked.user_id.clone());
    query.page("created_us", "id", &asked.page);
    query
}

pub(super) fn delete(connection: &Connection, org_id: &OrgId, id: &FileId) -> Result<bool, Error> {
    let sql = "DELETE FROM files WHERE org_id = ?1 AND id = ?2";
    Ok(connection.prepare_cached(sql)?.execute([org_id.as_str(), id.as_str()])? == 1)
}

pub(super) fn expired(connection: &Connection, now_us: i64, limit: u32) -> Result<Vec<ExpiredFile>, Error> {
    let sql = "SELECT id, org_id FROM files WHERE expires_us <= ?1 ORDER BY expires_us LIMIT ?2";
    let params = params![now_us, limit.min(MAX_PAGE_ROWS)];
    row::rows(connection, "files", sql, params, |row| {
        Ok(ExpiredFile { file_id: row.id(0)?, org_id: row.id(1)? })
    })
}

fn read(row: &Reading<'_>) -> Result<FileRecord, Error> {
    Ok(FileRecord {
        id: row.id(0)?,
        org_id: row.id(1)?,
        user_id: row.get(2)?,
        filename: row.get(3)?,
        mime_type: row.get(4)?,
        size_bytes: row.count(5)?,
        created_at: row.time(6)?,
        expires_at: row.optional_time(7)?,
        session_id: row.optional_id(8)?,
    })
}
