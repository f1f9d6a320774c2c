DROP TRIGGER tenants_announce_change ON tenants;
DROP FUNCTION tenants_announce_change();
