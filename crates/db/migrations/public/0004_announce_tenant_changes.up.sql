-- Whoever caches tenants (the directory of each running service) learns of a change at once, also of
-- one made by hand. The payload says where to look again: the id, and the names that were or are the
-- tenant's. Any login can send such a message, so it is a hint and carries no fact.
CREATE FUNCTION tenants_announce_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pg_notify('tenantry_directory',
                      concat_ws(' ', coalesce(NEW.id, OLD.id), OLD.subdomain, NEW.subdomain));
    RETURN NULL;
END
$$;

REVOKE ALL ON FUNCTION tenants_announce_change() FROM PUBLIC;

-- Not for `schema_version`: a rollout would send one message for each tenant, and nobody is served
-- differently for it.
CREATE TRIGGER tenants_announce_change
    AFTER INSERT OR DELETE OR UPDATE OF subdomain, tier, status, lane ON tenants
    FOR EACH ROW
    EXECUTE FUNCTION tenants_announce_change();
