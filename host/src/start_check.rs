//! Checks Gogs and the token at the start and logs the result: the server is ready without them, but builds cannot start.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::app::App;

/// The pause between two checks while one fails.
const RECHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Logs what is wrong, and later that it is right again. Ends with the first check that passes.
pub async fn report(app: Arc<App>) {
    if let Some(path) = app.config.gogs.token_file.as_deref().filter(|path| is_readable_by_others(path)) {
        tracing::warn!(path = %path.display(), "other users of this machine can read the token for Gogs: run `chmod 600` on the \
                                                file");
    }
    let mut last_problem = None;
    loop {
        let reason = match app.forge.user().await {
            Ok(user) => {
                let url = app.forge.base();
                tracing::info!(%url, user = user.username, "Gogs responds and accepts the token");
                return;
            }
            Err(error) => error.reason(),
        };
        if last_problem.as_ref() != Some(&reason) {
            let (problem, remedy) = (reason.message.clone(), reason.help.clone().unwrap_or_default());
            tracing::error!(problem, remedy, "nothing can be built until Gogs responds and accepts the token");
            last_problem = Some(reason);
        }
        if app.stopping.run_until_cancelled(tokio::time::sleep(RECHECK_INTERVAL)).await.is_none() {
            return;
        }
    }
}

fn is_readable_by_others(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_others_can_read_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (mode, expected) in [(0o600, false), (0o640, false), (0o644, true), (0o604, true)] {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_readable_by_others(file.path()), expected, "{mode:o}");
        }
        assert!(!is_readable_by_others(Path::new("/no/such/file")));
    }
}
