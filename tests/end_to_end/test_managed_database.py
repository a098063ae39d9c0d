"""deploy/postgres/databases.sh on a server of a cloud's, whose administrator is no superuser."""

import os
import subprocess
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from tests.support.composed import DEPLOY
from tests.support.servers import postgres_programs, postgres_server

pytestmark = pytest.mark.end_to_end

PASSWORDS = {
    "LEDGER_OWNER_PASSWORD": "owns-tables",
    "LEDGER_PASSWORD": "adds-entries",
    "DAGSTER_PASSWORD": "keeps-runs",
    "MLFLOW_PASSWORD": "keeps-models",
}


def test_an_administrator_who_may_make_roles_and_databases_makes_them_and_owns_none() -> None:
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    with postgres_server(programs) as url:
        with psycopg.connect(url, autocommit=True) as superuser:
            superuser.execute("CREATE ROLE administrator LOGIN CREATEROLE CREATEDB")
        (folder,) = parse_qs(urlsplit(url).query)["host"]
        server = {"PATH": os.environ["PATH"], "PGHOST": folder, "POSTGRES_USER": "administrator"}
        subprocess.run([DEPLOY / "postgres" / "databases.sh"], env=server | PASSWORDS, check=True, capture_output=True)
        with psycopg.connect(url) as superuser:
            owners = superuser.execute(
                "SELECT datname, rolname FROM pg_database JOIN pg_roles ON pg_roles.oid = datdba WHERE rolname <> %s",
                ["postgres"],
            ).fetchall()
            acts_as = superuser.execute(
                "SELECT count(*) FROM pg_auth_members WHERE member = 'administrator'::regrole AND NOT admin_option"
            ).fetchone()
        assert dict(owners) == {"taxifare": "taxifare_owner", "dagster": "dagster", "mlflow": "mlflow"}
        assert acts_as == (0,)
