#!/bin/sh
# Run once, by the image of PostgreSQL, on an empty server: a database for each that needs one, and their roles. The
# ledger has two: who owns its tables, and who may add entries and read them (docs/installation.md). On a managed server
# by hand (docs/deployment.md), with a role that may make roles and databases: there it has to be in a role that is to
# own a database, and afterwards is no more.
set -eu
psql --no-psqlrc --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres \
    --set owner="$LEDGER_OWNER_PASSWORD" --set ledger="$LEDGER_PASSWORD" \
    --set dagster="$DAGSTER_PASSWORD" --set mlflow="$MLFLOW_PASSWORD" <<'SQL'
CREATE ROLE taxifare_application NOLOGIN;
CREATE ROLE taxifare_owner LOGIN PASSWORD :'owner';
CREATE ROLE taxifare LOGIN PASSWORD :'ledger' IN ROLE taxifare_application;
CREATE ROLE dagster LOGIN PASSWORD :'dagster';
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow';
GRANT taxifare_owner, dagster, mlflow TO CURRENT_USER;
CREATE DATABASE taxifare OWNER taxifare_owner;
CREATE DATABASE dagster OWNER dagster;
CREATE DATABASE mlflow OWNER mlflow;
REVOKE taxifare_owner, dagster, mlflow FROM CURRENT_USER;
SQL
