"""Installed plugins are imitated by a folder on sys.path with a package and its .dist-info."""

import json
import subprocess
import sys
import textwrap

import pytest

from mezzotint.discovery import Index
from mezzotint.errors import PluginError, UserError
from mezzotint.plugins import explain_missing, load_registry, plugins_table

NODE = """
    from mezzotint import Image, hookimpl, node

    @node("{id}")
    def copy(image: Image) -> Image:
        '''Copy.

        image: any.
        '''
        return image

    @hookimpl
    def register_nodes(register):
        register(copy)
"""


class Site:
    """A folder of installed plugins, and registries over it alone."""

    def __init__(self, folder):
        self.folder = folder
        self.modules = []

    def install(self, package, code, version="0.3", module=None, points=None):
        module = module or package.replace("-", "_")
        self.modules.append(module)
        (self.folder / f"{module}.py").write_text(textwrap.dedent(code))
        info = self.folder / f"{module}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        points = points or {module: module}
        lines = "".join(f"{name} = {target}\n" for name, target in points.items())
        (info / "entry_points.txt").write_text(f"[mezzotint.plugins]\n{lines}")
        return info

    def remove(self, info):
        for file in info.iterdir():
            file.unlink()
        info.rmdir()

    def index(self):
        index = Index()
        index.found = [f for f in index.found if f.package != "mezzotint"]
        return index

    def load(self, **arguments):
        self.forget()
        return load_registry(index=self.index(), **arguments)

    def forget(self):
        for name in self.modules:
            sys.modules.pop(name, None)


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path / "cache"))
    config = tmp_path / "config.toml"
    config.write_text("")
    monkeypatch.setenv("MEZZOTINT_CONFIG", str(config))
    for name in ("MEZZOTINT_PLUGINS", "MEZZOTINT_STRICT_PLUGINS", "MEZZOTINT_TRACE_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    site = Site(folder)
    yield site
    site.forget()


@pytest.fixture
def file(tmp_path):
    def write(code, name="blur.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(code))
        return path

    return write


def row(registry, package):
    return next(r for r in plugins_table(registry) if r.package == package)


# --- finding ---


def test_an_installed_plugins_node_is_found_and_its_package_known(site):
    site.install("acme-nodes", NODE.format(id="acme.copy"))
    registry = site.load()
    assert registry.ids() == ["acme.copy"]
    given = registry.provenance("acme.copy")
    assert (given.package, given.version, given.module, given.digest) == ("acme-nodes", "0.3", "acme_nodes", "")
    assert row(registry, "acme-nodes").nodes == ("acme.copy",)
    assert row(registry, "acme-nodes").hooks == ("register_nodes",)
    assert row(registry, "acme-nodes").state == "ok"


def test_a_plugin_can_be_an_object_in_a_module(site):
    code = """
        from mezzotint import hookimpl

        class Plugin:
            @hookimpl
            def register_samplers(self, register):
                register("swirl", print)

        plugin = Plugin()
    """
    site.install("acme-nodes", code, points={"acme": "acme_nodes:plugin"})
    assert site.load().samplers["swirl"] is print


def test_a_one_file_plugin_is_keyed_by_its_bytes(site, file):
    path = file(NODE.format(id="my.copy"))
    first = site.load(files=[path]).provenance("my.copy")
    assert (first.package, len(first.digest)) == ("blur.py", 64)
    path.write_text(path.read_text() + "\n# changed")
    second = site.load(files=[path]).provenance("my.copy")
    assert second.digest != first.digest


def test_the_environment_names_files_and_modules(site, file, monkeypatch):
    (site.folder / "loose.py").write_text(textwrap.dedent(NODE.format(id="loose.copy")))
    site.modules.append("loose")
    monkeypatch.setenv("MEZZOTINT_PLUGINS", f"{file(NODE.format(id='my.copy'))},loose")
    registry = site.load()
    assert registry.ids() == ["loose.copy", "my.copy"]
    assert len(registry.provenance("loose.copy").digest) == 64


def test_an_editable_plugin_is_keyed_by_its_source(site):
    info = site.install("acme-nodes", NODE.format(id="acme.copy"))
    (info / "direct_url.json").write_text(json.dumps({"url": "file:///x", "dir_info": {"editable": True}}))
    first = site.load().provenance("acme.copy").digest
    source = site.folder / "acme_nodes.py"
    source.write_text(source.read_text() + "\n# changed")
    assert len(first) == 64
    assert site.load().provenance("acme.copy").digest not in ("", first)


def test_the_same_file_twice_is_one_plugin_and_two_of_a_name_are_refused(site, file, tmp_path):
    path = file(NODE.format(id="my.copy"))
    assert site.load(files=[path, path]).ids() == ["my.copy"]
    (tmp_path / "other").mkdir()
    second = file(NODE.format(id="my.other"), name="other/blur.py")
    with pytest.raises(UserError, match=r"two plugin files are named 'blur.py'"):
        site.load(files=[path, second])


def test_a_plugin_file_that_is_not_there_is_a_user_error(site):
    with pytest.raises(UserError, match=r"there is no plugin file 'nowhere.py'"):
        site.load(files=["nowhere.py"])


# --- laziness and the index ---


def test_a_plugin_is_imported_only_when_something_of_it_is_asked_for(site):
    site.install("acme-nodes", NODE.format(id="acme.copy"))
    site.install("other-nodes", NODE.format(id="other.copy"))
    site.load()
    registry = site.load(namespaces=())
    assert registry.ids() == ["acme.copy", "other.copy"]
    assert not {"acme_nodes", "other_nodes"} & set(sys.modules)
    assert registry.node("other.copy", 1) is not None
    assert "other_nodes" in sys.modules and "acme_nodes" not in sys.modules
    assert site.load(namespaces=["acme"]).node("acme.copy", 1) is not None
    assert "acme_nodes" in sys.modules and "other_nodes" not in sys.modules


def test_types_loaders_samplers_and_writers_are_found_lazily_too(site):
    code = """
        from dataclasses import dataclass
        from mezzotint import Port, hookimpl

        @dataclass(frozen=True, eq=False)
        class Depth(Port):
            data: int

        def write(value, info):
            return [b""]

        @hookimpl
        def register_ports(register):
            register(Depth, suffix="depth", writer=write)

        @hookimpl
        def register_loaders(register):
            register("acme.unet", print)

        @hookimpl
        def register_samplers(register):
            register("swirl", print)

        @hookimpl
        def resolve_source(uri):
            from pathlib import Path
            return Path("/there") if uri == "acme:it" else None
    """
    site.install("acme-nodes", code)
    site.load()
    asked = [
        lambda r: r.types["acme_nodes.Depth"],
        lambda r: r.types["Depth"],
        lambda r: r.ports["Depth"],
        lambda r: r.loaders["acme.unet"],
        lambda r: r.samplers["swirl"],
        lambda r: r.resolve_source("acme:it"),
        lambda r: list(r.writers),
    ]
    for ask in asked:
        registry = site.load(namespaces=())
        assert "acme_nodes" not in sys.modules
        assert ask(registry)
        assert "acme_nodes" in sys.modules


def test_a_plugin_that_watches_runs_is_loaded_with_the_hooks(site, capsys):
    code = """
        from mezzotint import hookimpl

        seen = []

        @hookimpl
        def before_node(name, inputs):
            seen.append((name, inputs))
    """
    site.install("acme-nodes", code)
    site.load()
    hooks = site.load(namespaces=()).hooks
    hooks.before_node(name="a", use="image.load@1", inputs={})
    assert sys.modules["acme_nodes"].seen == [("a", {})]
    hooks.after_node(name="a", use="image.load@1", outputs={}, seconds=0.0)


def test_an_upgraded_plugin_is_read_anew(site):
    info = site.install("acme-nodes", NODE.format(id="acme.copy"))
    assert site.load(namespaces=()).ids() == ["acme.copy"]
    site.remove(info)
    site.install("acme-nodes", NODE.format(id="acme.blur"), version="0.4")
    assert site.load(namespaces=()).ids() == ["acme.blur"]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"entries": {"a": 1}}', b'{"entries": 1}'])
def test_a_damaged_index_is_rebuilt_silently(site, damage, caplog):
    site.install("acme-nodes", NODE.format(id="acme.copy"))
    site.load()
    path = site.index().path
    whole = path.read_bytes()
    path.write_bytes(damage)
    assert site.load(namespaces=()).ids() == ["acme.copy"]
    assert json.loads(path.read_bytes())["entries"] == json.loads(whole)["entries"]
    assert not caplog.records


def test_without_a_writable_cache_folder_plugins_load_all_the_same(site, monkeypatch, tmp_path):
    (tmp_path / "occupied").write_text("")
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path / "occupied"))
    site.install("acme-nodes", NODE.format(id="acme.copy"))
    assert site.load().ids() == ["acme.copy"]


def test_importing_the_plugin_system_is_light():
    heavy = ["torch", "networkx", "pydantic", "importlib.metadata", "diffusers"]
    code = f"import sys, mezzotint.plugins; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- bad plugins: each is told once, and the others load ---

BAD = {
    "import": ("import no_such_module_at_all", "No module named 'no_such_module_at_all'"),
    "syntax": ("def broken(:\n    pass", "SyntaxError: invalid syntax (acme_nodes.py, line 1)"),
    "exit": ("import sys; sys.exit(3)", "it called sys.exit(3)"),
    "raises": ("raise ValueError('of mine')", "ValueError: of mine"),
    "api": ("mezzotint_api = 2", "acme-nodes 0.3 is written for plugin API 2; this Mezzotint has API 1"),
    "hook": (
        "from mezzotint import hookimpl\n@hookimpl\ndef register_nodez(register): pass",
        "acme-nodes 0.3 implements an unknown hook 'register_nodez'; did you mean 'register_nodes'?",
    ),
    "argument": (
        "from mezzotint import hookimpl\n@hookimpl\ndef before_node(nmae): pass",
        "Argument(s) {'nmae'} are declared in the hookimpl but can not be found in the hookspec",
    ),
    "register": (
        "from mezzotint import hookimpl\n@hookimpl\ndef register_nodes(register): 1 / 0",
        "ZeroDivisionError: division by zero",
    ),
    "number": (
        "from mezzotint import hookimpl\n@hookimpl\ndef register_nodes(register): register(42)",
        "42 is not a node: decorate it with @node",
    ),
    "wrapper": (
        "from mezzotint import hookimpl\n@hookimpl(wrapper=True)\ndef before_node(name): yield",
        "acme-nodes 0.3: hook 'before_node' cannot be wrapped",
    ),
    "namespace": (textwrap.dedent(NODE.format(id="image.load")), "the namespace 'image' is mezzotint's"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_plugin_is_told_once_and_the_others_load(site, kind, caplog):
    code, message = BAD[kind]
    site.install("acme-nodes", code)
    site.install("good-nodes", NODE.format(id="good.copy"))
    registry = site.load()
    assert registry.ids() == ["good.copy"]
    bad = row(registry, "acme-nodes")
    assert bad.state == "broken"
    assert message in bad.error
    assert "Traceback" in bad.traceback
    (record,) = caplog.records
    assert record.message.startswith("plugin 'acme_nodes' of acme-nodes 0.3 failed to load: ")
    caplog.clear()
    assert site.load(namespaces=()).broken["acme-nodes:acme_nodes"].error == bad.error
    assert not caplog.records


@pytest.mark.parametrize("kind", BAD)
def test_the_strict_setting_raises_at_a_bad_plugin(site, kind, monkeypatch):
    monkeypatch.setenv("MEZZOTINT_STRICT_PLUGINS", "1")
    site.install("acme-nodes", BAD[kind][0])
    with pytest.raises(PluginError, match=r"plugin 'acme_nodes' of acme-nodes 0.3 failed to load"):
        site.load()


def test_the_strict_setting_raises_at_a_plugin_known_to_be_bad_too(site, monkeypatch):
    site.install("acme-nodes", BAD["import"][0])
    site.load()
    monkeypatch.setenv("MEZZOTINT_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError, match=r"plugin 'acme_nodes' of acme-nodes 0.3 failed to load"):
        site.load(namespaces=())


@pytest.mark.parametrize("kind", ["syntax", "exit", "hook"])
def test_a_bad_file_given_by_the_caller_is_an_error_or_a_line_in_the_list(site, file, kind, caplog):
    site.install("good-nodes", NODE.format(id="good.copy"))
    path = file(BAD[kind][0])
    with pytest.raises(PluginError, match=r"^plugin blur.py failed to load: "):
        site.load(files=[path])
    registry = site.load(files=[path], must_load=False)
    assert registry.ids() == ["good.copy"]
    assert row(registry, "blur.py").state == "broken"
    assert "blur.py" in explain_missing(registry, "my.blur")


def test_a_keyboard_interrupt_is_not_the_plugins_fault(site):
    site.install("acme-nodes", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        site.load()


def test_what_a_plugin_prints_while_it_loads_does_not_end_up_on_stdout(site, capsys):
    site.install("acme-nodes", "print('hello from acme')")
    site.load()
    out, err = capsys.readouterr()
    assert (out, err) == ("", "hello from acme\n")


def test_a_graph_that_needs_a_broken_plugin_hears_which_package_to_fix(site):
    info = site.install("acme-nodes", NODE.format(id="acme.blur"))
    site.load()
    (info / "RECORD").write_text("installed anew")
    (site.folder / "acme_nodes.py").write_text("import cv2_is_gone")
    site.remove(info)
    site.install("acme-nodes", "import cv2_is_gone")
    registry = site.load(namespaces=["acme"])
    assert registry.node("acme.blur", 1) is None
    assert explain_missing(registry, "acme.blur@1") == (
        "node acme.blur is provided by acme-nodes 0.3, which failed to load: No module named 'cv2_is_gone'"
    )


def test_a_repaired_plugin_is_tried_again_when_a_graph_needs_it(site):
    site.install("acme-nodes", "import cv2_is_gone")
    assert site.load(namespaces=()).ids() == []
    (site.folder / "cv2_is_gone.py").write_text("")
    (site.folder / "acme_nodes.py").write_text(textwrap.dedent(NODE.format(id="acme.blur")))
    assert site.load(namespaces=()).node("acme.blur", 1) is not None


def test_an_unknown_id_with_no_broken_plugin_is_just_unknown(site):
    assert explain_missing(site.load(), "acme.blur") == "unknown node 'acme.blur'"


# --- two packages, one name ---


def test_two_packages_with_one_id_are_both_named_and_their_other_nodes_work(site, caplog):
    site.install("acme-nodes", NODE.format(id="shared.copy"))
    both = NODE.format(id="shared.copy") + "        register(other)\n"
    more = "    @node('other.copy')\n    def other(image: Image) -> Image: ...\n\n"
    both = both.replace("    @hookimpl", more + "    @hookimpl")
    site.install("other-nodes", both)
    registry = site.load(namespaces=["other"])
    assert registry.node("other.copy", 1) is not None
    assert registry.node("shared.copy", 1) is None
    message = explain_missing(registry, "shared.copy")
    assert "provided by both acme-nodes 0.3 and other-nodes 0.3" in message or (
        "provided by both other-nodes 0.3 and acme-nodes 0.3" in message
    )
    assert 'prefer = {"shared.copy" = "' in message
    assert [r.message for r in caplog.records][-1] == message
    assert "clash" in {r.state for r in plugins_table(registry)}


def test_a_line_of_configuration_chooses(site, tmp_path):
    site.install("acme-nodes", NODE.format(id="shared.copy"))
    site.install("other-nodes", NODE.format(id="shared.copy"))
    (tmp_path / "config.toml").write_text('prefer = {"shared.copy" = "other-nodes"}')
    assert site.load().provenance("shared.copy").package == "other-nodes"


@pytest.mark.parametrize("text", ["prefer = [", "prefer = 3", 'prefer = {"a.b" = 1}'])
def test_a_wrong_configuration_file_is_a_user_error_that_names_it(site, tmp_path, text):
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(UserError, match=r"configuration file .*config\.toml"):
        site.load()


# --- hooks while a run goes on ---


def test_a_hook_that_fails_is_told_once_and_not_called_again(site, caplog):
    code = """
        from mezzotint import hookimpl

        calls = []

        @hookimpl
        def after_step(step):
            calls.append(step)
            raise ValueError("of mine")
    """
    site.install("acme-nodes", code)
    site.install("good-nodes", code.replace('raise ValueError("of mine")', "pass"))
    hooks = site.load().hooks
    for step in range(3):
        hooks.after_step(step=step, steps=3, x=None, x0=None)
    assert sys.modules["acme_nodes"].calls == [0]
    assert sys.modules["good_nodes"].calls == [0, 1, 2]
    (record,) = caplog.records
    assert record.message == (
        "plugin 'acme-nodes:acme_nodes' failed in after_step and is not called there again: ValueError: of mine"
    )


def test_a_source_that_a_plugin_fails_on_is_an_error_that_names_it(site, caplog):
    code = """
        from mezzotint import hookimpl

        @hookimpl
        def resolve_source(uri):
            return uri if uri == "text" else 1 / 0
    """
    site.install("acme-nodes", code)
    registry = site.load()
    with pytest.raises(PluginError, match="'acme-nodes:acme_nodes' failed at source 'x': ZeroDivisionError"):
        registry.resolve_source("x")
    with pytest.raises(PluginError, match="gave 'text' for source 'text', wanted a Path"):
        registry.resolve_source("text")


def test_a_source_that_nobody_knows_is_none(site):
    assert site.load().resolve_source("nowhere:x") is None


def test_tracing_prints_each_call_to_stderr(site, monkeypatch, capsys):
    monkeypatch.setenv("MEZZOTINT_TRACE_PLUGINS", "1")
    site.install("acme-nodes", "from mezzotint import hookimpl\n@hookimpl\ndef before_node(name): pass")
    site.load().hooks.before_node(name="a", use="x.y@1", inputs={})
    assert "[plugins] acme-nodes:acme_nodes: before_node(name='a')" in capsys.readouterr().err


def test_a_source_trees_own_metadata_yields_to_the_installed_one(site):
    info = site.install("acme-nodes", NODE.format(id="acme.copy"))
    (info / "direct_url.json").write_text(json.dumps({"url": "file:///x", "dir_info": {"editable": True}}))
    egg = site.folder / "acme_nodes.egg-info"
    egg.mkdir()
    (egg / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: acme-nodes\nVersion: 0.2\n")
    (egg / "entry_points.txt").write_text("[mezzotint.plugins]\nacme_nodes = acme_nodes\n")
    given = site.load().provenance("acme.copy")
    assert (given.version, len(given.digest)) == ("0.3", 64)
    site.remove(info)
    given = site.load().provenance("acme.copy")
    assert (given.version, len(given.digest)) == ("0.2", 64)
