"""Which of flags, variables, files and defaults says what a setting is."""

from pathlib import Path

import pytest

from tenure.cli.configuration import (
    BadSetting,
    Configuration,
    load,
    stray_variables,
)
from tenure.cli.settings import SETTINGS, Role, Setting

BY_NAME = {setting.name: setting for setting in SETTINGS}
SLOTS = BY_NAME["worker.slots"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home; the project lies in a folder of it, where the process is."""
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setattr("tenure.cli.configuration._SYSTEM", tmp_path / "etc")
    return tmp_path


def write(path: Path, text: str) -> Path:
    """A file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def found(configuration: Configuration, setting: Setting = SLOTS) -> tuple[object, str]:
    """A setting's value and source."""
    value = configuration.found[setting]
    return value.value, value.source


def test_each_layer_wins_over_the_next(home: Path) -> None:
    """Taken away one by one: flag, variable, project, user, system, default."""
    environ = {"HOME": str(home), "TENURE_WORKER_SLOTS": "2"}
    files = [
        write(home / "project/tenure.toml", "\n[worker]\nslots = 3\n"),
        write(home / ".config/tenure/config.toml", "[worker]\nslots = 4\n"),
        write(home / "etc/tenure/config.toml", "[worker]\nslots = 5\n"),
    ]
    assert found(load(Role.WORKER, {"worker.slots": "1"}, environ)) == (1, "--slots")
    assert found(load(Role.WORKER, {"worker.slots": None}, environ)) == (2, "TENURE_WORKER_SLOTS")
    environ["TENURE_WORKER_SLOTS"] = ""
    assert found(load(Role.WORKER, {}, environ)) == (3, "tenure.toml:3")
    files[0].unlink()
    assert found(load(Role.WORKER, {}, environ)) == (4, f"{files[1]}:2")
    files[1].unlink()
    assert found(load(Role.WORKER, {}, environ)) == (5, f"{files[2]}:2")
    files[2].unlink()
    assert found(load(Role.WORKER, {}, environ)) == (10, "default")


def test_files_are_merged_key_by_key(home: Path) -> None:
    """A file that says one thing leaves the others to the next."""
    write(home / "project/tenure.toml", "[worker]\nslots = 3\n")
    write(home / "xdg/tenure/config.toml", '[worker]\nslots = 4\nname = "w"\n')
    settings = load(Role.WORKER, {}, {"XDG_CONFIG_HOME": str(home / "xdg")})
    said = {"slots": 3, "name": "w"}
    defaults = {"drain_timeout_s": 30.0, "insecure": False, "reload": False}
    assert settings.values("worker") == said | defaults
    assert [path.name for path in settings.files] == ["tenure.toml", "config.toml"]


def test_a_named_file_is_read_alone(home: Path) -> None:
    """``--config`` wins over TENURE_CONFIG, and either over the usual places."""
    write(home / "project/tenure.toml", "[worker]\nslots = 3\n")
    mine = write(home / "mine.toml", "[worker]\nslots = 6\n")
    environ = {"HOME": str(home), "TENURE_CONFIG": "/dev/null"}
    assert found(load(Role.WORKER, {}, environ)) == (10, "default")
    assert found(load(Role.WORKER, {}, environ, config=str(mine))) == (6, f"{mine}:2")
    with pytest.raises(BadSetting, match=r"cannot read gone\.toml: No such file"):
        load(Role.WORKER, {}, {}, config="gone.toml")


def test_a_role_reads_what_is_its_own(home: Path) -> None:
    """Two nodes in one file do not mix; workers find masters where clients do."""
    write(home / "project/tenure.toml", '[master]\nname = "m"\n[client]\naddress = "a:1"\n')
    worker = load(Role.WORKER, {}, {})
    assert worker.values("client") == {"address": "a:1"}
    assert worker.values("master") == {}
    assert load(Role.MASTER, {}, {}).values("master")["name"] == "m"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[worker]\n\nslosts = 4", "tenure.toml:3: unknown key 'slosts' in [worker]; did you mean"),
        ("[worker]\n'slosts' = 4", "tenure.toml:2: unknown key"),
        ("worker.slosts = 4", "tenure.toml:1: unknown key 'slosts'"),
        ("\n[worker.slosts]\na = 1", "tenure.toml:2: unknown key 'slosts'"),
        ("[ worker ]\nslosts = 4", "tenure.toml:2: unknown key 'slosts'"),
        ("worker = { slosts = 4 }", "unknown key 'slosts'"),
        ("[master]\nslots = 4", "tenure.toml:2: unknown key 'slots' in [master]; it belongs under"),
        ("[dev]\nqqq = 4", "there are app, data_dir"),
        ("[workers]\nslots = 4", "tenure.toml:1: unknown name 'workers'; did you mean [worker]?"),
        ("address = 'a:1'", "did you mean address under [client]?"),
        ("[qqq]\n", "there are [client], [master]"),
        ("worker = 3", "unknown name 'worker'"),
        ("[worker]\nslots = 'many'", "got 'many' (tenure.toml:2)"),
        ("[worker]\nslots = 0", "expected at least 1 for worker.slots, got 0 (tenure.toml:2)"),
        ("[worker\n", "expected TOML in tenure.toml"),
    ],
)
def test_mistakes_in_files(home: Path, text: str, message: str) -> None:
    """Whatever is not known is refused, with its line and what may be meant."""
    write(home / "project/tenure.toml", text)
    with pytest.raises(BadSetting) as refused:
        load(Role.WORKER, {}, {})
    assert message in str(refused.value)


def test_a_file_that_is_no_text(home: Path) -> None:
    """A wrong file is named, without a traceback."""
    (home / "project/tenure.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadSetting, match=r"UTF-8 text in tenure\.toml"):
        load(None, {}, {})


def test_mistakes_in_flags_and_variables(home: Path) -> None:
    """The refusal says which of them it was."""
    with pytest.raises(BadSetting, match=r"worker\.slots, got 'x' \(--slots\)"):
        load(Role.WORKER, {"worker.slots": "x"}, {})
    with pytest.raises(BadSetting, match=r"got 'x' \(TENURE_WORKER_SLOTS\)"):
        load(Role.WORKER, {}, {"TENURE_WORKER_SLOTS": "x"})


def test_what_is_required_can_be_given_in_three_ways(home: Path) -> None:
    """A missing store is refused by a line that says how to give it."""
    with pytest.raises(BadSetting) as refused:
        load(Role.MASTER, {}, {}).require(Role.MASTER)
    for way in ("--store", "TENURE_MASTER_STORE", "store under [master]"):
        assert way in str(refused.value)
    load(Role.MASTER, {}, {"TENURE_MASTER_STORE": "sqlite:///x"}).require(Role.MASTER)


def test_a_token_in_the_environment_wins_over_files(home: Path) -> None:
    """The SDK reads TENURE_TOKEN itself, so the file's token must not be handed to it."""
    token = BY_NAME["client.token_file"]
    write(home / "project/tenure.toml", '[client]\ntoken_file = "t"\n')
    environ = {"TENURE_TOKEN": "secret"}
    assert found(load(Role.CLIENT, {}, {}), token) == ("t", "tenure.toml:2")
    assert found(load(Role.CLIENT, {}, environ), token) == (None, "TENURE_TOKEN")
    flags = {"client.token_file": "u"}
    assert found(load(Role.CLIENT, flags, environ), token) == ("u", "--token-file")


def test_variables_that_look_like_ours() -> None:
    """A typo is found; what Kubernetes sets for a service called tenure is no typo."""
    environ = {
        "TENURE_WORKER_SLOT": "3",
        "TENURE_ADRESS": "a:1",
        "TENURE_ADDRESS": "a:1",
        "TENURE_CONFIG": "x",
        "TENURE_SERVICE_HOST": "10.0.0.1",
        "TENURE_PORT_7400_TCP_ADDR": "10.0.0.1",
        "TENURE_MASTER_PORT": "tcp://10.0.0.1:7400",
        "TENURE_MASTER_SERVICE_PORT": "7400",
        "PATH": "/bin",
    }
    assert stray_variables(environ) == [
        ("TENURE_ADRESS", "TENURE_ADDRESS"),
        ("TENURE_WORKER_SLOT", "TENURE_WORKER_SLOTS"),
    ]
