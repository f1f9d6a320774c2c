//! What `up` says once everything runs: where it is, and three requests to begin with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tenantry_api::Settings;
use tenantry_api::auth::{Claims, Role, Scope, issue};
use tenantry_db::Installation;
use tenantry_stack::{Server, Stack};

use crate::args::Up;
use crate::demo;

/// The tokens are for a day of work; `tenantry token issue` makes others.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);

/// Where everything is, and how to begin.
#[derive(Serialize)]
pub(crate) struct Welcome {
    api: String,
    primary: String,
    replicas: Vec<String>,
    pgbouncer: String,
    /// None without backups.
    backups: Option<String>,
    data_dir: PathBuf,
    config: PathBuf,
    /// None where tokens are checked with public keys: then somebody else issues them.
    platform_token: Option<String>,
    /// Of the demo tenants' owners, by subdomain.
    tenant_tokens: BTreeMap<String, String>,
    curl: [String; 3],
    #[serde(skip)]
    program: String,
}

impl Welcome {
    pub(crate) async fn new(
        args: &Up,
        stack: &Stack,
        config_path: &Path,
        installation: &Installation,
        settings: &Settings,
        backups: Option<String>,
    ) -> anyhow::Result<Self> {
        let ports = stack.ports();
        let address = |port: u16| format!("127.0.0.1:{port}");
        // Other commands find the file by themselves in the default place only.
        let program = match &args.data_dir.data_dir {
            None => program(),
            Some(_) => format!("{} --config {}", program(), quoted(config_path)),
        };
        let api = format!("http://{}", settings.http.address);
        let platform =
            claims("operator:up", |claims| claims.scope = Scope::ALL.into_iter().collect());
        let mut tenant_tokens = BTreeMap::new();
        let issues = settings.auth.can_issue();
        let demo =
            if args.no_demo || !issues { Vec::new() } else { demo::find(installation).await? };
        for (subdomain, tenant) in demo {
            let owner = claims("user:up", |claims| {
                claims.tenant_id = Some(tenant);
                claims.role = Some(Role::Owner);
            });
            tenant_tokens.insert(subdomain, issue(&settings.auth, &owner, TOKEN_TTL)?);
        }
        let newcomer = free_subdomain(installation).await?;
        Ok(Self {
            primary: address(ports.postgres),
            replicas: Server::replicas(args.replicas()).map(|r| address(ports.of(r))).collect(),
            pgbouncer: address(ports.pgbouncer),
            backups,
            data_dir: args.data_dir.path(),
            config: config_path.to_owned(),
            platform_token: issues
                .then(|| issue(&settings.auth, &platform, TOKEN_TTL))
                .transpose()?,
            tenant_tokens,
            curl: curl(&api, &program, &newcomer),
            api,
            program,
        })
    }

    pub(crate) fn text(&self) -> String {
        let Self { api, primary, pgbouncer, platform_token, program, curl, .. } = self;
        let replicas: String =
            self.replicas.iter().map(|address| format!("  replica    {address}\n")).collect();
        let backups = self
            .backups
            .as_ref()
            .map_or_else(String::new, |backups| format!("  backups    {backups}\n"));
        let [sign_up, write, read] = curl;
        let tokens = match platform_token {
            Some(platform_token) => format!(
                "Tokens, good for a day (`{program} token issue` makes others):

  platform   {platform_token}
{}
In another terminal, in the same directory: sign up a tenant, write with its token, read it back.

{sign_up}
{write}
{read}
",
                self.tenant_tokens
                    .iter()
                    .map(|(name, token)| format!("  {name:<10} {token}\n"))
                    .collect::<String>()
            ),
            None => "Tokens come from the issuer whose public keys `[auth]` names.\n".to_owned(),
        };
        format!(
            "
Tenantry is up; Ctrl-C stops it.

  API        {api}
  primary    {primary}
{replicas}  PgBouncer  {pgbouncer}
{backups}  directory  {directory}

{tokens}",
            directory = self.data_dir.display(),
        )
    }
}

/// Three lines to be pasted as they stand: sign up, write, read.
fn curl(api: &str, program: &str, newcomer: &str) -> [String; 3] {
    let bearer =
        |whose: &str| format!("-H \"Authorization: Bearer $({program} token issue {whose})\"");
    let json = "-H 'Content-Type: application/json' -d";
    let (platform, tenant) = (bearer("--platform"), bearer(&format!("--tenant {newcomer}")));
    [
        format!(
            "curl -sS -w '\\n' {api}/api/tenants {platform} {json} \
             '{{\"name\": \"Initech\", \"subdomain\": \"{newcomer}\"}}'"
        ),
        format!("curl -sS -w '\\n' {api}/api/content {tenant} {json} '{{\"title\": \"Hello\"}}'"),
        format!("curl -sS -w '\\n' {api}/api/content {tenant}"),
    ]
}

/// A name for the tenant to be signed up, so that the lines work after the first start, too.
async fn free_subdomain(installation: &Installation) -> anyhow::Result<String> {
    let mut name = "initech".to_owned();
    for n in 2.. {
        if installation.directory().find_by_subdomain(&name.parse()?).await?.is_none() {
            break;
        }
        name = format!("initech-{n}");
    }
    Ok(name)
}

fn claims(sub: &str, fill: impl FnOnce(&mut Claims)) -> Claims {
    let mut claims = Claims {
        sub: sub.to_owned(),
        tenant_id: None,
        role: None,
        scope: [].into_iter().collect(),
    };
    fill(&mut claims);
    claims
}

/// For a shell, inside double quotes' `$(…)` too.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// How this program is called from here: by its name where `PATH` leads to it, else by its path.
fn program() -> String {
    const NAME: &str = "tenantry";
    let Ok(own) = std::env::current_exe() else { return NAME.to_owned() };
    let on_path = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|dir| dir.join(NAME)).find(|file| file.is_file())
    });
    if on_path.and_then(|found| found.canonicalize().ok()).as_ref() == Some(&own) {
        return NAME.to_owned();
    }
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    match own.strip_prefix(&here) {
        Ok(below) => format!("./{}", quoted(below)),
        Err(_) => quoted(&own),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_safe_to_paste() {
        for (path, expected) in
            [("/a/b-c.toml", "/a/b-c.toml"), ("/a b/$c", "'/a b/$c'"), ("it's", r"'it'\''s'")]
        {
            assert_eq!(quoted(Path::new(path)), expected);
        }
    }
}
