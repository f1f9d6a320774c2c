-- Takes everything with it: the register of tenants, the ledger, the audit log. No CASCADE, so it
-- fails rather than reach for what somebody else has built on these tables. The ledger is gone
-- afterwards: there is no row left to delete from it.

DROP TABLE audit_log;
DROP FUNCTION audit_log_refuse_change();

DROP TABLE platform_metadata;
DROP TABLE timezones;
DROP TABLE countries;

DROP TABLE migrations;

DROP TABLE tenants;
DROP FUNCTION tenants_touch_updated_at();
