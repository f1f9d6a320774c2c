-- The entries stay; that they were not changed can then no longer be shown.
DROP INDEX audit_log_recorded_at_idx;
DROP TRIGGER audit_log_queue ON audit_log;
DROP TABLE audit_anchors;
DROP TABLE audit_unsealed;
DROP TABLE audit_seals;
DROP FUNCTION audit_log_queue();
DROP FUNCTION audit_refuse_change();
