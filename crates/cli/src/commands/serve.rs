//! `tenantry serve`: the HTTP service alone, on servers that run elsewhere.

use tenantry_api::Settings;
use tenantry_db::{Config, Installation};

use crate::args::{Common, Serve};
use crate::backups::Backups;
use crate::config_file;
use crate::exit::{Exit, Failure};
use crate::output::say;
use crate::service;
use crate::signals::StopSignal;

pub(super) async fn run(common: &Common, args: &Serve) -> anyhow::Result<Exit> {
    let mut layers = config_file::installation_layers(common)?;
    if let Some(port) = args.http_port {
        layers = layers.flag("--http-port", "http.port", i64::from(port));
    }
    let config = Config::from_layers(layers)?;
    let settings = Settings::from_config(&config)?;
    let installation = Installation::new(config.clone())?;
    let (mut stop, mut hurry) = (StopSignal::listen()?, StopSignal::listen()?);
    let listener = service::listen(settings.http.address).await?;
    let address = listener.local_addr()?;
    let backups = Backups::start_if_local(&config, &installation).await?;
    say(&format!("serving on http://{address}; Ctrl-C stops it"));
    let ended = tokio::select! {
        served = tenantry_api::serve(listener, installation, settings, stop.wait()) => {
            served.map(|()| Exit::Done).map_err(Into::into)
        }
        () = async { hurry.wait().await; hurry.wait().await } => {
            let hint = "one signal lets them finish, within `http.shutdown_grace`";
            Err(Failure::new(Exit::Failed, "stopped with requests under way", hint).into())
        }
    };
    if let Some(backups) = backups {
        backups.stop().await;
    }
    ended
}
