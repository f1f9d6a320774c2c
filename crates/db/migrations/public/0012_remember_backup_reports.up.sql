-- How the backups are, as whoever runs on the database's host last found them. The services read it: they
-- may run on other machines, which reach neither the repository nor the server's disks.
CREATE TABLE backup_report (
    singleton   boolean     PRIMARY KEY DEFAULT true,
    reported_at timestamptz NOT NULL DEFAULT now(),
    report      jsonb       NOT NULL,

    CONSTRAINT backup_report_singleton_check CHECK (singleton),
    CONSTRAINT backup_report_report_check    CHECK (jsonb_typeof(report) = 'object')
);

GRANT SELECT ON backup_report TO :"reader";
