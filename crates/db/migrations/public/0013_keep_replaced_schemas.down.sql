DROP TABLE kept_schemas;
