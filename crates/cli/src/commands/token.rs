//! `tenantry token`: tokens for development, operators and scripts, signed with `auth.secret`.

use jiff::Timestamp;
use serde::Serialize;
use tenantry_api::Settings;
use tenantry_api::auth::{Claims, Scope, issue};
use tenantry_db::models::tenants::get_tenant;
use tenantry_db::{Config, ReaderDb, TenantId};

use super::actor;
use crate::args::{Common, Token, TokenIssue};
use crate::exit::Exit;
use crate::{config_file, output};

pub(super) async fn run(common: &Common, command: &Token) -> anyhow::Result<Exit> {
    let config = config_file::load(common)?;
    match command {
        Token::Issue(args) => issue_one(common, &config, args).await,
    }
}

#[derive(Serialize)]
struct Issued {
    token: String,
    tenant_id: Option<TenantId>,
    expires_at: Timestamp,
}

async fn issue_one(common: &Common, config: &Config, args: &TokenIssue) -> anyhow::Result<Exit> {
    let settings = Settings::from_config(config)?.auth;
    let sub = args.sub.clone().unwrap_or_else(|| actor().to_string());
    let claims = match &args.tenant {
        // A token for a tenant that does not exist would only be refused later, with less to go by.
        Some(tenant) => {
            let tenant = get_tenant(&ReaderDb::new(config)?, tenant).await?;
            Claims {
                sub,
                tenant_id: Some(tenant.id),
                role: Some(args.role),
                scope: [].into_iter().collect(),
            }
        }
        None if args.scope.is_empty() => platform(sub, &Scope::ALL),
        None => platform(sub, &args.scope),
    };
    let token = issue(&settings, &claims, args.ttl.unsigned_abs())?;
    let expires_at = Timestamp::now().saturating_add(args.ttl)?;
    let issued = Issued { token, tenant_id: claims.tenant_id, expires_at };
    output::data(common.output, &issued, |issued| format!("{}\n", issued.token))?;
    Ok(Exit::Done)
}

fn platform(sub: String, scopes: &[Scope]) -> Claims {
    Claims { sub, tenant_id: None, role: None, scope: scopes.iter().copied().collect() }
}
