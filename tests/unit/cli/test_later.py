import subprocess
import sys
import threading

import pytest

from coder.cli import later

MODULE = "coder_test_waiting"


@pytest.fixture
def waiting(monkeypatch, tmp_path):
    """Write a module that waits, and tell how often it was run."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(later, "NAMES", frozenset({MODULE}))
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    runs = []
    monkeypatch.setattr(sys, "coder_test_runs", runs, raising=False)

    def write(text):
        (tmp_path / f"{MODULE}.py").write_text(f"import sys\nsys.coder_test_runs.append(1)\n{text}\n")
        later.postpone()
        return __import__(MODULE)

    yield write, runs
    sys.modules.pop(MODULE, None)


def test_a_module_is_run_by_its_first_use_and_once(waiting):
    write, runs = waiting
    module = write("value = 7")
    __import__(MODULE)
    assert module.__spec__.name == MODULE
    assert runs == []
    assert module.value == 7
    assert module is sys.modules[MODULE]
    assert (runs, type(module)) == ([1], type(sys))
    with pytest.raises(AttributeError, match="nothing"):
        module.nothing  # noqa: B018 - the access is the test


def test_a_module_that_imports_itself_meanwhile(waiting):
    write, runs = waiting
    module = write(f"import {MODULE} as me\nearly = 1\nassert me.early == 1\nassert not hasattr(me, 'late')\nlate = 2")
    assert module.late == 2
    assert runs == [1]


def test_threads_that_use_it_at_once_all_see_it_whole(waiting):
    write, runs = waiting
    module = write("import threading\nfor _ in range(1000): pass\nlast = 9")
    seen, start = [], threading.Barrier(4)

    def use():
        start.wait()
        seen.append(module.last)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert (seen, runs) == ([9] * 4, [1])


def test_every_one_of_them_is_imported_for_a_connection_but_not_run_and_works_when_used():
    code = (
        "import sys; from coder.cli import later; later.postpone()\n"
        "import coder.peering\n"
        "waits = [name for name in later.NAMES if '_waiting' in vars(sys.modules[name])]\n"
        "assert sorted(waits) == sorted(later.NAMES), waits\n"
        "import importlib.metadata, urllib.request\n"
        "from google.protobuf.internal import python_message\n"
        "assert importlib.metadata.version('click')\n"
        "assert urllib.request.Request('http://x').host == 'x'\n"
        "assert python_message.GeneratedProtocolMessageType\n"
        "from importlib.metadata import entry_points"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
