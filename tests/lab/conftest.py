"""The lab's figures and its one option: `--whole` runs every pair and fault instead of those that stand for them."""

import pytest

from lab.deployment import NAMES, Lab, World
from lab.figures import Figures
from lab.netns import why_not
from lab.topology import Internet

FIGURES = pytest.StashKey[Figures]()


def pytest_addoption(parser):
    parser.addoption("--whole", action="store_true", help="every pair and fault of the lab; writes build/lab.json")


def pytest_configure(config):
    config.stash[FIGURES] = Figures()


def pytest_collection_modifyitems(config, items):
    reason = why_not()
    whole = config.getoption("--whole", default=False)
    for item in items:
        if item.get_closest_marker("lab") is None:
            continue
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
    if not whole:
        chosen = [item for item in items if item.get_closest_marker("whole") is None]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


@pytest.fixture(scope="session")
def figures(request):
    return request.config.stash[FIGURES]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """One server, and a client and an agent in every kind of place, each made when first asked for."""
    with Internet(NAMES) as net, Lab(net, tmp_path_factory.mktemp("lab")) as lab:
        yield World(net, lab)


def pytest_terminal_summary(terminalreporter, config):
    figures = config.stash.get(FIGURES, None)
    if figures is None or not config.getoption("--whole", default=False):
        return
    if figures.cells or figures.faults:
        terminalreporter.section("lab")
        for line in figures.lines():
            terminalreporter.write_line(line)
        terminalreporter.write_line(f"written to {figures.write()}")
