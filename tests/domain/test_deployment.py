"""What is deployed says what it should, and nothing that it should not: read as files, nothing is started."""

import ast
import importlib.util
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from taxifare.approval import migrations
from taxifare.environment import StreamSettingsInForce
from taxifare.settings import Settings
from tests.support.composed import COMPOSE, DEPLOY, services
from tests.support.places import REPOSITORY

DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
VARIABLES = re.compile(r"\$\{(\w+)")


def sample() -> dict[str, str]:
    """The variables of env.sample, each with a value."""
    lines = (DEPLOY / "env.sample").read_text().splitlines()
    return {line.partition("=")[0]: line.partition("=")[2] or "filled-in" for line in lines if re.match(r"\w+=", line)}


def workflows() -> dict[str, Any]:
    return {
        path.name: yaml.safe_load(path.read_text()) for path in (REPOSITORY / ".github" / "workflows").glob("*.yml")
    }


# compose.yaml


def test_the_sample_names_every_variable_and_no_other() -> None:
    named = set(VARIABLES.findall(COMPOSE.read_text())) | {"COMPOSE_PROFILES", "SERVICE_TOKEN"}
    assert named == set(sample())


def test_a_variable_that_has_to_be_set_stops_compose_where_it_is_not() -> None:
    secrets = {name for name in sample() if name.endswith(("_PASSWORD", "_TOKEN", "_SECRET", "_IMAGE"))}
    # That of PostgreSQL's superuser is needed where PostgreSQL is started here, Chicago's where trips are.
    for name in secrets - {"POSTGRES_PASSWORD", "CHICAGO_APP_TOKEN"}:
        with pytest.raises(KeyError, match=name):
            services(sample() | {name: ""})


def test_no_part_says_a_secret_or_may_more_than_it_needs() -> None:
    text, found = COMPOSE.read_text(), services(sample())
    assert "latest" not in text
    for name, service in found.items():
        assert service["restart"] in {"unless-stopped", "no"}, name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        if service["image"] == sample()["TAXIFARE_IMAGE"]:
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
        else:
            assert DIGEST.search(service["image"]), name
    raw = yaml.safe_load(text)["services"]
    for name, service in raw.items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|TOKEN|SECRET|_URL|_URI", variable):
                assert "${" in value or value.startswith("http://mlflow"), f"{name}: {variable}"
    # And what prices rides knows neither ledger nor registry
    for name in ("service", "consumer", "guard"):
        assert not {"DATABASE_URL", "MLFLOW_TRACKING_URI", "APPROVAL_SECRET"} & set(found[name]["environment"]), name
    owns = [name for name, service in found.items() if "taxifare_owner" in str(service.get("environment"))]
    assert owns == ["migrate", "backup"]
    # Who sends messages knows where to, and nobody else
    assert [name for name, service in found.items() if "NOTIFY_URLS" in service.get("environment", {})] == ["code"]


def test_parts_meet_whom_they_ask_and_prices_and_people_are_kept_from_what_has_no_login() -> None:
    found = services(sample())

    def meets(name: str) -> set[str]:
        return {other for other in found if set(found[name]["networks"]) & set(found[other]["networks"])} - {name}

    workspace = {"webserver": {"code"}, "daemon": {"code"}, "prometheus": {"service", "metrics", "consumer"}}
    for name, service in found.items():
        told = json.dumps([service.get("environment", {}), service.get("command", ())])
        asked = {other for other in found if re.search(rf"(@|//|\"){other}:\d", told)} - {name}
        assert asked | workspace.get(name, set()) <= meets(name), name
    for name in ("service", "consumer", "broker"):
        assert not {"postgres", "mlflow", "webserver"} & meets(name), name
    assert meets("guard") == {"webserver"}
    # A run in a container of its own is where compose puts what it works with
    launcher = yaml.safe_load((DEPLOY / "dagster-docker.yaml").read_text())["run_launcher"]["config"]
    project = yaml.safe_load(COMPOSE.read_text())["name"]
    assert launcher["network"] in {f"{project}_{network}" for network in found["code"]["networks"]}


def test_every_part_that_stays_is_asked_whether_it_is_well() -> None:
    found = services(sample())
    assert [name for name, service in found.items() if "healthcheck" not in service] == ["migrate", "backup"]


def test_variables_of_the_parts_are_settings_or_their_programs_own() -> None:
    settings = {name.upper() for kind in (Settings, StreamSettingsInForce) for name in kind.model_fields}
    others = {
        "MLFLOW_BACKEND_STORE_URI",
        "CODE_SERVER_HOST",
        "DAGSTER_CURRENT_IMAGE",
        "DAGSTER_DATABASE_URL",
        "DAGSTER_HOME",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
    }
    for name, service in services(sample()).items():
        if service["image"] == sample()["TAXIFARE_IMAGE"] and name != "mlflow":
            assert set(service.get("environment", {})) <= settings | others, name


def test_the_instance_is_the_shipped_one_with_a_server_for_its_records() -> None:
    shipped = yaml.safe_load((REPOSITORY / "taxifare_dagster" / "dagster.yaml").read_text())
    shared = yaml.safe_load((DEPLOY / "dagster.yaml").read_text())
    server = {"postgres_url": {"env": "DAGSTER_DATABASE_URL"}, "should_autocreate_tables": False}
    assert shared.pop("storage") == {"postgres": server}
    assert shared == shipped


def test_prometheus_is_told_of_the_parts_by_their_names() -> None:
    jobs = yaml.safe_load((DEPLOY / "prometheus" / "compose.yml").read_text())["scrape_configs"]
    targets = [target for job in jobs for config in job["static_configs"] for target in config["targets"]]
    assert {target.partition(":")[0] for target in targets} <= set(services(sample()))


# The image


def test_the_image_is_pinned_is_nobody_and_takes_in_nothing_but_what_it_needs() -> None:
    recipe = (DEPLOY / "Dockerfile").read_text()
    (base,) = re.findall(r"^ARG BASE_IMAGE=(.+)$", recipe, re.MULTILINE)
    assert DIGEST.search(base)
    assert base.startswith("python:3.11.")
    assert set(re.findall(r"^FROM (\S+)", recipe, re.MULTILINE)) == {"${BASE_IMAGE}"}
    assert re.findall(r"^USER (.+)$", recipe, re.MULTILINE) == ["10001", "10001"]
    assert len(re.findall("--require-hashes", recipe)) == 2
    # Whatever lies in the folder, a `.env` with secrets among it, stays outside unless it is named.
    first, *rest = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line[0] != "#"]
    assert first == "*"
    copied = set(re.findall(r"^COPY (?!--from)(.+) \S+$", recipe, re.MULTILINE))
    assert {line[1:] for line in rest if line[0] == "!"} == {name for line in copied for name in line.split()}


def test_what_is_mounted_lies_in_folders_that_the_image_gives_to_its_user() -> None:
    """A folder that the image does not have is made by the engine, and is root's: nobody else could write there."""
    recipe = (DEPLOY / "Dockerfile").read_text().replace("\\\n", "")
    (made,) = re.findall("install -d -o taxifare -g taxifare (.+)", recipe)
    for name, service in services(sample()).items():
        if service["image"] == sample()["TAXIFARE_IMAGE"]:
            for volume in service.get("volumes", ()):
                source, target = volume.split(":")[:2]
                folder = target.rpartition("/")[0] if source.endswith(".yaml") else target
                assert folder in made.split(), f"{name}: {volume}"


@pytest.mark.parametrize("name", ["requirements-image.lock", "requirements-lambda.lock"])
def test_a_lock_of_an_image_has_the_versions_of_the_whole(name: str) -> None:
    def pins(path: Path) -> dict[str, str]:
        return dict(re.findall(r"^([\w.-]+(?:\[\w+\])?)==([^ ;\\]+)", path.read_text(), re.MULTILINE))

    whole, image = pins(REPOSITORY / "requirements.lock"), pins(REPOSITORY / name)
    other = {package for package in image if package in whole and image[package] != whole[package]}
    assert not other
    assert not {"pytest", "playwright", "moto", "mypy"} & set(image)


# Kubernetes and Terraform


def test_a_run_on_kubernetes_has_all_that_the_code_server_has() -> None:
    pytest.importorskip("dagster_k8s")
    specification = importlib.util.spec_from_file_location("deploy_lint", DEPLOY / "lint.py")
    assert specification is not None
    assert specification.loader is not None
    lint = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(lint)
    job = lint.job_of_a_run()
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert DIGEST.search(container["image"])
    values = yaml.safe_load((DEPLOY / "helm-values.yaml").read_text())
    (code,) = values["dagster-user-deployments"]["deployments"]
    given = {found["name"] for source in container["envFrom"] for found in source.values()}
    assert {each["name"] for each in (*code["envSecrets"], *code["envConfigMaps"])} <= given
    assert container["securityContext"]["runAsNonRoot"]
    assert container["resources"]["limits"]["memory"] == "8Gi"
    assert job["spec"]["template"]["spec"]["serviceAccountName"] == "taxifare"
    assert "latest" not in json.dumps(values)


def test_what_holds_state_is_a_root_of_its_own_that_nothing_deletes() -> None:
    roots = {root.name: (root / "main.tf").read_text() for root in (DEPLOY / "terraform").iterdir()}
    assert set(roots) == {"google-state", "google", "aws"}
    for name, text in roots.items():
        assert re.search(r'backend "(gcs|s3)"', text), name
        assert not re.search(r'version\s+= "[~>]', text.partition("backend")[2]), name
    state = r'resource "(google_storage_bucket|google_sql_database_instance|aws_s3_bucket)"'
    assert [name for name, text in roots.items() if re.search(state, text)] == ["google-state"]
    assert roots["google-state"].count("prevent_destroy = true") == 2


# Workflows


def test_actions_are_pinned_by_commit_and_no_workflow_may_more_than_it_needs() -> None:
    for name, workflow in workflows().items():
        assert workflow["permissions"] == {"contents": "read"}, name
        steps = [step for job in workflow["jobs"].values() for step in job.get("steps", ())]
        for step in steps:
            assert "uses" not in step or re.search(r"@[0-9a-f]{40}$", step["uses"]), f"{name}: {step.get('uses')}"
        assert "latest" not in json.dumps(workflow), name
        assert "terraform apply" not in json.dumps(workflow), name


def test_production_gets_what_staging_got_and_a_person_starts_it() -> None:
    release, switch = workflows()["release.yml"], workflows()["switch.yml"]
    # YAML 1.1 reads `on` as true.
    assert list(release[True]) == ["workflow_dispatch"]
    staging, production = release["jobs"]["staging"], release["jobs"]["production"]
    assert staging["with"]["image"] == production["with"]["image"] == "${{ needs.image.outputs.image }}"
    assert "staging" in production["needs"]
    assert {"image", "audit"} <= set(staging["needs"])
    assert switch["jobs"]["switch"]["environment"] == "${{ inputs.environment }}"


def test_the_workflow_of_tests_runs_what_readme_says() -> None:
    steps = [step.get("run", "") for step in workflows()["tests.yml"]["jobs"]["tests"]["steps"]]
    for command in ("make lint", "make lint-deploy", "make test"):
        assert any(step.split(" PYTHON=")[0] == command for step in steps), command


# Releases


_CUTS = {"drop_table", "drop_column", "rename_table", "drop_constraint", "alter_column"}


def test_migrations_only_extend_so_that_the_release_before_works_on() -> None:
    """Of the ledger's schema from v0007 on; those before were made when nobody had two releases at once."""
    folder = Path(migrations.__file__).parent / "versions"
    for path in sorted(folder.glob("v*.py")):
        if path.stem >= "v0007":
            called = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
            assert not called & _CUTS, f"{path.name}: {called & _CUTS}"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder `deploy` as a machine has it, and a `docker` that writes down what it is asked for."""
    folder = tmp_path / "deploy"
    folder.mkdir()
    for name in ("switch", "compose.yaml"):
        (folder / name).write_bytes((DEPLOY / name).read_bytes())
    (folder / "switch").chmod(0o755)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "docker").write_text(
        "#!/bin/sh\n"
        f'echo "${{TAXIFARE_IMAGE##*/}} $*" | sed "s/@sha256:\\(.\\)[0-9a-f]*/-\\1/g" >>{tmp_path}/asked\n'
        f'[ -e {tmp_path}/fails ] && case "$*" in *"$(cat {tmp_path}/fails)"*) exit 1;; esac\n'
        'case "$*" in *"ps --quiet code") echo old;; *"ps --all --quiet code") printf "old\\nnew\\n";;'
        f' "inspect "*) echo sha256:{"0" * 64};; "image inspect registry"*) exit 1;; esac\n'
    )
    (programs / "docker").chmod(0o755)
    return folder


def image(digit: str) -> str:
    """An image by digest."""
    return f"registry.example/taxifare@sha256:{digit * 64}"


def shown(digit: str) -> str:
    """An image as `docker` writes it down."""
    return f"registry.example/taxifare-{digit}"


def switch(machine: Path, *arguments: str) -> tuple[int, list[str]]:
    """The exit code of deploy/switch, and what it asked docker for."""
    asked = machine.parent / "asked"
    asked.write_text("")
    path = f"{machine.parent}/bin:/usr/bin:/bin"
    told = subprocess.run([machine / "switch", *arguments], env={"PATH": path}, capture_output=True, check=False)
    return told.returncode, [
        line.replace(" compose --file compose.yaml", "") for line in asked.read_text().splitlines()
    ]


def test_a_switch_pauses_and_takes_over_once_the_new_code_has_loaded_and_tables_are_migrated(machine: Path) -> None:
    """The order of its commands: docker itself does not run everywhere (test_compose does what it can of the rest)."""
    (machine / ".env").write_text(f"TAXIFARE_IMAGE={image('1')}\nGUARD_USER=ops\n")
    step = "run --rm --no-deps --no-TTY code python -m taxifare_dagster.release"
    assert switch(machine, image("2")) == (
        0,
        [
            f" image inspect {shown('2')}",
            f" pull --quiet {shown('2')}",
            "taxifare-1 ps --quiet code",
            "taxifare-1 stop daemon",
            f"taxifare-1 {step} --patience 3600 idle",
            "taxifare-2 up --detach --no-deps --no-recreate --scale code=2 --wait code",
            "taxifare-2 run --rm --no-TTY migrate",
            " rm --force old",
            "taxifare-2 up --detach",
            f"taxifare-2 {step} load webserver:3000",
        ],
    )
    kept = f"GUARD_USER=ops\nTAXIFARE_IMAGE={image('2')}\nPREVIOUS_IMAGE={image('1')}\n"
    assert (machine / ".env").read_text() == kept
    # And back to the one before by one command
    code, asked = switch(machine, "--back")
    assert code == 0
    assert asked[1] == f" pull --quiet {shown('1')}"
    assert f"TAXIFARE_IMAGE={image('1')}" in (machine / ".env").read_text()


def test_the_first_image_is_put_to_work_by_the_same_command(machine: Path) -> None:
    (machine / ".env").write_text("TAXIFARE_IMAGE=\nGUARD_USER=ops\n")
    code, asked = switch(machine, image("1"))
    assert code == 0
    assert asked[2:4] == ["taxifare-1 run --rm --no-TTY migrate", "taxifare-1 up --detach"]
    assert f"TAXIFARE_IMAGE={image('1')}\n" in (machine / ".env").read_text()


def test_an_image_that_was_built_here_and_named_by_a_tag_can_be_gone_back_to(machine: Path) -> None:
    (machine / ".env").write_text("TAXIFARE_IMAGE=taxifare\n")
    assert switch(machine, image("2"))[0] == 0
    built = f"sha256:{'0' * 64}"
    assert f"PREVIOUS_IMAGE={built}\n" in (machine / ".env").read_text()
    # It is in no registry, so nothing is fetched
    code, asked = switch(machine, "--back")
    assert code == 0
    assert not [line for line in asked if "pull" in line]
    assert f"TAXIFARE_IMAGE={built}\nPREVIOUS_IMAGE={image('2')}\n" in (machine / ".env").read_text()


@pytest.mark.parametrize("fails", ["idle", "--scale code=2", "migrate"])
def test_a_switch_that_fails_leaves_the_release_before_at_work(machine: Path, fails: str) -> None:
    before = f"TAXIFARE_IMAGE={image('1')}\n"
    (machine / ".env").write_text(before)
    (machine.parent / "fails").write_text(fails)
    code, asked = switch(machine, image("2"))
    assert code != 0
    assert asked[-1] == "taxifare-1 up --detach --no-deps --no-recreate daemon"
    # What had begun of the next one is gone, and nothing else
    assert [line.partition(" ")[2] for line in asked if "rm --force" in line] == ["rm --force new"]
    assert (machine / ".env").read_text() == before


@pytest.mark.parametrize("received", ["taxifare:latest", "--back", "taxifare@sha256:12"])
def test_a_switch_to_what_is_no_image_by_digest_touches_nothing(machine: Path, received: str) -> None:
    (machine / ".env").write_text(f"TAXIFARE_IMAGE={image('1')}\n")
    assert switch(machine, received) == (2, [])
