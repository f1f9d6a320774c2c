DROP TABLE backup_report;
