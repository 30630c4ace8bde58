"""How CPU threads wait is set before torch is loaded, where the user has not."""

import json
import os
import subprocess
import sys

import pytest

import lungan

SHOW = "import json, os; print(json.dumps(dict(os.environ)))"
UNSET = dict.fromkeys(lungan.WAITING)


def environment(program: str, **given: str) -> dict[str, str | None]:
    kept = {name: value for name, value in os.environ.items() if name not in lungan.WAITING}
    command = [sys.executable, "-c", f"{program}; {SHOW}"]
    done = subprocess.run(command, env=kept | given, capture_output=True, text=True, check=True)
    variables = json.loads(done.stdout)
    return {name: variables.get(name) for name in lungan.WAITING}


def test_it_is_set_where_nobody_did() -> None:
    assert environment("import lungan") == lungan.WAITING


@pytest.mark.parametrize("name", lungan.WAITING)
def test_a_users_own_stays_alone(name: str) -> None:
    assert environment("import lungan", **{name: "7"}) == UNSET | {name: "7"}


def test_nothing_is_set_after_torch() -> None:
    assert environment("import sys; sys.modules['torch'] = sys; import lungan") == UNSET
