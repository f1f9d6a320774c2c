//! The demo tenants of `up`: two customers with a little to look at.

use serde_json::Map;
use tenantry_db::lifecycle::{NewTenant, create_tenant};
use tenantry_db::models::audit::Actor;
use tenantry_db::{Error, Installation, TenantDb, TenantId};

/// Name, subdomain, tier.
const TENANTS: [(&str, &str, &str); 2] =
    [("Acme Inc.", "acme", "pro"), ("Globex", "globex", "free")];

/// Creates those that are not there. One that somebody deleted stays deleted while its name is kept.
pub(crate) async fn ensure(installation: &Installation, actor: &Actor) -> Result<(), Error> {
    for (name, subdomain, tier) in TENANTS {
        let tier = installation.config().tiers.contains_key(tier).then_some(tier);
        let new = NewTenant::new(installation.config(), name, subdomain, tier, Map::new())?;
        match create_tenant(installation.admin(), installation.migrations(), &new, actor).await {
            Ok(tenant) => {
                let entry = installation.directory().find(tenant.id).await?;
                let entry = entry.ok_or(Error::SchemaMissing(tenant.schema()))?;
                fill(&installation.tenant_db(entry)?).await?;
            }
            Err(Error::SubdomainTaken(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Those that nobody took away.
pub(crate) async fn find(installation: &Installation) -> Result<Vec<(String, TenantId)>, Error> {
    let mut found = Vec::new();
    for (_, subdomain, _) in TENANTS {
        let entry = installation.directory().find_by_subdomain(&subdomain.parse()?).await?;
        found.extend(entry.map(|entry| (subdomain.to_owned(), entry.id)));
    }
    Ok(found)
}

/// Sample rows, all or none. `tenant_id` and the authors follow from where they are written.
async fn fill(tenant: &TenantDb) -> Result<(), Error> {
    let mut tx = tenant.begin().await?;
    tx.execute(
        "INSERT INTO users (email, name, role)
         VALUES ('ada@example.org', 'Ada', 'owner'), ('ben@example.org', 'Ben', 'member')",
        &[],
    )
    .await?;
    tx.execute(
        "INSERT INTO content (title, body, status, author_id, published_at)
         SELECT sample.title, sample.body, sample.status, users.id,
                CASE WHEN sample.status = 'published' THEN now() END
         FROM (VALUES ('Hello', 'Our first post.', 'published', 'ada@example.org'),
                      ('Autumn campaign', 'Three weeks, two platforms.', 'in_review', 'ben@example.org'),
                      ('Ideas', '', 'draft', 'ben@example.org'))
              AS sample (title, body, status, email)
         JOIN users ON users.email = sample.email",
        &[],
    )
    .await?;
    tx.commit().await
}
