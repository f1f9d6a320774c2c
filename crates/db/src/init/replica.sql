-- What a replica knows of its connection to the primary. The view behind it is for roles that may read
-- everybody's statements, which nobody who only looks at health needs.
SET LOCAL ROLE {rolemaker};
GRANT USAGE ON SCHEMA {control} TO {reader};

CREATE OR REPLACE FUNCTION {control}.wal_receiver(
    OUT status text, OUT timeline integer, OUT primary_end pg_lsn, OUT silence_ms bigint
)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT w.status, w.received_tli, w.latest_end_lsn,
           (extract(epoch FROM clock_timestamp() - w.last_msg_receipt_time) * 1000)::bigint
      FROM pg_stat_wal_receiver w
$$;

REVOKE ALL ON FUNCTION {control}.wal_receiver() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION {control}.wal_receiver() TO {reader};
SET LOCAL ROLE NONE;
