//! squawk's rules: which of them speak here, as which of ours, and why the others do not.

use squawk_linter::{Linter, Rule as Squawk};
use squawk_syntax::{Parse, SourceFile};

use super::super::catalogue::{self as ours, Rule};

/// Something that squawk found, under our rule's name.
pub(in super::super) struct Remark {
    pub(in super::super) rule: &'static Rule,
    pub(in super::super) at: usize,
    pub(in super::super) message: String,
}

/// What squawk finds in a file, in terms of our rules.
pub(super) fn remarks(parse: &Parse<SourceFile>, text: &str, transactional: bool) -> Vec<Remark> {
    let rules = enabled();
    let mut linter = Linter::from(rules.iter().map(|(squawk, _)| *squawk));
    linter.settings.assume_in_transaction = transactional;
    let violations = linter.lint(parse, text);
    let within = |inner: &squawk_linter::Violation, outer: &squawk_linter::Violation| {
        inner.text_range != outer.text_range && outer.text_range.contains_range(inner.text_range)
    };
    let rule =
        |code: Squawk| rules.iter().find(|(squawk, _)| *squawk == code).map(|(_, rule)| *rule);
    violations
        .iter()
        // Several of its rules speak of one constraint; the innermost says it best.
        .filter(|v| {
            v.code != Squawk::ConstraintMissingNotValid
                || !violations.iter().any(|inner| within(inner, v))
        })
        .filter_map(|v| {
            let message = v.message.trim_end_matches('.').to_owned();
            Some(Remark { rule: rule(v.code)?, at: usize::from(v.text_range.start()), message })
        })
        .collect()
}

fn enabled() -> Vec<(Squawk, &'static Rule)> {
    EVERY.iter().filter_map(|squawk| Some((*squawk, decide(*squawk).ok()?))).collect()
}

/// As which of our rules one of squawk's speaks, or why it is silent.
type Decision = Result<&'static Rule, &'static str>;

/// The decisions as a match without a wildcard, so that a new rule of squawk's does not compile until
/// somebody has decided.
macro_rules! decisions {
    ($($squawk:ident => $decision:expr;)+) => {
        const EVERY: &[Squawk] = &[$(Squawk::$squawk),+];
        fn decide(squawk: Squawk) -> Decision {
            match squawk { $(Squawk::$squawk => $decision,)+ }
        }
    };
}

const RUNNER: &str = "the runner's transaction and limits see to it";
const OURS: &str =
    "a rule of ours says it with more knowledge: of the set, of the up file, of all files before";
const COMPATIBLE: &str = "services name columns and keep their own rules, so it breaks none of them; what does is told by the drop and rename rules";
const TASTE: &str = "a choice of the product's, not a danger";

decisions! {
    // Locks and scans of tables that exist.
    RequireConcurrentIndexCreation => Ok(ours::INDEX_NOT_CONCURRENT);
    ConstraintMissingNotValid => Ok(ours::CONSTRAINT_NOT_VALID);
    AddingForeignKeyConstraint => Ok(ours::CONSTRAINT_NOT_VALID);
    DisallowedUniqueConstraint => Ok(ours::UNIQUE_WITHOUT_INDEX);
    AddingSerialPrimaryKeyField => Ok(ours::UNIQUE_WITHOUT_INDEX);
    AddingFieldWithDefault => Ok(ours::REWRITING_COLUMN);
    AddingRequiredField => Ok(ours::REQUIRED_COLUMN);
    AddingNotNullableField => Ok(ours::SET_NOT_NULL);
    ChangingColumnType => Ok(ours::CHANGING_COLUMN_TYPE);
    RequireConcurrentPartitionDetach => Ok(ours::TABLE_LOCK);
    RequireConcurrentReindex => Ok(ours::TABLE_LOCK);
    RequireConcurrentIndexDeletion => Err("a drop holds its lock for a moment, and the lock timeout bounds the wait for it");
    PreferRepack => Err("it speaks from PostgreSQL 19 on; `table-lock` says it for all");

    // What services of the version before would notice.
    RenamingColumn => Ok(ours::RENAME_COLUMN);
    RenamingTable => Ok(ours::RENAME_TABLE);
    RenamingObject => Err("of the things that can be renamed, services name tables and columns; views are made anew in repeatable files");
    BanDropColumn => Err(OURS);
    BanDropTable => Err(OURS);
    BanTruncateCascade => Err(OURS);
    BanSetSchema => Err(OURS);
    BanDropNotNull => Err(COMPATIBLE);
    BanDropDefault => Err(COMPATIBLE);
    BanSetDefault => Err(COMPATIBLE);
    BanDropConstraint => Err(COMPATIBLE);
    BanDropIndex => Err(COMPATIBLE);
    BanDropSequence => Err(COMPATIBLE);
    BanDropTrigger => Err(COMPATIBLE);
    BanDisableTrigger => Err(COMPATIBLE);
    BanDropView => Err("views are made anew in repeatable files, which drop them where their columns change");
    BanDropFunction => Err("functions are made anew in repeatable files");
    BanReplaceViewFunction => Err("that is what repeatable files are for");
    BanDropType => Err(OURS);
    BanDropDomain => Err(COMPATIBLE);
    BanDropGeneratedExpression => Err(COMPATIBLE);
    BanAlterGeneratedExpression => Err(COMPATIBLE);
    BanAlterIdentity => Err(COMPATIBLE);
    BanReplicaIdentity => Err(COMPATIBLE);
    BanNewWriteRestriction => Err(COMPATIBLE);
    BanAddColumn => Err("services name columns, never `*`");
    BanAddCompositeAttribute => Err(OURS);
    BanAddEnumValue => Err(OURS);
    BanDetachInheritance => Err(COMPATIBLE);
    BanAlterSequenceValues => Err(COMPATIBLE);
    BanAlterFunctionOptions => Err(COMPATIBLE);
    BanAlterViewOptions => Err(COMPATIBLE);

    // Rights and the server.
    BanRevoke => Err(OURS);
    BanDropDatabase => Err(OURS);
    BanDropSchema => Err(OURS);
    BanDropExtension => Err(OURS);
    BanAlterExtension => Err(OURS);
    BanAlterRoleOptions => Err(OURS);
    BanAlterDatabaseOptions => Err(OURS);
    BanAlterSystemOptions => Err(OURS);
    BanDropPolicy => Err("the schema is the wall here; a product's own policies are its own");
    BanAlterPolicyCondition => Err("the schema is the wall here; a product's own policies are its own");
    BanAlterPolicyRoles => Err("the schema is the wall here; a product's own policies are its own");
    BanCreatePolicy => Err("the schema is the wall here; a product's own policies are its own");
    BanAlterRowLevelSecurity => Err("the schema is the wall here; a product's own policies are its own");

    // The transaction and its limits.
    RequireTimeoutSettings => Err(RUNNER);
    RequireLockTimeout => Err(RUNNER);
    RequireStatementTimeout => Err(RUNNER);
    TransactionNesting => Err("refused when the file is read");
    BanUncommittedTransaction => Err("refused when the file is read");
    BanConcurrentIndexCreationInTransaction => Err(OURS);
    PreferRobustStmts => Err("a file is applied whole or not at all, and `IF NOT EXISTS` would hide that a tenant differs");

    // The shape of tables.
    IdentifierTooLong => Ok(ours::NAME_TOO_LONG);
    BanCharField => Ok(ours::CHAR_TYPE);
    PreferTimestampTz => Ok(ours::TIMESTAMP_WITHOUT_ZONE);
    BanDuplicateColumnAssignments => Ok(ours::DUPLICATE_ASSIGNMENT);
    RequireTableSchema => Err("the opposite holds: the runner sets the path, and a tenant's file names no schema");
    RequireEnumValueOrdering => Err("enum types are told of whole");
    PreferBigintOverInt => Err(TASTE);
    PreferBigintOverSmallint => Err(TASTE);
    PreferIdentity => Err(TASTE);
    PreferTextField => Err("the specification's tables have varchar(n), and widening one rewrites nothing");
    BanCreateDomainWithConstraint => Err(TASTE);
    BanAlterDomainWithAddConstraint => Err(TASTE);
    UnusedIgnore => Err("comments do not reach squawk: an exception has a reason, and is written `allow=`");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_decision_has_a_reason() {
        for squawk in EVERY {
            assert!(
                decide(*squawk).is_ok_and(|rule| !rule.why.is_empty())
                    || decide(*squawk).is_err_and(|why| why.len() > 20),
                "{squawk}"
            );
        }
    }
}
