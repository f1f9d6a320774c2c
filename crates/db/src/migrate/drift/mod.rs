//! `migrate status --drift`: which tenants' schemas are not as their version's files make them, and in
//! what.
//!
//! The expected shape comes from the files, on a scratch schema, once for each version. Each tenant's
//! schema is boiled down to a digest by the server, many in one statement; only of schemas that differ
//! are the lines fetched, and once for all tenants that differ in the same way.

mod expected;

use std::collections::{BTreeMap, HashMap};

use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, GenericClient};

use self::expected::{Kind, expected, may_ask_the_majority, said};
use super::fingerprint::{Fingerprint, SETTLE, digests, fingerprints};
use super::standing::Standing;
use super::{Migrations, SetKind, Tenants, record, standing};
use crate::direct::{AdminDb, ReaderDb};
use crate::error::{Doing, Error};
use crate::ids::TenantId;

/// Which tenants are not as they should be.
#[derive(Debug, Clone, Serialize)]
pub struct Drift {
    /// What they were compared with.
    pub expected: Expected,
    /// How many were compared.
    pub compared: usize,
    /// How many of those differ.
    pub drifted: usize,
    /// Those that differ, all that differ in the same way together; the largest group first.
    pub groups: Vec<DriftGroup>,
    /// Whether there are more groups than listed.
    pub groups_truncated: bool,
    /// How many were migrated or removed during the look.
    pub moved: usize,
    /// How many there is nothing to compare with: at a version that no file has, or, among each other,
    /// without a majority.
    pub not_comparable: usize,
}

/// What tenants were compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    /// What the files make.
    Files,
    /// What most tenants of the version are like, since the files could not be tried.
    Majority {
        /// Why not.
        because: String,
    },
}

/// Tenants that differ in the same way.
#[derive(Debug, Clone, Serialize)]
pub struct DriftGroup {
    /// Their version.
    pub version: i64,
    /// How many they are.
    pub count: usize,
    /// The first of them.
    pub tenants: Vec<DriftedTenant>,
    /// What is expected and absent (`-`), and what is there and should not be (`+`).
    pub difference: Vec<String>,
}

/// A tenant that differs.
#[derive(Debug, Clone, Serialize)]
pub struct DriftedTenant {
    /// Its id.
    pub id: TenantId,
    /// Its human name, if it has one.
    pub subdomain: Option<String>,
    /// The version whose file, which runs outside a transaction, is half through.
    pub half_way_to: Option<i64>,
}

/// How many schemas one statement looks at: their lines fit into a little memory.
const AT_ONCE: usize = 100;
/// How many schemas one connection looks at: the server keeps some 170 KB of each.
const PER_CONNECTION: usize = 400;
/// How many connections look at the same time.
const CONNECTIONS: usize = 4;
/// How many ways to differ are looked at closely.
const MAX_GROUPS: usize = 100;
/// How many tenants of a group are named.
const NAMED: usize = 20;

/// Compares tenants with what their version's files make. Calls `progress` with how many of how many are
/// through.
///
/// Asks as the reader, also a replica. The files are tried as the admin, in a transaction that is rolled
/// back; where that can't be, tenants are compared with each other.
///
/// # Errors
/// Those of the server.
pub async fn drift(
    reader: &ReaderDb,
    admin: &AdminDb,
    migrations: &Migrations,
    tenants: &Tenants,
    progress: impl FnMut(usize, usize),
) -> Result<Drift, Error> {
    let mut db = reader.connection().await?;
    let looked: &mut Client = &mut db;
    if !record::is_possible(looked).await? {
        let (set, needed) = (SetKind::Public, migrations.public.head());
        return Err(Error::Behind { set, found: 0, needed });
    }
    let standing = standing::all(looked, tenants).await?;
    let set = &migrations.tenant;
    let kinds: Vec<Kind> = standing.iter().map(|at| Kind::of(at, set)).collect();
    let found = read_digests(reader, &standing, progress).await?;
    let (expected, shapes) = match expected(admin, migrations, &kinds).await {
        Ok(Ok(shapes)) => (Expected::Files, shapes),
        Ok(Err(because)) => (Expected::Majority { because }, HashMap::new()),
        Err(error) if may_ask_the_majority(&error) => {
            (Expected::Majority { because: said(&error) }, HashMap::new())
        }
        Err(error) => return Err(error),
    };
    let mut groups: BTreeMap<(Kind, Option<Vec<u8>>), Vec<&Standing>> = BTreeMap::new();
    for (at, kind) in standing.iter().zip(&kinds) {
        let digest = found.get(&at.id.schema().to_string()).cloned();
        groups.entry((*kind, digest)).or_default().push(at);
    }
    let half_way = half_way(looked).await?;
    let mut look = Look {
        db: looked,
        shapes,
        half_way,
        drift: Drift {
            expected,
            compared: 0,
            drifted: 0,
            groups: Vec::new(),
            groups_truncated: false,
            moved: 0,
            not_comparable: 0,
        },
    };
    look.take_majorities(&groups).await?;
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, tenants)| std::cmp::Reverse(tenants.len()));
    for ((kind, digest), tenants) in groups {
        look.at_group(kind, digest, &tenants).await?;
    }
    Ok(look.drift)
}

/// A digest for each tenant that has a schema.
async fn read_digests(
    reader: &ReaderDb,
    standing: &[Standing],
    mut progress: impl FnMut(usize, usize),
) -> Result<HashMap<String, Vec<u8>>, Error> {
    let names: Vec<String> = standing.iter().map(|at| at.id.schema().to_string()).collect();
    let parts: Vec<Vec<String>> = names.chunks(PER_CONNECTION).map(<[String]>::to_vec).collect();
    let read = futures_util::stream::iter(parts)
        .map(|part| async move { Ok::<_, Error>((part.len(), read_part(reader, &part).await?)) })
        .buffer_unordered(CONNECTIONS);
    let mut read = std::pin::pin!(read);
    let (mut all, mut done) = (HashMap::with_capacity(names.len()), 0);
    progress(0, names.len());
    while let Some((looked_at, found)) = read.try_next().await? {
        all.extend(found);
        done += looked_at;
        progress(done, names.len());
    }
    Ok(all)
}

async fn read_part(reader: &ReaderDb, part: &[String]) -> Result<HashMap<String, Vec<u8>>, Error> {
    // A schema that is changed or dropped meanwhile may make the server stumble over its own catalog.
    const TRIES: usize = 3;
    let (mut client, connection) = reader.session().await?;
    tokio::spawn(connection);
    let mut all = HashMap::new();
    for names in part.chunks(AT_ONCE) {
        let mut tries = 0;
        all.extend(loop {
            tries += 1;
            let tx = client.transaction().await.doing("begin a transaction")?;
            tx.batch_execute(SETTLE).await.doing("set the search path")?;
            match digests(&tx, names).await {
                Err(Error::Database { source, .. })
                    if source.code() == Some(&SqlState::INTERNAL_ERROR) && tries < TRIES => {}
                other => break other?,
            }
        });
    }
    Ok(all)
}

/// Schemas in which a file that runs outside a transaction is half through.
async fn half_way(db: &impl GenericClient) -> Result<HashMap<String, i64>, Error> {
    let rows = db
        .query_typed(
            "SELECT schema_name, max(version) FROM public.migration_progress
             WHERE schema_name <> 'public' AND statements_begun > 0 GROUP BY schema_name",
            &[],
        )
        .await
        .doing("read which files are half through")?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

struct Look<'a> {
    db: &'a mut Client,
    shapes: HashMap<Kind, Fingerprint>,
    half_way: HashMap<String, i64>,
    drift: Drift,
}

type Groups<'a> = BTreeMap<(Kind, Option<Vec<u8>>), Vec<&'a Standing>>;

impl Look<'_> {
    /// Where the files could not be tried, what more than half of the tenants of a kind have is expected.
    async fn take_majorities(&mut self, groups: &Groups<'_>) -> Result<(), Error> {
        if self.drift.expected == Expected::Files {
            return Ok(());
        }
        let mut sizes: HashMap<Kind, usize> = HashMap::new();
        for ((kind, _), tenants) in groups {
            *sizes.entry(*kind).or_default() += tenants.len();
        }
        for ((kind, digest), tenants) in groups {
            let alone = tenants.len() < 2;
            if digest.is_none() || alone || tenants.len() * 2 <= sizes[kind] {
                continue;
            }
            let shape =
                self.read(tenants[0]).await?.filter(|shape| Some(shape.digest()) == *digest);
            self.shapes.extend(shape.map(|shape| (*kind, kind.seen(&shape))));
        }
        Ok(())
    }

    async fn at_group(
        &mut self,
        kind: Kind,
        digest: Option<Vec<u8>>,
        tenants: &[&Standing],
    ) -> Result<(), Error> {
        let Some(expected) = self.shapes.get(&kind).cloned() else {
            self.drift.not_comparable += tenants.len();
            return Ok(());
        };
        if digest.as_ref() == Some(&expected.digest()) {
            self.drift.compared += tenants.len();
            return Ok(());
        }
        let still = self.still_there(tenants).await?;
        self.drift.moved += tenants.len() - still.len();
        let Some(first) = still.first() else { return Ok(()) };
        let difference = match self.read(first).await? {
            None if digest.is_none() => vec!["- schema: it does not exist".to_owned()],
            Some(shape) if Some(shape.digest()) == digest => {
                expected.difference_in_kind(&kind.seen(&shape))
            }
            _ => {
                self.drift.moved += still.len();
                return Ok(());
            }
        };
        self.drift.compared += still.len();
        if difference.is_empty() {
            // Another order of columns, or views and functions that nobody knows.
            return Ok(());
        }
        self.drift.drifted += still.len();
        if self.drift.groups.len() == MAX_GROUPS {
            self.drift.groups_truncated = true;
            return Ok(());
        }
        let named = still.iter().take(NAMED).map(|at| DriftedTenant {
            id: at.id,
            subdomain: at.subdomain.clone(),
            half_way_to: self.half_way.get(&at.id.schema().to_string()).copied(),
        });
        let (version, tenants) = (kind.version, named.collect());
        self.drift.groups.push(DriftGroup { version, count: still.len(), tenants, difference });
        Ok(())
    }

    /// Those that stand where they stood before their schemas were looked at.
    async fn still_there<'s>(
        &mut self,
        tenants: &[&'s Standing],
    ) -> Result<Vec<&'s Standing>, Error> {
        let asked = Tenants::Only(tenants.iter().map(|at| at.id).collect());
        let now: HashMap<TenantId, Standing> =
            standing::all(self.db, &asked).await?.into_iter().map(|at| (at.id, at)).collect();
        let same = |at: &&&Standing| {
            now.get(&at.id)
                .is_some_and(|now| now.version == at.version && now.repeatables == at.repeatables)
        };
        Ok(tenants.iter().filter(same).copied().collect())
    }

    async fn read(&mut self, at: &Standing) -> Result<Option<Fingerprint>, Error> {
        let schema = at.id.schema().to_string();
        let tx = self.db.transaction().await.doing("begin a transaction")?;
        tx.batch_execute(SETTLE).await.doing("set the search path")?;
        Ok(fingerprints(&tx, std::slice::from_ref(&schema), "").await?.remove(&schema))
    }
}
