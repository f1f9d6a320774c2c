DROP TABLE purge_watch;
DROP TABLE purges;
