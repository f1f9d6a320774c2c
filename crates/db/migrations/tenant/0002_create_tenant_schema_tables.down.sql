-- The tenant's rows go with the tables. In reverse order and without CASCADE, so that it fails
-- rather than take along what a later migration or somebody's view has built on them.

DROP TABLE notifications;
DROP TABLE comments;
DROP TABLE analytics;
DROP TABLE publish_jobs;
DROP TABLE content;
DROP TABLE teams;
DROP TABLE workflows;
DROP TABLE social_accounts;
DROP TABLE users;
