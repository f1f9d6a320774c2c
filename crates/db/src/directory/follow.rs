//! Hearing of changes: a session of its own that listens on the direct connection.
//!
//! A trigger on `public.tenants` announces each change (migration 0004). Any login may send on the
//! channel, so a message only says where to look again: at worst a forged one costs a lookup.

use std::future::poll_fn;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_postgres::AsyncMessage;

use super::Directory;
use crate::error::{Doing, Error};
use crate::ids::TenantId;

const LISTEN: &str = "LISTEN tenantry_directory";

/// How often the session is asked whether it is still there, and how long it may take to answer. A
/// connection that is gone without a word is noticed within their sum.
const ASK_EVERY: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) async fn forever(directory: &Directory) {
    loop {
        let lost = listen(directory).await;
        // Said once; the attempts that follow fail for the same reason.
        if directory.forget_all(false) {
            let cause = lost.err().map(|error| error.to_string()).unwrap_or_default();
            tracing::warn!(cause, "changes of tenants are not announced: connecting again");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Listens until the connection is lost.
async fn listen(directory: &Directory) -> Result<(), Error> {
    let (client, mut connection) = directory.reader.session().await?;
    // Aborted when this ends, however it ends.
    let mut driver = JoinSet::new();
    let heard = directory.clone();
    driver.spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(news) = message {
                hear(&heard, news.payload()).await;
            }
        }
    });
    client.batch_execute(LISTEN).await.doing("listen for changes of tenants")?;
    // Only now: what happened before the LISTEN was not announced here.
    directory.forget_all(true);
    tracing::info!("changes of tenants are announced");
    loop {
        tokio::select! {
            _ = driver.join_next() => return Ok(()),
            () = tokio::time::sleep(ASK_EVERY) => {}
        }
        match tokio::time::timeout(ANSWER_WITHIN, client.batch_execute("")).await {
            Ok(answer) => answer.doing("ask whether changes are still announced")?,
            Err(_) => return Ok(()),
        }
    }
}

/// `<id> <former subdomain> <new subdomain>`, of which any may be absent.
async fn hear(directory: &Directory, payload: &str) {
    let mut words = payload.split(' ');
    let id = words.next().and_then(|word| word.parse::<TenantId>().ok());
    directory.forget_names(id, words.take(2)).await;
    tracing::debug!(tenant.id = id.map(tracing::field::display), "a tenant changed");
}
