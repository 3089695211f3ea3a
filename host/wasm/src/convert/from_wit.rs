//! Conversions from WIT to core types: findings, verdicts, texts.

use beespace_core::policy::{
    ApprovalRequirement, ErrorClass, Finding, Obligation, PatchKind, PatchOp, Severity, Verdict, VerdictOutcome,
};

use crate::bindings::policy::exports::beespace::plugin::policy;
use crate::bindings::shared::types;
use crate::error::PluginError;
use crate::sanitize::sanitize;

pub(crate) const MAX_FINDINGS: usize = 100;
pub(crate) const MAX_PATCHES: usize = 256;
const MAX_APPROVALS: usize = 32;
const MAX_OBLIGATIONS: usize = 32;
/// Maximum length of a text for people, in bytes.
pub(crate) const MAX_SENTENCE_BYTES: usize = 2 << 10;

/// Converts one result of a plugin: holds the plugin's label for errors and the number of bytes that it may still return.
pub(crate) struct OutputReader<'a> {
    pub(crate) label: &'a str,
    pub(crate) bytes_left: usize,
    pub(crate) cap: usize,
}

impl<'a> OutputReader<'a> {
    pub(crate) fn new(label: &'a str, output_bytes: usize) -> Self {
        Self { label, bytes_left: output_bytes, cap: output_bytes }
    }

    /// Charges `bytes` against the output limit.
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<(), PluginError> {
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or_else(|| {
            let message = format!("{} returned more than {} bytes", self.label, self.cap);
            PluginError::new(ErrorClass::OutputTooLarge, message)
        })?;
        Ok(())
    }

    /// Rejects a list that is too long.
    pub(crate) fn check_count(&self, what: &str, count: usize, cap: usize) -> Result<(), PluginError> {
        if count <= cap {
            return Ok(());
        }
        let message = format!("{} returned {count} {what}; the limit is {cap}", self.label);
        Err(PluginError::new(ErrorClass::OutputTooLarge, message))
    }

    pub(crate) fn malformed(&self, what: impl std::fmt::Display) -> PluginError {
        PluginError::new(ErrorClass::Malformed, format!("{} returned {what}", self.label))
    }

    /// Text for people, truncated and sanitized.
    pub(crate) fn sentence(&mut self, text: &str) -> Result<String, PluginError> {
        self.charge(text.len())?;
        Ok(sanitize(text, MAX_SENTENCE_BYTES))
    }

    pub(crate) fn findings(&mut self, findings: Vec<types::Finding>) -> Result<Vec<Finding>, PluginError> {
        self.check_count("findings", findings.len(), MAX_FINDINGS)?;
        findings.into_iter().map(|finding| self.finding(finding)).collect()
    }

    fn finding(&mut self, finding: types::Finding) -> Result<Finding, PluginError> {
        Ok(Finding {
            rule_id: sanitize(&self.sentence(&finding.rule_id)?, 200),
            severity: severity(finding.severity),
            message: self.sentence(&finding.message)?,
            pointer: match finding.pointer {
                Some(pointer) => Some(self.pointer(&pointer)?),
                None => None,
            },
            // A link is shown only if people can safely follow it.
            help_url: finding.help_url.filter(|url| is_web_url(url)),
            remedy: match finding.remedy {
                Some(remedy) => Some(self.sentence(&remedy)?),
                None => None,
            },
        })
    }

    /// Validates an RFC 6901 pointer.
    fn pointer(&mut self, pointer: &str) -> Result<String, PluginError> {
        self.charge(pointer.len())?;
        if pointer.len() > 1 << 10 || !(pointer.is_empty() || pointer.starts_with('/')) || pointer.contains('\0') {
            return Err(self.malformed(format_args!("{:?}, which is not a JSON pointer", sanitize(pointer, 100))));
        }
        Ok(pointer.to_owned())
    }

    pub(crate) fn verdict(&mut self, binding: &str, verdict: policy::Verdict) -> Result<Verdict, PluginError> {
        self.check_count("patches", verdict.patches.len(), MAX_PATCHES)?;
        self.check_count("approvals", verdict.approvals.len(), MAX_APPROVALS)?;
        self.check_count("obligations", verdict.obligations.len(), MAX_OBLIGATIONS)?;
        Ok(Verdict {
            outcome: match verdict.outcome {
                policy::Outcome::Abstain => VerdictOutcome::Abstain,
                policy::Outcome::Allow => VerdictOutcome::Allow,
                policy::Outcome::RequireApproval => VerdictOutcome::RequireApproval,
                policy::Outcome::Deny => VerdictOutcome::Deny,
            },
            findings: self.findings(verdict.findings)?,
            patches: verdict.patches.into_iter().map(|patch| self.patch(patch)).collect::<Result<_, _>>()?,
            approvals: verdict
                .approvals
                .into_iter()
                .map(|approval| self.approval(binding, approval))
                .collect::<Result<_, _>>()?,
            obligations: verdict
                .obligations
                .into_iter()
                .map(|obligation| self.obligation(obligation))
                .collect::<Result<_, _>>()?,
        })
    }

    fn patch(&mut self, patch: policy::PatchOp) -> Result<PatchOp, PluginError> {
        let op = match patch.op {
            policy::PatchKind::Add => PatchKind::Add,
            policy::PatchKind::Remove => PatchKind::Remove,
            policy::PatchKind::Replace => PatchKind::Replace,
            policy::PatchKind::Test => PatchKind::Test,
        };
        let value = match patch.value {
            Some(json) => {
                self.charge(json.len())?;
                Some(serde_json::from_str(&json).map_err(|_| self.malformed("a patch whose value is not JSON"))?)
            }
            None => None,
        };
        if value.is_none() != (op == PatchKind::Remove) {
            return Err(self.malformed("a patch without a value, or a `remove` patch with one"));
        }
        Ok(PatchOp { op, path: self.pointer(&patch.path)?, value })
    }

    fn approval(&mut self, binding: &str, approval: policy::Approval) -> Result<ApprovalRequirement, PluginError> {
        self.check_count("groups", approval.groups.len(), 64)?;
        let groups = approval.groups.iter().map(|group| Ok(sanitize(&self.sentence(group)?, 200)));
        Ok(ApprovalRequirement {
            policy: binding.to_owned(),
            groups: groups.collect::<Result<_, PluginError>>()?,
            // Zero approvers would not be an approval.
            min_approvers: approval.min_approvers.max(1),
            forbid_author: approval.forbid_author,
            ttl_seconds: approval.ttl_seconds,
            reason: self.sentence(&approval.reason)?,
        })
    }

    fn obligation(&mut self, obligation: policy::Obligation) -> Result<Obligation, PluginError> {
        self.charge(obligation.params.len())?;
        Ok(Obligation {
            id: sanitize(&self.sentence(&obligation.id)?, 200),
            params: obligation.params,
            mandatory: obligation.mandatory,
        })
    }
}

pub(crate) fn severity(severity: types::Severity) -> Severity {
    match severity {
        types::Severity::Info => Severity::Info,
        types::Severity::Low => Severity::Low,
        types::Severity::Medium => Severity::Medium,
        types::Severity::High => Severity::High,
        types::Severity::Critical => Severity::Critical,
    }
}

/// Whether `url` is an http(s) link without invisible characters.
pub(crate) fn is_web_url(url: &str) -> bool {
    (url.starts_with("https://") || url.starts_with("http://"))
        && url.len() <= 2 << 10
        && url.bytes().all(|byte| byte.is_ascii_graphic())
        && url.parse::<http::Uri>().is_ok()
}
