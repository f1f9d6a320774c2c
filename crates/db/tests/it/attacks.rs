//! Invariants 1 to 3 and 9 against somebody who can send statements as a tenant: through the door,
//! and past it, as a bug or an injection would. The statements are in `attacks/statements.rs`.

mod statements;

use tenantry_db::bind::{COMMIT, ROLLBACK};
use tenantry_db::{Error, TenantDb};
use tokio_postgres::{Client, SimpleQueryMessage};

use self::statements::{COMMANDS, HARMLESS, IN_VAIN, QUERIES, SLIPS};
use crate::rig::Rig;
use crate::{refusal, texts};

/// Tenant 0 attacks, tenant 1 is of its lane, the third is moved to another lane.
struct Arena {
    rig: Rig,
    elsewhere: String,
    /// Past PgBouncer: somebody else's connection, and another one of the same lane, each with its
    /// backend. What they ran last holds tenant 1's secret.
    superuser: (Client, i32),
    neighbour: (Client, i32),
    /// Past the door.
    past: Client,
    /// Gets the server connection next.
    next: Client,
}

impl Arena {
    async fn new() -> Self {
        let mut rig = Rig::new(3).await;
        let elsewhere = rig.tenants.pop().unwrap().tenant().id.schema().to_string();
        let superuser = rig.db.superuser().await;
        let moved = format!(
            "REVOKE {elsewhere} FROM shared_lane_00; GRANT {elsewhere} TO shared_lane_01; ANALYZE"
        );
        superuser.batch_execute(&moved).await.unwrap();
        let superuser = telltale(superuser).await;
        let neighbour = telltale(rig.db.lane_direct(rig.tenants[1].tenant().lane).await).await;
        let (past, next) = (rig.bare().await, rig.bare().await);
        Self { rig, elsewhere, superuser, neighbour, past, next }
    }

    fn attacker(&self) -> &TenantDb {
        &self.rig.tenants[0]
    }

    fn filled_in(&self, statement: &str) -> &'static str {
        let schema = |n: usize| self.rig.tenants[n].tenant().id.schema().to_string();
        let text = statement
            .replace("{own}", &schema(0))
            .replace("{other}", &schema(1))
            .replace("{elsewhere}", &self.elsewhere)
            .replace("{database}", self.rig.db.name())
            .replace("{backend}", &self.superuser.1.to_string())
            .replace("{lane_backend}", &self.neighbour.1.to_string());
        text.leak()
    }

    /// Sends it past the door in a transaction that is bound as the library binds, and yields the
    /// SQLSTATE, if it was refused.
    async fn sent_past_the_door(&self, statement: &str) -> Option<String> {
        self.past.batch_execute(&self.rig.bind(0)).await.unwrap();
        let answer = self.past.query_typed(statement, &[]).await;
        self.past.batch_execute(ROLLBACK).await.unwrap();
        match answer {
            Ok(_) => None,
            Err(e) => {
                Some(e.code().unwrap_or_else(|| panic!("{statement}: {e}")).code().to_owned())
            }
        }
    }

    async fn assert_refused_by_the_door(&self, statement: &'static str) {
        let mut tx = self.attacker().begin().await.unwrap();
        for refused in [
            self.attacker().execute(statement, &[]).await.map(|_| ()),
            tx.query(statement, &[]).await.map(|_| ()),
        ] {
            assert!(matches!(refused, Err(Error::ForbiddenStatement { .. })), "{statement}");
        }
    }
}

/// With its backend's number. The text of its last query is worth hiding.
async fn telltale(client: Client) -> (Client, i32) {
    let backend = backend(&client).await;
    client.batch_execute(&format!("SELECT '{}'", Rig::secret(1))).await.unwrap();
    (client, backend)
}

async fn backend(client: &Client) -> i32 {
    client.query_typed_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0)
}

fn sqlstate<T>(answer: Result<T, Error>) -> Option<String> {
    match answer {
        Err(Error::Database { source, .. }) => source.code().map(|code| code.code().to_owned()),
        _ => None,
    }
}

/// Every row that a client is shown, as one text.
async fn shown(client: &Client, statement: &str) -> String {
    let messages = client.simple_query(statement).await;
    let messages = messages.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.flat_map(|row| (0..row.len()).filter_map(|n| row.get(n))).collect()
}

/// A call of each function that takes a lock beyond the transaction or makes a large object: as the
/// server lists them, so that a newer one's are not missed.
async fn locks_and_large_objects(superuser: &Client) -> Vec<String> {
    let calls = "
        SELECT format('SELECT %I(%s)', proname, (
                   SELECT string_agg(format('''1''::%s', format_type(type, NULL)), ', ')
                     FROM unnest(proargtypes) AS type))
          FROM pg_proc
         WHERE pronamespace = 'pg_catalog'::regnamespace
           AND (proname LIKE '%advisory%'
                OR proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'lo_import', 'lo_export'))";
    let calls = texts(superuser, calls).await;
    assert!(calls.len() >= 27, "{calls:?}");
    calls
}

#[tokio::test]
async fn no_statement_that_the_door_lets_pass_reaches_anything_else() {
    let arena = Arena::new().await;
    let locks = locks_and_large_objects(&arena.superuser.0).await;
    let calls = locks.iter().map(|call| (call.as_str(), "42501"));
    let mut wrong = Vec::new();
    for (statement, code) in QUERIES.iter().copied().chain(calls) {
        let statement = arena.filled_in(statement);
        let mut tx = arena.attacker().begin().await.unwrap();
        let answers = [
            arena.sent_past_the_door(statement).await,
            sqlstate(arena.attacker().query(statement, &[]).await),
            sqlstate(tx.execute(statement, &[]).await),
        ];
        if answers.iter().any(|answer| answer.as_deref() != Some(code)) {
            wrong.push(format!("{statement}: {answers:?}, not {code}"));
        }
        assert!(matches!(tx.commit().await, Err(Error::TransactionFailed)), "{statement}");
        arena.rig.assert_clean(&arena.next, statement).await;
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    for statement in IN_VAIN {
        let statement = arena.filled_in(statement);
        arena.past.batch_execute(&arena.rig.bind(0)).await.unwrap();
        let seen = shown(&arena.past, statement).await;
        arena.past.batch_execute(ROLLBACK).await.unwrap();
        assert!(!seen.contains(&Rig::secret(1)), "{statement}: {seen}");
        arena.attacker().query(statement, &[]).await.unwrap();
    }
    // The control: the secret does stand there for somebody who may see it.
    let seen = shown(&arena.superuser.0, IN_VAIN[0]).await;
    assert!(seen.contains(&Rig::secret(1)), "{seen}");
}

#[tokio::test]
async fn no_command_reaches_anything_else_and_the_door_lets_none_pass() {
    let arena = Arena::new().await;
    let mut wrong = Vec::new();
    for (command, code) in COMMANDS {
        let command = arena.filled_in(command);
        let past = arena.sent_past_the_door(command).await;
        if past.as_deref() != Some(*code) {
            wrong.push(format!("{command}: {past:?}, not {code}"));
        }
        arena.assert_refused_by_the_door(command).await;
        arena.rig.assert_clean(&arena.next, command).await;
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    for command in HARMLESS {
        let command = arena.filled_in(command);
        arena.assert_refused_by_the_door(command).await;
        arena.past.batch_execute(&arena.rig.bind(0)).await.unwrap();
        arena.past.query_typed(command, &[]).await.unwrap();
        arena.past.batch_execute(COMMIT).await.unwrap();
        arena.rig.assert_clean(&arena.next, command).await;
        let foreign: &'static str = arena.filled_in("SELECT name FROM {own}.teams");
        let seen = sqlstate(arena.rig.tenants[1].query(foreign, &[]).await);
        assert_eq!(seen.as_deref(), Some("42501"), "{command}");
    }
}

/// The same server connection goes from hand to hand, and nothing goes with it.
#[tokio::test]
async fn whatever_slipped_in_is_gone_after_the_transaction() {
    let arena = Arena::new().await;
    let connection = backend(&arena.next).await;
    let session = arena.rig.session(&arena.next).await;
    for slip in SLIPS {
        let statements: Vec<_> = slip.iter().map(|text| arena.filled_in(text)).collect();
        for statement in &statements {
            arena.assert_refused_by_the_door(statement).await;
        }
        for end in [COMMIT, ROLLBACK] {
            let after = format!("{statements:?} and {end}");
            arena.past.batch_execute(&arena.rig.bind(0)).await.unwrap();
            for statement in &statements {
                let _ = arena.past.query_typed(statement, &[]).await;
            }
            arena.past.batch_execute(end).await.unwrap();
            for leftover in ["FETCH ALL FROM c", "EXECUTE p"] {
                let code = refusal(&arena.next, leftover).await;
                let nothing = matches!(code.code(), "34000" | "26000" | "42501" | "42P01");
                assert!(nothing, "{leftover}: {code:?} after {after}");
            }
            let now = arena.rig.session(&arena.next).await;
            let odd: Vec<_> = now.iter().filter(|line| !session.contains(line)).collect();
            assert!(odd.is_empty() && now.len() == session.len(), "after {after}: {odd:?}");
            arena.rig.assert_clean(&arena.next, &after).await;
            // Without this the test would prove nothing.
            assert_eq!(backend(&arena.next).await, connection, "after {after}");
        }
    }
}
