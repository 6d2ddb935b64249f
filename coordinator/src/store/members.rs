//! Who has joined, by which invitation; what sites have; the trust bundle that is published.
//!
//! *In*: invitations, requests to join, cards, bundles. *Out*: the keys that are let in. *Trusts*: that proofs were looked at before. *Refuses*: an invitation twice,
//! a key or a name twice, an older bundle.

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::message::SiteCard;
use vestibule_protocol::name::Name;
use vestibule_protocol::token::{Invitation, Role};
use vestibule_protocol::words::alike;

use super::schema::{parsed, unword, word};
use super::{Request, Result, Store, StoreError};

impl Store {
    /// Keeps an invitation. A name is one thing for good, and none that people could take for another is given.
    ///
    /// # Errors
    /// The name belongs to somebody who joined, or looks like theirs.
    pub fn invite(&self, invitation: &Invitation, key: PublicKey) -> Result<()> {
        let (role, name, expires) = (word(&invitation.role), invitation.name.clone(), invitation.expires);
        self.write(move |tx| {
            let mut query = tx.prepare_cached("SELECT name FROM member")?;
            for member in query.query_map([], |row| parsed::<Name>(row, 0))? {
                let member = member?;
                if alike(&member, &name) {
                    return Err(StoreError::NameTaken(member));
                }
            }
            let sql = "INSERT INTO invitation(key, role, name, expires) VALUES(?1, ?2, ?3, ?4)";
            tx.execute(sql, params![key.to_string(), role, name.as_str(), expires])?;
            Ok(())
        })
    }

    /// Registers a newcomer's own key under the invited name, and spends the invitation. Asking again with the same key is fine:
    /// the first answer may have been lost.
    ///
    /// # Errors
    /// The invitation is not good; the name was taken meanwhile.
    pub fn join(&self, invitation: PublicKey, key: PublicKey, request: &Request, now: i64) -> Result<Name> {
        let role = request.role();
        let text = serde_json::to_string(request).map_err(|error| StoreError::Database(error.to_string()))?;
        self.write(move |tx| {
            let sql = "SELECT name, used_by FROM invitation WHERE key = ?1 AND role = ?2 AND expires >= ?3";
            let read = |row: &Row<'_>| Ok((parsed::<Name>(row, 0)?, row.get::<_, Option<String>>(1)?));
            let found = tx.query_row(sql, params![invitation.to_string(), word(&role), now], read).optional()?;
            let (name, used_by) = found.ok_or(StoreError::Invitation)?;
            match used_by {
                Some(used_by) if used_by == key.to_string() => return Ok(name),
                Some(_) => return Err(StoreError::Invitation),
                None => {}
            }
            let sql = "INSERT INTO member(name, role, key, joined, request) VALUES(?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
            if tx.execute(sql, params![name.as_str(), word(&role), key.to_string(), now, text])? == 0 {
                return Err(StoreError::NameTaken(name));
            }
            tx.execute("UPDATE invitation SET used_by = ?2 WHERE key = ?1", params![invitation.to_string(), key.to_string()])?;
            Ok(name)
        })
    }

    /// What an invitation is for, if there is one.
    ///
    /// # Errors
    /// The database.
    pub fn invited(&self, invitation: PublicKey) -> Result<Option<Role>> {
        self.read(|tx| {
            let sql = "SELECT role FROM invitation WHERE key = ?1";
            Ok(tx.query_row(sql, [invitation.to_string()], |row| unword(row, 0)).optional()?)
        })
    }

    /// Who joined with a key: under which name, as what.
    ///
    /// # Errors
    /// The database.
    pub fn member(&self, key: &PublicKey) -> Result<Option<(Name, Role)>> {
        self.read(|tx| {
            let mut query = tx.prepare_cached("SELECT name, role FROM member WHERE key = ?1")?;
            let read = |row: &Row<'_>| Ok((parsed(row, 0)?, unword(row, 1)?));
            Ok(query.query_row([key.to_string()], read).optional()?)
        })
    }

    /// Forgets a member and all invitations under a name, which is free again. What it did stays. That no trust bundle names it is
    /// for the caller to look at.
    ///
    /// # Errors
    /// Nobody has the name.
    pub fn forget(&self, name: &Name) -> Result<()> {
        let name = name.clone();
        self.write(move |tx| {
            let of = |table: &str| tx.execute(&format!("DELETE FROM {table} WHERE name = ?1"), [name.as_str()]);
            let gone = of("member")?.saturating_add(of("invitation")?);
            if gone == 0 { Err(StoreError::NameUnknown(name.clone())) } else { Ok(()) }
        })
    }

    /// The members of a role: name and key.
    ///
    /// # Errors
    /// The database.
    pub fn members(&self, role: Role) -> Result<Vec<(Name, PublicKey)>> {
        self.read(|tx| {
            let mut query = tx.prepare_cached("SELECT name, key FROM member WHERE role = ?1 ORDER BY name")?;
            let rows = query.query_map([word(&role)], |row| Ok((parsed(row, 0)?, parsed(row, 1)?)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// What everybody who joined asks to be known as, for the consortium's roots to look at.
    ///
    /// # Errors
    /// The database.
    pub fn requests(&self) -> Result<Vec<(Name, Request)>> {
        self.read(|tx| {
            let mut query = tx.prepare_cached("SELECT name, request FROM member ORDER BY joined, name")?;
            let rows = query.query_map([], |row| Ok((parsed(row, 0)?, row.get::<_, String>(1)?)))?;
            let read = |row: rusqlite::Result<(Name, String)>| {
                let (name, request) = row?;
                let request = serde_json::from_str(&request).map_err(|error| StoreError::Database(error.to_string()))?;
                Ok((name, request))
            };
            rows.map(read).collect()
        })
    }

    /// The version of the newest trust bundle.
    ///
    /// # Errors
    /// The database.
    pub fn bundle_version(&self) -> Result<Option<i64>> {
        self.read(|tx| Ok(tx.prepare_cached("SELECT MAX(version) FROM bundle")?.query_row([], |row| row.get(0))?))
    }

    /// The newest trust bundle, as its roots signed it.
    ///
    /// # Errors
    /// The database.
    pub fn bundle(&self) -> Result<Option<Vec<u8>>> {
        self.read(|tx| {
            let sql = "SELECT envelope FROM bundle ORDER BY version DESC LIMIT 1";
            Ok(tx.query_row(sql, [], |row| row.get(0)).optional()?)
        })
    }

    /// Keeps a trust bundle for everybody.
    ///
    /// # Errors
    /// The database.
    pub fn publish(&self, version: u64, envelope: &[u8]) -> Result<()> {
        let envelope = envelope.to_owned();
        self.write(move |tx| {
            let version = i64::try_from(version).unwrap_or(i64::MAX);
            tx.execute(
                "INSERT INTO bundle(version, envelope) VALUES(?1, ?2) ON CONFLICT DO NOTHING",
                params![version, envelope],
            )?;
            Ok(())
        })
    }

    /// Keys of site invitations that are still good.
    ///
    /// # Errors
    /// The database.
    pub fn open_invitations(&self, now: i64) -> Result<Vec<PublicKey>> {
        self.read(|tx| {
            let sql = "SELECT key FROM invitation WHERE role = ?1 AND expires >= ?2";
            let mut query = tx.prepare_cached(sql)?;
            let rows = query.query_map(params![word(&Role::Site), now], |row| parsed(row, 0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Remembers what a site says it has.
    ///
    /// # Errors
    /// The database.
    pub fn set_card(&self, site: &Name, card: &SiteCard) -> Result<()> {
        let card = serde_json::to_string(card).map_err(|error| StoreError::Database(error.to_string()))?;
        let site = site.clone();
        self.write(move |tx| {
            tx.execute("UPDATE member SET card = ?2 WHERE name = ?1", params![site.as_str(), card])?;
            Ok(())
        })
    }

    /// The sites, with what each last said it has.
    ///
    /// # Errors
    /// The database.
    pub fn cards(&self) -> Result<Vec<(Name, Option<SiteCard>)>> {
        self.read(cards)
    }
}

pub(super) fn cards(tx: &Connection) -> Result<Vec<(Name, Option<SiteCard>)>> {
    let mut query = tx.prepare_cached("SELECT name, card FROM member WHERE role = ?1 ORDER BY name")?;
    let rows = query.query_map([word(&Role::Site)], |row| {
        let card: Option<String> = row.get(1)?;
        Ok((parsed(row, 0)?, card.and_then(|card| serde_json::from_str(&card).ok())))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
