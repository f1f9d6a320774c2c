//! A tenant's tables through their models: what is written is read, in this tenant and no other.

use tenantry_db::models::catalog::list_tables;
use tenantry_db::models::content::{self, ContentFilter, ContentPatch, ContentStatus, NewContent};
use tenantry_db::models::page::Page;
use tenantry_db::models::reference::{list_countries, list_platforms, list_timezones};
use tenantry_db::models::users::{self, NewUser, User, UserFilter, UserPatch};
use tenantry_db::{Error, ErrorKind, TenantDb};
use tenantry_testing::TestDatabase;

async fn tenant(db: &TestDatabase, subdomain: &str) -> TenantDb {
    let installation = db.installation();
    let entry =
        installation.directory().find(db.tenant(subdomain).await.id).await.unwrap().unwrap();
    installation.tenant_db(entry).unwrap()
}

fn new_user(email: &str) -> NewUser {
    NewUser {
        email: email.to_owned(),
        name: "Ä \"quoted\" '; DROP TABLE users; --".to_owned(),
        role: "member".to_owned(),
        avatar_url: Some("https://example.org/a.png".to_owned()),
        email_verified: false,
        two_factor_enabled: true,
    }
}

fn new_content(title: &str, status: ContentStatus) -> NewContent {
    NewContent {
        title: title.to_owned(),
        body: String::new(),
        status,
        author_id: None,
        media: serde_json::json!([]),
        tags: vec!["a".to_owned(), "b".to_owned()],
        scheduled_at: None,
        published_at: None,
    }
}

const FIRST: Page = Page { after: None, limit: 100 };

#[tokio::test]
async fn a_user_is_created_found_changed_and_deleted() {
    let db = TestDatabase::new().await;
    let (acme, globex) = (tenant(&db, "acme").await, tenant(&db, "globex").await);
    let user = users::create_user(&acme, &new_user("Ann@Example.ORG")).await.unwrap();
    assert_eq!((user.email.as_str(), user.two_factor_enabled), ("ann@example.org", true));
    assert_eq!(user.name, new_user("").name);

    let taken = users::create_user(&acme, &new_user("ANN@example.org")).await.unwrap_err();
    assert!(matches!(taken, Error::EmailTaken), "{taken}");
    // Another tenant may have the same address, and does not know this user.
    users::create_user(&globex, &new_user("ann@example.org")).await.unwrap();
    assert!(users::find_user(&globex.read(), user.id).await.unwrap().is_none());
    assert!(users::update_user(&globex, user.id, &UserPatch::default()).await.unwrap().is_none());
    assert!(!users::delete_user(&globex, user.id).await.unwrap());

    let renamed = UserPatch { name: Some("Bo".to_owned()), ..UserPatch::default() };
    let after = users::update_user(&acme, user.id, &renamed).await.unwrap().unwrap();
    assert_eq!(
        (after.name.as_str(), &after.avatar_url, after.email),
        ("Bo", &user.avatar_url, user.email)
    );
    assert!(after.updated_at > user.updated_at);
    let cleared = UserPatch { avatar_url: Some(None), ..UserPatch::default() };
    assert_eq!(
        users::update_user(&acme, user.id, &cleared).await.unwrap().unwrap().avatar_url,
        None
    );

    assert!(users::delete_user(&acme, user.id).await.unwrap());
    assert!(!users::delete_user(&acme, user.id).await.unwrap());
    assert!(users::find_user(&acme.read(), user.id).await.unwrap().is_none());
}

#[tokio::test]
async fn lists_page_through_all_rows_also_of_one_moment() {
    let db = TestDatabase::new().await;
    let acme = tenant(&db, "acme").await;
    for n in 0..7 {
        users::create_user(&acme, &new_user(&format!("u{n}@example.org"))).await.unwrap();
    }
    let same_moment = format!(
        "UPDATE {}.users SET created_at = '2026-01-01 00:00:00.123456Z'",
        acme.tenant().id.schema()
    );
    db.superuser().await.batch_execute(&same_moment).await.unwrap();
    let mut seen: Vec<User> = Vec::new();
    let mut page = Page { after: None, limit: 3 };
    loop {
        let listed = users::list_users(&acme.read(), &UserFilter::default(), &page).await.unwrap();
        seen.extend(listed.rows);
        match listed.next {
            Some(next) => page.after = Some(next),
            None => break,
        }
    }
    let mut emails: Vec<_> = seen.iter().map(|user| user.email.clone()).collect();
    emails.sort();
    assert_eq!(emails, (0..7).map(|n| format!("u{n}@example.org")).collect::<Vec<_>>());
    let one = UserFilter { email: Some("U3@example.org".to_owned()), role: None };
    assert_eq!(users::list_users(&acme.read(), &one, &FIRST).await.unwrap().rows.len(), 1);
    let none = UserFilter { email: None, role: Some("' OR true --".to_owned()) };
    assert!(users::list_users(&acme.read(), &none, &FIRST).await.unwrap().rows.is_empty());
}

#[tokio::test]
async fn content_keeps_its_authors_and_rules() {
    let db = TestDatabase::new().await;
    let (acme, globex) = (tenant(&db, "acme").await, tenant(&db, "globex").await);
    let ann = users::create_user(&acme, &new_user("ann@example.org")).await.unwrap();
    let written =
        NewContent { author_id: Some(ann.id), ..new_content("One", ContentStatus::Draft) };
    let one = content::create_content(&acme, &written).await.unwrap();
    let two =
        content::create_content(&acme, &new_content("Two", ContentStatus::Archived)).await.unwrap();
    assert_eq!((one.number, two.number, one.author_id), (1, 2, Some(ann.id)));
    assert_eq!(one.tags, ["a", "b"]);
    assert!(content::find_content(&globex.read(), one.id).await.unwrap().is_none());

    // An author of another tenant is no author here.
    let stranger = users::create_user(&globex, &new_user("g@example.org")).await.unwrap();
    let foreign =
        NewContent { author_id: Some(stranger.id), ..new_content("Three", ContentStatus::Draft) };
    let refused = content::create_content(&acme, &foreign).await.unwrap_err();
    assert!(matches!(refused, Error::InvalidField { field: "author_id", .. }), "{refused}");

    let drafts = ContentFilter { status: Some(ContentStatus::Draft), author_id: None };
    assert_eq!(content::list_content(&acme.read(), &drafts, &FIRST).await.unwrap().rows.len(), 1);
    let anns = ContentFilter { status: None, author_id: Some(ann.id) };
    assert_eq!(
        content::list_content(&acme.read(), &anns, &FIRST).await.unwrap().rows[0].id,
        one.id
    );

    let patch = ContentPatch {
        title: Some("Uno".to_owned()),
        author_id: Some(None),
        ..ContentPatch::default()
    };
    let patched = content::update_content(&acme, one.id, &patch).await.unwrap().unwrap();
    assert_eq!((patched.title.as_str(), patched.author_id, patched.number), ("Uno", None, 1));
    // Scheduled needs a time: the table says so, whoever writes.
    let unscheduled =
        ContentPatch { status: Some(ContentStatus::Scheduled), ..ContentPatch::default() };
    let refused = content::update_content(&acme, one.id, &unscheduled).await.unwrap_err();
    assert!(matches!(refused, Error::InvalidField { field: "scheduled_at", .. }), "{refused}");
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(content::delete_content(&acme, one.id).await.unwrap());
    assert!(!content::delete_content(&acme, one.id).await.unwrap());
}

#[tokio::test]
async fn shared_tables_and_the_schemas_description_are_read() {
    let db = TestDatabase::new().await;
    let acme = tenant(&db, "acme").await;
    assert_eq!(list_countries(&acme.read()).await.unwrap().len(), 249);
    assert!(
        list_timezones(&acme.read()).await.unwrap().iter().any(|zone| zone.name == "Europe/Berlin")
    );
    assert_eq!(list_platforms(&acme.read()).await.unwrap().len(), 20);
    let tables = list_tables(&db.reader, acme.tenant().id.schema()).await.unwrap();
    assert_eq!(tables.len(), 9);
    let users = tables.iter().find(|table| table.name == "users").unwrap();
    assert!(users.columns.iter().any(|column| column.name == "email" && !column.nullable));
    assert!(users.bytes > 0);
}
