#!/bin/sh
# Run once, by the image of PostgreSQL, on an empty server: a database for each that needs one, and their roles. The
# ledger has two: who owns its tables, and who may add entries and read them (docs/installation.md).
set -eu
psql --no-psqlrc --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres \
    --set owner="$LEDGER_OWNER_PASSWORD" --set ledger="$LEDGER_PASSWORD" \
    --set dagster="$DAGSTER_PASSWORD" --set mlflow="$MLFLOW_PASSWORD" <<'SQL'
CREATE ROLE taxifare_application NOLOGIN;
CREATE ROLE taxifare_owner LOGIN PASSWORD :'owner';
CREATE ROLE taxifare LOGIN PASSWORD :'ledger' IN ROLE taxifare_application;
CREATE DATABASE taxifare OWNER taxifare_owner;
CREATE ROLE dagster LOGIN PASSWORD :'dagster';
CREATE DATABASE dagster OWNER dagster;
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow';
CREATE DATABASE mlflow OWNER mlflow;
SQL
