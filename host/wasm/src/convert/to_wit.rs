//! Conversions from core types to WIT.

use beespace_core::digest::Document;
use beespace_core::event::{ActorKind, Claim};
use beespace_core::exit::{Exit, ExitCause};
use beespace_core::notice::Receipt;
use beespace_core::plugin_context::PluginContext;
use beespace_core::trust::Trust;

use crate::bindings::notifier::exports::beespace::plugin::notifier;
use crate::bindings::shared::types;
use crate::bindings::step::beespace::plugin::exec_types;

pub(crate) fn document(document: &Document) -> types::Document {
    types::Document { schema: document.schema.clone(), json: document.json.clone() }
}

pub(crate) fn context(context: &PluginContext) -> types::Context {
    types::Context {
        invocation_id: context.invocation_id.clone(),
        event: context.event.as_str().to_owned(),
        owner: context.repository.owner().to_owned(),
        repo: context.repository.name().to_owned(),
        git_ref: context.git_ref.clone(),
        commit: context.sha.as_ref().map_or_else(String::new, ToString::to_string),
        pull_request: context.pull_request.clone(),
        build_number: context.build_number,
        actor: types::Actor {
            kind: match context.actor.kind {
                ActorKind::User | ActorKind::Local => types::ActorKind::User,
                ActorKind::Schedule => types::ActorKind::Schedule,
            },
            id: context.actor.stable_id(),
            name: context.actor.login.clone(),
            // The API of Gogs does not expose groups.
            groups: Vec::new(),
            on_behalf_of: None,
        },
        author: context.author.as_ref().map(claim),
        trust: match context.trust {
            Trust::Trusted => types::Trust::Trusted,
            Trust::Untrusted => types::Trust::Untrusted,
        },
        now_ms: context.now.0,
        labels: context.labels.clone(),
    }
}

fn claim(claim: &Claim) -> types::Claim {
    types::Claim { name: claim.name.clone(), email: claim.email.clone() }
}

pub(crate) fn exit(exit: &Exit) -> exec_types::Exit {
    exec_types::Exit {
        container: exit.container.clone(),
        cause: match exit.cause {
            ExitCause::Exited => exec_types::ExitCause::Exited,
            ExitCause::TimedOut => exec_types::ExitCause::TimedOut,
            ExitCause::OutOfMemory => exec_types::ExitCause::OutOfMemory,
            ExitCause::Cancelled => exec_types::ExitCause::Cancelled,
            ExitCause::ImageFailed => exec_types::ExitCause::ImageFailed,
            ExitCause::StartFailed => exec_types::ExitCause::StartFailed,
            ExitCause::Lost => exec_types::ExitCause::Lost,
        },
        code: exit.code,
        message: exit.message.clone(),
        duration_ms: exit.duration_ms,
    }
}

pub(crate) fn receipt(receipt: &Receipt) -> notifier::Receipt {
    notifier::Receipt { external_id: receipt.external_id.clone(), url: receipt.url.clone(), state: receipt.state.clone() }
}
