"""compose.yaml is what the local stack's settings say, and valid by the compose specification."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from runpy import run_path

from ruamel.yaml import YAML

from dualstream_lab.stack.settings import broker_settings

ROOT = Path(__file__).parents[1]
FILE = ROOT / "compose.yaml"
_script = run_path(str(ROOT / "scripts/compose.py"))
compose_yaml, environment_name = _script["compose_yaml"], _script["environment_name"]


def test_the_file_is_the_generated_one():
    assert FILE.read_text(encoding="utf-8") == compose_yaml(), "run: python scripts/compose.py > compose.yaml"


def test_it_keeps_to_the_compose_specification():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_broker_has_the_local_stacks_settings():
    services = YAML(typ="safe").load(FILE)["services"]
    for brokers, names in ((1, ["kafka"]), (3, ["kafka-1", "kafka-2", "kafka-3"])):
        for name in names:
            environment = services[name]["environment"]
            for setting, value in broker_settings(brokers).items():
                assert environment[environment_name(setting)] == value, (name, setting)


def test_ports_are_on_loopback_only():
    services = YAML(typ="safe").load(FILE)["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 5
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert len({port.split(":")[1] for port in ports}) == 5
