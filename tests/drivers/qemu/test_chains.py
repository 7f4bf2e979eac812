"""Chains of images, made by qemu-img and read by us."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from pyvirtd.core.image_header import HEADER_BYTES, backing_of, data_file_of, looks_like
from pyvirtd.drivers.qemu.backing_names import source_of
from pyvirtd.drivers.qemu.chains import detect_chains
from pyvirtd.errors import VirtError
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.storage import NetworkSource, StorageFormat, data_source
from pyvirtd.util.process import Identity
from pyvirtd.xml.element import LIVE

DOMAIN = """<domain type='qemu'><name>x</name><memory>1</memory><os><type>hvm</type></os><devices>
<disk type='{case}' device='disk'><driver name='qemu' type='{kind}'/>{source}{below}<target dev='vda' bus='virtio'/>
</disk>
</devices></domain>"""
ME = Identity(os.getuid(), os.getgid())


def create(path: Path, kind: str, below: str = "", below_kind: str = "", *options: str) -> Path:
    backing = ["-b", below, "-F", below_kind, "-u"] if below else []
    subprocess.run(["qemu-img", "create", "-q", "-f", kind, *options, *backing, path, "1M"], check=True)
    return path


def forget_format(path: Path) -> None:
    """Make the backing format an extension that nobody knows, as images of old have none."""
    data = bytearray(path.read_bytes())
    place = data.index(bytes.fromhex("e2792aca"))
    data[place : place + 4] = b"nobo"
    path.write_bytes(data)


def chain(path: Path, kind: str = "qcow2", below: str = "") -> list[tuple[str, str]]:
    """File and format of every layer below, and "end" where the chain is known to end."""
    xml = DOMAIN.format(case="file", kind=kind, source=f"<source file='{path}'/>", below=below)
    live = DomainDef.parse(xml)
    detect_chains(live, ME)
    found, store = [], live.devices.disk[0].backing_store
    while store is not None and store.source is not None:
        name = getattr(store.source, "file", None) or getattr(store.source, "name", "")
        found.append((Path(name or "").name, str(store.format_.type) if store.format_ is not None else ""))
        store = store.backing_store
    return [*found, ("end", "")] if store is not None else found


def refused(path: Path, kind: str = "qcow2") -> str:
    with pytest.raises(VirtError) as failed:
        chain(path, kind)
    return failed.value.detail


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return create(tmp_path / "base.raw", "raw")


def test_every_layer_is_found_with_its_format(tmp_path: Path, base: Path) -> None:
    create(tmp_path / "mid.qcow2", "qcow2", "base.raw", "raw")
    top = create(tmp_path / "top.qcow2", "qcow2", str(tmp_path / "mid.qcow2"), "qcow2", "-o", "compat=0.10")
    assert chain(top) == [("mid.qcow2", "qcow2"), ("base.raw", "raw"), ("end", "")]
    given = f"<backingStore type='file'><format type='qcow2'/><source file='{tmp_path}/mid.qcow2'/></backingStore>"
    assert chain(top, below=given) == chain(top)
    assert chain(top, below="<backingStore/>") == [("end", "")]


@pytest.mark.parametrize("kind", ["qcow", "qed", "vmdk"])
def test_other_formats_have_layers_below_too(tmp_path: Path, base: Path, kind: str) -> None:
    below, below_kind = ("low.vmdk", "vmdk") if kind == "vmdk" else ("base.raw", "raw")
    create(tmp_path / "low.vmdk", "vmdk")
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", kind, "-b", below, "-F", below_kind, tmp_path / "top"], check=True
    )
    assert chain(tmp_path / "top", kind) == [(below, below_kind), ("end", "")]


def test_nothing_is_looked_for_in_a_raw_image(tmp_path: Path, base: Path) -> None:
    """A guest that writes another image's header into its disk reads nothing of the host by it."""
    assert chain(create(tmp_path / "a", "qcow2", str(base), "raw"), "raw") == [("end", "")]


def test_image_without_the_format_of_what_is_below_is_refused_unless_that_is_raw(tmp_path: Path, base: Path) -> None:
    forget_format(create(tmp_path / "over-raw", "qcow2", "base.raw", "raw"))
    assert chain(tmp_path / "over-raw") == [("base.raw", "raw"), ("end", "")]
    forget_format(create(tmp_path / "over-qcow2", "qcow2", "over-raw", "qcow2"))
    assert refused(tmp_path / "over-qcow2") == (
        f"format of backing image 'over-raw' of image '{tmp_path}/over-qcow2' was not specified in the image metadata"
        " (See https://libvirt.org/kbase/backing_chains.html for troubleshooting)"
    )


def test_missing_layer_is_named_with_the_image_it_belongs_to(tmp_path: Path) -> None:
    create(tmp_path / "mid", "qcow2", "gone", "qcow2")
    words = refused(create(tmp_path / "top", "qcow2", "mid", "qcow2"))
    assert words.startswith(f"Cannot access backing file '{tmp_path}/gone' of storage file '{tmp_path}/top' (as uid:")


def data_files(live: DomainDef) -> list[str]:
    (disk,) = live.devices.disk
    sources = [disk.source, disk.backing_store.source if disk.backing_store is not None else None]
    return [Path(getattr(data_source(source), "file", "") or "").name for source in sources]


def test_file_with_the_data_of_an_image_is_found_on_every_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where qemu-img makes the files
    create(tmp_path / "mid", "qcow2", "", "", "-o", "data_file=mid.raw,data_file_raw=on")
    top = create(tmp_path / "top", "qcow2", "mid", "qcow2", "-o", "data_file=top.data")
    xml = DOMAIN.format(case="file", kind="qcow2", source=f"<source file='{top}'/>", below="")
    live = DomainDef.parse(xml)
    detect_chains(live, ME)
    assert data_files(live) == ["top.data", "mid.raw"]
    (tmp_path / "mid.raw").unlink()
    assert refused(top).startswith(f"Cannot access data file '{tmp_path}/mid.raw' of storage file '{top}' (as uid:")


def test_file_that_the_definition_names_goes_before_the_images_own(tmp_path: Path) -> None:
    top = create(tmp_path / "top", "qcow2", "", "", "-o", f"data_file={tmp_path}/there")
    (tmp_path / "there").rename(tmp_path / "here")
    store = f"<dataStore type='file'><format type='raw'/><source file='{tmp_path}/here'/></dataStore>"
    source = f"<source file='{top}'>{store}</source>"
    live = DomainDef.parse(DOMAIN.format(case="file", kind="qcow2", source=source, below=""))
    detect_chains(live, ME)
    assert data_files(live)[0] == "here"


def test_image_below_itself_is_refused(tmp_path: Path) -> None:
    create(tmp_path / "a", "qcow2", "b", "qcow2")
    create(tmp_path / "b", "qcow2", "a", "qcow2")
    assert "is self-referential" in refused(tmp_path / "a")


def test_layer_on_a_server_ends_what_can_be_told(tmp_path: Path) -> None:
    top = create(tmp_path / "a", "qcow2", "nbd://example.org:1234/x", "qcow2")
    assert chain(top) == [("x", "qcow2")]
    assert chain(create(tmp_path / "b", "qcow2", "nbd://example.org/y", "raw")) == [("y", "raw"), ("end", "")]


def test_volume_of_a_pool_that_is_not_there_is_named() -> None:
    xml = DOMAIN.format(case="volume", kind="raw", source="<source pool='p' volume='v'/>", below="")
    with pytest.raises(VirtError, match="no storage pool with matching name 'p'"):
        detect_chains(DomainDef.parse(xml), ME)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("/a/b", "<source file='/a/b'/>"),
        ("b", "<source file='/d/b'/>"),
        ("./b:c", "<source file='/d/./b:c'/>"),
        ("file:///a%20b", "<source file='/a b'/>"),
        ('json:{"driver":"raw","file":{"driver":"file","filename":"/a"}}', "<source file='/a'/>"),
        ('json:{"file.driver":"file","file.filename":"/a"}', "<source file='/a'/>"),
        ("nbd://h:1/x", "<source protocol='nbd' name='x'> <host name='h' port='1'/> </source>"),
        ("nbd:h:1:exportname=x", "<source protocol='nbd' name='x'> <host name='h' port='1'/> </source>"),
        (
            "nbd+unix:///x?socket=/s",
            "<source protocol='nbd' name='x'> <host transport='unix' socket='/s'/> </source>",
        ),
        (
            'json:{"driver":"nbd","server.type":"unix","server.path":"/s","export":"x"}',
            "<source protocol='nbd' name='x'> <host transport='unix' socket='/s'/> </source>",
        ),
        ("https://h/a/b?c=d", "<source protocol='https' name='a/b' query='c=d'> <host name='h' port='443'/> </source>"),
        (
            "rbd:p/i:mon_host=h\\:6789:conf=/c",
            "<source protocol='rbd' name='p/i'> <host name='h' port='6789'/> <config file='/c'/> </source>",
        ),
    ],
)
def test_names_of_images_below(name: str, shown: str) -> None:
    assert re.sub(r"\s+", " ", source_of(name, "/d/top").format(LIVE)).strip() == shown


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("json:{", "failed to parse JSON backing volume definition"),
        ('json:{"driver":"qcow2"}', "missing parser implementation for JSON backing volume driver 'qcow2'"),
        ("json:[]", "lacks driver name"),
        ("json:" + '{"file":' * 50 + "1" + "}" * 50, "lacks driver name"),
        ("what://h/a", "invalid backing protocol 'what'"),
        ("what:ever", "backing store parser is not implemented for protocol what"),
        ("nbd:h", "failed to parse backing file location"),
        ("nbd://h:99999999/", "failed to parse backing file location"),
    ],
)
def test_name_that_cannot_be_understood_is_refused(name: str, words: str) -> None:
    with pytest.raises(VirtError, match=re.escape(words)):
        source_of(name, "/d/top")


def test_hostile_headers_are_harmless(tmp_path: Path, base: Path) -> None:
    data = create(tmp_path / "a", "qcow2", str(base), "raw").read_bytes()[:HEADER_BYTES]
    for kind in StorageFormat:
        for size in (0, 1, 4, 8, 20, 60, 103, 200, 512):
            assert backing_of(data[:size], kind) is None
            assert data_file_of(data[:size]) is None
    for place in range(4, 120):
        for byte in (0, 0x7F, 0xFF):
            changed = data[:place] + bytes([byte]) + data[place + 1 :]
            found = backing_of(changed, StorageFormat.QCOW2)
            assert found is None or len(found.name) < 1024
            assert data_file_of(changed) is None or changed[72:80] != data[72:80]
    assert looks_like(data) is StorageFormat.QCOW2
    assert looks_like(b"") is StorageFormat.RAW
    assert isinstance(source_of("ssh://h/a", "/d"), NetworkSource)
